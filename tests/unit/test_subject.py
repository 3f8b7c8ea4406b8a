"""Children, limbs and phantoms by their headers; and what is told of findings, in which order."""

from __future__ import annotations

import pytest

from dicomnode.domain.findings import Finding, once_each, sentences
from dicomnode.domain.subject import Subject, age_years, check_subject


def codes(**headers: object) -> list[str]:
    return [one.code for one in check_subject(Subject(**headers))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "years"),
    [
        ({"birth_date": "20100301", "study_date": "20260228"}, 15),
        ({"birth_date": "20100301", "study_date": "20260301"}, 16),
        ({"birth_date": "20100301", "study_date": "20260301", "age": "044Y"}, 16),
        ({"age": "044Y"}, 44),
        ({"age": "018M"}, 1.5),
        ({"age": " 005Y "}, 5),
        ({"birth_date": "20270101", "study_date": "20260101", "age": "030Y"}, 30),
        ({"birth_date": "19990230", "study_date": "20260101"}, None),
        ({"age": "old"}, None),
        ({}, None),
    ],
)
def test_the_age(headers: dict[str, str], years: float | None) -> None:
    assert age_years(Subject(**headers)) == years  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"age": "017Y"}, ["UNDER_18"]),
        ({"age": "018Y"}, []),
        ({"age": "003W"}, ["UNDER_18"]),
        ({"body_part": "KNEE"}, ["EXTREMITY_ONLY"]),
        ({"body_part": "Hands "}, ["EXTREMITY_ONLY"]),
        ({"body_part": "UP EXTREMITY"}, ["EXTREMITY_ONLY"]),
        ({"body_part": "CHEST"}, []),
        ({"body_part": "LEGACY"}, []),
        ({"body_part": "PHANTOM"}, ["PHANTOM_SCAN"]),
        ({"quality_control": "YES"}, ["PHANTOM_SCAN"]),
        ({"quality_control": "NO"}, []),
        ({"descriptions": ("Daily QA",)}, ["PHANTOM_SCAN"]),
        ({"descriptions": ("phantom limb pain",)}, []),
        ({"descriptions": ("Aqua enema",)}, []),
        ({"patient": ("CATPHAN^600", "1")}, ["PHANTOM_SCAN"]),
        ({"patient": ("QA^LI", "1")}, []),
    ],
)
def test_the_headers_flag(headers: dict[str, object], expected: list[str]) -> None:
    assert codes(**headers) == expected


def test_nothing_of_the_patient_is_repeated() -> None:
    subject = Subject(patient=("PHANTOM^SECRET", "ID-4711"), age="003Y", birth_date="20200101")
    said = " ".join(one.sentence for one in check_subject(subject))
    assert "PHANTOM_SCAN" in [one.code for one in check_subject(subject)]
    for text in ("SECRET", "4711", "2020", "3"):
        assert text not in said


def test_serious_findings_are_told_first_and_infos_last() -> None:
    found = once_each(
        [
            Finding(code="A", sentence="info.", severity="info"),
            Finding(code="B", sentence="warning.", severity="warning"),
            Finding(code="C", sentence="serious.", severity="serious"),
            Finding(code="B", sentence="warning.", severity="warning"),
        ]
    )
    assert [one.code for one in found] == ["C", "B", "A"]
    assert sentences(found, ["other."]) == ("serious.", "warning.", "other.", "info.")
