"""Which model may serve patients: the record, and what makes it void."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analysis_kit import ConstantPredictor, model_card, plan

from dicomnode import agreement, checks, commissioning, pipeline
from dicomnode.commissioning import (
    Agreement,
    HalfAgreement,
    StructureAgreement,
    entries,
    half_on,
    record,
    why_not,
)
from dicomnode.demo.series import write_series
from dicomnode.errors import DicomnodeError, Refusal
from dicomnode.imaging import read_scan
from dicomnode.pipeline import Analyzer
from dicomnode.settings import parse
from inference.card import CatalogError, ModelCard, Part, WeightsError
from inference.catalog import Catalog

HU = np.full((10, 12, 8), -1000, np.int16)
HU[2:8, 2:9] = 50
FILES = write_series(HU, np.diag([-2.0, -2.0, 3.0, 1.0]))
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def card_in(weights: Path, digit: str = "a", **changes: Any) -> ModelCard:
    part = Part(name="all", folder=weights, labels=(0, 1), sha256={"plans.json": digit * 64})
    return replace(model_card(), parts=(part,), weights=weights / "test-model", **changes)


def agreement_of(dice: float, minimum: float = 0.8, half: HalfAgreement | None = None) -> Agreement:
    structure = StructureAgreement(
        label=1, name="spleen", dice=dice, found_voxels=10, reference_voxels=10
    )
    return Agreement(
        source_digest="0" * 64,
        reference_sha256="1" * 64,
        device="cpu",
        mode="fast",
        minimum=minimum,
        mean_dice=dice,
        structures=(structure,),
        half=half,
    )


CUDA = frozenset({"cuda"})


@pytest.mark.parametrize(
    ("device", "differing", "least_dice", "used_on"),
    [
        ("cpu", 0.001, 0.999, {"cpu", "cuda"}),
        ("cpu", 0.0011, 1.0, {"cuda"}),
        ("cpu", 0.0, 0.9989, {"cuda"}),
        ("cuda", 0.0, 1.0, {"cuda"}),
        ("cuda", 0.0, 0.9, set()),
    ],
)
def test_half_precision_is_used_where_it_was_measured_to_agree(
    tmp_path: Path, device: str, differing: float, least_dice: float, used_on: set[str]
) -> None:
    card = card_in(tmp_path)
    assert half_on(card, CUDA) == CUDA
    measured = HalfAgreement(device=device, differing=differing, least_dice=least_dice)
    record(card, "Dr. A", agreement_of(0.95, half=measured), NOW)
    assert half_on(card, CUDA) == used_on
    assert pipeline.run_options(plan().options, card).half_on == used_on
    assert half_on(replace(card, weights=tmp_path / "other"), CUDA) == CUDA
    record(card, "Dr. B", None, NOW)
    assert half_on(card, CUDA) == CUDA, "accepted by name: nothing was measured"


def test_a_model_is_commissioned_by_its_reference_case(tmp_path: Path) -> None:
    card = card_in(tmp_path)
    assert "was never commissioned" in why_not(card)
    entry = record(card, "Dr. A", agreement_of(0.95), NOW)
    assert (entry.how, entry.passed, entry.by) == ("reference", True, "Dr. A")
    assert why_not(card) == ""
    stored = json.loads((tmp_path / "test-model" / "commissioned.json").read_text())["entries"]
    assert stored[0]["agreement"]["structures"][0]["dice"] == 0.95
    assert stored[0]["weights_digest"] == card.weights_digest()
    assert stored[0]["at"] == "2026-03-04T05:06:07+00:00"


def test_a_name_stands_for_a_case_and_is_recorded(tmp_path: Path) -> None:
    card = card_in(tmp_path)
    record(card, "Dr. A", None, NOW)
    assert why_not(card) == ""
    (entry,) = entries(card)
    assert (entry.how, entry.by, entry.agreement) == ("accepted", "Dr. A", None)


def test_too_little_agreement_is_recorded_and_does_not_count(tmp_path: Path) -> None:
    card = card_in(tmp_path)
    assert not record(card, "Dr. A", agreement_of(0.79), NOW).passed
    assert "failed its commissioning on 2026-03-04" in why_not(card)
    record(card, "Dr. A", agreement_of(0.8), NOW)
    assert why_not(card) == ""
    record(card, "Dr. A", agreement_of(0.3), NOW)
    assert "failed" in why_not(card), "the last word counts"
    assert [entry.passed for entry in entries(card)] == [False, True, False], "nothing is lost"


def test_other_weights_ask_again(tmp_path: Path) -> None:
    record(card_in(tmp_path), "Dr. A", None, NOW)
    other = card_in(tmp_path, digit="b")
    assert "the weights changed from" in why_not(other)
    record(other, "Dr. B", None, NOW)
    assert why_not(other) == ""
    assert why_not(card_in(tmp_path)) == "", "the first weights were commissioned too"


def test_another_version_of_the_node_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_in(tmp_path)
    record(card, "Dr. A", None, NOW)
    monkeypatch.setattr(commissioning, "__version__", "99.0")
    assert "the node's version changed from" in why_not(card)
    assert "to 99.0" in why_not(card)


def test_demonstration_models_need_none(tmp_path: Path) -> None:
    assert why_not(card_in(tmp_path, demonstration=True)) == ""


def test_the_record_of_another_model_does_not_count(tmp_path: Path) -> None:
    card = card_in(tmp_path)
    record(card, "Dr. A", None, NOW)
    assert "commission other" in why_not(replace(card, id="other"))


def test_a_damaged_record_commissions_nothing(tmp_path: Path) -> None:
    card = card_in(tmp_path)
    record(card, "Dr. A", None, NOW)
    path = tmp_path / "test-model" / "commissioned.json"
    path.write_text(path.read_text()[:-20])
    assert "damaged" in why_not(card)
    with pytest.raises(DicomnodeError, match="damaged"):
        record(card, "Dr. A", None, NOW)
    with pytest.raises(DicomnodeError, match="no weights folder"):
        record(replace(card, weights=None), "Dr. A", None, NOW)


# Where it is enforced


def analyzer_of(card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> Analyzer:
    monkeypatch.setattr(pipeline, "load_catalog", lambda *_: Catalog(cards={card.id: card}))
    return Analyzer(lambda *_: ConstantPredictor())


def test_the_analysis_refuses_a_model_that_is_not_commissioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_in(tmp_path)
    analyzer = analyzer_of(card, monkeypatch)
    with pytest.raises(Refusal) as caught:
        analyzer(FILES, plan())
    assert caught.value.code == "MODEL_NOT_COMMISSIONED"
    assert "dicomnode models commission test-model" in caught.value.detail
    assert analyzer(FILES, plan(commissioned_only=False)).results
    record(card, "Dr. A", None, NOW)
    assert analyzer(FILES, plan()).results


def test_a_warm_model_is_asked_again_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_in(tmp_path)
    record(card, "Dr. A", None, NOW)
    analyzer = analyzer_of(card, monkeypatch)
    analyzer(FILES, plan())
    record(card, "Dr. A", agreement_of(0.1), NOW)
    with pytest.raises(Refusal, match="MODEL_NOT_COMMISSIONED"):
        analyzer(FILES, plan())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code_table": "none"}, "there is no code table 'none'"),
        ({"parts": (Part(name="x", folder=Path(), labels=(0, 1), sha256={}),)}, "not installed"),
    ],
)
def test_a_model_that_cannot_end_well_is_refused_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    card = replace(card_in(tmp_path), **change)
    with pytest.raises(CatalogError, match=said):
        analyzer_of(card, monkeypatch)(FILES, plan())


def test_a_code_table_has_every_structure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_in(tmp_path)
    more = replace(card.structures[0], label=200, name="thing")
    card = replace(card, structures=(*card.structures, more))
    with pytest.raises(CatalogError, match="'total_v1_104' lacks thing"):
        analyzer_of(card, monkeypatch)(FILES, plan())


def test_check_names_rules_whose_model_is_not_ready(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"work: {{weights_folder: {tmp_path}}}\n"
        "rules: [{name: a, model: total-v1-fast}, {name: b, model: demo}]"
    )
    (fault,) = checks.check_models(parse(config.read_text(), config), config)
    assert fault.startswith(f"{config}:2:")
    assert ": rules.0.model: " in fault
    assert "dicomnode models install total-v1-fast" in fault


# The agreement


def test_dice_by_structure(tmp_path: Path) -> None:
    card = card_in(tmp_path)
    found, reference = np.zeros((2, 4, 5, 6), np.uint8)
    reference[0, :2, :2] = 1
    found[0, :2, 1:3] = 1
    found[3] = 2
    reference[2, 0, 0] = 3
    compared = {item.label: item for item in agreement.compare(found, reference, card)}
    assert [compared[label].dice for label in (1, 2, 3)] == [0.5, 0.0, 0.0]
    assert (compared[1].found_voxels, compared[1].reference_voxels) == (4, 4)
    assert commissioning.mean_dice(list(compared.values())) == 0.25, "what only we find is shown"
    reference[0, 0, 0] = 250
    with pytest.raises(DicomnodeError, match=r"labels \[250\], which 'test-model' does not"):
        agreement.compare(found, reference, card)


def test_reference_labels_as_nifti_land_on_their_voxels(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    scan = read_scan(FILES)
    labels = np.random.default_rng(0).integers(0, 5, scan.volume.shape).astype(np.uint8)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ scan.affine
    image = nibabel.Nifti1Image(labels, affine)
    for codes in (("R", "A", "S"), ("L", "P", "I"), ("S", "R", "A"), ("P", "I", "R")):
        orientation = nibabel.orientations.axcodes2ornt(codes)
        here = nibabel.orientations.io_orientation(affine)
        turned = image.as_reoriented(nibabel.orientations.ornt_transform(here, orientation))
        assert nibabel.aff2axcodes(turned.affine) == codes
        nibabel.save(turned, tmp_path / "labels.nii.gz")
        assert np.array_equal(agreement.read_labels(tmp_path / "labels.nii.gz", scan), labels)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, x: (a[:-1], x), "expected .* as in the series"),
        (lambda a, x: (a, x @ shifted(0, 0.3)), "voxels beside the grid"),
        (lambda a, x: (a, x @ shifted(2, 1.0)), "voxels beside the grid"),
        (lambda a, x: (a, x @ np.diag([1.1, 1, 1, 1])), "voxels beside the grid"),
        (lambda a, x: (a + 0.5, x), "whole numbers"),
        (lambda a, x: (a - 10.0, x), "whole numbers"),
        (lambda a, x: (a[..., None], x), "expected three axes"),
    ],
)
def test_reference_labels_on_another_grid_are_refused(
    tmp_path: Path, change: Any, said: str
) -> None:
    nibabel = pytest.importorskip("nibabel")
    scan = read_scan(FILES)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ scan.affine
    array, placed = change(np.ones(scan.volume.shape, np.float32), affine)
    nibabel.save(nibabel.Nifti1Image(array, placed), tmp_path / "labels.nii")
    with pytest.raises(DicomnodeError, match=said):
        agreement.read_labels(tmp_path / "labels.nii", scan)


def shifted(axis: int, voxels: float) -> Any:
    moved = np.eye(4)
    moved[axis, 3] = voxels
    return moved


def test_reference_labels_of_another_series_are_refused(tmp_path: Path) -> None:
    scan = read_scan(FILES)
    labels = np.ones(scan.volume.shape, np.uint8)
    path = tmp_path / "labels.npz"
    np.savez(path, labels=labels, sop_instance_uids=np.array(scan.sop_instance_uids))
    assert np.array_equal(agreement.read_labels(path, scan), labels)
    np.savez(path, labels=labels, sop_instance_uids=np.array(scan.sop_instance_uids[::-1]))
    with pytest.raises(DicomnodeError, match="of another series"):
        agreement.read_labels(path, scan)
    path.write_bytes(b"no zip")
    with pytest.raises(DicomnodeError, match=r"no labels\.npz"):
        agreement.read_labels(path, scan)
    with pytest.raises(DicomnodeError, match=r"expected reference labels as \.npz"):
        agreement.read_labels(tmp_path / "labels.txt", scan)


def test_what_is_not_installed_cannot_be_commissioned(tmp_path: Path) -> None:
    part = Part(name="x", folder=Path(), labels=(0, 1), sha256={})
    with pytest.raises(WeightsError, match="not installed"):
        record(replace(card_in(tmp_path), parts=(part,)), "Dr. A")
