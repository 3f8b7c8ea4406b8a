"""From a label map and its measurements to the result set, in the order it is sent."""

from __future__ import annotations

from collections.abc import Sequence

from dicomnode.domain.plans import SEG, SR, Plan, ResultInstance
from dicomnode.results import seg, sr
from dicomnode.results.headers import Source
from dicomnode.results.model import Measured, Model
from dicomnode.results.uids import content_parts, identify
from dicomnode.scan import LabelMap


def encode(
    source: Source,
    labels: LabelMap,
    model: Model,
    measurements: Sequence[Measured],
    plan: Plan,
    findings: Sequence[str] = (),
) -> tuple[ResultInstance, ...]:
    """Return SEG and SR; the SR alone where nothing was found.

    Args:
        source: from `headers.prepare`.
        labels: made from the same scan.
        measurements: one for every label that occurs.
        findings: sentences for the report.

    Raises:
        ValueError: the label map is of another scan or shape, or a label is unknown.
    """
    scan = source.scan
    if labels.source_digest != scan.digest:
        raise ValueError("the label map was made from another scan")
    if labels.labels.shape != scan.volume.shape:
        raise ValueError(f"label map {labels.labels.shape} on a scan of {scan.volume.shape}")
    segments = seg.find_segments(source, labels, model)
    parts = content_parts(source, labels, model, plan)
    series_uid = str(source.headers[0].SeriesInstanceUID)
    segmentation: ResultInstance | None = None
    if segments:
        identifiers = identify(SEG, seg.SOP_CLASS_UID, parts, plan, series_uid)
        segmentation = seg.encode_seg(source, labels, segments, model, plan, identifiers)
    referred = segmentation.sop_instance_uid if segmentation else ""
    report = sr.Report(
        segments=segments,
        measurements={item.label: item for item in measurements},
        findings=tuple(findings),
        seg_uid=segmentation.sop_instance_uid if segmentation else None,
        seg_series_uid=segmentation.series_uid if segmentation else None,
    )
    identifiers = identify(SR, sr.SOP_CLASS_UID, (*parts, *findings, referred), plan, series_uid)
    document = sr.encode_sr(source, report, model, plan, identifiers)
    return (segmentation, document) if segmentation else (document,)
