"""The recipe: it learns, it resumes where it stopped, and what it writes is an nnU-Net v2 model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from inference.catalog import load_catalog, read_card, verify
from inference.nnunet import NnunetPredictor
from inference.training import loop
from inference.training.evaluate import CLASSES, bodies, dice, large, on_bodies
from inference.training.export import half, write_card, write_folder
from inference.training.loop import Recipe, State, rate_at, train, variation_at
from inference.training.plans import FOLDER, PATCH, architecture, dataset, structures
from inference.training.samples import IGNORED, draw, load_real, normalise, pick

PATCH_TINY = (16, 16, 16)
PROPERTIES = {"mean": -60.0, "std": 400.0, "percentile_00_5": -870.0, "percentile_99_5": 520.0}


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Intensities without a measurement; torch as this process had it, afterwards."""
    monkeypatch.setattr(loop, "intensities", lambda: dict(PROPERTIES))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def _recipe(out: Path, iterations: int, *, rate: float = 0.05) -> Recipe:
    return Recipe(
        out=out, minutes=1000.0, device="cpu", threads=1, real=None, patch=PATCH_TINY,
        features=(4, 8, 8), rate=rate, iterations=iterations,
    )  # fmt: skip


def test_the_loss_falls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    real_step = loop.step

    def step(*args: object) -> float:
        seen.append(real_step(*args))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(loop, "step", step)
    train(_recipe(tmp_path, 120, rate=0.1))
    assert np.mean(seen[-10:]) < 0.8 * np.mean(seen[:4])


def test_a_resumed_run_is_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.time, "monotonic", lambda: 0.0)  # the schedule follows the clock
    whole = train(_recipe(tmp_path / "whole", 6))
    train(_recipe(tmp_path / "parts", 3))
    resumed = train(_recipe(tmp_path / "parts", 3), resume=True)
    assert resumed.iteration == whole.iteration == 6
    for name, value in whole.net.state_dict().items():
        torch.testing.assert_close(resumed.net.state_dict()[name], value, rtol=0, atol=0)
    for name, value in whole.average.items():
        torch.testing.assert_close(resumed.average[name], value, rtol=0, atol=0)


def test_a_new_run_forgets_the_old(tmp_path: Path) -> None:
    train(_recipe(tmp_path, 2))
    assert train(_recipe(tmp_path, 1)).iteration == 1


def test_a_spent_budget_trains_no_more(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, 1)
    state = train(recipe)
    state.seconds = recipe.minutes * 60
    state.save(tmp_path / "state.pth")
    assert train(recipe, resume=True).iteration == 1


