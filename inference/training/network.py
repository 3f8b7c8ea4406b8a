"""The network and its loss: class-balanced cross entropy and soft Dice on picked voxels.

A head of 105 classes on every voxel is what makes small nets slow on a CPU: here the full
resolution's head sees some 15 thousand picked voxels, and deep supervision sees the coarse grids.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.training.plans import CONFIGURATION, Json
from inference.training.samples import IGNORED


def build(plans: Json, classes: int) -> Any:
    """nnU-Net's own network of the plans, heads for deep supervision included."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    spec = plans["configurations"][CONFIGURATION]["architecture"]
    return get_network_from_plans(
        spec["network_class_name"],
        spec["arch_kwargs"],
        spec["_kw_requires_import"],
        1,
        classes,
        deep_supervision=False,
    )


def decode(net: Any, image: Tensor) -> list[Tensor]:
    """Features of every decoder stage, coarsest first; image is [1, 1, z, y, x]."""
    skips = net.encoder(image)
    x, features = skips[-1], []
    decoder = net.decoder
    for stage in range(len(decoder.stages)):
        x = torch.cat((decoder.transpconvs[stage](x), skips[-(stage + 2)]), 1)
        x = decoder.stages[stage](x)
        features.append(x)
    return features


def _head(layer: nn.Module, rows: Tensor) -> Tensor:
    """Logits [n, classes] of a 1x1x1 convolution on feature rows [n, channels]."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)  # noqa: S101 - narrows for mypy
    return functional.linear(rows.float(), weight.flatten(1), bias)


def loss_of(net: Any, image: Tensor, labels: Tensor, picked: Tensor, share: Tensor) -> Tensor:
    """Loss of one sample: image and labels [z, y, x], picked voxels and their shares [n]."""
    with torch.autocast(image.device.type, torch.bfloat16):
        features = decode(net, image[None, None])
    heads = net.decoder.seg_layers
    rows = features[-1][0].flatten(1).index_select(1, picked).t()
    truth = labels.flatten()[picked].long()
    logits = _head(heads[-1], rows)
    total = _cross_entropy(logits, truth, share.sqrt()) + _dice_loss(logits, truth, share)
    for depth, weight in ((2, 0.5), (3, 0.25), (4, 0.12)):
        if depth > len(features):
            break
        step = 2 ** (depth - 1)
        coarse = labels[::step, ::step, ::step].flatten().long()
        seen = (coarse != IGNORED).nonzero()[:, 0]
        coarse = coarse[seen]
        rows = features[-depth][0].flatten(1).index_select(1, seen).t()
        count = torch.bincount(coarse, minlength=256).float().clamp(min=1)
        total = total + weight * _cross_entropy(
            _head(heads[-depth], rows), coarse, count[coarse].rsqrt()
        )
    return total


def _cross_entropy(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    each = functional.cross_entropy(logits, truth, reduction="none")
    return (each * weight).sum() / weight.sum().clamp(min=1e-6)


def _dice_loss(logits: Tensor, truth: Tensor, share: Tensor) -> Tensor:
    """1 - soft Dice, mean over the structures present; shares make the sums those of all voxels."""
    chance = logits.softmax(1)
    weighted = chance * share[:, None]
    count = torch.zeros(logits.shape[1], device=logits.device).index_add_(0, truth, share)
    hit = torch.zeros_like(count).index_add_(0, truth, weighted.gather(1, truth[:, None])[:, 0])
    present = count > 0
    present[0] = False
    if not bool(present.any()):
        return logits.sum() * 0
    dice = 2 * hit[present] / (weighted.sum(0)[present] + count[present] + 1e-6)
    return 1 - dice.mean()
