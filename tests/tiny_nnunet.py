"""Tiny nnU-Net v2 model folders with random weights, in the real format, made on the spot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from inference.card import Scheme
from inference.card_document import NNUNET_FILES
from inference.normalisation import SCHEMES

ARCHITECTURE: dict[str, Any] = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
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


def plans(
    patch: Sequence[int],
    spacing_zyx: Sequence[float],
    transpose: Sequence[int] = (0, 1, 2),
    scheme: Scheme = "CT",
    *,
    masked: bool = False,
) -> dict[str, Any]:
    return {
        "dataset_name": "Dataset999_Tiny",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": np.argsort(transpose).tolist(),
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": 40.0,
                "std": 120.0,
                "percentile_00_5": -900.0,
                "percentile_99_5": 800.0,
            }
        },
        "configurations": {
            "3d_fullres": {
                "batch_size": 2,
                "patch_size": list(patch),
                "spacing": [spacing_zyx[axis] for axis in transpose],
                "normalization_schemes": [SCHEMES[scheme]],
                "use_mask_for_norm": [masked],
                "preprocessor_name": "DefaultPreprocessor",
                **{
                    f"resampling_fn_{what}": "resample_data_or_seg_to_shape"
                    for what in ("data", "seg", "probabilities")
                },
                **{
                    f"resampling_fn_{what}_kwargs": {
                        "is_seg": what == "seg",
                        "order": 1,
                        "order_z": 0,
                        "force_separate_z": None,
                    }
                    for what in ("data", "seg", "probabilities")
                },
                "architecture": ARCHITECTURE,
            }
        },
    }


def write_folder(
    folder: Path,
    *,
    classes: int,
    patch: Sequence[int] = (8, 8, 8),
    spacing_zyx: Sequence[float] = (6.0, 6.0, 6.0),
    transpose: Sequence[int] = (0, 1, 2),
    seed: int = 0,
    scheme: Scheme = "CT",
    masked: bool = False,
) -> None:
    """Write a model folder whose network has `classes` heads, background included."""
    torch.manual_seed(seed)
    network = get_network_from_plans(
        ARCHITECTURE["network_class_name"],
        ARCHITECTURE["arch_kwargs"],
        ARCHITECTURE["_kw_requires_import"],
        1,
        classes,
        deep_supervision=True,
    )
    (folder / "fold_0").mkdir(parents=True)
    dataset = {
        "channel_names": {"0": scheme},
        "labels": {"background": 0} | {f"part_{label}": label for label in range(1, classes)},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    made = plans(patch, spacing_zyx, transpose, scheme, masked=masked)
    (folder / "plans.json").write_text(json.dumps(made))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    torch.save(
        {
            "network_weights": network.state_dict(),
            "optimizer_state": {"state": {}},
            "current_epoch": 3,
            "_best_ema": np.float64(0.5),
            "logging": {"ema_fg_dice": [np.float32(0.25), np.float64(0.5)]},
            "init_args": {"plans": made, "configuration": "3d_fullres", "fold": 0},
            "trainer_name": "nnUNetTrainerNoMirroring",
            "inference_allowed_mirroring_axes": None,
        },
        folder / "fold_0" / "checkpoint_final.pth",
    )


def write_model(
    models: Path,
    *,
    model_id: str = "tiny",
    parts: Mapping[str, Any] | None = None,
    structures: int = 4,
    spacing_xyz: Sequence[float] = (6.0, 6.0, 6.0),
    step_size: float = 0.5,
    patch: Sequence[int] = (8, 8, 8),
    transpose: Sequence[int] = (0, 1, 2),
    scheme: Scheme = "CT",
    masked: bool = False,
    **changes: Any,
) -> Path:
    """Write `models/<model_id>/card.yaml` with its parts (name -> labels) and label table.

    `changes` are keys of the card.

    Returns:
        The path of the card.
    """
    table = models / "structures" / "tiny.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    names = [f"{label},thing_{label}" for label in range(1, structures + 1)]
    table.write_text("\n".join(["label,name", *names, ""]))
    entries = []
    for seed, (name, labels) in enumerate((parts or {"all": "identity"}).items()):
        folder = models / model_id / name
        heads = 1 + (structures if labels == "identity" else len(labels))
        write_folder(
            folder,
            classes=heads,
            patch=patch,
            spacing_zyx=tuple(spacing_xyz)[::-1],
            transpose=transpose,
            seed=seed,
            scheme=scheme,
            masked=masked,
        )
        hashes = {
            file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in NNUNET_FILES
        }
        entries.append({"name": name, "folder": name, "labels": labels, "sha256": hashes})
    card = {
        "id": model_id,
        "title": "Tiny random model",
        "version": "1",
        "family": "nnunetv2",
        "task": "test",
        "spacing_mm": list(spacing_xyz),
        "orientation": "RAS",
        "step_size": step_size,
        "zoom_order": 3,
        "demonstration": True,
        "code_table": "none",
        "licence": "Apache-2.0",
        "citation": "none",
        "intended_use": "tests",
        "limits": ["random weights"],
        "figures": {},
        "structures": "tiny",
        "parts": entries,
        "normalisation": scheme,
        **changes,
    }
    path = models / model_id / "card.yaml"
    path.write_text(yaml.safe_dump(card, sort_keys=False))
    return path
