"""The predictor against nnU-Net itself and against a plain full-volume accumulation."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from tiny_nnunet import write_model

from inference.card import Scheme
from inference.catalog import ModelCard, WeightsError, read_card
from inference.nnunet import (
    NnunetPredictor,
    is_split,
    pick_device,
    predict_part,
    thirds,
)
from inference.nnunet_folder import LoadedPart, load_part
from inference.normalisation import Intensities, body_box, nonzero_box, normalise
from inference.pipeline import Options
from inference.tiles import label_image

CPU = torch.device("cpu")
PARTS = {"first": {1: 3, 2: 1}, "second": {1: 4, 2: 0, 3: 2}}


def ignore(done: int, total: int) -> None:
    pass


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads, and far slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single precision, whatever is quicker here: these tests compare every label."""
    monkeypatch.setattr("inference.nnunet.fast_network", lambda part, *_, **__: part.network)


def hu(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(size=shape)
    return np.rint(gaussian_filter(noise, 1.5) * 2000).astype(np.float32)


def accumulate(card: ModelCard, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Sum softmax x Gaussian over the whole volume, part by part: memory is no object here."""
    merged = np.zeros(image.shape, np.uint8)
    for part in card.parts:
        loaded = load_part(part, card, CPU)
        x = (np.clip(image, -900, 800) - 40) / 120
        short = [max(0, p - n) for p, n in zip(loaded.patch, x.shape, strict=True)]
        x = np.pad(x, [(s // 2, s - s // 2) for s in short])
        bump = np.zeros(loaded.patch)
        bump[tuple(p // 2 for p in loaded.patch)] = 1
        bump = gaussian_filter(bump, [p / 8 for p in loaded.patch], mode="constant")
        bump = (bump / bump.max()).astype(np.float32)
        bump[bump == 0] = bump[bump > 0].min()
        steps = compute_steps_for_sliding_window(x.shape, loaded.patch, card.step_size)
        scores = np.zeros((len(part.labels), *x.shape), np.float32)
        weights = np.zeros(x.shape, np.float32)
        starts = [(z, y, c) for z in steps[0] for y in steps[1] for c in steps[2]]
        for start in starts:
            box = tuple(slice(s, s + p) for s, p in zip(start, loaded.patch, strict=True))
            with torch.inference_mode():
                logits = loaded.network(torch.from_numpy(x[box].astype(np.float32))[None, None])
            weight = bump if len(starts) > 1 else np.float32(1)
            scores[(slice(None), *box)] += torch.softmax(logits[0], 0).numpy() * weight
            weights[box] += weight
        own = (scores / weights).argmax(0)
        inside = tuple(slice(s // 2, s // 2 + n) for s, n in zip(short, image.shape, strict=True))
        found = np.array(part.labels, np.uint8)[own[inside]]
        merged[found > 0] = found[found > 0]
    return merged


@pytest.mark.parametrize(
    "shape",
    [(8, 8, 8), (17, 13, 22), (5, 19, 8), (3, 4, 5), (9, 8, 8)],
    ids=["one tile", "many tiles", "smaller in z", "smaller than a patch", "one voxel more"],
)
@pytest.mark.parametrize("step_size", [0.5, 0.8])
def test_labels_equal_a_full_volume_accumulation(
    tmp_path: Path, shape: tuple[int, int, int], step_size: float
) -> None:
    card = read_card(write_model(tmp_path, step_size=step_size))
    image = hu(shape)
    labels = NnunetPredictor(card).predict(image)
    assert len(np.unique(labels)) > 2
    np.testing.assert_array_equal(labels, accumulate(card, image))


def test_a_later_part_overwrites_an_earlier_one(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path, parts=PARTS))
    image = hu((12, 14, 10))
    labels = NnunetPredictor(card).predict(image)
    np.testing.assert_array_equal(labels, accumulate(card, image))
    first, second = (
        np.array(part.labels)[
            predict_part(
                load_part(part, card, CPU), torch.from_numpy(image), card.step_size, CPU, ignore
            )
        ]
        for part in card.parts
    )
    both = (first > 0) & (second > 0)
    assert both.any()
    np.testing.assert_array_equal(labels[both], second[both])
    np.testing.assert_array_equal(labels[second == 0], first[second == 0])


@pytest.mark.parametrize(
    ("transpose", "scheme", "masked"),
    [
        ((0, 1, 2), "CT", False),
        ((2, 0, 1), "CT", False),
        ((2, 0, 1), "zscore", True),
        ((0, 1, 2), "zscore", False),
        ((0, 1, 2), "rescale_to_0_1", False),
        ((0, 1, 2), "nonorm", False),
    ],
)
def test_one_tile_equals_nnunets_own_predictor(
    tmp_path: Path,
    transpose: tuple[int, int, int],
    scheme: Scheme,
    masked: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through nnU-Net's crop, transpose, normalisation, padding and export of a whole case."""
    spacing = (3.0, 4.0, 5.0)
    path = write_model(
        tmp_path,
        transpose=transpose,
        spacing_xyz=spacing,
        patch=(16, 8, 12),
        scheme=scheme,
        masked=masked,
    )
    card = read_card(path)
    image = np.zeros((12, 13, 11), np.float32)
    image[2:10, 1:9, 3:9] = hu((8, 8, 6))
    image[2, 1, 3] = image[9, 8, 8] = 77  # the nonzero box is this one whatever the noise is
    image[4:6, 1:3, 3:5] = 0  # a bay at the surface, which a mask leaves out

    nnunet = nnUNetPredictor(use_mirroring=False, device=CPU, allow_tqdm=False)
    manager = PlansManager(str(card.parts[0].folder / "plans.json"))
    dataset = json.loads((card.parts[0].folder / "dataset.json").read_text())
    network = load_part(card.parts[0], card, CPU).network
    nnunet.manual_initialization(
        network=network,
        plans_manager=manager,
        configuration_manager=manager.get_configuration("3d_fullres"),
        parameters=[network.state_dict()],
        dataset_json=dataset,
        trainer_name="nnUNetTrainerNoMirroring",
        inference_allowed_mirroring_axes=None,
    )
    expected = nnunet.predict_single_npy_array(
        image[None].copy(), {"spacing": list(spacing[::-1])}, None, None, False
    )
    labels = NnunetPredictor(card).predict(image)
    # nnU-Net keeps its logits in half precision: two that are equal there leave a choice.
    assert np.mean(labels != expected) < 0.005
    assert len(np.unique(labels[2:10, 1:9, 3:9])) > 2
    outside = np.ones(image.shape, bool)
    outside[2:10, 1:9, 3:9] = False
    assert not labels[outside].any()
    capsys.readouterr()


def test_normalisation_is_nnunets() -> None:
    properties = {"mean": 31.7, "std": 99.1, "percentile_00_5": -812.3, "percentile_99_5": 611.9}
    image = hu((9, 9, 9))
    expected = CTNormalization(False, properties).run(image.copy())
    by = Intensities(lower=-812.3, upper=611.9, mean=31.7, sd=99.1)
    before = image.copy()
    np.testing.assert_array_equal(normalise(torch.from_numpy(image), by).numpy(), expected)
    np.testing.assert_array_equal(image, before)


def test_nonzero_box_is_tight_and_whole_for_an_empty_image() -> None:
    image = torch.zeros((6, 7, 8))
    assert image[nonzero_box(image)].shape == image.shape
    image[2, 3, 4] = image[4, 3, 6] = -1
    assert nonzero_box(image) == (slice(2, 5), slice(3, 4), slice(4, 7))


def test_an_image_of_air_is_not_cropped() -> None:
    air = torch.full((7, 8, 9), -1000.0)
    assert air[body_box(air)].shape == air.shape
    air[3, 4, 5] = 40
    assert body_box(air) == (slice(0, 7), slice(0, 8), slice(1, 9))


def test_the_body_crop_shows_less_air_and_changes_no_place(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path))
    image = np.full((30, 14, 16), -1000, np.float32)
    image[12:20, 2:12, 4:12] = hu((8, 10, 8))
    box = body_box(torch.from_numpy(image))
    assert np.prod(image[box].shape) < 0.7 * image.size
    predictor = NnunetPredictor(card)
    cropped = predictor.predict(image, options=Options(body_crop=True))
    np.testing.assert_array_equal(cropped[box], predictor.predict(image[box].copy()))
    cropped[box] = 0
    assert not cropped.any()


def test_progress_rises_to_one_over_all_parts(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path, parts=PARTS))
    seen: list[tuple[str, float]] = []
    NnunetPredictor(card).predict(hu((12, 8, 8)), lambda *step: seen.append(step))
    assert {stage for stage, _ in seen} == {"predict"}
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert fractions[:4] == [0.25, 0.5, 0.75, 1.0]
    assert fractions[-1] == 1.0


