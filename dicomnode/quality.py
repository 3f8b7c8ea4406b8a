"""The checks of headers and label map, between the scan and what follows from their findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.findings import Finding
from dicomnode.domain.subject import Subject, check_subject
from dicomnode.scan import RAS_FROM_LPS, Scan
from inference.measuring import Edges, Measurement
from inference.quality import check_labels


def subject_findings(scan: Scan) -> Iterator[Finding]:
    """Yield what the headers say of the patient that a reader of the results has to know."""

    def text(keyword: str) -> str:
        return str(scan.header.get(keyword) or "")

    yield from check_subject(
        Subject(
            age=text("PatientAge"),
            birth_date=text("PatientBirthDate"),
            study_date=text("StudyDate") or text("AcquisitionDate"),
            body_part=text("BodyPartExamined"),
            quality_control=text("QualityControlImage"),
            patient=(text("PatientName"), text("PatientID")),
            descriptions=(
                text("StudyDescription"),
                text("SeriesDescription"),
                text("ProtocolName"),
            ),
        )
    )


def label_findings(
    scan: Scan,
    labels: NDArray[np.uint8],
    names: Mapping[int, str],
    measurements: Sequence[Measurement],
    edges: Edges,
) -> Iterator[Finding]:
    """Yield what the label map says of itself.

    Args:
        scan: that the labels lie on.
        labels: [slice, row, column].
        names: of the labels that were looked for.
        measurements: of those that occur.
        edges: those that the field of view cuts.
    """
    volumes = {item.label: item.volume_ml for item in measurements}
    for seen in check_labels(labels, RAS_FROM_LPS @ nearest_affine(scan), names, volumes, edges):
        yield Finding(
            code=seen.code,
            sentence=seen.sentence,
            structures=seen.structures,
            severity=seen.severity,
        )


def nearest_affine(scan: Scan) -> NDArray[np.float64]:
    """Return the scan's affine; of an irregular one with even steps through its positions."""
    if scan.is_regular:
        return scan.affine
    affine = scan.affine.copy()
    numbers = np.arange(len(scan.positions))
    affine[:3, 0], affine[:3, 3] = np.polyfit(numbers, scan.positions, 1)
    return affine
