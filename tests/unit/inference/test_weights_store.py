"""Installing and importing: whole or not at all, recorded at first, verified ever after."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from file_server import FileServer, serve
from tiny_nnunet import write_folder
from upstream_formats import V1_TRAINER, V2_TRAINER, small, write_v1, write_v2, zip_up

from inference.card import ModelCard, WeightsError, installed, verify
from inference.card_document import NNUNET_FILES
from inference.catalog import load_catalog
from inference.nnunet import NnunetPredictor
from inference.record import RECORD_FILE
from inference.weights.store import bring, install

V1_TASKS = ("Task901_Small_part1", "Task902_Small_part2")
V2_DATASET = "Dataset903_Small"
CHECKPOINT = "fold_0/checkpoint_final.pth"


def write_card(models: Path, model_id: str, parts: list[dict[str, Any]], **changes: Any) -> None:
    """A card of six structures whose weights are installed from archives."""
    table = models / "structures" / "six.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("label,name\n" + "".join(f"{n},thing_{n}\n" for n in range(1, 7)))
    card = {
        "id": model_id,
        "title": "Small random model",
        "version": "1",
        "family": "nnU-Net",
        "task": "test",
        "spacing_mm": [3.0, 3.0, 3.0],
        "orientation": "RAS",
        "step_size": 0.5,
        "zoom_order": 3,
        "demonstration": True,
        "code_table": "none",
        "licence": "Apache-2.0",
        "citation": "none",
        "intended_use": "tests",
        "limits": [],
        "figures": {},
        "source": "http://127.0.0.1:9/unused",
        "structures": "six",
        "parts": parts,
        **changes,
    }
    path = models / model_id / "card.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(card))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two cards: `old` of two nnU-Net v1 parts, `new` of one nnU-Net v2 part."""
    folder = tmp_path / "models"
    labels: tuple[dict[int, int], ...] = ({1: 1, 2: 2, 3: 3, 4: 4}, {1: 6, 2: 5})
    write_card(
        folder,
        "old",
        [
            {"name": f"part{n}", "archive": task, "trainer": V1_TRAINER, "labels": table}
            for n, (task, table) in enumerate(zip(V1_TASKS, labels, strict=True), start=1)
        ],
    )
    part = {"name": "all", "archive": V2_DATASET, "trainer": V2_TRAINER, "labels": "identity"}
    write_card(folder, "new", [part])
    return folder


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """Unpacked weights in the upstream formats."""
    folder = tmp_path / "upstream"
    write_v1(folder, small(5), task=V1_TASKS[0], seed=1, numpy_1=True)
    write_v1(folder, small(3), task=V1_TASKS[1], seed=2)
    write_v2(folder, small(7), dataset=V2_DATASET)
    return folder


@pytest.fixture
def release(tmp_path: Path, upstream: Path) -> Iterator[FileServer]:
    folder = tmp_path / "release"
    folder.mkdir()
    for name in V1_TASKS:
        zip_up(upstream / name, folder / f"{name}.zip", inside="3d_fullres/")
    zip_up(upstream / V2_DATASET, folder / f"{V2_DATASET}.zip")
    with serve(folder) as state:
        yield state


def card_of(models: Path, model_id: str) -> ModelCard:
    return load_catalog([models], models.parent / "weights").card(model_id)


def record_of(models: Path, model_id: str) -> dict[str, Any]:
    path = models.parent / "weights" / model_id / RECORD_FILE
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_release_is_installed_and_runs(models: Path, release: FileServer) -> None:
    card = card_of(models, "old")
    assert not installed(card)
    told: list[str] = []
    done = install(card, address=release.address, report=lambda what, *_: told.append(what))
    assert [(part.part, part.new) for part in done] == [("part1", True), ("part2", True)]
    assert f"{V1_TASKS[0]}.zip" in told
    card = card_of(models, "old")
    assert installed(card)
    verify(card)
    image = np.random.default_rng(0).normal(0, 300, (20, 16, 24)).astype(np.float32)
    labels = NnunetPredictor(card).predict(image)
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4, 5, 6}
    home = models.parent / "weights"
    assert sorted(path.name for path in (home / "old").iterdir()) == [
        ".lock",
        "installed.json",
        "part1",
        "part2",
    ]
    assert [path.name for path in (home / "downloads").iterdir()] == [".lock"]


