"""What nnU-Net reads beside the weights: plans.json and dataset.json of the demonstration model."""

import csv
from importlib.resources import files
from typing import Any

import numpy as np

from inference.phantom import Body

SPACING_MM = 6.0
PATCH = (64, 48, 64)  # z, y, x: 384 x 288 x 384 mm, most of a torso
FEATURES = (16, 48, 64, 96, 128)
DATASET = "Dataset900_DicomnodeDemo"
CONFIGURATION = "3d_fullres"
FOLDER = f"{DATASET}/nnUNetTrainer__nnUNetPlans__{CONFIGURATION}"
TRAINING_SEED = 1_000_000
"""Bodies of this seed and above are for training; those below are held out."""

Json = dict[str, Any]


def structures() -> dict[str, int]:
    """The v1 table: structure name -> label, 1 to 104."""
    table = files("inference").joinpath("models/structures/total_v1_104.csv")
    with table.open(encoding="utf-8") as file:
        return {row["name"]: int(row["label"]) for row in csv.DictReader(file)}


def whole_body(spacing: float = SPACING_MM) -> tuple[tuple[int, int, int], np.ndarray[Any, Any]]:
    """Shape [i, j, k] and affine of a RAS grid that holds any body: 432 x 336 x 984 mm."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (-213.0, -123.0, -390.0)
    width, depth, height = (round(size / spacing) for size in (432, 336, 984))
    return (width, depth, height), affine


def intensities(bodies: int = 12) -> dict[str, float]:
    """Mean, deviation and percentiles of the HU in labelled voxels of training bodies."""
    shape, affine = whole_body()
    found = []
    for seed in range(TRAINING_SEED, TRAINING_SEED + bodies):
        hu, labels = Body(seed).render(shape, affine)
        found.append(hu[labels > 0])
    values = np.concatenate(found).astype(np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    return {
        "max": float(values.max()),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "min": float(values.min()),
        "percentile_00_5": float(low),
        "percentile_99_5": float(high),
        "std": float(values.std()),
    }


def architecture(patch: tuple[int, int, int], features: tuple[int, ...]) -> Json:
    """The network, as nnunetv2's plans name it; one convolution a stage where voxels are many."""
    stages = len(features)
    if any(size % 2 ** (stages - 1) for size in patch):
        raise ValueError(f"patch {patch} does not divide by {2 ** (stages - 1)}")
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [1] + [2] * (stages - 1),
            "n_conv_per_stage_decoder": [2] + [1] * (stages - 2),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans(
    properties: dict[str, float],
    patch: tuple[int, int, int] = PATCH,
    features: tuple[int, ...] = FEATURES,
) -> Json:
    """plans.json. Spacing and patch are z, y, x; `properties` are the labelled voxels' HU."""
    shape, _ = whole_body()
    spacing, median = [SPACING_MM] * 3, [int(n) for n in reversed(shape)]
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    resample = "resample_data_or_seg_to_shape"
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": median,
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            CONFIGURATION: {
                "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(patch),
                "median_image_size_in_voxels": median,
                "spacing": spacing,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": resample,
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg": resample,
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
                "resampling_fn_probabilities": resample,
                "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
                "architecture": architecture(patch, features),
                "batch_dice": False,
            }
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": properties},
    }


def dataset(samples: int) -> Json:
    """dataset.json: one CT channel, background and the 104 structures."""
    return {
        "name": DATASET,
        "description": "Procedural bodies with the 104 structures of the v1 table; demonstration",
        "licence": "Apache-2.0",
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **structures()},
        "numTraining": samples,
        "file_ending": ".nii.gz",
    }
