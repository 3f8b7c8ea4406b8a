"""Model cards: what is read, and how a fault is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_nnunet import write_model

from inference import catalog
from inference.card import Requirements
from inference.catalog import (
    CatalogError,
    Structure,
    WeightsError,
    installed,
    load_catalog,
    read_card,
    read_structures,
    verify,
)

CHECKPOINT = "fold_0/checkpoint_final.pth"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    card = yaml.safe_load(path.read_text())
    change(card)
    path.write_text(yaml.safe_dump(card, sort_keys=False))


def line_of(path: Path, text: str) -> int:
    return next(n for n, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_a_card_is_read(tmp_path: Path) -> None:
    parts = {"organs": {1: 3, 2: 1}, "bones": {1: 4, 2: 0, 3: 2}}
    path = write_model(tmp_path, parts=parts, spacing_xyz=(1.5, 2, 3))
    card = load_catalog([tmp_path]).card("tiny")
    assert card.structures[0] == Structure(label=1, name="thing_1")
    assert [s.label for s in card.structures] == [1, 2, 3, 4]
    assert [part.labels for part in card.parts] == [(0, 3, 1), (0, 4, 0, 2)]
    assert [part.name for part in card.parts] == ["organs", "bones"]
    assert card.parts[1].folder == (tmp_path / "tiny" / "bones").resolve()
    assert card.spacing_mm == (1.5, 2.0, 3.0)
    assert (card.orientation, card.zoom_order, card.step_size) == ("RAS", 3, 0.5)
    assert card.limits == ("random weights",)
    assert card.demonstration is True
    assert card.root == path.parent.resolve()
    assert installed(card)
    verify(card)


def test_identity_keeps_the_labels(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path, structures=4))
    assert card.parts[0].labels == (0, 1, 2, 3, 4)


def test_the_catalog_knows_its_cards(tmp_path: Path) -> None:
    for model_id in ("second", "first"):
        write_model(tmp_path, model_id=model_id)
    found = load_catalog([tmp_path])
    assert set(found.ids()) >= {"first", "second"}
    assert list(found.ids()) == sorted(found.ids())
    with pytest.raises(CatalogError, match=r"model 'third' is not in the catalog; known: .*first"):
        found.card("third")


def test_bundled_cards_are_good() -> None:
    found = load_catalog()
    total = ["total-v1", "total-v1-fast", "total-v2", "total-v2-fast", "total-v2-fastest"]
    assert [*found.ids()] == ["demo", *total]
    verify(found.card("demo"))
    assert not any(found.card(model_id).demonstration for model_id in total)


@pytest.mark.parametrize(
    ("model_id", "classes", "parts", "spacing", "way"),
    [
        ("total-v1", 104, [17, 24, 18, 21, 24], 1.5, (0.5, 3, "softmax")),
        ("total-v1-fast", 104, [104], 3.0, (0.5, 3, "softmax")),
        ("total-v2", 117, [24, 26, 18, 23, 26], 1.5, (0.8, 1, "logits")),
        ("total-v2-fast", 117, [117], 3.0, (0.8, 1, "logits")),
        ("total-v2-fastest", 117, [117], 6.0, (0.8, 1, "logits")),
    ],
)
def test_the_cards_of_totalsegmentator(
    model_id: str, classes: int, parts: list[int], spacing: float, way: tuple[float, int, str]
) -> None:
    card = load_catalog().card(model_id)
    assert len(card.structures) == classes
    assert [len(part.labels) - 1 for part in card.parts] == parts
    found = sorted(label for part in card.parts for label in part.labels[1:])
    assert found == list(range(1, classes + 1)), "every structure is found by one part"
    assert card.spacing_mm == (spacing,) * 3
    assert (card.step_size, card.zoom_order, card.aggregation) == way
    assert card.code_table == f"total_{model_id[6:8]}_{classes}"
    assert "not for diagnosis" in card.intended_use
    assert any("15 %" in limit and "ribs" in limit for limit in card.limits)
    assert card.source is not None
    assert card.source.endswith(f"/{'v1.5.6' if 'v1' in model_id else 'v2.0.0'}-weights")


def test_the_parts_of_version_1_do_not_stand_in_the_order_of_the_labels() -> None:
    card = load_catalog().card("total-v1")
    names = {s.label: s.name for s in card.structures}
    cardiac, muscles = card.parts[2], card.parts[3]
    assert [names[label] for label in cardiac.labels[-2:]] == ["urinary_bladder", "face"]
    assert names[muscles.labels[1]] == "humerus_left"
    assert names[muscles.labels[-1]] == "iliopsoas_right"


def test_weights_that_are_not_installed_are_told_with_what_installs_them(tmp_path: Path) -> None:
    card = load_catalog(weights=tmp_path).card("total-v1")
    assert not installed(card)
    assert card.parts[0].folder == tmp_path / "total-v1" / "organs"
    for use in (verify, lambda card: card.weights_digest()):
        with pytest.raises(WeightsError, match="`dicomnode models install total-v1`"):
            use(card)


def test_an_id_occurs_once(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_model(tmp_path / folder)
    with pytest.raises(CatalogError, match=r"b/tiny/card.yaml: id: 'tiny' is taken by .*a/tiny"):
        load_catalog([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(CatalogError, match="not a folder"):
        load_catalog([tmp_path / "none"])


def test_the_weights_digest_follows_files_and_labels(tmp_path: Path) -> None:
    one = read_card(write_model(tmp_path / "1"))
    same = read_card(write_model(tmp_path / "2"))
    assert len(one.weights_digest()) == 64
    assert one.parts[0].sha256["plans.json"] == same.parts[0].sha256["plans.json"]
    digests = {one.weights_digest()}
    for labels in ({1: 1, 2: 2, 3: 3, 4: 4}, {1: 2, 2: 1, 3: 3, 4: 4}):
        path = write_model(tmp_path / str(labels), parts={"all": labels})
        edit(path, lambda card: card["parts"][0].update(sha256=dict(one.parts[0].sha256)))
        digests.add(read_card(path).weights_digest())
    assert len(digests) == 2, "labels 1 to 4 are the identity; swapped ones are not"


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path))
    checkpoint = card.parts[0].folder / CHECKPOINT
    checkpoint.write_bytes(b"other")
    assert installed(card)
    expected = card.parts[0].sha256[CHECKPOINT]
    with pytest.raises(
        WeightsError, match=rf"{CHECKPOINT}: sha256 is d9298a.*; expected {expected}"
    ):
        verify(card)
    checkpoint.unlink()
    assert not installed(card)
    with pytest.raises(WeightsError, match=rf"{CHECKPOINT}: cannot be read .*No such file"):
        verify(card)


@pytest.mark.parametrize(
    ("change", "at", "fault"),
    [
        (
            lambda c: c.update(colour="red"),
            "colour",
            r"colour: unknown key; expected one of id,",
        ),
        (lambda c: c["parts"][0].update(fold=0), "fold:", r"parts.0.fold: unknown key; .*folder"),
        (lambda c: c.update(version=1), "version", "version: expected a valid string"),
        (lambda c: c.update(orientation="LPS"), "orientation", "orientation: expected 'RAS'"),
        (lambda c: c.update(step_size=0), "step_size", "step_size: expected greater than 0"),
        (lambda c: c.update(step_size=1.5), "step_size", "step_size: expected less than or equal"),
        (lambda c: c.update(zoom_order=2), "zoom_order", "zoom_order: expected 1 or 3"),
        (
            lambda c: c.update(demonstration="no"),
            "demonstration",
            "demonstration: expected",
        ),
        (lambda c: c["spacing_mm"].pop(), "spacing_mm", "spacing_mm: List should have at least 3"),
        (lambda c: c.update(structures="lost"), "structures", "there is no table 'lost'; expected"),
        (lambda c: c.update(id="Tiny"), "id:", "id: String should match pattern"),
        (
            lambda c: c.update(id="other"),
            "id:",
            "id: is 'other'; expected the folder's",
        ),
        (
            lambda c: c["parts"][0].update(folder="../elsewhere"),
            "folder:",
            "parts.0.folder: '../elsewhere': expected a relative path without",
        ),
        (
            lambda c: c["parts"][0].update(labels={1: 1, 3: 3}),
            "labels:",
            "parts.0.labels: expected `identity` or {part label: model label}",
        ),
        (
            lambda c: c["parts"][0].update(labels={1: 300}),
            "labels:",
            "parts.0.labels: expected .* model labels from 0 to 255",
        ),
        (
            lambda c: c["parts"][0].update(labels={1: 1, 2: 2, 3: 3, 4: 44}),
            "labels:",
            r"parts.0.labels: \[44\] expected labels of 'tiny', or 0",
        ),
        (
            lambda c: c["parts"][0].update(labels={1: 1, 2: 2, 3: 3}),
            "parts:",
            "parts: no part finds thing_4; expected every structure of 'tiny'",
        ),
        (
            lambda c: c["parts"][0]["sha256"].pop("plans.json"),
            "sha256:",
            "parts.0.sha256: expected the hashes of plans.json too",
        ),
        (
            lambda c: c["parts"][0]["sha256"].update({"plans.json": "abc"}),
            "sha256:",
            "parts.0.sha256: plans.json: expected 64 hexadecimal digits",
        ),
        (
            lambda c: c["parts"][0].update(archive="Task251_x", trainer="t"),
            "name: all",
            "parts.0: expected either a folder beside the card or an archive",
        ),
        (
            lambda c: c["parts"][0].update(archive="../Task251"),
            "archive:",
            "parts.0.archive: String should match",
        ),
        (
            lambda c: c["parts"][0].update(trainer="t"),
            "name: all",
            "parts.0: expected a trainer with an archive, and only with one",
        ),
        (lambda c: c.update(source="ftp://x/y"), "source:", "source: String should match"),
        (lambda c: c.update(aggregation="sum"), "aggregation", "expected 'softmax' or 'logits'"),
        (lambda c: c.update(code_table="../codes.csv"), "code_table", "String should match"),
        (lambda c: c.update(code_table="./lost.csv"), "code_table", "expected a file .*lost.csv"),
        (lambda c: c.update(modality="PT"), "modality", "expected 'CT' or 'MR'"),
        (lambda c: c.update(normalisation="ZScore"), "normalisation", "'zscore', 'nonorm' or"),
        (lambda c: c.update(modality="MR"), "id:", "expected a normalisation other than CT"),
        (
            lambda c: c.update(requires={"gpu_memory_gib": 0}),
            "gpu_memory_gib",
            "requires.gpu_memory_gib: expected greater than 0",
        ),
        (
            lambda c: c.update(requires={"vram": 8}),
            "vram",
            "requires.vram: unknown key; expected one of gpu_memory_gib, ram_gib",
        ),
    ],
)
def test_a_fault_names_file_line_key_and_expectation(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], at: str, fault: str
) -> None:
    path = write_model(tmp_path)
    edit(path, change)
    with pytest.raises(CatalogError, match=rf"{path}:{line_of(path, at)}: .*{fault}"):
        read_card(path)


def test_a_card_says_modality_normalisation_and_memory(tmp_path: Path) -> None:
    plain = read_card(write_model(tmp_path / "ct"))
    assert (plain.modality, plain.normalisation) == ("CT", "CT")
    assert plain.requires == Requirements()
    keys = {"modality": "MR", "requires": {"gpu_memory_gib": 8, "ram_gib": 15.5}}
    card = read_card(write_model(tmp_path / "mr", scheme="zscore", **keys))
    assert (card.modality, card.normalisation) == ("MR", "zscore")
    assert card.requires == Requirements(gpu_memory_gib=8, ram_gib=15.5)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    edit(path, lambda card: (card.pop("licence"), card.update(title="", task=3)))
    with pytest.raises(CatalogError) as caught:
        read_card(path)
    told = str(caught.value).splitlines()
    assert told[0].startswith(f"{path}:{line_of(path, 'title')}: title: ")
    assert told[1].startswith(f"{path}:{line_of(path, 'task')}: task: ")
    assert told[2] == f"{path}:1: licence: is missing; expected this key"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id: a\nid: b\n", ":2: id: occurs twice"),
        ("id: [a\n", ":2: "),
        ("a: 1\n  b: 2\n", ":2: mapping values are not allowed here"),
        ("", ":1: card: expected a valid dictionary"),
        ("- 1\n", ":1: card: expected a valid dictionary"),
        ("id: !!python/object/apply:os.system ['true']\n", ":1: could not determine a constructor"),
        ("id: \x07\n", ":1: "),
    ],
)
def test_what_is_no_card(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(CatalogError) as caught:
        read_card(path)
    assert str(caught.value).startswith(f"{path}{fault}")


def test_a_card_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"card.yaml: cannot be read: No such file"):
        read_card(tmp_path / "card.yaml")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", ":1: expected the header"),
        ("name,label\n", ":1: expected the header"),
        ("label,name\n", ":2: expected at least one structure"),
        ("label,name\n0,spleen\n", ":2: expected a label from 1 to 255"),
        ("label,name\n256,spleen\n", ":2: expected a label from 1 to 255"),
        ("label,name\n1,spleen\n2,\n", ":3: expected a label"),
        ("label,name\n1,spleen\n1,liver\n", ":3: 'liver' or label 1 occurs twice"),
        ("label,name\n1,spleen\n2,spleen\n", ":3: 'spleen' or label 2 occurs twice"),
    ],
)
def test_what_is_no_label_table(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(CatalogError) as caught:
        read_structures(path)
    assert str(caught.value).startswith(f"{path}{fault}")


def test_the_catalog_loads_no_torch() -> None:
    code = "import sys, inference.catalog; sys.exit('torch' in sys.modules)"
    root = Path(catalog.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