def test_what_is_written_is_an_nnunet_model(tmp_path: Path) -> None:
    state = State(_recipe(tmp_path, 0), dict(PROPERTIES))
    root = tmp_path / "demo"
    folder = write_folder(state, root)
    card = read_card(write_card(root, {"dice": 0.5}))
    verify(card)
    assert card.demonstration
    assert card.figures == {"dice": 0.5}
    predictor = nnUNetPredictor(device=torch.device("cpu"), verbose=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    assert list(predictor.configuration_manager.patch_size) == list(PATCH_TINY)
    image = torch.randn(1, 1, *PATCH_TINY)
    with torch.no_grad():
        expected = state.averaged()(image)
        torch.testing.assert_close(predictor.network.eval()(image), expected, rtol=0.05, atol=0.02)
    labels = NnunetPredictor(card).predict(np.zeros((20, 18, 16), np.float32))
    assert labels.shape == (20, 18, 16)


def test_half_precision_keeps_aliases_one() -> None:
    weight = torch.randn(8)
    halved = half({"a": weight, "b": weight, "c": torch.ones(2)})
    assert halved["a"] is halved["b"]
    assert halved["a"].dtype == torch.float16


def test_the_bundled_model_is_what_its_card_says() -> None:
    card = load_catalog().card("demo")
    verify(card)
    folder = card.parts[0].folder
    assert folder == card.root / FOLDER
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 10_000_000
    saved = torch.load(folder / "fold_0/checkpoint_final.pth", weights_only=True)
    assert saved["inference_allowed_mirroring_axes"] is None
    predictor = nnUNetPredictor(device=torch.device("cpu"), verbose=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    assert tuple(predictor.configuration_manager.patch_size) == PATCH
    assert predictor.configuration_manager.spacing == [6.0, 6.0, 6.0]
    assert predictor.label_manager.num_segmentation_heads == CLASSES
    assert {s.name: s.label for s in card.structures} == structures()
    assert max(card.figures["dice_of_hu_alone"].values()) < 0.3
    assert card.figures["dice_above_20_ml"] > 0.8


def test_the_bundled_model_finds_a_body_it_never_saw() -> None:
    card = load_catalog().card("demo")
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = (-192, -100, -190)
    abdomen = ((64, 48, 64), affine)
    found = on_bodies(card, NnunetPredictor(card), seeds=(1,), grid=abdomen)
    assert found["structures_above_20_ml"] > 30
    assert found["dice_above_20_ml"] > 0.75


def test_a_sample_is_its_number() -> None:
    one, again, other = (draw(n, 1.0, (32, 32, 32), PROPERTIES, None) for n in (3, 3, 4))
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.picked, again.picked)
    assert (one.image != other.image).any()
    assert (one.image[one.labels == IGNORED] == 0).all()


def test_the_real_ct_is_a_tenth_of_the_samples(test_data: Path) -> None:
    real = load_real(test_data)
    assert real is not None
    tiny = (16, 16, 16)
    other = [
        not np.array_equal(
            draw(n, 1.0, tiny, PROPERTIES, real).image, draw(n, 1.0, tiny, PROPERTIES, None).image
        )
        for n in range(80)
    ]
    assert 0.03 < np.mean(other) < 0.2
    assert load_real(Path("/nonexistent")) is None
    assert load_real(None) is None


def test_picked_voxels_stand_for_all() -> None:
    random = np.random.default_rng(0)
    labels = random.choice(
        np.array([0, 1, 2, IGNORED], np.uint8), (20, 20, 20), p=(0.7, 0.2, 0.05, 0.05)
    )
    picked, share = pick(random, labels, cap=100, background=500)
    assert len(set(picked)) == len(picked)
    truth = labels.ravel()[picked]
    assert IGNORED not in truth
    for label, most in ((0, 500), (1, 100), (2, 100)):
        assert (truth == label).sum() == most
        assert share[truth == label].sum() == pytest.approx((labels == label).sum(), rel=1e-4)


def test_dice_is_counted_per_structure() -> None:
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[0], truth[1] = 1, 2
    found = truth.copy()
    found[0, :2] = 2
    scores = dice(truth, found)
    assert scores[1] == pytest.approx(2 * 8 / (16 + 8))
    assert scores[2] == pytest.approx(2 * 16 / (16 + 24))
    assert np.isnan(scores[3])


def test_large_structures_are_those_above_20_ml() -> None:
    chosen = large([truth for _, truth in bodies((1, 2))])
    names = structures()
    assert chosen[names["liver"]]
    assert not chosen[names["adrenal_gland_left"]]
    assert not chosen[0]


def test_schedules() -> None:
    assert rate_at(0.0, 1.0) == pytest.approx(0.1)
    assert rate_at(0.1, 1.0) == 1.0
    assert rate_at(1.0, 1.0) == pytest.approx(0.005)
    assert variation_at(0.0, 7) == pytest.approx(0.3)
    late = [variation_at(0.5, n) for n in range(1000)]
    assert (min(late), max(late)) == (pytest.approx(0.5, abs=0.01), pytest.approx(1.5, abs=0.01))


def test_normalisation_is_nnunets() -> None:
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

    hu = np.linspace(-1024, 3000, 100, dtype=np.float32)
    theirs = CTNormalization(intensityproperties=PROPERTIES).run(hu.copy())
    np.testing.assert_allclose(normalise(hu, PROPERTIES), theirs, rtol=1e-5, atol=1e-6)


def test_plans_name_every_label_and_refuse_an_unfit_patch() -> None:
    labels = dataset(1)["labels"]
    assert labels["background"] == 0
    assert sorted(labels.values()) == list(range(105))
    with pytest.raises(ValueError, match="divide"):
        architecture((60, 48, 64), (4, 8, 8, 8))


def test_the_document_states_the_card_s_figures() -> None:
    text = (Path(__file__).parents[3] / "docs/demo-model.md").read_text(encoding="utf-8")
    for name, value in load_catalog().card("demo").figures.items():
        if isinstance(value, dict):
            value = ", ".join(f"{part} {number}" for part, number in value.items())
        assert f"| `{name}` | {value or 'none'} |" in text
