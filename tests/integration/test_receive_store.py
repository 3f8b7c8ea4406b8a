"""C-STORE into a running receive role: what the peer hears, and what then lies on the disk."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from enhanced_ct import enhanced, read, save
from nodes import Node
from peers import Dcmtk, wait_until
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)
from scu import Wire, scu, store
from small_ct import CT, encoded, instance
from sqlalchemy import select

from dicomnode import instances as reading
from dicomnode.demo.series import write_series
from dicomnode.instances.seals import PREAMBLE_BYTES
from dicomnode.ledger import tables

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A receive role that all tests of this module send to, each a study of its own."""
    node = Node(tmp_path_factory.mktemp("receiver"))
    try:
        node.start("receive")
        yield node
        node.stop()
    finally:
        node.close()


def wire(syntax: str = ExplicitVRLittleEndian, **changes: Any) -> Wire:
    """Return a small CT instance of a study of its own, ready to be sent."""
    study = f"1.2.{next(NUMBERS)}"
    dataset = instance(
        **{
            "StudyInstanceUID": study,
            "SeriesInstanceUID": f"{study}.1",
            "SOPInstanceUID": f"{study}.1.1",
        }
        | changes
    )
    return Wire(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=syntax,
        data=encoded(dataset, syntax),
    )


def changed(original: Wire, **changes: Any) -> Wire:
    """Return the same instance with other attributes."""
    dataset = pydicom.dcmread(BytesIO(file_of(original)))
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return replace(original, data=encoded(dataset, original.transfer_syntax_uid))


def file_of(sent: Wire) -> bytes:
    """Return the DICOM file that the node makes of what was sent."""
    prefix = reading.file_prefix(
        sent.sop_class_uid, sent.sop_instance_uid, sent.transfer_syntax_uid
    )
    return prefix + sent.data


def uids_of(sent: Wire) -> tuple[str, str]:
    header = reading.read_header(sent.data, sent.transfer_syntax_uid, b"k" * 16)
    return header.study_uid, header.series_uid


def stored_file(node: Node, sent: Wire) -> Path:
    return node.spool / "instances" / Path(*uids_of(sent)) / f"{sent.sop_instance_uid}.dcm"


def rows_of(node: Node, sent: Wire) -> list[Any]:
    with node.ledger.transaction() as tx:
        return list(
            tx.connection.execute(
                select(tables.instance).where(
                    tables.instance.c.sop_instance_uid == sent.sop_instance_uid
                )
            )
        )


def assert_stored(node: Node, sent: Wire) -> None:
    """What Success means: the bytes, whole and as they came, and one row that knows them."""
    wait_until(lambda: rows_of(node, sent), 5, "the row is there")
    data = stored_file(node, sent).read_bytes()
    # Before it is sealed, its bytes are what this node makes of any data set.
    assert data[PREAMBLE_BYTES:] == file_of(sent)[PREAMBLE_BYTES:]
    (row,) = rows_of(node, sent)
    assert node.spool / row.path == stored_file(node, sent)
    assert row.size == len(sent.data)
    assert row.transfer_syntax_uid == sent.transfer_syntax_uid


def study_of(node: Node, sent: Wire) -> dict[str, Any]:
    study, _ = uids_of(sent)
    return next(row for row in node.status()["studies"] if row["study_uid"] == study)


def events_of(node: Node, sent: Wire) -> list[str]:
    return [row["code"] for row in node.events(uids_of(sent)[0])]


def quarantined(node: Node, sent: Wire) -> dict[str, Any]:
    """Return the reason of the one object in quarantine that has these bytes."""
    found = node.quarantine()
    (reason,) = [
        why for why, data in found if data[PREAMBLE_BYTES:] == file_of(sent)[PREAMBLE_BYTES:]
    ]
    return reason


# Success


def test_success_means_file_and_row(receiver: Node) -> None:
    one = wire()
    with scu(receiver.port, [one]) as requestor:
        assert requestor.store(one) == 0x0000
        assert_stored(receiver, one)  # with the association still open
    assert events_of(receiver, one) == ["STUDY_BEGAN"]


