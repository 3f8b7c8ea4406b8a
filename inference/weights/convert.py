"""nnU-Net v1 checkpoints in the layout of nnU-Net v2, weight for weight.

v1's Generic_UNet and v2's PlainConvUNet are the same function where every stage has one kernel
size; only the names of the parameters differ, and v2 has biases that v1 lacks, which are 0. What
has no exact counterpart is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.card import WeightsError
from inference.untrusted import read_checkpoint, read_pickle

CHECKPOINT_V1 = "fold_0/model_final_checkpoint.model"
PLANS_V1 = "fold_0/model_final_checkpoint.model.pkl"
CONFIGURATION = "3d_fullres"
MAX_FEATURES = 320
"""Of nnU-Net v1 in three dimensions."""
STAGE_IN_INIT = 5
"""Where the stage stands among the arguments of v1's trainers."""


def convert(source: Path, target: Path, *, task: str, names: Sequence[str]) -> None:
    """Write the v1 model folder `source` to `target` as a v2 model folder.

    Args:
        source: holds `fold_0/model_final_checkpoint.model` and `.model.pkl`.
        target: a new folder; gets plans.json, dataset.json and fold_0/checkpoint_final.pth.
        task: name of upstream's task.
        names: of the part's labels, from label 1.

    Raises:
        WeightsError: the checkpoint is not what this can convert exactly; says why.
    """
    info = read_pickle(source / PLANS_V1)
    try:
        plans, stage = _plans_and_stage(info)
        _check(plans, stage, len(names))
        v2_plans = translate_plans(plans, stage, task)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise WeightsError(
            f"{source / PLANS_V1}: no plans of nnU-Net v1 for one CT channel in three dimensions: "
            f"{error!r}"
        ) from error
    weights = read_checkpoint(source / CHECKPOINT_V1).get("state_dict")
    if not isinstance(weights, dict):
        raise WeightsError(f"{source / CHECKPOINT_V1}: expected a state_dict")
    try:
        translated = translate_weights(weights, depth=len(stage["pool_op_kernel_sizes"]))
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{source / CHECKPOINT_V1}: not a Generic_UNet as its plans say: {error}"
        ) from error
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0} | {name: label for label, name in enumerate(names, start=1)},
        "numTraining": 0,
        "file_ending": ".nii.gz",
    }
    (target / "fold_0").mkdir(parents=True)
    (target / "plans.json").write_text(json.dumps(v2_plans, indent=2))
    (target / "dataset.json").write_text(json.dumps(dataset, indent=2))
    torch.save(
        {
            "network_weights": translated,
            "init_args": {"plans": v2_plans, "configuration": CONFIGURATION, "fold": 0},
            "trainer_name": "nnUNetTrainerNoMirroring",
            "inference_allowed_mirroring_axes": None,
        },
        target / "fold_0" / "checkpoint_final.pth",
    )


