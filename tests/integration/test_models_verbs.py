"""`dicomnode models` against weights in the upstream formats: what a person types, and sees."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from file_server import FileServer, serve
from shapes import assert_said
from tiny_nnunet import write_folder
from upstream_formats import V1_TRAINER, V2_TRAINER, small, write_v1, write_v2, zip_up

from dicomnode import cli
from dicomnode.demo.series import write_series
from inference.catalog import load_catalog
from inference.engines import has_half

TASK = "Task256_TotalSegmentator_3mm_1139subj"
DATASET = "Dataset298_TotalSegmentator_total_6mm_1559subj"
Run = Callable[..., tuple[int, str, str]]
MODELS_PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in this process; gives exit code, standard output and standard error."""
    config = tmp_path / "node.yaml"
    config.write_text("storage: {folder: state}\nwork: {model_folders: [models]}\n")
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("DICOMNODE_CONFIG", str(config))
    monkeypatch.setenv("DICOMNODE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("COLUMNS", "300")
    # Commands set up the log for the stream of their process, which here ends with the test.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dicomnode", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out, shown.err

    return run


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """A release with small networks of all the classes of the real ones."""
    folder = tmp_path_factory.mktemp("release")
    write_v1(folder, small(105), task=TASK)
    names = [s.name for s in load_catalog().card("total-v2-fastest").structures]
    write_v2(folder, small(118, spacing=6.0), dataset=DATASET, names=names)
    for name in (TASK, DATASET):
        zip_up(folder / name, folder / f"{name}.zip")
    with serve(folder) as state:
        yield state


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT series of some blocks in air."""
    folder = tmp_path_factory.mktemp("series")
    hu = np.full((24, 26, 16), -1000, np.int16)
    hu[4:20, 5:22, 2:14] = 40
    hu[8:12, 9:15, 4:10] = 300
    for index, data in enumerate(write_series(hu, np.diag([-3.0, -3.0, 3.0, 1.0]))):
        (folder / f"{index}.dcm").write_bytes(data)
    return folder


def test_list_and_show_tell_what_there_is(run: Run) -> None:
    code, shown, _ = run("models", "list")
    assert code == 0
    for model in ("demo", "total-v1", "total-v1-fast", "total-v2-fastest"):
        assert re.search(rf"^{model} ", shown, re.MULTILINE)
    code, shown, _ = run("models", "list", "--json")
    assert_said("models list", json.loads(shown))
    cards = {card["id"]: card for card in json.loads(shown)}
    assert (cards["demo"]["installed"], cards["total-v1"]["installed"]) == (True, False)
    assert len(cards["total-v2"]["structures"]) == 117
    code, shown, _ = run("models", "show", "total-v1")
    assert code == 0
    for said in (
        "not for diagnosis",
        "No medical device, no regulatory clearance",
        "neighbouring vertebrae or ribs taken for each other",
        "CC BY 4.0",
        "10.1148/ryai.230024",
        "[1.5, 1.5, 1.5] mm, RAS",
        "step size 0.5, softmax",
        "Modality: CT",
        "Normalisation: CT (plans' percentiles, mean and SD of HU)",
        "Requires: nothing in particular",
        "RDE1955",
        "Part cardiac: 18 structures, not installed",
        "urinary_bladder",
    ):
        assert said in shown, said
    code, shown, _ = run("models", "show", "total-v1", "--json")
    assert json.loads(shown)["requires"] == {"gpu_memory_gib": None, "ram_gib": None}
    code, _, said = run("models", "show", "nonesuch")
    assert code == 2
    assert "model 'nonesuch' is not in the catalog; known: demo, total-v1" in said


def test_from_download_to_patients(
    run: Run, release: FileServer, series: Path, tmp_path: Path
) -> None:
    model = "total-v1-fast"
    segment = ("segment", series, "--model", model, "--device", "cpu", "--exact", "-o")
    code, _, said = run(*segment, tmp_path / "out")
    assert code == 1
    assert f"dicomnode models install {model}" in said

    code, shown, _ = run("models", "install", model, "--from", release.address)
    assert code == 0
    assert f"{model}: total: installed from {release.address}/{TASK}.zip" in shown
    assert f"model '{model}' was never commissioned on this node" in shown
    assert run("models", "verify", model)[0] == 0

    code, shown, said = run(*segment, tmp_path / "out")
    assert code == 3
    assert "MODEL_NOT_COMMISSIONED" in said
    code, shown, _ = run(*segment, tmp_path / "out", "--json")
    assert code == 3
    assert_said("segment", json.loads(shown))
    assert [one["reason"] for one in json.loads(shown)] == ["MODEL_NOT_COMMISSIONED"]
    assert f"dicomnode models commission {model}" in said
    assert not (tmp_path / "out").exists()
    assert run(*segment, tmp_path / "out", "--uncommissioned")[0] == 0
    (results,) = (tmp_path / "out").iterdir()
    assert {path.name for path in results.iterdir()} == {
        "seg.dcm",
        "preview.dcm",
        "preview.png",
        "sr.dcm",
        "labels.npz",
    }

    commission = ("models", "commission", model, "--reference", series, "--device", "cpu")
    labels = results / "labels.npz"
    code, shown, _ = run(*commission, "--labels", labels, "--exact", "--by", "Dr. A", "--json")
    assert code == 0
    entry = json.loads(shown)
    assert_said("models commission", entry)
    assert (entry["passed"], entry["by"], entry["agreement"]["mean_dice"]) == (True, "Dr. A", 1.0)
    code, shown, _ = run(*segment, tmp_path / "again", "--json")
    assert code == 0
    (one,) = json.loads(shown)
    assert_said("segment", [one])
    assert [item["kind"] for item in one["results"]] == ["seg", "preview", "sr"]
    assert Path(one["folder"], one["results"][0]["file"]).stat().st_size > 0

    other = dict(np.load(labels))
    other["labels"] = (other["labels"] + 1) % 105
    np.savez(tmp_path / "other.npz", **other)
    code, shown, _ = run(*commission, "--labels", tmp_path / "other.npz")
    assert code == 1
    assert "NOT commissioned" in shown
    assert ("16-bit floats on cpu: " in shown) == has_half(torch.device("cpu"))
    assert run(*segment, tmp_path / "third")[0] == 3


def test_a_name_is_asked_for_and_recorded(run: Run, release: FileServer, tmp_path: Path) -> None:
    model = "total-v2-fastest"
    assert run("models", "commission", model, "--accept", "Dr. A")[0] == 1, "not installed"
    assert run("models", "install", model, "--from", release.address)[0] == 0
    code, _, said = run("models", "commission", model)
    assert code == 2
    assert "--reference FOLDER and --labels FILE" in said
    assert run("models", "commission", model, "--accept", " ")[0] == 2
    assert run("models", "commission", "demo", "--accept", "Dr. A")[0] == 2
    code, shown, _ = run("models", "commission", model, "--accept", "Dr. A")
    assert code == 0
    assert "without a case, by name, Dr. A" in shown
    record = tmp_path / "weights" / model / "commissioned.json"
    assert json.loads(record.read_text())["entries"][0]["by"] == "Dr. A"
    code, shown, _ = run("models", "list", "--json")
    states = {card["id"]: card["commissioned"] for card in json.loads(shown)}
    assert states[model] == ""
    assert states["total-v1"] == "not installed"


def test_import_takes_a_whole_tree(run: Run, release: FileServer, tmp_path: Path) -> None:
    old = tmp_path / ".totalsegmentator/nnunet/results/nnUNet/3d_fullres"
    new = tmp_path / ".totalsegmentator/nnunet/results"
    old.mkdir(parents=True)
    (old / TASK).symlink_to(release.folder / TASK)  # links are passed over
    code, _, said = run("models", "import", tmp_path / ".totalsegmentator")
    assert code == 1
    assert "it holds no nnU-Net model; expected " in said
    (old / TASK).unlink()
    (release.folder / TASK).rename(old / TASK)
    (release.folder / DATASET).rename(new / DATASET)
    try:
        code, shown, _ = run("models", "import", tmp_path / ".totalsegmentator", "--json")
    finally:
        (old / TASK).rename(release.folder / TASK)
        (new / DATASET).rename(release.folder / DATASET)
    assert code == 0
    assert_said("models import", json.loads(shown))
    found = {(item["model"], item["part"], item["new"]) for item in json.loads(shown)}
    assert found == {("total-v1-fast", "total", True), ("total-v2-fastest", "total", True)}
    code, shown, _ = run("models", "verify", "--json")
    assert code == 0
    assert {item["model"] for item in json.loads(shown)} == {
        "demo",
        "total-v1-fast",
        "total-v2-fastest",
    }


def test_verify_finds_a_changed_file(run: Run, release: FileServer, tmp_path: Path) -> None:
    run("models", "import", release.folder / f"{DATASET}.zip")
    (tmp_path / "weights/total-v2-fastest/total/plans.json").write_text("{}")
    code, shown, _ = run("models", "verify")
    assert code == 1
    assert re.search(r"^total-v2-fastest: .*plans\.json: sha256 is ", shown, re.MULTILINE)
    assert re.search(r"^demo: good$", shown, re.MULTILINE)
    code, shown, _ = run("models", "verify", "total-v1", "--json")
    assert code == 1
    assert "not installed" in json.loads(shown)[0]["fault"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("import", "nowhere"), 1, "nowhere: no such file or folder"),
        (("install", "nonesuch"), 2, "not in the catalog"),
        (("install", "total-v1-fast", "--from", "ftp://x"), 1, "expected an address with http"),
        (("install", "total-v1", "--from", "{}/none"), 1, "404 Not Found; it is not there"),
        (("list", "--config", "nowhere.yaml"), 2, "cannot be read"),
    ],
)
def test_faults_are_told_in_one_text(
    run: Run, release: FileServer, arguments: tuple[str, ...], code: int, said: str
) -> None:
    filled = [argument.format(release.address) for argument in arguments]
    ended, _, shown = run("models", *filled)
    assert ended == code
    assert said in shown


def test_the_model_of_the_documentation_works(run: Run, series: Path, tmp_path: Path) -> None:
    """The card, the label table and the codes of docs/models.md, with a network beside them."""
    page = MODELS_PAGE.read_text()
    (card,) = re.findall(r"^```yml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    table, codes = re.findall(r"^```csv\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    home = tmp_path / "models" / "thigh"
    write_folder(home / "network", classes=3, spacing_zyx=(1.5, 1.5, 1.5), patch=(16, 16, 16))
    (home / "card.yaml").write_text(card)
    (home / "codes.csv").write_text(codes)
    (tmp_path / "models/structures").mkdir()
    (tmp_path / "models/structures/thigh.csv").write_text(table)
    segment = ("segment", series, "--model", "thigh", "--device", "cpu", "-o", tmp_path / "out")
    segment += ("--model-folder", tmp_path / "models", "--exact")
    code, _, said = run(*segment)
    assert code == 1
    assert "dicomnode models install thigh" in said
    code, shown, _ = run("models", "install", "thigh")
    assert code == 0, shown
    assert run(*segment)[0] == 3
    assert run("models", "commission", "thigh", "--accept", "Dr. A")[0] == 0
    code, shown, said = run(*segment)
    assert code == 0, said
    (results,) = (tmp_path / "out").iterdir()
    found = _segments(results / "seg.dcm")
    assert found <= {("Left femur", "71341001", "7771000"), ("Right femur", "71341001", "24028007")}
    assert found
    (home / "codes.csv").write_text(codes.replace("Left femur", "Femur left"))
    assert run(*segment)[0] == 3, "other codes make another model"
    (home / "codes.csv").write_text(codes.rsplit("\n", 2)[0] + "\n")
    code, _, said = run(*segment)
    assert code == 1
    assert "lacks femur_right" in said


def _segments(path: Path) -> set[tuple[Any, ...]]:
    import pydicom

    return {
        (
            item.SegmentLabel,
            item.SegmentedPropertyTypeCodeSequence[0].CodeValue,
            item.SegmentedPropertyTypeCodeSequence[0]
            .SegmentedPropertyTypeModifierCodeSequence[0]
            .CodeValue,
        )
        for item in pydicom.dcmread(path).SegmentSequence
    }


def test_trainers_of_the_formats_are_those_of_the_cards() -> None:
    catalog = load_catalog()
    assert catalog.card("total-v1-fast").parts[0].trainer == V1_TRAINER
    assert catalog.card("total-v2-fastest").parts[0].trainer == V2_TRAINER
