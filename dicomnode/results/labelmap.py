"""Label map -> Label Map Segmentation, RLE Lossless (PS3.3 A.51, Segmentation Type LABELMAP).

One frame for every slice, those without a structure too, and one number a voxel: the model's own
label is the Segment Number, 0 the background. A tenth of a BINARY Segmentation's frames; readers
have it only since 2024, so destinations get it where they are configured so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from highdicom.frame import encode_frame
from highdicom.seg import SegmentationTypeValues
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from dicomnode.domain.plans import LABELMAP, Plan, ResultInstance
from dicomnode.quiet import quiet_pydicom
from dicomnode.results.common import finish, times
from dicomnode.results.frames import write_encapsulated
from dicomnode.results.headers import Source
from dicomnode.results.model import Model
from dicomnode.results.references import as_points, refer_to_frames, stand_ins
from dicomnode.results.seg import Segment, first_numbers, items_by_slice, make_object
from dicomnode.results.uids import Identifiers
from dicomnode.scan import LabelMap

SOP_CLASS_UID = "1.2.840.10008.5.1.4.1.1.66.7"


def encode_labelmap(
    source: Source,
    labels: LabelMap,
    present: NDArray[np.bool_],
    segments: Sequence[Segment],
    model: Model,
    plan: Plan,
    identifiers: Identifiers,
) -> ResultInstance:
    """Return the Label Map Segmentation of `segments` (at least one) on the grid of the source.

    As in `seg.encode_seg` highdicom makes the object of one voxel a slice; it would search the
    whole label map for values without a segment, which `find_segments` has done.

    Args:
        present: from `seg.find_present`.
    """
    numbered = [replace(segment, number=segment.label) for segment in segments]
    images = as_points(stand_ins(source))
    marks = first_numbers(present, numbered)
    with quiet_pydicom():
        dataset = make_object(
            SegmentationTypeValues.LABELMAP,
            images,
            marks,
            source,
            numbered,
            model,
            plan,
            identifiers,
            name=LABELMAP,
        )
        order = tuple(items_by_slice(dataset, images))
        refer_to_frames(dataset, source)
        _, dataset.Rows, dataset.Columns = labels.labels.shape
        dataset.file_meta.TransferSyntaxUID = RLELossless  # one voxel is not worth compressing
        dataset.PixelData = encapsulate([_encode(labels.labels[plane]) for plane in order])
    return finish(
        dataset,
        source,
        identifiers,
        times(source, plan),
        kind=LABELMAP,
        summary={"segments": len(segments), "frames": len(order)},
        write=write_encapsulated,
        folder=plan.results_folder,
    )


def _encode(image: NDArray[np.uint8]) -> bytes:
    """Return a slice in RLE (PS3.5 annex G)."""
    encoded: bytes = encode_frame(
        image,
        transfer_syntax_uid=RLELossless,
        bits_allocated=8,
        bits_stored=8,
        photometric_interpretation="MONOCHROME2",
        pixel_representation=0,
    )
    return encoded
