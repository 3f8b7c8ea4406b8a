"""The sliding window: overlapping tiles of an image through a network, to one label a voxel.

As nnU-Net v1 does it: softmax in each tile, then the Gaussian-weighted sum, then the largest; or,
where the model's card says so, the sum of scores as nnU-Net v2 does it. (Each gives other labels in
7 to 17 % of voxels of the other's models.) Sums are kept for one patch depth along z only: what no
later tile touches is decided and dropped, so memory is classes x patch depth and the result is the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal

import torch
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)
from torch.nn import functional

Network = Callable[[torch.Tensor], torch.Tensor]
"""[1, 1, z, y, x] -> logits [1, class, z, y, x]."""

Aggregation = Literal["softmax", "logits"]
"""What overlapping tiles add up: probabilities or scores."""

LOGITS_SCALE = 10
"""Of nnU-Net v2's weights: it keeps small ones from vanishing in half precision."""


def label_image(
    network: Network,
    image: torch.Tensor,
    *,
    patch: Sequence[int],
    classes: int,
    step_size: float,
    on_tile: Callable[[int, int], None],
    aggregation: Aggregation = "softmax",
    as_nnunet: bool = False,
    sums_on: torch.device | None = None,
) -> torch.Tensor:
    """Return the class of every voxel.

    Args:
        network: in evaluation mode, on the device of `image`.
        image: normalised, float32 [z, y, x]. Where it is smaller than the patch it is padded with
            0 on both sides.
        patch: z, y, x size of a tile.
        classes: of the network, background included, at most 256.
        step_size: distance of neighbouring tiles as a fraction of the patch, at most.
        on_tile: called after each tile with the number done and their total.
        aggregation: what is added up.
        as_nnunet: add up in half precision and divide by the sum of weights, each step in the order
            and rounding of nnU-Net (v1 for softmax, v2 for logits), so that ties fall as there.
        sums_on: the device of the sums; None: that of `image`.

    Returns:
        uint8 [z, y, x] on the device of the sums.
    """
    device = image.device if sums_on is None else sums_on
    padded, inside = _pad(image, patch)
    shape = tuple(padded.shape)
    starts_z, starts_y, starts_x = compute_steps_for_sliding_window(shape, patch, step_size)
    total = len(starts_z) * len(starts_y) * len(starts_x)
    weights = None
    if total > 1 or (as_nnunet and aggregation == "logits"):
        weights = _weights(patch, device, aggregation, as_nnunet=as_nnunet)
    labels = torch.empty(shape, dtype=torch.uint8, device=device)
    kind = torch.half if as_nnunet else torch.float32
    sums = torch.zeros((classes, patch[0], *shape[1:]), dtype=kind, device=device)
    counts = torch.zeros(sums.shape[1:], dtype=kind, device=device) if as_nnunet else None
    done = 0
    for start, following in zip(starts_z, [*starts_z[1:], shape[0]], strict=True):
        for y, x in product(starts_y, starts_x):
            across = (slice(y, y + patch[1]), slice(x, x + patch[2]))
            tile = padded[(slice(start, start + patch[0]), *across)]
            scores = network(tile[None, None])[0].to(device, torch.float32)
            if aggregation == "softmax":
                scores = torch.softmax(scores, dim=0)
            if weights is not None:
                scores *= weights
            if as_nnunet and aggregation == "softmax":
                scores = scores.half()
            sums[(slice(None), slice(None), *across)] += scores
            if counts is not None:
                counts[(slice(None), *across)] += 1 if weights is None else weights
            done += 1
            on_tile(done, total)
        _decide(sums, counts, labels, start, following)
    return labels[inside]


def _pad(image: torch.Tensor, patch: Sequence[int]) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """Return `image` with 0 around it up to `patch`, and where it lies in that."""
    missing = [max(0, want - have) for want, have in zip(patch, image.shape, strict=True)]
    before = [number // 2 for number in missing]
    inside = tuple(slice(b, b + have) for b, have in zip(before, image.shape, strict=True))
    pairs = [(b, number - b) for b, number in zip(before, missing, strict=True)]
    return functional.pad(image, [width for pair in reversed(pairs) for width in pair]), inside


def _weights(
    patch: Sequence[int], device: torch.device, aggregation: Aggregation, *, as_nnunet: bool
) -> torch.Tensor:
    scale, kind = 1, torch.float32
    if as_nnunet and aggregation == "logits":
        scale, kind = LOGITS_SCALE, torch.half
    gaussian: torch.Tensor = compute_gaussian(
        tuple(patch), sigma_scale=1 / 8, value_scaling_factor=scale, dtype=kind, device=device
    )
    if not as_nnunet or aggregation == "logits":
        return gaussian
    halves = gaussian.half()  # v1 rounds to single precision first
    halves[halves == 0] = halves[halves != 0].min()
    return halves


def _decide(
    sums: torch.Tensor,
    counts: torch.Tensor | None,
    labels: torch.Tensor,
    start: int,
    following: int,
) -> None:
    """Write the labels of the planes from `start` to `following`; move the sums to `following`.

    Without `counts` the sums are not divided by their weights: that scales all classes alike.
    """
    decided = following - start
    for plane in range(decided):
        scores = sums[:, plane] if counts is None else sums[:, plane] / counts[plane]
        labels[start + plane] = _largest(scores)
    kept = sums.shape[1] - decided
    for plane in range(kept):  # plane by plane: source and target overlap
        sums[:, plane] = sums[:, plane + decided]
    sums[:, kept:] = 0
    if counts is not None:
        counts[:kept] = counts[decided:].clone()
        counts[kept:] = 0


def _largest(scores: torch.Tensor) -> torch.Tensor:
    """Return the class [y, x] of the largest score of `scores` [class, y, x], the first of equals.

    Four times as fast on the CPU as torch's argmax along the first axis.

    Raises:
        ValueError: a score is not a number.
    """
    classes = len(scores)
    rank = torch.arange(classes, 0, -1, dtype=torch.int16, device=scores.device)
    if classes < 256:
        rank = rank.to(torch.uint8)
    flat = scores.flatten(1)  # with two axes the products are the quickest
    ranks = ((flat == flat.amax(dim=0)) * rank[:, None]).amax(dim=0)
    if not ranks.all():
        raise ValueError("the network gave scores that are not numbers")
    return (classes - ranks).view(scores.shape[1:])