def test_the_image_is_not_changed_and_the_same_twice(tmp_path: Path) -> None:
    predictor = NnunetPredictor(read_card(write_model(tmp_path)), device="auto", threads=2)
    assert torch.get_num_threads() == 2
    image = hu((10, 11, 12))
    before = image.copy()
    first = predictor.predict(image)
    np.testing.assert_array_equal(predictor.predict(image), first)
    np.testing.assert_array_equal(image, before)


def test_a_changed_checkpoint_is_not_loaded(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path))
    path = card.parts[0].folder / "fold_0/checkpoint_final.pth"
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(WeightsError, match=r"checkpoint_final.pth: sha256 is .*; expected"):
        NnunetPredictor(card)


class Trap:
    """What a malicious checkpoint holds: unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path))
    sprung = tmp_path / "sprung"
    part = card.parts[0]
    torch.save({"network_weights": Trap(sprung)}, part.folder / "fold_0/checkpoint_final.pth")
    with pytest.raises(WeightsError, match="not a checkpoint of tensors and numbers"):
        load_part(part, card, CPU)
    (part.folder / "fold_0/checkpoint_final.pth").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(WeightsError, match="not a checkpoint"):
        load_part(part, card, CPU)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("architecture", "network_class_name", "os.system"), "network 'os.system': expected"),
        (("architecture", "arch_kwargs", "conv_op", "os.system"), "layer 'os.system': expected"),
        (("architecture", "arch_kwargs", "features_per_stage", [4, 16]), "does not fit the plans"),
        (("normalization_schemes", ["ZScoreNormalization"]), "normalisation: expected"),
        (("normalization_schemes", ["RGBTo01Normalization"]), "normalisation: expected"),
        (("patch_size", [8, 8]), "three dimensions: expected 3, found 2"),
        (("spacing", [6.0, 6.0, 1.5]), "the card's spacing: expected"),
        (("previous_stage", "3d_lowres"), "no cascade: expected None"),
    ],
)
def test_a_model_that_cannot_run_as_it_should_is_refused(
    tmp_path: Path, change: tuple[object, ...], fault: str
) -> None:
    card = read_card(write_model(tmp_path))
    plans = json.loads((card.parts[0].folder / "plans.json").read_text())
    *keys, value = change
    place = plans["configurations"]["3d_fullres"]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (card.parts[0].folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(WeightsError, match=fault):
        load_part(card.parts[0], card, CPU)


def test_heads_and_labels_have_to_agree(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path))
    part = replace(card.parts[0], labels=(0, 1, 2))
    with pytest.raises(WeightsError, match="as many heads as the card's labels: expected 3"):
        load_part(part, card, CPU)


@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:x", "cuda:99", ""])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(ValueError, match="device"):
        pick_device(device)


def test_only_the_parts_that_are_needed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = read_card(write_model(tmp_path, parts=PARTS))
    predictor = NnunetPredictor(card)
    image = hu((12, 14, 10))
    everything = predictor.predict(image)
    ran: list[str] = []

    def count(part: LoadedPart, *arguments: object, **named: object) -> torch.Tensor:
        ran.append(f"{len(part.labels)} heads")
        return predict_part(part, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("inference.nnunet.predict_part", count)
    steps: list[float] = []
    found = predictor.predict(
        image, lambda _, fraction: steps.append(fraction), Options(structures=("thing_2",))
    )
    assert ran == ["4 heads"], "the second part alone finds label 2"
    assert set(np.unique(found)) == {0, 2}
    np.testing.assert_array_equal(found == 2, everything == 2)
    assert steps[-1] == 1.0


def test_the_step_size_of_the_options_counts(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path))
    image = hu((17, 13, 22))
    predictor = NnunetPredictor(card)
    for step in (0.25, 1.0):
        np.testing.assert_array_equal(
            predictor.predict(image, options=Options(step_size=step)),
            accumulate(replace(card, step_size=step), image),
        )


def test_thirds_cover_an_image_once_with_a_margin_on_both_sides() -> None:
    pieces = list(thirds(605))
    assert pieces == [
        (slice(0, 221), slice(0, 201)),
        (slice(182, 422), slice(201, 402)),
        (slice(383, 605), slice(402, 605)),
    ]


def test_only_large_images_of_several_parts_are_split(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path, parts=PARTS))
    assert is_split((901, 256, 256), card)
    assert not is_split((900, 256, 256), card)
    assert not is_split((200, 600, 600), card)
    assert not is_split((901, 512, 256), replace(card, aggregation="logits"))
    assert is_split((901, 512, 512), replace(card, aggregation="logits"))
    assert not is_split((901, 256, 256), replace(card, parts=card.parts[:1]))


def test_fast_mode_splits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = NnunetPredictor(read_card(write_model(tmp_path)))
    image = hu((70, 8, 9))
    expected = predictor.predict(image)
    monkeypatch.setattr("inference.nnunet.is_split", lambda *_: True)
    np.testing.assert_array_equal(predictor.predict(image), expected)


@pytest.mark.parametrize(("refused", "thrifty"), [(1, False), (2, False), (0, True), (1, True)])
def test_short_device_memory_steps_down_to_the_host(
    refused: int,
    thrifty: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The device is made up: what it cannot hold is asked of the CPU, and said."""
    card = read_card(write_model(tmp_path))
    image = hu((12, 14, 10))
    part = load_part(card.parts[0], card, CPU)
    expected = predict_part(part, torch.from_numpy(image), 0.5, CPU, ignore)
    asked: list[object] = []

    class Device:
        type = "cuda"

    def short(network: object, tensor: torch.Tensor, **named: object) -> torch.Tensor:
        asked.append(named["sums_on"])
        if len(asked) <= refused:
            raise torch.OutOfMemoryError
        return label_image(part.network, tensor, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("inference.nnunet.label_image", short)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_: self)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_: self)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    device = Device()
    tensor = torch.from_numpy(image)
    found = predict_part(part, tensor, 0.5, device, ignore, thrifty=thrifty)  # type: ignore[arg-type]
    monkeypatch.undo()
    np.testing.assert_array_equal(found, expected)
    steps = [CPU, CPU] if thrifty else [device, CPU, CPU]
    assert asked == steps[: refused + 1]
    assert caplog.messages == ["DEVICE_MEMORY_SHORT"] * refused


def test_the_thrifty_way_has_no_second_copy_of_the_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(*_: object, **__: object) -> None:
        raise AssertionError("a network was converted for another engine")

    predictor = NnunetPredictor(read_card(write_model(tmp_path)))
    image = hu((12, 14, 10))
    expected = predictor.predict(image)
    predictor = NnunetPredictor(predictor.card)
    monkeypatch.setattr("inference.nnunet.fast_network", copied)
    found = predictor.predict(image, options=Options(thrifty=True))
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(AssertionError, match="another engine"):
        predictor.predict(image)
