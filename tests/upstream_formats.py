"""Weights with random numbers in the exact formats of upstream's releases.

nnU-Net v1: `<task>/<trainer>__nnUNetPlansv2.1/` with plans.pkl and, in fold_0,
model_final_checkpoint.model and .model.pkl: a Generic_UNet with its optimizer's state. nnU-Net v2:
`<dataset>/<trainer>/` with plans.json in the form of version 2.0, dataset.json and
fold_0/checkpoint_final.pth. Both as zip archives too.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

V1_TRAINER = "nnUNetTrainerV2_ep8000_nomirror__nnUNetPlansv2.1"
V2_TRAINER = "nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres"
HU = {"mean": 14.5, "sd": 266.0, "percentile_00_5": -1004.0, "percentile_99_5": 1423.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Of a network for 3D full resolution, as nnU-Net's planner would choose it."""

    classes: int
    """Background included."""
    spacing: float = 3.0
    patch: tuple[int, int, int] = (112, 112, 128)
    pools: tuple[tuple[int, int, int], ...] = (*((2, 2, 2),) * 4, (1, 1, 2))
    base: int = 32
    kernels: tuple[tuple[int, int, int], ...] | None = None

    @property
    def features(self) -> list[int]:
        return [min(self.base * 2**stage, 320) for stage in range(len(self.pools) + 1)]

    @property
    def kernel_sizes(self) -> list[list[int]]:
        kernels = self.kernels or ((3, 3, 3),) * (len(self.pools) + 1)
        return [list(kernel) for kernel in kernels]


TASK_256 = Architecture(classes=105)
"""The 3 mm network of TotalSegmentator v1, in full."""


def small(classes: int, spacing: float = 3.0, **changes: Any) -> Architecture:
    values: dict[str, Any] = {"patch": (16, 16, 16), "pools": ((2, 2, 2), (1, 2, 2)), "base": 4}
    return Architecture(classes=classes, spacing=spacing, **{**values, **changes})


def generic_unet(architecture: Architecture, seed: int = 0) -> OrderedDict[str, torch.Tensor]:
    """The state_dict of nnU-Net v1's Generic_UNet, in its own order."""
    random = torch.Generator().manual_seed(seed)
    features, kernels = architecture.features, architecture.kernel_sizes
    depth = len(architecture.pools)
    weights: OrderedDict[str, torch.Tensor] = OrderedDict()

    def conv(name: str, into: int, out: int, kernel: Sequence[int]) -> None:
        scale = (2 / (into * np.prod(kernel))) ** 0.5
        weights[f"{name}.conv.weight"] = torch.randn(out, into, *kernel, generator=random) * scale
        weights[f"{name}.conv.bias"] = torch.randn(out, generator=random) * 0.1
        weights[f"{name}.instnorm.weight"] = 1 + torch.randn(out, generator=random) * 0.1
        weights[f"{name}.instnorm.bias"] = torch.randn(out, generator=random) * 0.1

    for up in range(depth):
        skip, kernel = features[depth - 1 - up], kernels[-(up + 1)]
        conv(f"conv_blocks_localization.{up}.0.blocks.0", 2 * skip, skip, kernel)
        conv(f"conv_blocks_localization.{up}.1.blocks.0", skip, skip, kernel)
    for stage in range(depth):
        into = features[stage - 1] if stage else 1
        conv(f"conv_blocks_context.{stage}.blocks.0", into, features[stage], kernels[stage])
        conv(f"conv_blocks_context.{stage}.blocks.1", *(features[stage],) * 2, kernels[stage])
    conv(f"conv_blocks_context.{depth}.0.blocks.0", *features[depth - 1 :], kernels[depth])
    conv(f"conv_blocks_context.{depth}.1.blocks.0", *(features[depth],) * 2, kernels[depth])
    for up in range(depth):
        below, skip = features[depth - up], features[depth - 1 - up]
        pool = architecture.pools[-(up + 1)]
        weights[f"tu.{up}.weight"] = torch.randn(below, skip, *pool, generator=random) * 0.05
    for up in range(depth):
        skip = features[depth - 1 - up]
        weights[f"seg_outputs.{up}.weight"] = torch.randn(
            architecture.classes, skip, 1, 1, 1, generator=random
        )
    return weights