def test_many_instances_over_one_association(receiver: Node) -> None:
    study = wire()
    sent = [study, *(_sibling(study, number) for number in range(2, 12))]
    assert store(receiver.port, *sent) == [0x0000] * 11
    for one in sent:
        assert_stored(receiver, one)
    assert study_of(receiver, study)["instances"] == 11
    newest = receiver.wait_for(lambda status: status["associations"][0]["outcome"])
    association = newest["associations"][0]
    assert (association["outcome"], association["instances"]) == ("RELEASED", 11)
    assert association["bytes"] == sum(len(one.data) for one in sent)
    assert (association["calling_ae"], association["called_ae"]) == ("MODALITY", "DICOMNODE")


def _sibling(of: Wire, number: int) -> Wire:
    uid = f"{of.sop_instance_uid}.{number}"
    return replace(changed(of, SOPInstanceUID=uid), sop_instance_uid=uid)


@pytest.mark.peer("dcmtk")
def test_a_real_series_from_dcmtk(receiver: Node, dcmtk: Dcmtk, test_data: Path) -> None:
    folder = test_data / "crlm-ct-1004" / "image"
    dcmtk.storescu(receiver.port, folder)
    for path in folder.iterdir():
        original = pydicom.dcmread(path)
        stored = receiver.spool / "instances" / original.StudyInstanceUID
        stored /= Path(original.SeriesInstanceUID) / f"{original.SOPInstanceUID}.dcm"
        kept = pydicom.dcmread(stored)
        # DCMTK encodes anew what it sends; the content is the same.
        assert kept.PixelData == original.PixelData
        assert {element.tag: element.value for element in kept} == {
            element.tag: element.value for element in original if element.tag in kept
        }


def test_every_transfer_syntax_is_kept_byte_for_byte(receiver: Node, test_data: Path) -> None:
    sent = [
        _renamed(Wire.of_file(path.read_bytes()), number)
        for number, path in enumerate(sorted((test_data / "transfer-syntaxes").glob("*_1.*")))
    ]
    assert len({one.transfer_syntax_uid for one in sent}) == 15
    assert store(receiver.port, *sent) == [0x0000] * 15
    for one in sent:
        assert_stored(receiver, one)


def _renamed(original: Wire, number: int) -> Wire:
    """Give an instance a SOP Instance UID of its own, without touching any other byte."""
    old = original.sop_instance_uid
    new = f"{old[:-2]}{10 + number}"
    deflated = original.transfer_syntax_uid == DeflatedExplicitVRLittleEndian
    data = zlib.decompress(original.data, -zlib.MAX_WBITS) if deflated else original.data
    assert data.count(old.encode()) == 1
    data = data.replace(old.encode(), new.encode())
    if deflated:
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = compressor.compress(data) + compressor.flush()
    return replace(original, sop_instance_uid=new, data=data)


@pytest.mark.parametrize(
    "sop_class",
    [
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image Storage
        "1.2.840.10008.5.1.4.1.1.88.67",  # X-Ray Radiation Dose SR Storage
        "1.2.840.10008.5.1.4.1.1.88.59",  # Key Object Selection Document Storage
        "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
        "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF Storage
    ],
)
def test_what_else_a_study_brings_is_kept(receiver: Node, sop_class: str) -> None:
    other = wire(SOPClassUID=sop_class, Modality="OT", PixelData=None)
    assert store(receiver.port, other) == [0x0000]
    assert_stored(receiver, other)


# Again


def test_the_same_bytes_again_change_nothing(receiver: Node) -> None:
    one = wire()
    assert store(receiver.port, one, one) == [0x0000, 0x0000]
    assert store(receiver.port, one) == [0x0000]
    assert_stored(receiver, one)
    assert events_of(receiver, one) == ["STUDY_BEGAN", "DUPLICATE", "DUPLICATE"]


def test_another_header_keeps_the_first_copy(receiver: Node) -> None:
    """The archive's copy of an instance always differs from the modality's."""
    one = wire()
    assert store(receiver.port, one) == [0x0000]
    assert store(receiver.port, changed(one, InstitutionName="elsewhere")) == [0x0000]
    assert_stored(receiver, one)
    assert events_of(receiver, one)[-1] == "DUPLICATE_HEADER"


