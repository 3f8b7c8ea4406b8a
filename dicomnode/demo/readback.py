"""Read a SEG back by its own attributes alone, independent of the code that wrote it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

_LABEL = re.compile(r"label (\d+):")


def read_segments(
    path: Path,
    sop_instance_uids: Sequence[str],
    shape: tuple[int, ...],
    frame_numbers: Sequence[int] = (),
) -> NDArray[np.uint8]:
    """Return the label map that a BINARY Segmentation holds (PS3.3 section C.8.20).

    Every frame goes to the slice whose SOP Instance UID it refers to; the label is the number that
    its Segment Description gives.

    Args:
        path: of the SEG.
        sop_instance_uids: of the source's slices, in the order of the first axis.
        shape: [slice, row, column].
        frame_numbers: of those slices, 0 where one is no frame; needed only where some are.
    """
    seg = pydicom.dcmread(path)
    frames_of = frame_numbers or [0] * len(sop_instance_uids)
    names = zip(sop_instance_uids, frames_of, strict=True)
    slices = {name: number for number, name in enumerate(names)}
    label_of = {int(item.SegmentNumber): _label(item) for item in seg.SegmentSequence}
    frames = np.atleast_3d(seg.pixel_array)
    labels = np.zeros(shape, dtype=np.uint8)
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        frame_number = int(source.get("ReferencedFrameNumber") or 0)
        place = slices[str(source.ReferencedSOPInstanceUID), frame_number]
        if (labels[place][frame == 1] != 0).any():
            raise ValueError(f"{path.name}: two segments share a voxel")
        labels[place][frame == 1] = label_of[number]
    return labels


def _label(segment: Dataset) -> int:
    found = _LABEL.search(str(segment.SegmentDescription))
    if found is None:
        raise ValueError(f"segment {segment.SegmentNumber} does not name the model's label")
    return int(found[1])
