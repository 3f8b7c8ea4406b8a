"""Real series of two manufacturers: what was encoded is what others, and an archive, give back."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from email import message_from_bytes
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from others import dciodvfy_errors, dcmqi_labels, in_segment_numbers
from peers import DICOM_WEB_PLUGIN, HOST, Orthanc
from real_series import RealSeries, ge, siemens

from dicomnode.domain.plans import ResultInstance

OBJECTS = ("seg", "labelmap", "rtstruct", "preview", "sr")
SERIES = {"Siemens": (siemens, 31), "GE": (ge, 40)}
"""With how many structures are there, at least."""
BOUNDARY = "boundary-of-the-tests"


@pytest.fixture(scope="module", params=SERIES)
def real(request: pytest.FixtureRequest, test_data: Path) -> tuple[RealSeries, int]:
    read, structures = SERIES[request.param]
    return read(test_data), structures


@pytest.fixture(scope="module")
def made(real: tuple[RealSeries, int]) -> dict[str, ResultInstance]:
    return real[0].results(*OBJECTS)


def written(item: ResultInstance, folder: Path) -> Path:
    path = folder / f"{item.kind}.dcm"
    path.write_bytes(item.data)
    return path


@pytest.mark.parametrize("kind", ["seg", "labelmap"])
def test_dcmqi_gives_every_voxel_back(
    kind: str,
    real: tuple[RealSeries, int],
    made: dict[str, ResultInstance],
    tmp_path: Path,
) -> None:
    series, structures = real
    path = written(made[kind], tmp_path)
    seg = pydicom.dcmread(path)
    segments = [item for item in seg.SegmentSequence if item.SegmentNumber]  # 0 is Background
    assert len(segments) == len(np.unique(series.labels)) - 1 >= structures
    scan = series.scan
    found = dcmqi_labels(path, tmp_path / "out", scan.volume.shape, scan.affine)
    numbered = series.labels if kind == "labelmap" else in_segment_numbers(series.labels, seg)
    assert np.array_equal(found, numbered)


def test_dciodvfy_finds_no_error(made: dict[str, ResultInstance], tmp_path: Path) -> None:
    assert set(made) == set(OBJECTS)
    for item in made.values():
        assert dciodvfy_errors(written(item, tmp_path)) == [], item.kind


def test_report_and_segmentations_track_the_same_structures(
    made: dict[str, ResultInstance],
) -> None:
    read = {kind: pydicom.dcmread(BytesIO(made[kind].data)) for kind in ("seg", "labelmap", "sr")}
    (measured,) = (
        item
        for item in read["sr"].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurements"
    )
    tracked = [
        next(
            item.UID
            for item in group.ContentSequence
            if item.ConceptNameCodeSequence[0].CodeValue == "112040"
        )
        for group in measured.ContentSequence
    ]
    for kind in ("seg", "labelmap"):
        segments = [item for item in read[kind].SegmentSequence if item.SegmentNumber]
        uids = [item.TrackingUID for item in segments if "TrackingUID" in item]
        assert uids == tracked


@pytest.mark.peer("orthanc", "orthanc-dicomweb")
def test_an_archive_gives_back_by_dicomweb_what_it_was_given(
    made: dict[str, ResultInstance], start_orthanc: Callable[..., Orthanc]
) -> None:
    archive = start_orthanc(
        options={
            "Plugins": [str(DICOM_WEB_PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
    )
    root = f"http://{HOST}:{archive.http_port}/dicom-web/studies"
    for item in made.values():
        store(root, item.data)
        ours = pydicom.dcmread(BytesIO(item.data))
        back = retrieve(
            f"{root}/{ours.StudyInstanceUID}/series/{item.series_uid}"
            f"/instances/{item.sop_instance_uid}"
        )
        theirs = pydicom.dcmread(BytesIO(back))
        assert theirs.file_meta.TransferSyntaxUID == item.transfer_syntax_uid
        assert theirs.file_meta.MediaStorageSOPInstanceUID == item.sop_instance_uid
        assert theirs == ours, item.kind
    assert set(archive.instances()) == {item.sop_instance_uid for item in made.values()}


def _open(request: urllib.request.Request) -> tuple[str, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as answer:
        return answer.headers["Content-Type"], answer.read()


def store(url: str, data: bytes) -> None:
    """Store a file by STOW-RS (PS3.18 10.5)."""
    body = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body += data + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
    _open(urllib.request.Request(url, data=body, headers=headers, method="POST"))


def retrieve(url: str) -> bytes:
    """Retrieve a file by WADO-RS (PS3.18 10.4), in the transfer syntax that it is stored in."""
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    kind, body = _open(urllib.request.Request(url, headers={"Accept": accept}))
    whole = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    boundary = b"--" + str(whole.get_boundary()).encode()
    # Not by `email`, which takes line ends within the data for its own.
    (part,) = [one for one in body.split(boundary) if b"application/dicom" in one[:500]]
    return part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
