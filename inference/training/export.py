"""Write the trained state as an nnU-Net v2 model folder with its card.

Weights are stored in half precision, which halves the repository's share and changes no label that
matters; loading copies them into the network's fp32.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from inference.training.loop import State
from inference.training.plans import CONFIGURATION, FOLDER, SPACING_MM, dataset

FILES = ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")

LIMITS = (
    "For demonstration only, never for patients: it exists so that the whole chain can be run and "
    "tested without any patient data.",
    "Trained on procedural bodies made of ellipsoids and, where stated, one real CT; it knows "
    "neither disease nor the variety of people.",
    "Works at 6 mm: thin structures (ribs, adrenal glands, vessels) are coarse or missing.",
    "Expects HU and a patient whose left and right are as the header says; it cannot notice "
    "either being wrong.",
)


def half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in fp16; entries that share memory (nnU-Net's aliases) still share it."""
    known: dict[int, Tensor] = {}
    return {
        name: known.setdefault(value.data_ptr(), value.detach().cpu().half())
        for name, value in weights.items()
    }


def write_folder(state: State, root: Path) -> Path:
    """Write plans.json, dataset.json and the averaged weights below `root`; the model's folder."""
    folder = root / FOLDER
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("plans.json", state.plans),
        ("dataset.json", dataset(state.iteration)),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    torch.save(
        {
            "network_weights": half(state.averaged().state_dict()),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": CONFIGURATION, "fold": 0},
            "inference_allowed_mirroring_axes": None,
            "current_epoch": state.iteration,
        },
        folder / "fold_0/checkpoint_final.pth",
    )
    return folder


def write_card(root: Path, figures: Mapping[str, Any]) -> Path:
    """Write card.yaml beside the model folder, with the hashes of what lies there now."""
    folder = root / FOLDER
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    card = {
        "id": "demo",
        "title": "Demonstration model: 104 structures at 6 mm, for procedural bodies",
        "version": "1",
        "family": "nnU-Net v2 PlainConvUNet",
        "task": "total",
        "spacing_mm": [SPACING_MM] * 3,
        "orientation": "RAS",
        "step_size": 0.5,
        "zoom_order": 3,
        "demonstration": True,
        "code_table": "total_v1_104",
        "licence": "Apache-2.0",
        "citation": (
            "Trained by this project on its own procedural bodies, whose shapes are fitted to "
            "subject s0327 of the TotalSegmentator dataset (CC BY 4.0, "
            "doi 10.5281/zenodo.6802613)."
        ),
        "intended_use": "Demonstration and tests of the node on synthetic CT. Not for diagnosis.",
        "limits": list(LIMITS),
        "figures": dict(figures),
        "structures": "total_v1_104",
        "parts": [{"name": "demo", "folder": FOLDER, "labels": "identity", "sha256": hashes}],
    }
    path = root / "card.yaml"
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=96)
    path.write_text(text, encoding="utf-8")
    return path
