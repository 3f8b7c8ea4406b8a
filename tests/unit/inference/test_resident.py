"""The way on the device against the host's way: the same numbers, for every orientation."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_nnunet import write_model

from inference import resampling, resident
from inference.catalog import read_card
from inference.nnunet import NnunetPredictor
from inference.pipeline import Options, Orientation, segment

CPU = torch.device("cpu")
SPACING = (0.8, 1.1, 2.7)
ORIENTATIONS = [
    Orientation(axes=axes, flipped=flipped)  # type: ignore[arg-type]
    for axes in itertools.permutations(range(3))
    for flipped in itertools.product((False, True), repeat=3)
]


def volume_of(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-1024, 1500, shape).astype(np.int16)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_zooming_in_equals_the_hosts(orientation: Orientation, order: int) -> None:
    volume = volume_of((70, 9, 12))
    flips = tuple(slice(None, None, -1 if flip else None) for flip in orientation.flipped)
    canonical = volume.transpose(orientation.axes)[flips]
    expected = resampling.zoom_in(canonical, SPACING, (1.5, 1.5, 1.5), order)
    found = resident.zoom_in(volume, orientation, SPACING, (1.5, 1.5, 1.5), order, CPU)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected.transpose(2, 1, 0))


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_zooming_back_equals_the_hosts(orientation: Orientation) -> None:
    labels = np.random.default_rng(1).integers(0, 105, (7, 8, 9)).astype(np.uint8)  # z, y, x
    shape = (11, 15, 20)
    back = tuple(int(axis) for axis in np.argsort(orientation.axes))
    flips = tuple(slice(None, None, -1 if orientation.flipped[axis] else None) for axis in back)
    expected = resampling.zoom_back(labels.transpose(2, 1, 0).transpose(back), shape)[flips]
    found = resident.zoom_back(torch.from_numpy(labels), orientation, shape)
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0)])
def test_a_volume_gets_the_same_labels_either_way(
    tmp_path: Path, axes: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    card = read_card(write_model(tmp_path, parts={"first": {1: 3, 2: 1}, "second": {1: 4, 2: 2}}))
    affine = np.eye(4)
    affine[:3, :3] = np.diag(np.multiply(signs, (2.0, 2.5, 4.0)))[:, axes]
    volume = volume_of((16, 18, 14), seed=2)[::-1]
    predictor = NnunetPredictor(card)
    options = Options(structures=("thing_1", "thing_3"), body_crop=True)
    expected = segment(volume, affine, card, predictor, options=options)
    predictor.is_resident = True
    seen: list[tuple[str, float]] = []
    found = segment(volume, affine, card, predictor, lambda *step: seen.append(step), options)
    assert expected.any()
    np.testing.assert_array_equal(found, expected)
    assert [step for step in seen if step[0] != "predict"] == [
        ("resample", 0.0),
        ("resample", 1.0),
        ("restore", 0.0),
        ("restore", 1.0),
    ]


def test_too_little_memory_for_it_leads_back_to_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    card = read_card(write_model(tmp_path))
    volume, affine = volume_of((16, 18, 14), seed=2), np.diag([2.0, 2.5, 4.0, 1.0])
    predictor = NnunetPredictor(card)
    expected = segment(volume, affine, card, predictor)

    def short(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(resident, "zoom_in", short)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    predictor.is_resident = True
    np.testing.assert_array_equal(segment(volume, affine, card, predictor), expected)
    assert "DEVICE_MEMORY_SHORT" in caplog.messages


def test_exact_mode_stays_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "zoom_in", None)
    card = read_card(write_model(tmp_path))
    predictor = NnunetPredictor(card)
    predictor.is_resident = True
    labels = segment(
        volume_of((16, 18, 14)), np.eye(4), card, predictor, options=Options(mode="exact")
    )
    assert labels.any()
