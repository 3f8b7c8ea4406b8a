"""nnU-Net v1 checkpoints under nnU-Net v2: the same function, or a refusal that says why."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from upstream_formats import TASK_256, V1_TRAINER, Architecture, generic_unet, small, write_v1

from inference.card import Part, WeightsError
from inference.catalog import load_catalog
from inference.nnunet_folder import load_part
from inference.weights.convert import CHECKPOINT_V1, PLANS_V1, convert, translate_weights

TASK = "Task256_TotalSegmentator_3mm_1139subj"
NAMES = {classes: [f"thing_{label}" for label in range(1, classes)] for classes in (5, 105)}


def forward_v1(
    weights: Mapping[str, torch.Tensor], image: torch.Tensor, architecture: Architecture
) -> list[torch.Tensor]:
    """Generic_UNet of nnU-Net v1 with convolutional pooling and upsampling, all heads.

    Written from its own parameters' names, so that it knows nothing of the mapping.
    """
    depth = len(architecture.pools)

    def block(name: str, x: torch.Tensor, stride: tuple[int, ...] = (1, 1, 1)) -> torch.Tensor:
        kernel = weights[f"{name}.conv.weight"]
        padding = [1 if length == 3 else 0 for length in kernel.shape[2:]]
        x = functional.conv3d(x, kernel, weights[f"{name}.conv.bias"], stride, padding)
        x = functional.instance_norm(
            x, weight=weights[f"{name}.instnorm.weight"], bias=weights[f"{name}.instnorm.bias"]
        )
        return functional.leaky_relu(x, 0.01)

    skips, x = [], image
    for stage in range(depth):
        stride = architecture.pools[stage - 1] if stage else (1, 1, 1)
        x = block(f"conv_blocks_context.{stage}.blocks.0", x, stride)
        x = block(f"conv_blocks_context.{stage}.blocks.1", x)
        skips.append(x)
    x = block(f"conv_blocks_context.{depth}.0.blocks.0", x, architecture.pools[-1])
    x = block(f"conv_blocks_context.{depth}.1.blocks.0", x)
    heads = []
    for up in range(depth):
        x = functional.conv_transpose3d(
            x, weights[f"tu.{up}.weight"], stride=architecture.pools[-(up + 1)]
        )
        x = torch.cat((x, skips[-(up + 1)]), dim=1)
        x = block(f"conv_blocks_localization.{up}.0.blocks.0", x)
        x = block(f"conv_blocks_localization.{up}.1.blocks.0", x)
        heads.append(functional.conv3d(x, weights[f"seg_outputs.{up}.weight"]))
    return heads[::-1]


def loaded(folder: Path, classes: int, spacing: float) -> torch.nn.Module:
    """The converted folder, loaded strictly as the predictor loads it, with all heads."""
    card = load_catalog().card("total-v1-fast")
    labels = tuple(range(classes))
    part = Part(name="total", folder=folder, labels=labels, sha256={})
    object.__setattr__(card, "spacing_mm", (spacing,) * 3)
    network = load_part(part, card, torch.device("cpu")).network
    network.decoder.deep_supervision = True
    return network


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        pytest.param(TASK_256, (32, 32, 64), id="Task256 in full"),
        pytest.param(small(5), (16, 12, 20), id="small"),
        pytest.param(
            small(5, kernels=((1, 3, 3),) * 3, spacing=1.5), (16, 12, 20), id="flat kernels"
        ),
    ],
)
def test_the_converted_network_is_the_same_function(
    tmp_path: Path, architecture: Architecture, shape: tuple[int, ...]
) -> None:
    weights = write_v1(tmp_path, architecture, task=TASK, numpy_1=architecture is not TASK_256)
    source, target = tmp_path / TASK / V1_TRAINER, tmp_path / "converted"
    convert(source, target, task=TASK, names=NAMES[architecture.classes])
    network = loaded(target, architecture.classes, architecture.spacing)
    image = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours, theirs = network(image), forward_v1(weights, image, architecture)
    assert len(ours) == len(theirs) == len(architecture.pools)
    for mine, other in zip(ours, theirs, strict=True):
        assert float((mine - other).abs().max()) == 0.0
        assert float(other.std()) > 0.1, "a network that says nothing would be equal too"
    if architecture is TASK_256:
        before, after = source / CHECKPOINT_V1, target / "fold_0/checkpoint_final.pth"
        assert after.stat().st_size < 0.51 * before.stat().st_size, "the optimizer stays behind"


def test_the_plans_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    write_v1(tmp_path, small(5), task=TASK)
    source = tmp_path / TASK / V1_TRAINER
    (source / "plans.pkl").unlink()  # v1 reads those beside the checkpoint, not these
    convert(source, tmp_path / "out", task=TASK, names=NAMES[5])
    card = load_catalog().card("total-v1-fast")
    part = Part(name="total", folder=tmp_path / "out", labels=(0, 1, 2, 3, 4), sha256={})
    found = load_part(part, card, torch.device("cpu"))
    assert found.patch == (16, 16, 16)
    assert found.axes == (0, 1, 2)
    hu = found.intensities
    assert (hu.lower, hu.upper, hu.mean, hu.sd) == (-1004.0, 1423.0, 14.5, 266.0)


def test_conversion_gives_the_same_bytes_again(tmp_path: Path) -> None:
    write_v1(tmp_path, small(5), task=TASK)
    written = []
    for name in ("one", "two"):
        convert(tmp_path / TASK / V1_TRAINER, tmp_path / name, task=TASK, names=NAMES[5])
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        written.append([path.read_bytes() for path in files])
    assert len(written[0]) == 3
    assert written[0] == written[1]


def _stage(info: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = info["plans"]["plans_per_stage"][1]
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda i: _stage(i)["conv_kernel_sizes"].__setitem__(0, [1, 3, 3]),
            "one kernel size in all stages",
        ),
        (
            lambda i: _stage(i).update(conv_kernel_sizes=[[5, 5, 5]] * 3),
            "kernels of 1 or 3",
        ),
        (lambda i: _stage(i)["pool_op_kernel_sizes"].pop(), "stages: expected 2, found 3"),
        (lambda i: i["plans"].update(num_classes=17), "structures besides the background"),
        (lambda i: i["plans"].update(num_modalities=2), "one channel: expected 1, found 2"),
        (lambda i: i["plans"].update(normalization_schemes={0: "nonCT"}), "normalisation"),
        (lambda i: i["plans"].update(use_mask_for_norm={0: True}), "no mask"),
        (lambda i: _stage(i).update(patch_size=[64, 64]), "three dimensions"),
        (lambda i: i.update(init=(*i["init"][:5], 0, *i["init"][6:])), "not the full resolution"),
        (lambda i: i.pop("plans"), "KeyError"),
        (lambda i: i["plans"].pop("dataset_properties"), "KeyError"),
    ],
)
def test_plans_without_an_exact_counterpart_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    write_v1(tmp_path, small(5), task=TASK)
    path = tmp_path / TASK / V1_TRAINER / PLANS_V1
    info = pickle.loads(path.read_bytes())
    change(info)
    path.write_bytes(pickle.dumps(info, protocol=4))
    with pytest.raises(WeightsError, match=said) as caught:
        convert(path.parents[1], tmp_path / "out", task=TASK, names=NAMES[5])
    assert str(path) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.update({"seg_outputs.0.bias": torch.zeros(5)}), "seg_outputs.0.bias"),
        (lambda w: w.update({"td.0.weight": torch.zeros(5)}), "td.0.weight: has no counterpart"),
        (lambda w: w.pop("tu.1.weight"), "transpconvs.1.weight"),
        (lambda w: w.update({"tu.1.weight": w["tu.1.weight"].half()}), "single precision"),
        (lambda w: w["tu.1.weight"].fill_(float("nan")), "not finite"),
        (lambda w: w.update({"conv_blocks_context.9.blocks.0.conv.bias": torch.zeros(1)}), "no co"),
    ],
)
def test_weights_without_a_counterpart_are_refused(
    change: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    weights = generic_unet(small(5))
    change(weights)
    with pytest.raises((ValueError, KeyError), match=said):
        translate_weights(weights, depth=2)


def test_a_checkpoint_that_is_none_is_named(tmp_path: Path) -> None:
    write_v1(tmp_path, small(5), task=TASK)
    path = tmp_path / TASK / V1_TRAINER / CHECKPOINT_V1
    torch.save({"weights": {}}, path)
    with pytest.raises(WeightsError, match="expected a state_dict"):
        convert(path.parents[1], tmp_path / "out", task=TASK, names=NAMES[5])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a checkpoint of tensors"):
        convert(path.parents[1], tmp_path / "out2", task=TASK, names=NAMES[5])