def v1_plans(architecture: Architecture) -> dict[str, Any]:
    """What nnU-Net v1's planner writes, with NumPy's types where it has them."""
    spacing = np.array([architecture.spacing] * 3)
    shape = np.array([160, 130, 130])
    stage = {
        "batch_size": 2,
        "num_pool_per_axis": [
            sum(pool[axis] == 2 for pool in architecture.pools) for axis in (0, 1, 2)
        ],
        "patch_size": np.array(architecture.patch),
        "median_patient_size_in_voxels": shape,
        "current_spacing": spacing,
        "original_spacing": spacing,
        "do_dummy_2D_data_aug": np.bool_(False),
        "pool_op_kernel_sizes": [list(pool) for pool in architecture.pools],
        "conv_kernel_sizes": architecture.kernel_sizes,
    }
    intensities = {key: np.float64(value) for key, value in HU.items()}
    intensities |= {"median": np.float64(28.0), "mn": np.float32(-1024), "mx": np.float32(3071)}
    coarse = {**stage, "current_spacing": spacing * 1.5}
    classes = list(range(1, architecture.classes))
    return {
        "num_stages": 2,
        "num_modalities": 1,
        "modalities": OrderedDict({0: "CT"}),
        "normalization_schemes": OrderedDict({0: "CT"}),
        "dataset_properties": OrderedDict(
            all_sizes=[shape, shape],
            all_spacings=[spacing, spacing],
            all_classes=classes,
            modalities={0: "CT"},
            intensityproperties=OrderedDict({0: OrderedDict(intensities)}),
            size_reductions=OrderedDict(s0001=np.float64(1.0)),
        ),
        "list_of_npz_files": ["/data/s0001.npz"],
        "original_spacings": [spacing, spacing],
        "original_sizes": [shape, shape],
        "preprocessed_data_folder": "/data",
        "num_classes": len(classes),
        "all_classes": classes,
        "base_num_features": architecture.base,
        "use_mask_for_norm": OrderedDict({0: False}),
        "keep_only_largest_region": None,
        "min_region_size_per_class": None,
        "min_size_per_class": None,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [np.int64(0), np.int64(1), np.int64(2)],
        "data_identifier": "nnUNetData_plans_v2.1",
        "plans_per_stage": {0: coarse, 1: stage},
        "preprocessor_name": "GenericPreprocessor",
        "conv_per_stage": 2,
    }


def write_v1(
    folder: Path,
    architecture: Architecture,
    *,
    task: str,
    trainer: str = V1_TRAINER,
    seed: int = 0,
    numpy_1: bool = False,
) -> dict[str, torch.Tensor]:
    """Write `folder/<task>/<trainer>/...` and return the state_dict in it.

    Args:
        folder: where the task's folder goes.
        architecture: of the network.
        task: e.g. Task256_TotalSegmentator_3mm_1139subj.
        trainer: name of the folder with the network.
        seed: of the weights.
        numpy_1: name NumPy's functions in the files as NumPy 1 did.
    """
    top = folder / task / trainer
    (top / "fold_0").mkdir(parents=True)
    weights = generic_unet(architecture, seed)
    model = top / "fold_0" / "model_final_checkpoint.model"
    momentum = {index: {"momentum_buffer": value} for index, value in enumerate(weights.values())}
    group = {"lr": np.float64(1e-5), "momentum": 0.99, "params": list(range(len(weights)))}
    torch.save(
        {
            "epoch": 8000,
            "state_dict": weights,
            "optimizer_state_dict": {
                "state": {k: {n: v.clone() for n, v in s.items()} for k, s in momentum.items()},
                "param_groups": [group],
            },
            "lr_scheduler_state_dict": None,
            "plot_stuff": ([np.float64(-0.5)], [np.float32(-0.4)], [], [np.float64(0.9)]),
            "best_stuff": (None, None, np.float64(0.93)),
            "amp_grad_scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3},
        },
        model,
    )
    plans = v1_plans(architecture)
    info = OrderedDict(
        init=("/data/plans.pkl", 0, "/out", "/data", True, 1, True, False, True),
        name=trainer.split("__")[0],
        **{"class": f"<class 'nnunet.training.{trainer.split('__')[0]}'>"},
        plans=plans,
    )
    # Python 3.7's protocol, in which names stand as lines of text.
    for path, data in ((Path(f"{model}.pkl"), info), (top / "plans.pkl", plans)):
        pickled = pickle.dumps(data, protocol=3)
        path.write_bytes(_numpy_1(pickled) if numpy_1 else pickled)
    if numpy_1:
        _rewrite(model)
    return weights


