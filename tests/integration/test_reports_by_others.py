"""Other people's tools find no error in any form of the report."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from analysis_kit import NOW, plan
from others import dciodvfy_errors, dsrdump, sr_validator
from results_kit import (
    LABEL_MAP_STORAGE,
    groups,
    read,
    reports_of_label_map,
    results,
)

from dicomnode.domain.alternatives import reports
from dicomnode.domain.plans import ResultInstance
from dicomnode.domain.withdrawal import SUPERSEDED, why
from dicomnode.rejection_note import Rejected, write_note

EVERYTHING = ("seg", "rtstruct", "preview", "sr")


@pytest.fixture(scope="module")
def made() -> tuple[ResultInstance, ...]:
    given = plan(objects=EVERYTHING, reports=reports([EVERYTHING]))
    return results(given=given, findings=("A finding.",))


def written(items: tuple[ResultInstance, ...], folder: Path) -> list[Path]:
    paths = []
    for number, item in enumerate(items):
        paths.append(folder / f"{number}-{item.kind}.dcm")
        paths[-1].write_bytes(item.data)
    return paths


def rejection_note(made: tuple[ResultInstance, ...]) -> ResultInstance:
    rejected = [
        Rejected(
            kind=item.kind,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            series_uid=item.series_uid,
        )
        for item in made
    ]
    return write_note(read(made[-1]), rejected, why(SUPERSEDED), NOW, "DICOMNODE")


def test_dciodvfy_finds_no_error_in_any_form(
    made: tuple[ResultInstance, ...], tmp_path: Path
) -> None:
    for path in written((*made, rejection_note(made)), tmp_path):
        assert dciodvfy_errors(path) == []


@pytest.mark.peer("dsrdump")
def test_dsrdump_reads_every_form(made: tuple[ResultInstance, ...], tmp_path: Path) -> None:
    for path, item in zip(written(made, tmp_path), made, strict=True):
        if item.kind == "sr":
            dumped = dsrdump(path)
            assert dumped.count('"Measurement Group"') == 2
            assert ('"Referenced Segment"' in dumped) == ("seg" in item.refers_to)
            assert ('"Source of Measurement"' in dumped) != ("seg" in item.refers_to)


@pytest.mark.peer("dsrdump")
def test_a_label_map_in_the_evidence_is_no_error(
    made: tuple[ResultInstance, ...], tmp_path: Path
) -> None:
    """In the tree it would be one, to both of them."""
    for path in written(reports_of_label_map(), tmp_path):
        assert dciodvfy_errors(path) == []
        assert "Measurement Group" in dsrdump(path)
    in_the_tree = read(next(item for item in made if "seg" in item.refers_to))
    for group in groups(in_the_tree):
        for item in group:
            if item.ValueType == "IMAGE":
                item.ReferencedSOPSequence[0].ReferencedSOPClassUID = LABEL_MAP_STORAGE
    in_the_tree.save_as(path)
    assert dciodvfy_errors(path)


@pytest.mark.peer("DicomSRValidator")
def test_dicom_sr_validator_finds_no_error(
    made: tuple[ResultInstance, ...], tmp_path: Path
) -> None:
    """The report as most archives get it, the last one they may fall to, and a note that
    withdraws the results."""
    forms = [item for item in made if item.kind == "sr"]
    best, last = forms[0], forms[-1]
    assert best.refers_to == ("seg", "rtstruct", "preview")
    assert last.refers_to == ()
    damaged = read(best)
    for item in groups(damaged)[0]:
        if item.ValueType == "IMAGE":
            item.RelationshipType = "HAS PROPERTIES"
    buffer = BytesIO()
    damaged.save_as(buffer)
    note = rejection_note(made)
    wrong = replace(best, data=buffer.getvalue())
    *ours, (template, errors) = sr_validator(written((best, last, note, wrong), tmp_path))
    assert ours == [("TID_1500", [])] * 2 + [("TID_2010", [])]
    assert template == "TID_1500"
    assert "expected CONTAINS" in "".join(errors), "the validator finds nothing at all"
