"""Real CT series of the test data, each with a label map on its own slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from analysis_kit import files_below, plan
from numpy.typing import NDArray

from dicomnode.domain.identifiers import derive_uid
from dicomnode.domain.plans import ResultInstance
from dicomnode.imaging import read_scan
from dicomnode.results import Model, encode, prepare
from dicomnode.results.codes import load_codes
from dicomnode.scan import LabelMap, Scan
from inference.catalog import Structure
from inference.measuring import measure
from inference.phantom import Body

RAS_FROM_LPS = np.diag([-1.0, -1, 1, 1])
FILLED = {
    "PatientID": "FILLED-IN",
    "StudyInstanceUID": derive_uid("filled in", "study"),
    "SeriesInstanceUID": derive_uid("filled in", "series"),
    "FrameOfReferenceUID": derive_uid("filled in", "frame"),
}


def filled_in(files: list[bytes], values: Mapping[str, str] = FILLED) -> list[bytes]:
    """Fill attributes that are missing; a SOP Instance UID is made of each file's place."""
    written = []
    for index, data in enumerate(files):
        dataset = pydicom.dcmread(BytesIO(data))
        for keyword, value in values.items():
            if not dataset.get(keyword):
                setattr(dataset, keyword, value)
        if not dataset.get("SOPInstanceUID"):
            dataset.SOPInstanceUID = derive_uid("filled in", str(index))
        buffer = BytesIO()
        dataset.save_as(buffer)
        written.append(buffer.getvalue())
    return written


@dataclass(frozen=True, kw_only=True)
class RealSeries:
    """A real series and a label map [slice, row, column] for it."""

    files: list[bytes]
    scan: Scan
    labels: NDArray[np.uint8]
    code_table: str

    @cached_property
    def model(self) -> Model:
        return Model(
            id="real",
            title="Label map of the tests",
            version="1",
            weights_digest="ab" * 32,
            demonstration=False,
            code_table=self.code_table,
            structures={},
        )

    def results(self, *objects: str) -> dict[str, ResultInstance]:
        """Encode objects of the label map; by kind."""
        codes = load_codes(self.code_table)
        structures = [Structure(label=label, name=row.name) for label, row in codes.items()]
        scan = self.scan
        numbers = measure(scan.volume, self.labels, scan.voxel_volumes_mm3, structures, scan.valid)
        found = LabelMap(labels=self.labels, source_digest=scan.digest)
        made = encode(prepare(scan), found, self.model, numbers, plan(objects=objects))
        return {item.kind: item for item in made}


def siemens(test_data: Path) -> RealSeries:
    """The Siemens series, with UIDs filled in, and the v2 label map its publishers made of it."""
    files = filled_in(files_below(test_data / "totalsegmentator/example_ct_dicom"))
    scan = read_scan(files)
    published = nibabel.load(test_data / "totalsegmentator/example_seg_dicom.nii.gz")
    theirs = np.asarray(published.dataobj).astype(np.uint8)
    onto = np.linalg.inv(published.affine) @ RAS_FROM_LPS @ scan.affine
    indices = np.moveaxis(np.indices(scan.volume.shape), 0, -1)
    places = indices @ onto[:3, :3].T + onto[:3, 3]
    nearest = np.rint(places).astype(int)
    assert np.abs(places - nearest).max() < 0.01, "the label map lies on another grid"
    labels = theirs[tuple(np.moveaxis(nearest, -1, 0))]
    return RealSeries(files=files, scan=scan, labels=labels, code_table="total_v2_117")


def ge(test_data: Path) -> RealSeries:
    """The GE series, with the organs of an invented body laid over it."""
    files = files_below(test_data / "crlm-ct-1004/image")
    scan = read_scan(files)
    affine = RAS_FROM_LPS @ scan.affine
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(scan.volume.shape) - 1) / 2)
    labels = np.ascontiguousarray(Body(3).render(scan.volume.shape, affine)[1])
    return RealSeries(files=files, scan=scan, labels=labels, code_table="total_v1_104")