def _numpy_1(pickled: bytes) -> bytes:
    return pickled.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def _rewrite(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in entries:
            archive.writestr(info.filename, _numpy_1(data) if "data.pkl" in info.filename else data)


def v2_plans(architecture: Architecture) -> dict[str, Any]:
    """What nnU-Net 2.0 wrote in 2023: the architecture without its name in Python."""
    stages = len(architecture.pools) + 1
    resampling = {
        f"resampling_fn_{what}{suffix}": value
        for what in ("data", "seg", "probabilities")
        for suffix, value in (
            ("", "resample_data_or_seg_to_shape"),
            (
                "_kwargs",
                {"is_seg": what == "seg", "order": 1, "order_z": 0, "force_separate_z": None},
            ),
        )
    }
    hu = {"std" if key == "sd" else key: value for key, value in HU.items()}
    return {
        "dataset_name": "Dataset297_TotalSegmentator_total_3mm_1559subj",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [architecture.spacing] * 3,
        "original_median_shape_after_transp": [160, 130, 130],
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": {"patch_size": [160, 160]},
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(architecture.patch),
                "median_image_size_in_voxels": [160.0, 130.0, 130.0],
                "spacing": [architecture.spacing] * 3,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "UNet_class_name": "PlainConvUNet",
                "UNet_base_num_features": architecture.base,
                "n_conv_per_stage_encoder": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "num_pool_per_axis": [5, 5, 5],
                "pool_op_kernel_sizes": [[1, 1, 1], *(list(p) for p in architecture.pools)],
                "conv_kernel_sizes": architecture.kernel_sizes,
                "unet_max_num_features": 320,
                **resampling,
                "batch_dice": False,
            },
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {**hu, "max": 3071.0, "median": 28.0, "min": -1024.0}
        },
    }


def write_v2(
    folder: Path,
    architecture: Architecture,
    *,
    dataset: str,
    names: Sequence[str] | None = None,
    trainer: str = V2_TRAINER,
    seed: int = 0,
) -> None:
    """Write `folder/<dataset>/<trainer>/...`."""
    top = folder / dataset / trainer
    (top / "fold_0").mkdir(parents=True)
    plans = v2_plans(architecture)
    names = names or [f"structure_{label}" for label in range(1, architecture.classes)]
    described = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0} | {name: label for label, name in enumerate(names, start=1)},
        "numTraining": 1559,
        "file_ending": ".nii.gz",
    }
    (top / "plans.json").write_text(json.dumps(plans, indent=4))
    (top / "dataset.json").write_text(json.dumps(described, indent=4))
    configuration = PlansManager(plans).get_configuration("3d_fullres")
    torch.manual_seed(seed)
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        architecture.classes,
        deep_supervision=True,
    )
    torch.save(
        {
            "network_weights": network.state_dict(),
            "optimizer_state": {
                "state": {
                    i: {"momentum_buffer": p.detach()} for i, p in enumerate(network.parameters())
                },
                "param_groups": [{"lr": 0.0, "momentum": 0.99, "nesterov": True}],
            },
            "grad_scaler_state": {"scale": 65536.0},
            "logging": {
                "mean_fg_dice": [np.float64(0.9)],
                "ema_fg_dice": [np.float64(0.9)],
                "dice_per_class_or_region": [[np.float32(0.9)]],
                "lrs": [0.01],
            },
            "_best_ema": np.float64(0.92),
            "current_epoch": 4000,
            "init_args": {
                "plans": plans,
                "configuration": "3d_fullres",
                "fold": 0,
                "dataset_json": described,
                "unpack_dataset": True,
                "device": torch.device("cuda"),
            },
            "trainer_name": trainer.split("__")[0],
            "inference_allowed_mirroring_axes": None,
        },
        top / "fold_0" / "checkpoint_final.pth",
    )


def zip_up(folder: Path, archive: Path, *, inside: str = "") -> Path:
    """Zip a folder as upstream does: its name is the top folder, under `inside`."""
    with zipfile.ZipFile(archive, "w") as made:
        for path in _below(folder):
            made.write(path, f"{inside}{path.relative_to(folder.parent)}")
    return archive


def _below(folder: Path) -> Iterator[Path]:
    yield folder
    yield from sorted(folder.rglob("*"))
