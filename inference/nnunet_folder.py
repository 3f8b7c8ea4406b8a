"""An nnU-Net v2 model folder (plans.json, dataset.json, fold_0/checkpoint_final.pth) as a network.

nnunetv2 builds the network from the plans; the weights are loaded strictly. Nothing that a file
names is run: checkpoints are opened without pickled code, and plans may name networks and layers
only. A model that would need another way through the predictor is refused.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from inference.catalog import ModelCard, Part, WeightsError
from inference.normalisation import SCHEMES, Normalisation, normalisation_of
from inference.untrusted import read_checkpoint

CHECKPOINT = "fold_0/checkpoint_final.pth"
TRUSTED_NETWORKS = "dynamic_network_architectures."
TRUSTED_LAYERS = "torch.nn."


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPart:
    """One network on its device, and what it expects."""

    network: torch.nn.Module
    patch: tuple[int, int, int]
    """In the order of `axes`."""
    axes: tuple[int, int, int]
    """Axis of [z, y, x] that the network sees first, second, third."""
    intensities: Normalisation
    labels: NDArray[np.uint8]
    """Part label -> model label."""


def load_part(part: Part, card: ModelCard, device: torch.device) -> LoadedPart:
    """Build the network of a model folder and load its weights.

    Raises:
        WeightsError: names the folder and what was expected of it.
    """
    plans, dataset = (_read_json(part.folder / name) for name in ("plans.json", "dataset.json"))
    checkpoint = read_checkpoint(part.folder / CHECKPOINT, mmap=True)
    try:
        manager = PlansManager(plans)
        with warnings.catch_warnings():
            # Weights of 2023 have plans of that time, which nnunetv2 translates.
            warnings.filterwarnings("ignore", message="Detected old nnU-Net plans format")
            configuration = manager.get_configuration(checkpoint["init_args"]["configuration"])
        heads = manager.get_label_manager(dataset)
        properties = manager.foreground_intensity_properties_per_channel.get("0") or {}
        masks = configuration.use_mask_for_norm
        intensities = normalisation_of(card.normalisation, properties, masked=bool(masks[0]))
        forward = tuple(int(axis) for axis in manager.transpose_forward)
        weights = checkpoint["network_weights"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{part.folder}: not an nnU-Net v2 model: {error!r}") from error
    _check(part, card, configuration, dataset, heads, forward)
    network = _build(part, configuration, heads.num_segmentation_heads)
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"{part.folder / CHECKPOINT}: does not fit the plans: {error}"
        ) from error
    network.requires_grad_(requires_grad=False).eval().to(device)
    patch = tuple(int(length) for length in configuration.patch_size)
    return LoadedPart(
        network=network,
        patch=(patch[0], patch[1], patch[2]),
        axes=(forward[0], forward[1], forward[2]),
        intensities=intensities,
        labels=np.array(part.labels, dtype=np.uint8),
    )


def _check(
    part: Part,
    card: ModelCard,
    configuration: ConfigurationManager,
    dataset: dict[str, Any],
    heads: Any,
    forward: tuple[int, ...],
) -> None:
    """Refuse every model that this predictor would run otherwise than nnU-Net does."""
    spacing = tuple(card.spacing_mm[::-1][axis] for axis in forward)
    channels = dataset.get("channel_names") or dataset.get("modality") or {}
    demands = (
        ("three dimensions", len(configuration.patch_size), 3),
        ("no cascade", configuration.previous_stage_name, None),
        ("one input channel", len(channels), 1),
        ("normalisation", list(configuration.normalization_schemes), [SCHEMES[card.normalisation]]),
        ("labels, not regions", bool(heads.has_regions), False),
        ("as many heads as the card's labels", heads.num_segmentation_heads, len(part.labels)),
        ("the card's spacing", np.round(configuration.spacing, 3).tolist(), list(spacing)),
    )
    for demand, found, expected in demands:
        if found != expected:
            raise WeightsError(f"{part.folder}: {demand}: expected {expected}, found {found}")


def _build(part: Part, configuration: ConfigurationManager, classes: int) -> torch.nn.Module:
    arguments = configuration.network_arch_init_kwargs
    needed = configuration.network_arch_init_kwargs_req_import
    # The plans name Python objects to import. Only networks and layers may be named.
    names = [str(arguments[key]) for key in needed if arguments.get(key) is not None]
    class_name = configuration.network_arch_class_name
    if not class_name.startswith(TRUSTED_NETWORKS):
        raise WeightsError(f"{part.folder}: network {class_name!r}: expected {TRUSTED_NETWORKS}*")
    for name in names:
        if not name.startswith(TRUSTED_LAYERS):
            raise WeightsError(f"{part.folder}: layer {name!r}: expected {TRUSTED_LAYERS}*")
    network: torch.nn.Module = get_network_from_plans(
        class_name, arguments, needed, 1, classes, allow_init=False, deep_supervision=False
    )
    return network


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: expected a JSON object: {error}") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: expected a JSON object")
    return data
