"""Each rule says why it matches a series or not; an invented series is what it is said to be."""

from __future__ import annotations

import pytest

from dicomnode.domain.choosing import ChoosingPolicy, choose_series
from dicomnode.domain.routing import Condition, Rule
from dicomnode.domain.series import modality_of
from dicomnode.domain.trying import Invented, facts_of, tried

HEAD = Rule(name="heads", when=Condition(body_part=("HEAD",)), model=None)
CHEST = Rule(
    name="chest",
    when=Condition(body_part=("CHEST",), max_slice_thickness_mm=3),
    model="lungs",
    destinations=("archive",),
)
REST = Rule(name="rest", model="demo", destinations=("archive", "research"))
RULES = (HEAD, CHEST, REST)


def verdict(said: Invented) -> tuple[str, str | None, tuple[str, ...]]:
    facts = facts_of(said)
    (found,) = choose_series(RULES, ChoosingPolicy(), [facts]).values()
    return found.code, found.choice.model, found.choice.destinations


@pytest.mark.parametrize(
    ("said", "code", "model"),
    [
        (Invented(body_part="chest"), "CHOSEN", "lungs"),
        (Invented(body_part="CHEST", slice_thickness_mm=5.0), "CHOSEN", "demo"),
        (Invented(body_part="HEAD"), "RULE_SAYS_NO", None),
        (Invented(orientation="coronal"), "NOT_AXIAL", None),
        (Invented(slices=3), "TOO_FEW_SLICES", None),
        (Invented(slices=10, spacing_mm=1.0), "TOO_LITTLE_COVERAGE", None),
        (Invented(slices=3000), "TOO_MANY_SLICES", None),
        (Invented(slices=700, matrix=1024), "TOO_MANY_SLICES", None),
        (Invented(description="Iodine map"), "DERIVED_MAP", None),
        (Invented(image_type="ORIGINAL/PRIMARY/LOCALIZER"), "NOT_A_VOLUME", None),
        (Invented(modality="OT"), "NOT_CT", None),
        (Invented(modality="MR"), "NO_RULE", None),
    ],
)
def test_an_invented_series_gets_what_such_a_series_would(
    said: Invented, code: str, model: str | None
) -> None:
    found = verdict(said)
    assert found[:2] == (code, model)
    assert bool(found[2]) == (model is not None)


def test_what_is_said_is_what_the_rules_see() -> None:
    said = Invented(
        description="Thorax 1.0",
        body_part="CHEST",
        study_description="CT Thorax",
        protocol="Lunge",
        manufacturer="Maker",
        device="One",
        station="CT1",
        kernel="Br40",
        contrast="Yes",
        sending_ae="CTSCANNER",
    )
    when = Condition(
        modality=("CT",), description=("thorax*",), body_part=("chest",), protocol=("lunge",),
        study_description=("ct *",), manufacturer=("maker",), device=("one",), station=("ct1",),
        kernel=("br4?",), contrast=True, sending_ae=("CTSCANNER",), original=True,
        orientation=("axial",), min_kvp=120, max_kvp=120, min_instances=200, max_instances=200,
        min_coverage_mm=400, max_coverage_mm=400,
    )  # fmt: skip
    (one,) = tried((Rule(name="all of it", when=when, model="demo"),), facts_of(said))
    assert one.matches, one.why
    assert modality_of(facts_of(said).sop_class_uids) == "CT"


def test_the_first_rule_that_matches_wins_and_the_others_say_why_not() -> None:
    found = tried((*RULES, Rule(name="never", model="demo")), facts_of(Invented(body_part="CHEST")))
    assert [(one.rule, one.matches) for one in found] == [
        ("heads", False), ("chest", True), ("rest", False), ("never", False),
    ]  # fmt: skip
    assert found[0].why == "body_part CHEST is not HEAD"
    assert found[2].why == "it would match, but 'chest' stands before it"


def test_no_rule_is_asked_of_what_is_never_analysed() -> None:
    assert tried(RULES, facts_of(Invented(description="MIP"))) == ()
    assert tried(RULES, facts_of(Invented(modality="OT"))) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("modality", "XX"), ("orientation", "upside down"), ("slices", 0), ("slices", 5001),
        ("spacing_mm", float("nan")), ("slice_thickness_mm", -1.0), ("kvp", float("inf")),
        ("description", "x" * 65), ("kernel", "a\nb"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        Invented(**{name: value})  # type: ignore[arg-type]