def test_another_encoding_of_the_same_pixels_keeps_the_first_copy(
    receiver: Node, test_data: Path
) -> None:
    files = (test_data / "transfer-syntaxes").glob("*_1.*")
    wires = [Wire.of_file(path.read_bytes()) for path in files]
    by_syntax = {one.transfer_syntax_uid: one for one in wires}
    first = by_syntax[ExplicitVRLittleEndian]
    assert store(receiver.port, first, by_syntax[RLELossless]) == [0x0000, 0x0000]
    assert_stored(receiver, first)
    assert events_of(receiver, first)[-1] == "DUPLICATE_HEADER"
    # Who encoded with loss gave the instance another UID, as one has to. Somebody may not have.
    lossy = replace(
        changed(by_syntax[JPEG2000], SOPInstanceUID=first.sop_instance_uid),
        sop_instance_uid=first.sop_instance_uid,
    )
    assert store(receiver.port, lossy) == [0xC001]
    assert quarantined(receiver, lossy)["code"] == "PIXELS_DIFFER"
    assert_stored(receiver, first)


@pytest.mark.parametrize(
    "change", [{"PixelData": b"\1" * 32}, {"ImagePositionPatient": [0, 0, 99]}]
)
def test_other_pixels_or_another_place_are_refused_and_kept_aside(
    receiver: Node, change: dict[str, Any]
) -> None:
    one = wire()
    other = changed(one, **change)
    assert store(receiver.port, one, other) == [0x0000, 0xC001]
    assert_stored(receiver, one)
    reason = quarantined(receiver, other)
    assert (reason["code"], reason["status"], reason["calling_ae"]) == (
        "PIXELS_DIFFER",
        0xC001,
        "MODALITY",
    )
    assert events_of(receiver, one)[-1] == "PIXELS_DIFFER"


def _elsewhere(image: Dataset) -> None:
    for frame in image.PerFrameFunctionalGroupsSequence:
        x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
        frame.PlanePositionSequence[0].ImagePositionPatient = [x, y, z + 0.5]


def _swapped(image: Dataset) -> None:
    first, second, *_ = image.PerFrameFunctionalGroupsSequence
    first.PlanePositionSequence, second.PlanePositionSequence = (
        second.PlanePositionSequence,
        first.PlanePositionSequence,
    )


def _rescaled(image: Dataset) -> None:
    (shared,) = image.SharedFunctionalGroupsSequence
    shared.PixelValueTransformationSequence[0].RescaleIntercept = -1000


def _with_another_header(image: Dataset) -> None:
    image.InstitutionName = "elsewhere"


@pytest.mark.parametrize(
    ("change", "status"),
    [(_with_another_header, 0x0000), (_elsewhere, 0xC001), (_swapped, 0xC001), (_rescaled, 0xC001)],
)
def test_frames_at_other_places_are_another_image(
    receiver: Node, change: Callable[[Dataset], None], status: int
) -> None:
    study = f"1.2.77.{next(NUMBERS)}"
    files = write_series(np.zeros((4, 4, 3), np.int16), np.diag([1.0, 1.0, 2.0, 1.0]))
    image = read(enhanced(files, name=study))
    image.StudyInstanceUID = study
    image.SeriesInstanceUID = f"{study}.1"
    first = Wire.of_file(save(image))
    change(image)
    assert store(receiver.port, first, Wire.of_file(save(image))) == [0x0000, status]
    assert_stored(receiver, first)
    assert events_of(receiver, first)[-1] == ("PIXELS_DIFFER" if status else "DUPLICATE_HEADER")


@pytest.mark.parametrize(
    "change", [{"PatientID": "4712"}, {"PatientName": "Other"}, {"AccessionNumber": "A2"}]
)
def test_another_identity_holds_the_study(receiver: Node, change: dict[str, str]) -> None:
    one = wire()
    other = changed(one, **change)
    assert store(receiver.port, one, other) == [0x0000, 0x0000]
    assert_stored(receiver, one)
    assert quarantined(receiver, other)["code"] == "IDENTITY_CHANGED"
    held = study_of(receiver, one)
    assert (held["state"], held["hold_reason"]) == ("HELD", "IDENTITY_CHANGED")


