"""A series of 2,000 slices of 512 x 512: its headers are read, it is chosen, and it is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.choosing import ChoosingPolicy, choose_series
from dicomnode.domain.identifiers import derive_uid
from dicomnode.domain.routing import Rule
from dicomnode.domain.series import Member, summarise
from dicomnode.imaging import read_scan
from dicomnode.instances import read_header, split_file

SLICES = 2000


def deflated(count: int) -> Iterator[bytes]:
    """Yield the files of a series; deflated, because half a megabyte of one value is no test."""
    hu = np.full((512, 512, 1), -1000, np.int16)
    hu[128:384, 128:384] = 40
    (first,) = write_series(hu, np.diag([-0.7, -0.7, 0.5, 1.0]), SeriesOptions())
    dataset = pydicom.dcmread(BytesIO(first))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    for index in range(count):
        uid = derive_uid("large", str(index))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.ImagePositionPatient = [0, 0, 0.5 * index]
        buffer = BytesIO()
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
        yield buffer.getvalue()


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
