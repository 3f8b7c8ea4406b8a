"""Segmentations as plain highdicom makes them: given all slices in full, asked for every frame."""

from __future__ import annotations

import numpy as np
from highdicom.seg import SegmentationTypeValues

from dicomnode.domain.plans import SEG, Plan, ResultInstance
from dicomnode.quiet import quiet_pydicom
from dicomnode.results import Model
from dicomnode.results.common import finish, times
from dicomnode.results.headers import Source
from dicomnode.results.references import refer_to_frames, stand_ins
from dicomnode.results.seg import Segment, make_object
from dicomnode.results.uids import Identifiers
from dicomnode.scan import LabelMap


def by_highdicom(
    kind: SegmentationTypeValues,
    source: Source,
    labels: LabelMap,
    segments: tuple[Segment, ...],
    model: Model,
    plan: Plan,
    identifiers: Identifiers,
) -> ResultInstance:
    """Return the object that highdicom makes of the same arguments, as pydicom writes it."""
    table = np.zeros(256, np.uint8)
    for segment in segments:
        table[segment.label] = segment.number
    numbers = table[labels.labels]
    with quiet_pydicom():
        dataset = make_object(
            kind, stand_ins(source), numbers, source, segments, model, plan, identifiers
        )
        refer_to_frames(dataset, source)
    moment = times(source, plan)
    return finish(dataset, source, identifiers, moment, kind=SEG, summary={})