def test_the_record_says_what_came_from_where(models: Path, release: FileServer) -> None:
    install(card_of(models, "old"), address=release.address)
    part = record_of(models, "old")["parts"]["part1"]
    assert part["origin"] == f"{release.address}/{V1_TASKS[0]}.zip"
    assert part["format"] == "nnU-Net v1"
    assert sorted(part["files"]) == sorted(NNUNET_FILES)
    assert len(part["archive_sha256"]) == 64
    assert len(part["origin_files"]) == 2
    card = card_of(models, "old")
    assert dict(card.parts[0].sha256) == part["files"]
    assert len(card.weights_digest()) == 64


def test_what_is_installed_is_not_fetched_again(models: Path, release: FileServer) -> None:
    install(card_of(models, "new"), address=release.address)
    release.ranges.clear()
    (done,) = install(card_of(models, "new"), address=release.address)
    assert not done.new
    assert release.ranges == []


def test_a_tree_of_upstream_is_imported(models: Path, upstream: Path, tmp_path: Path) -> None:
    tree = tmp_path / "home" / ".totalsegmentator"
    old = tree / "nnunet/results/nnUNet/3d_fullres"
    shutil.copytree(upstream / V1_TASKS[0], old / V1_TASKS[0])
    shutil.copytree(upstream / V1_TASKS[1], old / V1_TASKS[1])
    shutil.copytree(upstream / V2_DATASET, tree / "nnunet/results" / V2_DATASET)
    cards = [card_of(models, "new"), card_of(models, "old")]
    done = bring(cards, tree)
    assert {(part.model, part.part) for part in done} == {
        ("old", "part1"),
        ("old", "part2"),
        ("new", "all"),
    }
    for model_id in ("old", "new"):
        verify(card_of(models, model_id))
    origin = upstream / V2_DATASET / V2_TRAINER / CHECKPOINT
    copy = card_of(models, "new").parts[0].folder / CHECKPOINT
    assert copy.read_bytes() == origin.read_bytes(), "v2 weights stay as they are"


def test_parts_may_be_carried_one_by_one(models: Path, release: FileServer) -> None:
    bring([card_of(models, "old")], release.folder / f"{V1_TASKS[1]}.zip")
    card = card_of(models, "old")
    assert not installed(card)
    with pytest.raises(WeightsError, match="part 'part1' are not installed"):
        verify(card)
    bring([card], release.folder / f"{V1_TASKS[0]}.zip")
    verify(card_of(models, "old"))


def test_a_changed_file_is_found_and_mended(models: Path, release: FileServer) -> None:
    install(card_of(models, "old"), address=release.address)
    digest = card_of(models, "old").weights_digest()
    checkpoint = card_of(models, "old").parts[0].folder / CHECKPOINT
    checkpoint.write_bytes(b"other")
    with pytest.raises(WeightsError, match="sha256 is"):
        NnunetPredictor(card_of(models, "old"))
    done = install(card_of(models, "old"), address=release.address)
    assert [part.new for part in done] == [True, False]
    verify(card_of(models, "old"))
    assert card_of(models, "old").weights_digest() == digest


def test_other_files_than_the_first_ones_need_a_word(
    models: Path, upstream: Path, tmp_path: Path
) -> None:
    bring([card_of(models, "old")], upstream)
    digest = card_of(models, "old").weights_digest()
    other = tmp_path / "other"
    write_v1(other, small(5), task=V1_TASKS[0], seed=77)
    with pytest.raises(WeightsError, match=r"other files than the ones recorded .* --replace"):
        bring([card_of(models, "old")], other)
    verify(card_of(models, "old"))
    assert card_of(models, "old").weights_digest() == digest
    bring([card_of(models, "old")], other, replace=True)
    verify(card_of(models, "old"))
    assert card_of(models, "old").weights_digest() != digest


def test_a_card_can_pin_the_archive_and_the_files(
    models: Path, release: FileServer, tmp_path: Path
) -> None:
    install(card_of(models, "new"), address=release.address)
    known = record_of(models, "new")["parts"]["all"]
    path = models / "new" / "card.yaml"
    card = yaml.safe_load(path.read_text())
    for pins, said in (
        ({"archive_sha256": "0" * 64}, "expects the archive 0000"),
        ({"sha256": {**known["files"], CHECKPOINT: "0" * 64}}, "the card expects"),
        ({"archive_sha256": known["archive_sha256"], "sha256": known["files"]}, ""),
    ):
        shutil.rmtree(tmp_path / "weights")
        pinned = {**card, "parts": [{**card["parts"][0], **pins}]}
        path.write_text(yaml.safe_dump(pinned))
        if said:
            with pytest.raises(WeightsError, match=said):
                install(card_of(models, "new"), address=release.address)
            assert not installed(card_of(models, "new"))
        else:
            install(card_of(models, "new"), address=release.address)
            verify(card_of(models, "new"))


