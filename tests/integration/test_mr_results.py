"""A model of MR from a folder: `dicomnode segment` on an MR series, judged by others' programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from mr_series import mr_series, signal, write_mr_model
from others import dciodvfy_errors, dsrdump
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.demo.readback import read_segments
from dicomnode.demo.series import write_series

SIGNAL = signal()


def written(folder: Path, files: list[bytes]) -> Path:
    folder.mkdir()
    for number, data in enumerate(files):
        (folder / f"{number}.dcm").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_mr_model(folder)
    return folder


def segment(folder: Path, out: Path, models: Path, *more: str) -> tuple[int, str]:
    """Run `dicomnode segment` with the MR model."""
    arguments = ["segment", folder, "-o", out, "--model", "tiny-mr", "--model-folder", models]
    arguments += ["--device", "cpu", "--threads", "1", "--weights", out / "weights", *more]
    done = CliRunner().invoke(cli.app, [str(word) for word in arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def results(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what was made of the MR series."""
    folder = tmp_path_factory.mktemp("mr")
    source = written(folder / "in", mr_series(SIGNAL))
    code, said = segment(source, folder / "out", models, "--research")
    assert code == 0, said
    (made,) = (path for path in (folder / "out").iterdir() if path.name != "weights")
    return made


def test_dciodvfy_finds_no_error(results: Path) -> None:
    for name in ("seg.dcm", "sr.dcm"):
        assert dciodvfy_errors(results / name) == []


def test_the_files_for_research_lie_beside_them(results: Path) -> None:
    image = nibabel.load(results / "labels.nii.gz")
    with np.load(results / "labels.npz") as stored:
        assert (np.asarray(image.dataobj).transpose(2, 1, 0) == stored["labels"]).all()
    found = json.loads((results / "statistics.json").read_text())
    assert all(row.keys() == {"volume", "intensity"} for row in found.values())
    rows = (results / "structures.csv").read_text().splitlines()
    assert ",1," in rows[1], "signal has no unit"


def items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from items(item)


def test_the_report_gives_signal_without_unit_and_no_hounsfield_units(results: Path) -> None:
    report = pydicom.dcmread(results / "sr.dcm")
    seg = pydicom.dcmread(results / "seg.dcm")
    with np.load(results / "labels.npz") as stored:
        labels = stored["labels"]
    volume = SIGNAL.transpose(2, 1, 0)
    of_segment = {
        item.SegmentNumber: int(item.SegmentDescription.split("label ")[1].split(":")[0])
        for item in seg.SegmentSequence
    }
    assert len(of_segment) >= 2
    groups = [item for item in items(report) if item.get("ContentTemplateSequence")]
    seen = {}
    for group in groups:
        inside = list(items(group))
        numbers = [item for item in inside if item.ValueType == "NUM"]
        segments = [
            item.ReferencedSOPSequence[0].ReferencedSegmentNumber
            for item in inside
            if item.ValueType == "IMAGE"
            and "ReferencedSegmentNumber" in item.ReferencedSOPSequence[0]
        ]
        if segments:
            seen[of_segment[int(np.atleast_1d(segments[0])[0])]] = numbers
    assert set(seen) == set(of_segment.values())
    for label, numbers in seen.items():
        found = {
            (
                item.ConceptNameCodeSequence[0].CodeValue,
                item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
            ): float(item.MeasuredValueSequence[0].NumericValue)
            for item in numbers[::-1]  # the mean comes before the standard deviation
        }
        assert found["110852", "1"] == pytest.approx(volume[labels == label].mean(), abs=0.06)
        assert set(found) <= {("110852", "1"), ("118565006", "mL")}
    text = dsrdump(results / "sr.dcm")
    assert "25056-3" in text
    assert "Hounsfield" not in text
    sentences = [str(item.TextValue) for item in items(report) if item.ValueType == "TEXT"]
    assert (
        "Measured on MR with contrast unknown, field 3 T, sequence GR, echo time 2.5 ms, "
        "repetition time 1800 ms, slice thickness 5 mm, no lossy compression; "
        "the signal has no unit."
    ) in sentences
    assert not any("HU" in sentence or "kVp" in sentence for sentence in sentences)


def test_the_segments_lie_on_the_mr_slices(results: Path) -> None:
    seg = pydicom.dcmread(results / "seg.dcm")
    assert {str(item.Modality) for item in (seg,)} == {"SEG"}
    with np.load(results / "labels.npz") as stored:
        labels, uids = stored["labels"], [str(uid) for uid in stored["sop_instance_uids"]]
    assert (read_segments(results / "seg.dcm", uids, labels.shape) == labels).all()
    referenced = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {item.ReferencedSOPClassUID for item in referenced} == {"1.2.840.10008.5.1.4.1.1.4"}


def test_the_wrong_modality_is_refused(models: Path, tmp_path: Path) -> None:
    hu = np.full((20, 20, 8), -1000, np.int16)
    hu[5:15, 5:15] = 40
    ct = written(tmp_path / "ct", write_series(hu, np.diag([-3.0, -3.0, 3.0, 1.0])))
    code, said = segment(ct, tmp_path / "out", models)
    assert (code != 0, "NOT_MR" in said) == (True, True), said


def test_the_body_is_not_cropped_by_hounsfield_units(models: Path, tmp_path: Path) -> None:
    mr = written(tmp_path / "mr", mr_series(SIGNAL))
    code, said = segment(mr, tmp_path / "out", models, "--body-crop")
    assert (code != 0, "BODY_CROP_NOT_FOR_MR" in said) == (True, True), said


def test_the_card_is_shown_with_what_it_takes_and_requires(tmp_path: Path) -> None:
    write_mr_model(tmp_path, requires={"gpu_memory_gib": 8, "ram_gib": 15.5})
    arguments = ["models", "show", "tiny-mr", "--model-folder", str(tmp_path)]
    shown = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"}).output
    assert "Modality: MR" in shown
    assert "Normalisation: zscore (less the image's own mean, over its SD)" in shown
    assert "Requires: a GPU with 8 GiB, 15.5 GiB of RAM" in shown


def test_a_machine_that_has_not_the_memory_refuses(tmp_path: Path) -> None:
    write_mr_model(tmp_path / "models", requires={"ram_gib": 60000})
    mr = written(tmp_path / "mr", mr_series(SIGNAL))
    code, said = segment(mr, tmp_path / "out", tmp_path / "models")
    assert (code != 0, "DEVICE_TOO_SMALL" in said) == (True, True), said
    assert "requires 60000 GiB of RAM" in said