def translate_weights(weights: Mapping[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """Return the parameters of a Generic_UNet under the names of PlainConvUNet.

    Args:
        weights: v1's state_dict.
        depth: number of poolings; the bottleneck is stage `depth`.

    Raises:
        ValueError: a parameter has no counterpart, or is not of single precision and finite.
        KeyError: a parameter is missing.
    """
    last = 1 + max(
        (
            int(found[1])
            for name in weights
            if (found := re.match(r"conv_blocks_localization\.\d+\.0\.blocks\.(\d+)\.", name))
        ),
        default=0,
    )
    made: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            raise ValueError(f"{name}: expected single precision")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name}: holds numbers that are not finite")
        for new in _new_names(name, depth, last):
            if new in made:
                raise ValueError(f"{name}: occurs twice as {new}")
            made[new] = value
    for up in range(depth):
        # v1 has neither bias; a bias of 0 adds nothing.
        made[f"decoder.transpconvs.{up}.bias"] = torch.zeros(
            made[f"decoder.transpconvs.{up}.weight"].shape[1]
        )
        made[f"decoder.seg_layers.{up}.bias"] = torch.zeros(
            made[f"decoder.seg_layers.{up}.weight"].shape[0]
        )
    return made


def _new_names(name: str, depth: int, last: int) -> tuple[str, ...]:
    """Return v2's names of one parameter of v1; v2 keeps some under several."""
    block = r"blocks\.(\d+)\.(conv|instnorm)\.(weight|bias)"
    if found := re.fullmatch(rf"conv_blocks_context\.(\d+)\.{block}", name):
        stage, index, kind, what = found.groups()
        if int(stage) < depth:
            return _layer(f"encoder.stages.{stage}.0", int(index), kind, what)
    if found := re.fullmatch(rf"conv_blocks_context\.{depth}\.([01])\.{block}", name):
        half, index, kind, what = found.groups()
        return _layer(f"encoder.stages.{depth}.0", int(index) + int(half) * last, kind, what)
    if found := re.fullmatch(rf"conv_blocks_localization\.(\d+)\.([01])\.{block}", name):
        up, half, index, kind, what = found.groups()
        return _layer(f"decoder.stages.{up}", int(index) + int(half) * last, kind, what)
    if found := re.fullmatch(r"tu\.(\d+)\.weight", name):
        return (f"decoder.transpconvs.{found[1]}.weight",)
    if found := re.fullmatch(r"seg_outputs\.(\d+)\.weight", name):
        return (f"decoder.seg_layers.{found[1]}.weight",)
    raise ValueError(f"{name}: has no counterpart in nnU-Net v2's PlainConvUNet")


def _layer(stage: str, index: int, kind: str, what: str) -> tuple[str, ...]:
    short, position = ("conv", 0) if kind == "conv" else ("norm", 1)
    block = f"{stage}.convs.{index}"
    names = (f"{block}.{short}.{what}", f"{block}.all_modules.{position}.{what}")
    # v2's decoder holds the encoder a second time.
    again = tuple(f"decoder.{name}" for name in names) if stage.startswith("encoder.") else ()
    return names + again


def _plans_and_stage(info: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return v1's plans, and those of the stage that the checkpoint was trained in."""
    plans = info["plans"]
    stages = plans["plans_per_stage"]
    number = info["init"][STAGE_IN_INIT] if len(info["init"]) > STAGE_IN_INIT else None
    if number is None:
        (number,) = stages
    if number != max(stages):
        raise ValueError(f"stage {number} is not the full resolution")
    return plans, stages[number]


def _check(plans: Mapping[str, Any], stage: Mapping[str, Any], classes: int) -> None:
    """Refuse what the conversion or the predictor would treat otherwise than nnU-Net v1."""
    kernels = [[int(size) for size in kernel] for kernel in stage["conv_kernel_sizes"]]
    demands = (
        ("three dimensions", len(stage["patch_size"]), 3),
        ("one channel", plans["num_modalities"], 1),
        ("structures besides the background", plans["num_classes"], classes),
        ("normalisation", list(plans["normalization_schemes"].values()), ["CT"]),
        ("no mask in the normalisation", any(plans["use_mask_for_norm"].values()), False),
        ("one kernel size in all stages", kernels, [kernels[0]] * len(kernels)),
        ("kernels of 1 or 3", set(kernels[0]) <= {1, 3}, True),
        ("stages", len(kernels), len(stage["pool_op_kernel_sizes"]) + 1),
        ("convolutions a stage, at least 2", plans.get("conv_per_stage", 2) >= 2, True),
    )
    for demand, found, expected in demands:
        if found != expected:
            raise ValueError(f"{demand}: expected {expected}, found {found}")


def translate_plans(
    plans: Mapping[str, Any], stage: Mapping[str, Any], task: str
) -> dict[str, Any]:
    """Return v2's plans for the network of a stage of v1's plans, as nnU-Net v2 writes them."""
    pools = [[int(factor) for factor in pool] for pool in stage["pool_op_kernel_sizes"]]
    forward = [int(axis) for axis in plans.get("transpose_forward") or (0, 1, 2)]
    convolutions = int(plans.get("conv_per_stage", 2))
    base = int(plans["base_num_features"])
    properties = plans["dataset_properties"]["intensityproperties"][0]
    stages = len(pools) + 1
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [min(base * 2**index, MAX_FEATURES) for index in range(stages)],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[int(n) for n in kernel] for kernel in stage["conv_kernel_sizes"]],
            "strides": [[1, 1, 1], *pools],
            "n_conv_per_stage": [convolutions] * stages,
            "n_conv_per_stage_decoder": [convolutions] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return {
        "dataset_name": task,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": forward,
        "transpose_backward": [int(axis) for axis in np.argsort(forward)],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": float(properties["mean"]),
                "std": float(properties["sd"]),
                "percentile_00_5": float(properties["percentile_00_5"]),
                "percentile_99_5": float(properties["percentile_99_5"]),
            }
        },
        "configurations": {CONFIGURATION: _configuration(stage, architecture)},
    }


def _configuration(stage: Mapping[str, Any], architecture: dict[str, Any]) -> dict[str, Any]:
    # The resampling is nnU-Net's default. Images come at the spacing, so that it does nothing.
    resampling = {
        f"resampling_fn_{what}{suffix}": value
        for what in ("data", "seg", "probabilities")
        for suffix, value in (
            ("", "resample_data_or_seg_to_shape"),
            (
                "_kwargs",
                {
                    "is_seg": what == "seg",
                    "order": 3 if what == "data" else 1,
                    "order_z": 0,
                    "force_separate_z": None,
                },
            ),
        )
    }
    return {
        "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": int(stage["batch_size"]),
        "patch_size": [int(length) for length in stage["patch_size"]],
        "spacing": [float(length) for length in stage["current_spacing"]],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        **resampling,
        "architecture": architecture,
        "batch_dice": False,
    }
