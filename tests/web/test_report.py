"""The measurements on a study's page are those of the report, each under its own name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.web.report import measurements, patient


def code(value: str, meaning: str = "") -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "X", meaning or value
    return [item]


def item(name: str, **values: object) -> Dataset:
    made = Dataset()
    made.ConceptNameCodeSequence = code(name)
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def number(name: str, value: float, unit: str, derivation: str | None = None) -> Dataset:
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = value, code(unit)
    made = item(name, MeasuredValueSequence=[measured])
    if derivation:
        made.ContentSequence = [item("121401", ConceptCodeSequence=code(derivation))]
    return made


def attenuation(value: float, derivation: str) -> Dataset:
    return number("112031", value, "[hnsf'U]", derivation)


MEAN, DEVIATION, MEDIAN = "373098007", "386136009", "373099004"


def report(folder: Path, *groups: Dataset) -> Path:
    root = Dataset()
    root.SOPClassUID, root.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3"
    root.ContentSequence = [item("126010", ContentSequence=list(groups))]
    root.file_meta = FileMetaDataset()
    root.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / "sr.dcm"
    root.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_neither_median_nor_deviation_is_taken_for_the_mean(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    values = [attenuation(48, MEAN), attenuation(51, MEDIAN), attenuation(26, DEVIATION)]
    finding = item("121071", ConceptCodeSequence=code("10200004", "Liver"))
    group = item(
        "125007",
        ContentSequence=[finding, *(values[index] for index in order),
                         number("118565006", 1189.5, "mL")],
    )  # fmt: skip
    assert measurements(report(tmp_path, group)) == [
        {"name": "Liver", "volume_ml": 1189.5, "mean": 48, "deviation": 26, "unit": "HU"}
    ]


def test_a_structure_that_is_cut_has_no_volume(tmp_path: Path) -> None:
    site = item("363698007", ConceptCodeSequence=code("x", "Kidney"))
    site.ContentSequence = [item("272741003", ConceptCodeSequence=code("y", "Left"))]
    finding = item("121071", ConceptCodeSequence=code("64033007", "Kidney"))
    group = item("125007", ContentSequence=[finding, site])
    (found,) = measurements(report(tmp_path, group)) or []
    assert (found["name"], found["volume_ml"], found["mean"]) == ("Kidney, left", None, None)


def test_what_cannot_be_read_is_nothing(tmp_path: Path) -> None:
    assert measurements(tmp_path / "missing.dcm") is None
    (tmp_path / "no.dcm").write_bytes(b"no DICOM")
    assert measurements(tmp_path / "no.dcm") is None
    assert patient(tmp_path / "no.dcm") is None
