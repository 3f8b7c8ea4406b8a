"""Real-world files that hurt, sent by C-STORE: an honest answer, and never a lost byte."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from nodes import Node, are_delivered
from peers import Orthanc
from pydicom.uid import generate_uid
from scu import Wire, store

CANNOT_UNDERSTAND = 0xC000


def wire_of(path: Path) -> Wire:
    """An odd file as a peer would send it, with UIDs of its own where it has none."""
    data = path.read_bytes()
    try:
        wire = Wire.of_file(data)
    except AttributeError:
        meta = pydicom.dcmread(BytesIO(data), stop_before_pixels=True, force=True).file_meta
        wire = Wire(
            sop_class_uid=str(meta.get("MediaStorageSOPClassUID", "1.2.840.10008.5.1.4.1.1.2")),
            sop_instance_uid=str(meta.get("MediaStorageSOPInstanceUID", generate_uid())),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            data=data,
        )
    return wire


def is_kept(node: Node, wire: Wire) -> bool:
    """Whether the data set's bytes lie in the spool: stored, or in quarantine with a reason."""
    return any(
        path.read_bytes().endswith(wire.data)
        for folder in ("instances", "quarantine")
        for path in node.files(folder)
    )


def test_every_odd_file_is_answered_and_kept(node: Callable[..., Node], test_data: Path) -> None:
    running = node("receive", "tick")
    files = sorted((test_data / "odd").glob("*.dcm"))
    assert len(files) >= 7
    for path in files:
        wire = wire_of(path)
        (status,) = store(running.port, wire)
        assert status in (0x0000, CANNOT_UNDERSTAND, 0xA900), path.name
        assert is_kept(running, wire), path.name
    assert "Traceback" not in running.log.read_text()


def siemens(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir()) if path.suffix != ".txt"]


def test_raw_siemens_files_are_refused_and_kept(node: Callable[..., Node], test_data: Path) -> None:
    running = node("receive", "tick")
    for path in sorted((test_data / "totalsegmentator/example_ct_dicom").iterdir()):
        meta = pydicom.dcmread(path, stop_before_pixels=True).file_meta
        data = path.read_bytes()
        wire = Wire(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.get("MediaStorageSOPInstanceUID") or generate_uid()),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            data=data[len(data) - len(_data_set(data)) :],
        )
        assert store(running.port, wire) == [CANNOT_UNDERSTAND]
    kept = running.quarantine()
    assert len(kept) == 20
    assert all("SeriesInstanceUID" in r["detail"] or "UID" in r["detail"] for r, _ in kept)
    assert "CANNOT_UNDERSTAND" in running.attention()
    assert running.status()["counts"]["instances"] == 0


def _data_set(data: bytes) -> bytes:
    """What stands behind the File Meta Information (PS3.10 7.1): its length is its first value."""
    length = int.from_bytes(data[140:144], "little")
    return data[144 + length :]


@pytest.mark.peer("orthanc")
def test_siemens_files_with_identifiers_are_analysed(
    node: Callable[..., Node], orthanc: Orthanc, test_data: Path
) -> None:
    running = node("run", archive=orthanc)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    wires = []
    for dataset in siemens(test_data / "totalsegmentator/example_ct_dicom"):
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        if not dataset.get("FrameOfReferenceUID"):
            dataset.FrameOfReferenceUID = frame
        dataset.PatientID, dataset.PatientName = "TEST-1", "TEST^SIEMENS"
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        wires.append(Wire.of_file(buffer.getvalue()))
    assert set(store(running.port, *wires)) == {0x0000}

    status = running.wait_for(are_delivered(3), timeout=120)
    assert status["jobs"][0]["state"] == "DONE"
    results = orthanc.results(study)
    assert {item.PatientID for item in results.values()} == {"TEST-1"}
    assert len(results["SEG"].SegmentSequence) >= 1


def test_a_refused_series_says_why(node: Callable[..., Node], test_data: Path) -> None:
    running = node("run")
    folder = test_data / "geometry/ge-hispeed-tilt-uneven"
    wires = [Wire.of_file(path.read_bytes()) for path in sorted(folder.glob("*.dcm"))[::3]]
    assert set(store(running.port, *wires)) == {0x0000}
    status = running.wait_for(lambda s: s["counts"]["jobs"] == {"REFUSED": 1}, timeout=60)

    assert status["jobs"][0]["reason"] == "MISSING_SLICE"
    assert "JOB_REFUSED" in running.attention()
    assert status["counts"]["instances"] == len(wires)