def test_two_patients_in_one_study_are_kept_and_held(receiver: Node) -> None:
    one = wire()
    uid = f"{one.sop_instance_uid}.2"
    other = replace(
        changed(one, PatientID="4712", SOPInstanceUID=uid), sop_instance_uid=uid
    )  # fmt: skip
    assert store(receiver.port, one, other) == [0x0000, 0x0000]
    assert_stored(receiver, one)
    assert_stored(receiver, other)
    held = study_of(receiver, one)
    assert (held["state"], held["hold_reason"]) == ("HELD", "TWO_PATIENTS")


# What cannot be used


def test_other_uids_than_the_requests_are_refused_and_kept_aside(receiver: Node) -> None:
    other_instance = replace(wire(), sop_instance_uid="1.2.3.4.5.6")
    other_class = replace(wire(), sop_class_uid="1.2.840.10008.5.1.4.1.1.4")
    assert store(receiver.port, other_instance, other_class) == [0xA900, 0xA900]
    for one in (other_instance, other_class):
        assert quarantined(receiver, one)["code"] == "DATA_SET_DOES_NOT_MATCH"
        assert rows_of(receiver, one) == []
    assert receiver.attention()[:2] == ["DATA_SET_DOES_NOT_MATCH"] * 2


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"garbage!",
        b"\0" * 100_000,
        b"\xff" * 4096,
        encoded(instance())[:-5],
        encoded(instance(StudyInstanceUID=None)),
        encoded(instance(SeriesInstanceUID="1.2.333333333")).replace(
            b"1.2.333333333\0", b"../../../etc  "
        ),
    ],
    ids=["byte", "text", "zeros", "ones", "cut", "no study", "path"],
)
def test_what_cannot_be_read_is_refused_and_kept_aside(receiver: Node, data: bytes) -> None:
    bad = Wire(CT, f"1.9.{next(NUMBERS)}", ExplicitVRLittleEndian, data)
    good = wire()
    assert store(receiver.port, bad, good) == [0xC000, 0x0000], "the association lives on"
    reason = quarantined(receiver, bad)
    assert reason["code"] == "CANNOT_UNDERSTAND"
    assert reason["detail"]
    assert receiver.attention()[0] == "CANNOT_UNDERSTAND"
    assert rows_of(receiver, bad) == []
    assert not (receiver.spool.parent / "etc").exists()


def test_the_real_files_without_identifiers_are_refused_and_kept(
    receiver: Node, test_data: Path
) -> None:
    """A real scanner's files whose identifiers somebody has blanked."""
    path = sorted((test_data / "totalsegmentator" / "example_ct_dicom").iterdir())[0]
    syntax, start = reading.split_file(path.read_bytes())
    raw = Wire(CT, f"1.9.{next(NUMBERS)}", syntax, path.read_bytes()[start:])
    assert store(receiver.port, raw) == [0xC000]
    assert quarantined(receiver, raw)["code"] == "CANNOT_UNDERSTAND"


def test_no_patient_stands_in_log_file_name_or_reason(receiver: Node) -> None:
    secret = wire(PatientID="SECRETID", PatientName="SECRET^NAME", OtherPatientIDs="SECRET")
    other = changed(secret, PatientName="SECRET^OTHER")
    bad = replace(secret, sop_instance_uid="1.2.3.4.5.6.7")
    cut = replace(secret, data=secret.data[:-3])
    assert store(receiver.port, secret, other, bad, cut) == [0x0000, 0x0000, 0xA900, 0xC000]
    assert "SECRET" not in receiver.log.read_text()
    assert not [path for path in receiver.spool.rglob("*") if "SECRET" in path.name]
    assert all("SECRET" not in str(reason) for reason, _ in receiver.quarantine())
    assert "SECRET" not in str(receiver.status()) + str(receiver.events(uids_of(secret)[0]))
