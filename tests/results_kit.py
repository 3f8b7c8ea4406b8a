"""Results of a small phantom, and what a report of them says."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from analysis_kit import plan
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.alternatives import reports
from dicomnode.domain.identifiers import InstanceUID, SeriesUID, SOPClassUID, TransferSyntaxUID
from dicomnode.domain.plans import LABELMAP, Plan, ResultInstance
from dicomnode.imaging import read_scan
from dicomnode.results import Model, encode, prepare
from dicomnode.results.seg import find_present, find_segments
from dicomnode.results.sr import Report, encode_reports
from dicomnode.results.uids import content_parts
from dicomnode.scan import LabelMap, Scan

LABEL_MAP_STORAGE = SOPClassUID("1.2.840.10008.5.1.4.1.1.66.7")
AFFINE = np.array([[-1.5, 0, 0, 20], [0, -2.0, 0, 30], [0, 0, 2.5, -40], [0, 0, 0, 1]])
HU = np.full((12, 10, 8), -1000, np.int16)
HU[3:9, 2:8] = 60
MODEL = Model(
    id="total-v1",
    title="Model of the tests",
    version="1.5",
    weights_digest="ab" * 32,
    demonstration=False,
    code_table="total_v1_104",
    structures={2: "kidney_right", 5: "liver"},
)


@dataclass(frozen=True, kw_only=True)
class Number:
    label: int
    volume_ml: float = 12.3456
    mean: float | None = 61.26
    sd: float | None = 4.04
    median: float | None = 60.5
    touches_border: bool = False


NUMBERS = (Number(label=2), Number(label=5, volume_ml=1.0, touches_border=True))


def scan_of(**options: Any) -> Scan:
    return read_scan(write_series(HU, AFFINE, SeriesOptions(**options)))


def labels_of(scan: Scan) -> LabelMap:
    labels = np.zeros(scan.volume.shape, np.uint8)
    labels[2:4, 3:6, 4:7] = 2
    labels[3:7, 6:8, 2:5] = 5
    return LabelMap(labels=labels, source_digest=scan.digest)


def results(
    scan: Scan | None = None,
    labels: LabelMap | None = None,
    model: Model = MODEL,
    given: Plan | None = None,
    findings: tuple[str, ...] = (),
) -> tuple[ResultInstance, ...]:
    scan = scan or scan_of()
    labels = labels or labels_of(scan)
    return encode(prepare(scan), labels, model, NUMBERS, given or plan(), findings)


def reports_of_label_map() -> tuple[ResultInstance, ...]:
    """The report of a destination that has the segmentation as a label map, in its forms."""
    scan = scan_of()
    source, labels = prepare(scan), labels_of(scan)
    label_map = ResultInstance(
        kind=LABELMAP,
        sop_class_uid=LABEL_MAP_STORAGE,
        sop_instance_uid=InstanceUID("1.2.3.4"),
        series_uid=SeriesUID("1.2.3.5"),
        transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.5"),
        data=b"",
        summary={},
    )
    report = Report(
        segments=find_segments(source, find_present(labels), MODEL),
        measurements={item.label: item for item in NUMBERS},
        shown_on={2: 2, 5: 4},
        findings=(),
    )
    forms = [form for form in reports([(LABELMAP, "sr")]) if form.refers_to == (LABELMAP,)]
    parts = content_parts(source, labels, MODEL, plan())
    return encode_reports(source, report, MODEL, plan(), parts, forms, {LABELMAP: label_map})


def read(instance: ResultInstance) -> Dataset:
    return pydicom.dcmread(BytesIO(instance.data))


def empty(scan: Scan) -> LabelMap:
    return LabelMap(labels=np.zeros(scan.volume.shape, np.uint8), source_digest=scan.digest)


def code(item: Dataset) -> tuple[str, str]:
    return item.CodeValue, item.CodingSchemeDesignator


def items(dataset: Dataset) -> list[Dataset]:
    """All content items below `dataset`."""
    found = []
    for item in dataset.get("ContentSequence", []):
        found += [item, *items(item)]
    return found


def named(item: Dataset, name: str) -> str | None:
    """What the item says, if its concept is `name`."""
    if item.ConceptNameCodeSequence[0].CodeMeaning != name:
        return None
    if item.ValueType == "CODE":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    return str(item.get("TextValue", item.ValueType))


def comments(dataset: Dataset) -> list[str]:
    evaluations = dataset.ContentSequence[-1]
    assert code(evaluations.ConceptNameCodeSequence[0]) == ("C0034375", "UMLS")
    return [item.TextValue for item in evaluations.ContentSequence]


def groups(dataset: Dataset) -> list[list[Dataset]]:
    return [
        list(item.ContentSequence) for item in items(dataset) if named(item, "Measurement Group")
    ]


def numbers(group: list[Dataset]) -> list[tuple[str, float, str, str | None]]:
    found = []
    for item in group:
        if item.ValueType == "NUM":
            value = item.MeasuredValueSequence[0]
            derivation = [
                child.ConceptCodeSequence[0].CodeMeaning
                for child in item.get("ContentSequence", [])
                if child.ConceptNameCodeSequence[0].CodeValue == codes.DCM.Derivation.value
            ]
            found.append(
                (
                    item.ConceptNameCodeSequence[0].CodeMeaning,
                    float(value.NumericValue),
                    value.MeasurementUnitsCodeSequence[0].CodeValue,
                    derivation[0] if derivation else None,
                )
            )
    return found
