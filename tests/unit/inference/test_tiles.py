"""The sliding window: which tiles are seen, and that sums kept for one patch depth suffice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)

from inference.tiles import label_image

CLASSES = 5


def noisy(tile: torch.Tensor) -> torch.Tensor:
    """Logits that depend on the tile, so that overlapping tiles disagree."""
    generator = torch.Generator().manual_seed(int(tile.double().sum() * 1000) % 2**31)
    noise = torch.randn((1, CLASSES, *tile.shape[2:]), generator=generator)
    return noise * 3 + tile


def ignore(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize(
    ("shape", "patch", "step_size"),
    [
        ((20, 9, 11), (6, 4, 5), 0.5),
        ((13, 6, 7), (6, 6, 7), 1.0),
        ((7, 4, 4), (2, 4, 4), 0.25),
        ((7, 5, 5), (6, 4, 4), 0.1),
    ],
    ids=["overlap in all axes", "no overlap", "tiles that coincide", "dense"],
)
def test_dropping_decided_planes_changes_nothing(
    shape: tuple[int, ...], patch: tuple[int, ...], step_size: float
) -> None:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    steps = compute_steps_for_sliding_window(shape, patch, step_size)
    weights = compute_gaussian(patch, dtype=torch.float32, device=torch.device("cpu"))
    sums = torch.zeros((CLASSES, *shape))
    for start in itertools.product(*steps):
        box = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
        sums[(slice(None), *box)] += torch.softmax(noisy(image[box][None, None])[0], 0) * weights
    labels = label_image(
        noisy, image, patch=patch, classes=CLASSES, step_size=step_size, on_tile=ignore
    )
    assert labels.dtype == torch.uint8
    assert torch.equal(labels, sums.argmax(0).to(torch.uint8))


def test_softmax_is_taken_in_each_tile_before_the_sum() -> None:
    """The sum of logits would let the first, very sure tile win at its edge (plane 3) too."""
    logits = iter([(0.0, 30.0)] + [(1.5, 0.0)] * 8)

    def network(tile: torch.Tensor) -> torch.Tensor:
        return torch.tensor(next(logits)).view(1, 2, 1, 1, 1).expand(1, 2, *tile.shape[2:])

    labels = label_image(
        network, torch.zeros((12, 4, 4)), patch=(4, 4, 4), classes=2, step_size=0.25, on_tile=ignore
    )
    assert labels[:, 0, 0].tolist() == [1] * 3 + [0] * 9


@pytest.mark.parametrize("shape", [(4, 4, 4), (2, 5, 7), (1, 1, 1)])
def test_a_small_image_is_padded_with_zero_on_both_sides(shape: tuple[int, ...]) -> None:
    seen: list[torch.Tensor] = []

    def network(tile: torch.Tensor) -> torch.Tensor:
        seen.append(tile[0, 0].clone())
        return torch.cat([torch.full_like(tile, 0.5), tile], dim=1)

    image = torch.ones(shape)
    labels = label_image(network, image, patch=(5, 6, 8), classes=2, step_size=0.5, on_tile=ignore)
    (tile,) = seen
    assert tile.shape == (5, 6, 8)
    assert tile.sum() == np.prod(shape)
    before = [(p - n) // 2 for p, n in zip((5, 6, 8), shape, strict=True)]
    inside = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    assert (tile[inside] == 1).all()
    assert labels.shape == shape
    assert (labels == 1).all()


def test_on_tile_counts_every_tile_and_may_stop_the_work() -> None:
    counted: list[tuple[int, int]] = []
    arguments = {"patch": (4, 4, 4), "classes": CLASSES, "step_size": 0.5}
    label_image(
        noisy, torch.zeros((6, 8, 4)), **arguments, on_tile=lambda *step: counted.append(step)
    )
    assert counted == [(number, 6) for number in range(1, 7)]

    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        label_image(noisy, torch.zeros((6, 8, 4)), **arguments, on_tile=stop)


def labels_of(logits: torch.Tensor) -> torch.Tensor:
    """Labels of an image that is one tile, for a network that gives `logits` [class, z, y, x]."""
    return label_image(
        lambda _: logits[None],
        torch.zeros(logits.shape[1:]),
        patch=logits.shape[1:],
        classes=len(logits),
        step_size=0.5,
        on_tile=ignore,
        aggregation="logits",
    )


@pytest.mark.parametrize("classes", [2, 118, 255, 256])
def test_the_largest_score_decides_and_the_first_of_equals(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randint(-3, 3, (classes, 3, 4, 5), generator=generator).float()
    assert torch.equal(labels_of(logits).long(), logits.argmax(dim=0))


def test_scores_that_are_not_numbers_are_an_error_and_no_label() -> None:
    logits = torch.zeros((4, 3, 4, 5))
    logits[2, 1, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="not numbers"):
        labels_of(logits)
