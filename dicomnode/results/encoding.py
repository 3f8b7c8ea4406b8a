"""From a label map and its measurements to the result set, in the order it is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.alternatives import whole_report
from dicomnode.domain.findings import Finding
from dicomnode.domain.plans import (
    LABELMAP,
    PREVIEW,
    RTSTRUCT,
    SEG,
    SEG_PARTS,
    SR,
    Plan,
    ResultInstance,
)
from dicomnode.results import labelmap, preview, rtstruct, seg, sr
from dicomnode.results.common import slices_used
from dicomnode.results.headers import Source, value_of
from dicomnode.results.model import Measured, Model
from dicomnode.results.research import encode_files
from dicomnode.results.uids import content_parts, identify
from dicomnode.scan import LabelMap


def encode(
    source: Source,
    labels: LabelMap,
    model: Model,
    measurements: Sequence[Measured],
    plan: Plan,
    findings: Sequence[str] = (),
    coded: Sequence[Finding] = (),
) -> tuple[ResultInstance, ...]:
    """Return the plan's objects in their order; only preview and SR where nothing is found.

    The report comes last, in each of the plan's forms.

    Args:
        source: from `headers.prepare`.
        labels: made from the same scan.
        measurements: one for every label that occurs.
        findings: sentences for the report.
        coded: findings with a code, whose sentences are among them.

    Raises:
        ValueError: the label map is of another scan or shape, or a label is unknown.
    """
    scan = source.scan
    if labels.source_digest != scan.digest:
        raise ValueError("the label map was made from another scan")
    if labels.labels.shape != scan.volume.shape:
        raise ValueError(f"label map {labels.labels.shape} on a scan of {scan.volume.shape}")
    present = seg.find_present(labels)
    segments = seg.find_segments(source, present, model)
    parts = content_parts(source, labels, model, plan)
    series_uid = str(source.headers[0].SeriesInstanceUID)
    made = _segmentations(source, labels, present, segments, model, plan, parts)
    if segments and RTSTRUCT in plan.objects:
        identifiers = identify(RTSTRUCT, rtstruct.SOP_CLASS_UID, parts, plan, series_uid)
        made[RTSTRUCT] = rtstruct.encode_rtstruct(
            source, labels, segments, measurements, model, plan, identifiers
        )
    if PREVIEW in plan.objects:
        made[PREVIEW] = _preview(
            source, labels, segments, model, measurements, plan, findings, coded
        )
    files = encode_files(source, labels, model, measurements, plan, parts, coded)
    if SR not in plan.objects:
        return (*made.values(), *files)
    report = sr.Report(
        segments=segments,
        measurements={item.label: item for item in measurements},
        shown_on=_middle_slices(present),
        findings=tuple(findings),
        coded=tuple(coded),
    )
    forms = sr.forms_that_can_be(plan.reports or whole_report(plan.objects), made)
    said = sr.encode_reports(source, report, model, plan, parts, forms, made)
    return (*made.values(), *said, *files)


def _segmentations(
    source: Source,
    labels: LabelMap,
    present: NDArray[np.bool_],
    segments: Sequence[seg.Segment],
    model: Model,
    plan: Plan,
    parts: tuple[str, ...],
) -> dict[str, ResultInstance]:
    """Return the plan's Segmentations of what was found, by their kinds."""
    series_uid = str(source.headers[0].SeriesInstanceUID)
    made: dict[str, ResultInstance] = {}
    for kind in (kind for kind in (SEG, *SEG_PARTS) if kind in plan.objects):
        system = SEG_PARTS.get(kind)
        mine = seg.of_system(segments, model, system) if system else tuple(segments)
        if mine:
            uids = identify(kind, seg.SOP_CLASS_UID, parts, plan, series_uid)
            made[kind] = seg.encode_seg(source, labels, present, mine, model, plan, uids, kind=kind)
    if segments and LABELMAP in plan.objects:
        uids = identify(LABELMAP, labelmap.SOP_CLASS_UID, parts, plan, series_uid)
        made[LABELMAP] = labelmap.encode_labelmap(
            source, labels, present, segments, model, plan, uids
        )
    return made


def _middle_slices(present: NDArray[np.bool_]) -> dict[int, int]:
    """Return by label the index of the slice in the middle of those that show it."""
    slices = {label: np.flatnonzero(shown) for label, shown in enumerate(present.T)}
    return {label: int(found[len(found) // 2]) for label, found in slices.items() if len(found)}


def _preview(
    source: Source,
    labels: LabelMap,
    segments: Sequence[seg.Segment],
    model: Model,
    measurements: Sequence[Measured],
    plan: Plan,
    findings: Sequence[str],
    coded: Sequence[Finding],
) -> ResultInstance:
    number = value_of(source.acquisition, "SeriesNumber")
    page = preview.draw_page(
        preview.Content(
            scan=source.scan,
            labels=labels.labels,
            model=model,
            measurements=measurements,
            findings=findings,
            severities={one.sentence: one.severity for one in coded},
            series_number=None if number is None else int(number),
            slices=slices_used(source, plan),
        )
    )
    # The pixels too: another release of Pillow writes other letters.
    drawn = hashlib.sha256(page.tobytes()).hexdigest()
    parts = (*content_parts(source, labels, model, plan), drawn)
    series_uid = str(source.headers[0].SeriesInstanceUID)
    identifiers = identify(PREVIEW, preview.SOP_CLASS_UID, parts, plan, series_uid)
    names = [segment.codes.name for segment in segments]
    return preview.encode_preview(source, page, names, model, plan, identifiers)
