"""A series of 2,000 slices of 512 x 512: its headers are read, it is chosen, and it is decoded."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.choosing import ChoosingPolicy, choose_series
from dicomnode.domain.routing import Rule
from dicomnode.domain.series import Member, summarise
from dicomnode.imaging import read_scan
from dicomnode.instances import read_header, split_file

SLICES = 2000


def deflated(count: int) -> Iterator[bytes]:
    """Yield the files of a series; deflated, because half a megabyte of two values is no test.

    Only UID and position differ, so that the pixels are deflated once: behind a full flush a
    deflated stream refers to nothing before it (RFC 1951).
    """
    hu = np.full((512, 512, 1), -1000, np.int16)
    hu[128:384, 128:384] = 40
    (first,) = write_series(hu, np.diag([-0.7, -0.7, 0.5, 1.0]), SeriesOptions())
    dataset = pydicom.dcmread(BytesIO(first))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid_of(0)
    dataset.ImagePositionPatient = ["-150.00", "-150.00", place_of(0)]
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    plain = buffer.getvalue()
    _, start = split_file(plain)
    pixels = plain.index(b"\xe0\x7f\x10\x00", start)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta = BytesIO()
    pydicom.dcmwrite(meta, dataset, enforce_file_format=True)
    prefix = meta.getvalue()[: split_file(meta.getvalue())[1]]
    tail = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    rest = tail.compress(plain[pixels:]) + tail.flush()
    for index in range(count):
        uid = (uid_of(0).encode(), uid_of(index).encode())
        header = plain[start:pixels].replace(*uid)
        header = header.replace(place_of(0).encode(), place_of(index).encode())
        head = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = head.compress(header) + head.flush(zlib.Z_FULL_FLUSH)
        data = prefix.replace(*uid) + body + rest
        yield data


def uid_of(index: int) -> str:
    return f"1.2.826.0.1.3680043.10.543.{index + 100000}"


def place_of(index: int) -> str:
    return f"{1000 + 0.5 * index:.2f}"


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return list(deflated(SLICES))


def test_it_is_chosen(files: list[bytes]) -> None:
    members = []
    for data in files:
        syntax, start = split_file(data)
        header = read_header(data[start:], syntax, b"key")
        members.append(
            Member(sop_class_uid=header.sop_class_uid, facts=header.image, place_mm=header.place_mm)
        )
    assert len({member.facts for member in members}) == 1
    facts = summarise(
        members,
        series_uid="1.2",
        modality="CT",
        body_part="",
        description="",
        slice_thickness_mm=None,
    )
    assert (facts.slices, facts.spacing_mm, facts.largest_gap_mm) == (SLICES, 0.5, 0.5)
    rules = (Rule(name="all", model="demo"),)
    assert choose_series(rules, ChoosingPolicy(), [facts])["1.2"].is_chosen
    small = ChoosingPolicy(max_slices=SLICES - 1)
    assert choose_series(rules, small, [facts])["1.2"].code == "TOO_MANY_SLICES"


def test_it_is_decoded(files: list[bytes]) -> None:
    scan = read_scan(files)
    assert scan.volume.shape == (SLICES, 512, 512)
    assert scan.is_regular
    assert scan.volume[[0, 999, -1], 256, 256].tolist() == [40, 40, 40]
    assert scan.volume[[0, 999, -1], 0, 0].tolist() == [-1000, -1000, -1000]
