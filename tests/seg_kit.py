"""Series and labels for tests of Segmentations, and these as plain highdicom makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from analysis_kit import plan
from highdicom.seg import SegmentationTypeValues
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.plans import SEG, Plan, ResultInstance
from dicomnode.imaging import read_scan
from dicomnode.quiet import quiet_pydicom
from dicomnode.results import Model, prepare
from dicomnode.results.common import finish, times
from dicomnode.results.headers import Source
from dicomnode.results.references import refer_to_frames, stand_ins
from dicomnode.results.seg import Segment, make_object
from dicomnode.results.uids import Identifiers
from dicomnode.scan import LabelMap

MODEL = Model(
    id="total-v1",
    title="Model of the tests",
    version="1.5",
    weights_digest="ab" * 32,
    demonstration=False,
    code_table="total_v1_104",
    structures={},
)
STRAIGHT = np.diag([-1.5, -2.0, 2.5, 1.0])
ORIENTATIONS = {
    "axial": STRAIGHT,
    "from the feet": np.diag([-1.5, -2.0, -2.5, 1.0]),
    "prone": np.diag([1.5, 2.0, 2.5, 1.0]),
    "sagittal": STRAIGHT[[2, 0, 1, 3]],
    "coronal": STRAIGHT[[0, 2, 1, 3]],
}
PLAN = plan(objects=("seg",))


def turned() -> NDArray[np.float64]:
    """An oblique stack, 33 degrees about an axis that is none of the patient's."""
    axis, angle = np.array([1, 2, 3]) / np.sqrt(14), np.radians(33)
    cross = np.cross(np.eye(3), axis)
    rotation = np.eye(4)
    rotation[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation @ STRAIGHT


def source_of(
    shape: tuple[int, int, int], affine: NDArray[np.float64] = STRAIGHT, **options: Any
) -> Source:
    """A series of so many slices, rows and columns."""
    files = write_series(np.zeros(shape[::-1], np.int16), affine, SeriesOptions(**options))
    return prepare(read_scan(files))


def scattered(shape: tuple[int, ...], labels: int, seed: int = 0) -> NDArray[np.uint8]:
    """So many labels everywhere, the first and the last slices but one empty."""
    cells = np.random.default_rng(seed).integers(0, labels + 1, shape, dtype=np.uint8)
    cells[0] = cells[-2] = 0
    return cells


def by_highdicom(
    kind: SegmentationTypeValues,
    source: Source,
    labels: LabelMap,
    segments: tuple[Segment, ...],
    model: Model,
    plan: Plan,
    identifiers: Identifiers,
) -> ResultInstance:
    """Return the object that highdicom makes of all slices in full, as pydicom writes it."""
    table = np.zeros(256, np.uint8)
    for segment in segments:
        table[segment.label] = segment.number
    numbers = table[labels.labels]
    with quiet_pydicom():
        dataset = make_object(
            kind,
            stand_ins(source),
            numbers,
            source,
            segments,
            model,
            plan,
            identifiers,
            name="seg" if kind.name == "BINARY" else "labelmap",
            syntax=ExplicitVRLittleEndian if kind.name == "BINARY" else RLELossless,
        )
        refer_to_frames(dataset, source)
    moment = times(source, plan)
    return finish(dataset, source, identifiers, moment, kind=SEG, summary={})
