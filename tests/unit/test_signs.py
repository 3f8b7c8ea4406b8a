"""What an instance says of its study's time, its urgency, its series' end, and what it rejects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydicom.dataset import Dataset
from small_ct import encoded, instance

from dicomnode.domain.records import EndSign, Rejection
from dicomnode.instances import read_header, signs

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")


def dataset(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


# Time


@pytest.mark.parametrize(
    ("day", "hour", "offset", "expected"),
    [
        ("20260131", "142536.250", "+0000", (2026, 1, 31, 14, 25, 36)),
        ("20260131", "142536", "+0200", (2026, 1, 31, 12, 25, 36)),
        ("20260131", "142536", "-0330", (2026, 1, 31, 17, 55, 36)),
        ("20260131", "1425", "+0000", (2026, 1, 31, 14, 25, 0)),
        ("20260131", "14", "+0000", (2026, 1, 31, 14, 0, 0)),
        ("20260131", "14:25:36", "+0000", (2026, 1, 31, 14, 25, 36)),
        ("2026.01.31", "142536", "+0000", (2026, 1, 31, 14, 25, 36)),
        ("20260131", "235960", "+0000", (2026, 1, 31, 23, 59, 59)),
        ("20260131", "", "+0000", (2026, 1, 31, 23, 59, 59)),
        ("20260131", "noon", "+0000", (2026, 1, 31, 23, 59, 59)),
        ("20260231", "142536", "+0000", None),
        ("00000000", "142536", "+0000", None),
        ("20260131", "992536", "+0000", None),
        ("", "142536", "+0000", None),
        ("yesterday", "", "", None),
        ("20260131", "142536", "+9900", None),
        ("00010101", "000000", "+1400", None),
    ],
)
def test_the_time_of_a_study(
    day: str, hour: str, offset: str, expected: tuple[int, ...] | None
) -> None:
    given = dataset(StudyDate=day, StudyTime=hour, TimezoneOffsetFromUTC=offset)
    found = signs.study_at(given)
    assert found == (None if expected is None else datetime(*expected, tzinfo=UTC))  # type: ignore[misc]


def test_without_an_offset_it_is_local_time() -> None:
    local = datetime(2026, 7, 1, 12, 0, 0).astimezone(UTC)
    assert signs.study_at(dataset(StudyDate="20260701", StudyTime="120000")) == local


def test_no_attributes_say_nothing() -> None:
    nothing = Dataset()
    assert (signs.study_at(nothing), signs.priority(nothing)) == (None, "")
    assert (signs.end(nothing), signs.rejection(nothing)) == (None, None)


# Urgency


def test_a_priority_that_a_modality_copied_is_found() -> None:
    assert signs.priority(dataset(RequestedProcedurePriority="stat ")) == "STAT"
    inner = dataset(RequestedProcedurePriority="HIGH")
    given = dataset(RequestAttributesSequence=[Dataset(), inner])
    assert signs.priority(given) == "HIGH"


# End

ACQUISITION = {"AcquisitionNumber": 2, "ImagesInAcquisition": 30, "InstanceNumber": 7}
CONCATENATION = {
    "ConcatenationUID": "1.9",
    "InConcatenationNumber": 2,
    "InConcatenationTotalNumber": 3,
}


@pytest.mark.parametrize(
    ("given", "end"),
    [
        (ACQUISITION, EndSign(group="A2", total=30, number=7)),
        (ACQUISITION | {"AcquisitionNumber": None}, EndSign(group="A", total=30, number=7)),
        (ACQUISITION | {"ImagesInAcquisition": None}, None),
        (ACQUISITION | {"ImagesInAcquisition": 0}, None),
        (ACQUISITION | {"InstanceNumber": None}, None),
        (CONCATENATION, EndSign(group="C1.9", total=3, number=2)),
        (ACQUISITION | CONCATENATION, EndSign(group="C1.9", total=3, number=2)),
        (ACQUISITION | CONCATENATION | {"InConcatenationTotalNumber": None}, None),
    ],
)
def test_how_many_belong_together(given: dict[str, Any], end: EndSign | None) -> None:
    assert signs.end(dataset(**given)) == end


# Rejection


def note(code: str = "113001", scheme: str = "DCM", **changes: Any) -> Dataset:
    """Return a rejection note that names three instances of two studies, one of them twice."""
    evidence = []
    for study, instances in (("1.2", ["1.2.1", "1.2.2"]), ("1.3", ["1.3.1", "1.2.1", ""])):
        references = [dataset(ReferencedSOPInstanceUID=uid) for uid in instances]
        series = dataset(SeriesInstanceUID=f"{study}.9", ReferencedSOPSequence=references)
        evidence.append(dataset(StudyInstanceUID=study, ReferencedSeriesSequence=[series]))
    values = {
        "SOPClassUID": signs.KEY_OBJECT_SELECTION,
        "ConceptNameCodeSequence": [dataset(CodeValue=code, CodingSchemeDesignator=scheme)],
        "CurrentRequestedProcedureEvidenceSequence": evidence,
    }
    return dataset(**(values | changes))


@pytest.mark.parametrize("code", ["113001", "113037", "113038", "113039"])
def test_a_rejection_note_names_what_it_rejects(code: str) -> None:
    found = signs.rejection(note(code))
    assert found == Rejection(code=code, instances=("1.2.1", "1.2.2", "1.3.1"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        note("113000"),  # Of Interest
        note("113030"),  # Manifest
        note(scheme="99PRIVATE"),
        note(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33"),
        note(ConceptNameCodeSequence=[]),
        note(ConceptNameCodeSequence=None),
    ],
)
def test_other_documents_reject_nothing(other: Dataset) -> None:
    assert signs.rejection(other) is None


def test_a_note_without_evidence_rejects_nothing_but_is_one() -> None:
    found = signs.rejection(note(CurrentRequestedProcedureEvidenceSequence=None))
    assert found == Rejection(code="113001", instances=())


def test_the_signs_are_in_the_header_that_is_read_from_bytes() -> None:
    made = instance(StudyDate="20260131", StudyTime="120000", **ACQUISITION)
    made.TimezoneOffsetFromUTC = "+0100"
    header = read_header(encoded(made), "1.2.840.10008.1.2.1", b"key")
    assert header.study_at == datetime(2026, 1, 31, 11, tzinfo=UTC)
    assert header.end == EndSign(group="A2", total=30, number=7)
    assert header.rejection is None