def test_the_wrong_task_is_named(models: Path, upstream: Path, release: FileServer) -> None:
    wrong = release.folder / f"{V1_TASKS[0]}.zip"
    zip_up(upstream / V1_TASKS[1], wrong)
    with pytest.raises(WeightsError, match=f"holds {V1_TASKS[1]}/.*; expected {V1_TASKS[0]}/"):
        install(card_of(models, "old"), address=release.address)
    with pytest.raises(WeightsError, match=f"nothing to install: it holds {V2_DATASET}/"):
        bring([card_of(models, "old")], upstream / V2_DATASET)


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        (small(4), "structures besides the background: expected 4, found 3"),
        (small(5, spacing=1.5), r"the card's spacing: expected \[3.0, 3.0, 3.0\], found"),
    ],
)
def test_a_network_that_does_not_fit_the_card_is_refused(
    models: Path, tmp_path: Path, architecture: Any, said: str
) -> None:
    write_v1(tmp_path / "w", architecture, task=V1_TASKS[0])
    with pytest.raises(WeightsError, match=said):
        bring([card_of(models, "old")], tmp_path / "w")
    home = tmp_path / "weights" / "old"
    assert [path.name for path in home.iterdir()] == [".lock"]


def test_structures_in_another_order_are_refused(models: Path, tmp_path: Path) -> None:
    names = [f"thing_{number}" for number in (1, 2, 3, 5, 4, 6)]
    write_v2(tmp_path / "w", small(7), dataset=V2_DATASET, names=names)
    with pytest.raises(WeightsError, match=r"label 4 .* is 'thing_5'; the card expects 'thing_4'"):
        bring([card_of(models, "new")], tmp_path / "w")


def test_a_damaged_archive_is_fetched_anew_next_time(models: Path, release: FileServer) -> None:
    path = release.folder / f"{V2_DATASET}.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    with pytest.raises(WeightsError, match="damaged or incomplete"):
        install(card_of(models, "new"), address=release.address)
    assert not installed(card_of(models, "new"))
    path.write_bytes(whole)
    install(card_of(models, "new"), address=release.address)
    verify(card_of(models, "new"))


def test_no_space_leaves_nothing_behind(
    models: Path, release: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = release.folder / f"{V2_DATASET}.zip"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(WeightsError, match=r"no space for part 'all' of 'new': it needs .* MB"):
        bring([card_of(models, "new")], archive)
    with pytest.raises(WeightsError, match="no space for Dataset"):
        install(card_of(models, "new"), address=release.address)
    sizes = iter([10**12, 10])  # room for the archive, none for what is in it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=next(sizes)))
    with pytest.raises(WeightsError, match="no space for part 'all'"):
        install(card_of(models, "new"), address=release.address)
    assert (models.parent / "weights/downloads" / archive.name).exists(), "not fetched twice"
    assert not installed(card_of(models, "new"))
    assert not list((models.parent / "weights").rglob("*.pth"))


def test_one_command_at_a_time(models: Path, upstream: Path) -> None:
    home = models.parent / "weights" / "new"
    home.mkdir(parents=True)
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(WeightsError, match="another command is installing"):
            bring([card_of(models, "new")], upstream)


def test_a_model_of_ones_own_lies_beside_its_card(models: Path) -> None:
    part = {"name": "mine", "folder": "mine", "labels": "identity"}
    write_card(models, "own", [part], source=None)
    write_folder(models / "own" / "mine", classes=7, spacing_zyx=(3.0, 3.0, 3.0))
    with pytest.raises(WeightsError, match="dicomnode models install own"):
        NnunetPredictor(card_of(models, "own"))
    (done,) = install(card_of(models, "own"))
    assert done.new
    verify(card_of(models, "own"))
    NnunetPredictor(card_of(models, "own"))
    (models / "own" / "mine" / "plans.json").write_text("{}")
    with pytest.raises(WeightsError, match="sha256 is"):
        NnunetPredictor(card_of(models, "own"))
    with pytest.raises(WeightsError, match=r"other files than the ones recorded .* --replace"):
        install(card_of(models, "own"))


def test_a_damaged_record_is_named(models: Path, upstream: Path) -> None:
    bring([card_of(models, "new")], upstream)
    path = models.parent / "weights" / "new" / RECORD_FILE
    path.write_text("{")
    with pytest.raises(WeightsError, match=r"installed\.json: damaged"):
        load_catalog([models], models.parent / "weights")
