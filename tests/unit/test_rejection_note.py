"""A rejection note names what it rejects, of whom, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from analysis_kit import NOW
from pydicom.dataset import Dataset
from results_kit import results, scan_of

from dicomnode.demo.series import Subject
from dicomnode.domain.plans import ResultInstance
from dicomnode.domain.withdrawal import SUPERSEDED, TITLES, WITHDRAWN, WITHDRAWN_FOR_QUALITY, why
from dicomnode.instances import read_file
from dicomnode.instances.signs import rejection
from dicomnode.rejection_note import Rejected, write_note


def rejected_of(made: tuple[ResultInstance, ...]) -> list[Rejected]:
    return [
        Rejected(
            kind=item.kind,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            series_uid=item.series_uid,
        )
        for item in made
    ]


@pytest.fixture(scope="module")
def made() -> tuple[ResultInstance, ...]:
    scan = scan_of(
        subject=Subject(patient_id="A 1", patient_name="Größe^Ünal", accession="ACC"),
        extra={
            "SpecificCharacterSet": "ISO_IR 100",
            "IssuerOfPatientID": "HOSPITAL",
            "TimezoneOffsetFromUTC": "-0530",
        },
    )
    return results(scan)


def note_of(made: tuple[ResultInstance, ...], reason: str = SUPERSEDED) -> ResultInstance:
    header = pydicom.dcmread(BytesIO(made[-1].data))
    return write_note(header, rejected_of(made), why(reason), NOW, "DICOMNODE")


def read(note: ResultInstance) -> Dataset:
    return pydicom.dcmread(BytesIO(note.data))


def test_the_codes_say_what_an_archive_has_to_do() -> None:
    assert why(SUPERSEDED).code == "113001"
    assert why(WITHDRAWN).code == "113037"
    assert why(WITHDRAWN_FOR_QUALITY).code == "113001"
    for code in TITLES:
        assert why(f"REJECTED_{code}").code == code


def test_patient_and_study_are_those_of_the_results(made: tuple[ResultInstance, ...]) -> None:
    note, result = read(note_of(made)), pydicom.dcmread(BytesIO(made[0].data))
    for keyword in (
        "SpecificCharacterSet",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
    ):
        assert note[keyword].value == result[keyword].value
    assert str(note.PatientName) == "Größe^Ünal"
    assert (note.ContentDate, note.ContentTime) == ("20260303", "233607")
    assert note.Modality == "KO"
    assert 0 < note.SeriesNumber < 2**31


def test_it_is_read_as_a_rejection_of_exactly_these(made: tuple[ResultInstance, ...]) -> None:
    for reason in (SUPERSEDED, WITHDRAWN):
        found = rejection(read(note_of(made, reason)))
        assert found is not None
        assert found.code == why(reason).code
        assert set(found.instances) == {item.sop_instance_uid for item in made}


def test_images_and_documents_are_referred_to_as_what_they_are(
    made: tuple[ResultInstance, ...],
) -> None:
    note = read(note_of(made))
    kinds = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID: item.ValueType
        for item in note.ContentSequence
        if "ReferencedSOPSequence" in item
    }
    assert kinds == {made[0].sop_instance_uid: "IMAGE", made[1].sop_instance_uid: "COMPOSITE"}
    assert why(SUPERSEDED).sentence in [item.get("TextValue") for item in note.ContentSequence]


def test_equal_input_gives_equal_bytes_and_any_change_another_uid(
    made: tuple[ResultInstance, ...],
) -> None:
    first = note_of(made)
    assert first.data == note_of(made).data
    header = pydicom.dcmread(BytesIO(made[-1].data))
    later = datetime(2026, 3, 4, 5, 6, 8, tzinfo=UTC)
    others = [
        note_of(made, WITHDRAWN),
        note_of(made[:1]),
        write_note(header, rejected_of(made), why(SUPERSEDED), later, "DICOMNODE"),
    ]
    uids = {note.sop_instance_uid for note in (first, *others)}
    assert len(uids) == len(others) + 1
    assert len({note.series_uid for note in (first, *others)}) == len(uids)


def test_the_node_knows_its_own_note(made: tuple[ResultInstance, ...], tmp_path: Path) -> None:
    path = tmp_path / "note.dcm"
    path.write_bytes(note_of(made).data)
    header, *_ = read_file(path, b"k" * 16)
    assert header.made_by_this_software
    assert header.rejection is not None
