"""The table of admission, row by row: what a peer hears, what becomes of the bytes, who is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dicomnode.domain import admission
from dicomnode.domain.admission import ATTENTION, INFO, WARNING, Decision, Fate, decide
from dicomnode.domain.identifiers import (
    InstanceUID,
    PatientKey,
    SeriesUID,
    SOPClassUID,
    StudyUID,
    TransferSyntaxUID,
)
from dicomnode.domain.records import Header, StoredInstance

EXPLICIT = TransferSyntaxUID("1.2.840.10008.1.2.1")
ENHANCED = SOPClassUID("1.2.840.10008.5.1.4.1.1.2.1")
RLE = TransferSyntaxUID("1.2.840.10008.1.2.5")
HEADER = Header(
    study_uid=StudyUID("1.2.1"),
    series_uid=SeriesUID("1.2.2"),
    sop_instance_uid=InstanceUID("1.2.3"),
    sop_class_uid=SOPClassUID("1.2.840.10008.5.1.4.1.1.2"),
    transfer_syntax_uid=EXPLICIT,
    patient_key=PatientKey("patient"),
    identity_digest="identity",
    pixel_digest="pixels",
    geometry_digest="geometry",
    modality="CT",
    series_number=1,
    series_description="",
    body_part="",
    slice_thickness_mm=1.0,
    made_by_this_software=False,
)
STORED = StoredInstance(
    study_uid=HEADER.study_uid,
    digest="bytes",
    pixel_digest="pixels",
    geometry_digest="geometry",
    identity_digest="identity",
    transfer_syntax_uid=EXPLICIT,
)


def decided(header: Header = HEADER, **facts: Any) -> Decision:
    """Decide on `header`, which comes for the first time unless `facts` say otherwise."""
    known: dict[str, Any] = {
        "request_sop_class_uid": header.sop_class_uid,
        "request_sop_instance_uid": header.sop_instance_uid,
        "digest": "bytes",
        "known": None,
        "study_patient": None,
        "is_own_result": False,
    }
    return decide(header, **(known | facts))


def row(decision: Decision) -> tuple[int, Fate, str, str, bool]:
    return (
        decision.status, decision.fate, decision.code, decision.level, decision.hold_study
    )  # fmt: skip


def test_a_new_instance_is_stored() -> None:
    assert row(decided()) == (0x0000, Fate.STORE, "STORED", INFO, False)
    assert row(decided(study_patient=PatientKey("patient"))) == row(decided())


def test_less_disk_space_than_the_limit_is_answered_with_out_of_resources() -> None:
    assert row(admission.NO_SPACE) == (0xA700, Fate.DISCARD, "DISK_FULL", WARNING, False)


def test_a_ledger_that_is_away_is_answered_with_out_of_resources() -> None:
    assert row(admission.NO_LEDGER) == (0xA700, Fate.DISCARD, "STORAGE_FAILED", WARNING, False)


def test_what_cannot_be_read_goes_to_quarantine() -> None:
    decision = admission.unparseable("SOPInstanceUID is missing")
    expected = (0xC000, Fate.QUARANTINE, "CANNOT_UNDERSTAND", ATTENTION, False)
    assert row(decision) == expected
    assert decision.detail == "SOPInstanceUID is missing"


@pytest.mark.parametrize(
    "request_uid", [{"request_sop_class_uid": "1.9"}, {"request_sop_instance_uid": "1.9"}]
)
@pytest.mark.parametrize("known", [None, STORED])
@pytest.mark.parametrize("own", [False, True])
def test_other_uids_than_the_requests_go_to_quarantine(
    request_uid: dict[str, str], known: StoredInstance | None, own: bool
) -> None:
    decision = decided(known=known, is_own_result=own, **request_uid)
    expected = (0xA900, Fate.QUARANTINE, "DATA_SET_DOES_NOT_MATCH", ATTENTION, False)
    assert row(decision) == expected


def test_the_same_bytes_again_are_a_duplicate() -> None:
    decision = decided(known=STORED)
    assert row(decision) == (0x0000, Fate.DROP, "DUPLICATE", INFO, False)


def test_the_same_pixels_with_another_header_are_a_duplicate() -> None:
    decision = decided(known=STORED, digest="other")
    assert row(decision) == (0x0000, Fate.DROP, "DUPLICATE_HEADER", INFO, False)


def encoded_otherwise(**changes: Any) -> Header:
    return replace(HEADER, transfer_syntax_uid=RLE, pixel_digest="rle", **changes)


def test_the_same_pixels_in_another_encoding_are_a_duplicate() -> None:
    decision = decided(encoded_otherwise(), known=STORED, digest="other", same_image=True)
    assert row(decision) == (0x0000, Fate.DROP, "DUPLICATE_HEADER", INFO, False)


def test_other_pixels_in_another_encoding_are_refused() -> None:
    decision = decided(encoded_otherwise(), known=STORED, digest="other", same_image=False)
    assert row(decision) == (0xC001, Fate.QUARANTINE, "PIXELS_DIFFER", ATTENTION, False)


def test_an_encoding_that_cannot_be_compared_is_kept_aside_and_said() -> None:
    decision = decided(encoded_otherwise(), known=STORED, digest="other", same_image=None)
    expected = (0x0000, Fate.QUARANTINE, "PIXELS_NOT_COMPARED", ATTENTION, False)
    assert row(decision) == expected


@pytest.mark.parametrize("change", [{"pixel_digest": "other"}, {"geometry_digest": "other"}])
def test_the_same_instance_with_other_pixels_or_geometry_is_refused(change: dict[str, str]) -> None:
    decision = decided(replace(HEADER, **change), known=STORED, digest="other")
    assert row(decision) == (0xC001, Fate.QUARANTINE, "PIXELS_DIFFER", ATTENTION, False)


def test_another_geometry_is_refused_in_another_encoding_too() -> None:
    header = encoded_otherwise(geometry_digest="other")
    decision = decided(header, known=STORED, digest="other")
    assert row(decision) == (0xC001, Fate.QUARANTINE, "PIXELS_DIFFER", ATTENTION, False)


@pytest.mark.parametrize(
    "header",
    [
        replace(HEADER, identity_digest="corrected"),
        replace(HEADER, study_uid=StudyUID("1.2.99")),
        encoded_otherwise(identity_digest="corrected"),
        replace(HEADER, identity_digest="corrected", pixel_digest="other"),
    ],
)
def test_another_identity_holds_the_study(header: Header) -> None:
    decision = decided(header, known=STORED, digest="other")
    expected = (0x0000, Fate.QUARANTINE, "IDENTITY_CHANGED", ATTENTION, True)
    assert row(decision) == expected


def test_two_patients_in_one_study_are_stored_and_held() -> None:
    decision = decided(study_patient=PatientKey("somebody else"))
    assert row(decision) == (0x0000, Fate.STORE, "TWO_PATIENTS", ATTENTION, True)


@pytest.mark.parametrize("known", [None, STORED])
def test_our_own_result_routed_back_triggers_nothing(known: StoredInstance | None) -> None:
    header = replace(HEADER, made_by_this_software=True)
    decision = decided(header, is_own_result=True, known=known)
    assert row(decision) == (0x0000, Fate.DROP, "OWN_RESULT", INFO, False)


def test_a_result_of_another_node_is_kept_and_triggers_nothing() -> None:
    header = replace(HEADER, made_by_this_software=True)
    decision = decided(header, study_patient=PatientKey("somebody else"))
    assert row(decision) == (0x0000, Fate.STORE_ASIDE, "FOREIGN_RESULT", INFO, False)


@pytest.mark.parametrize(
    ("header", "digest", "known", "needed"),
    [
        (encoded_otherwise(), "other", STORED, True),
        (encoded_otherwise(), "other", None, False),
        (encoded_otherwise(), "bytes", STORED, False),
        (encoded_otherwise(geometry_digest="other"), "other", STORED, False),
        (replace(HEADER, transfer_syntax_uid=RLE), "other", STORED, False),  # equal as encoded
        (replace(HEADER, pixel_digest="other"), "other", STORED, False),  # one encoding
        (replace(HEADER, sop_class_uid=ENHANCED), "other", STORED, True),  # frames have places
        (replace(HEADER, sop_class_uid=ENHANCED), "bytes", STORED, False),
    ],
)
def test_images_are_compared_only_where_nothing_else_tells(
    header: Header, digest: str, known: StoredInstance | None, needed: bool
) -> None:
    assert admission.needs_comparing(header, digest, known) == needed
