"""The images, weights and cards that TotalSegmentator and this project are compared on."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import upstream_formats
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from inference.catalog import ModelCard, Part, Structure
from inference.nnunet import NnunetPredictor
from inference.pipeline import Options, segment
from inference.weights.convert import convert

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / "var" / "parity"
FROZEN = Path(__file__).parent / "frozen"

CLASSES = {
    "v1": {251: 17, 252: 24, 253: 18, 254: 21, 255: 24, 256: 104},
    "v2": {291: 24, 292: 26, 293: 18, 294: 23, 295: 26, 297: 117},
}
"""Task of a part -> its classes without background; 256 and 297 are the 3 mm models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One image and how the package is asked for it."""

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    axes: str = "RAS"
    fast: bool = False
    force_split: bool = False
    border: int = 0
    """Samples of 0 HU around the image, as a padded reconstruction has them."""

    def image(self) -> nibabel.Nifti1Image:
        """Smooth noise in HU, int16, with an affine of the case's orientation."""
        seed = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4])
        noise = gaussian_filter(np.random.default_rng(seed).normal(size=self.shape), 1.2)
        hu = np.rint(noise / noise.std() * 400 - 100).clip(-1024, 2000).astype(np.int16)
        if self.border:
            inner = (slice(self.border, -self.border),) * 3
            padded = np.zeros_like(hu)
            padded[inner] = hu[inner]
            hu = padded
        ras = np.diag([*self.spacing, 1.0])
        ras[:3, 3] = (-31.5, -20.25, 107.0)
        turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(self.axes))
        turned = nibabel.Nifti1Image(hu, ras).as_reoriented(turn)
        assert nibabel.aff2axcodes(turned.affine) == tuple(self.axes)
        return turned


CASES = (
    Case(name="turned and anisotropic", shape=(30, 26, 12), spacing=(1.1, 1.37, 3.2), axes="PIR"),
    Case(name="flipped", shape=(24, 20, 16), spacing=(1.9, 1.9, 2.5), axes="LPS"),
    Case(name="smaller than a patch", shape=(9, 11, 7), spacing=(1.4, 1.3, 1.9)),
    Case(name="padded borders", shape=(26, 28, 22), spacing=(1.7, 1.2, 1.8), border=4, axes="LAS"),
    Case(name="a plane that SciPy loses", shape=(8, 20, 18), spacing=(7.875, 1.3, 1.6)),
    Case(name="own spacing", shape=(19, 18, 17), spacing=(1.5, 1.5, 1.5)),
    Case(name="split", shape=(18, 17, 60), spacing=(1.6, 1.5, 2.1), axes="LPS", force_split=True),
    Case(name="3 mm", shape=(40, 30, 20), spacing=(2.1, 1.9, 4.0), axes="LPI", fast=True),
    Case(name="3 mm, small", shape=(12, 11, 9), spacing=(3.3, 2.2, 5.0), fast=True),
)
FROZEN_CASES = tuple(
    case
    for case in CASES
    if case.name in ("turned and anisotropic", "a plane that SciPy loses", "3 mm")
)


def write_weights(version: str, folder: Path) -> None:
    """Write random weights in upstream's format to where that version looks for them."""
    for task, count in CLASSES[version].items():
        spacing = 3.0 if task in (256, 297) else 1.5
        net = upstream_formats.small(count + 1, spacing)
        if version == "v1":
            trainer = f"nnUNetTrainerV2_ep{8000 if task == 256 else 4000}_nomirror__nnUNetPlansv2.1"
            upstream_formats.write_v1(
                folder / "nnUNet" / "3d_fullres",
                net,
                task=f"Task{task}_TotalSegmentator",
                trainer=trainer,
                seed=task,
            )
        else:
            longer = "_4000epochs_NoMirroring" if task == 297 else "NoMirroring"
            upstream_formats.write_v2(
                folder,
                net,
                dataset=f"Dataset{task}_TotalSegmentator",
                trainer=f"nnUNetTrainer{longer}__nnUNetPlans__3d_fullres",
                seed=task,
            )


def cards(
    version: str, weights: Path, work: Path, names: Mapping[str, Any]
) -> dict[bool, ModelCard]:
    """Return the cards of the five parts (False) and the 3 mm model (True) of a version.

    The labels come from the names in the package itself, not from this project's tables.
    """
    total = {name: int(label) for label, name in names["total"].items()}
    structures = tuple(Structure(label=label, name=name) for name, label in total.items())
    found: dict[bool, list[Part]] = {False: [], True: []}
    for folder in sorted(path.parent for path in weights.rglob("fold_0")):
        task = int(folder.parent.name[4:7] if version == "v1" else folder.parent.name[7:10])
        fast = task in (256, 297)
        own = names["total"] if fast else names[part_key(task, names)]
        part_names = [own[label] for label in sorted(own, key=int)]
        if version == "v1":
            target = work / str(task)
            convert(folder, target, task=folder.parent.name, names=part_names)
            folder = target
        hashes = {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        labels = (0, *(total[name] for name in part_names))
        found[fast].append(Part(name=str(task), folder=folder, labels=labels, sha256=hashes))
    return {
        fast: ModelCard(
            id=f"total-{version}{'-fast' * fast}",
            title="random weights",
            version="0",
            family="nnU-Net",
            task="total",
            structures=structures,
            parts=tuple(parts),
            spacing_mm=(3.0,) * 3 if fast else (1.5,) * 3,
            orientation="RAS",
            step_size=0.5 if version == "v1" else 0.8,
            zoom_order=3 if version == "v1" else 1,
            aggregation="softmax" if version == "v1" else "logits",
            demonstration=False,
            code_table="none",
            licence="-",
            citation="-",
            intended_use="-",
            limits=(),
            figures={},
            root=work,
        )
        for fast, parts in found.items()
    }


def part_key(task: int, names: Mapping[str, Any]) -> str:
    """Return the name of the class map of a part: tasks count from 251 or 291 in their order."""
    keys = [key for key in names if key.startswith("class_map_part_")]
    order = ("organs", "vertebrae", "cardiac", "muscles", "ribs")
    key = f"class_map_part_{order[task % 10 - 1]}"
    assert key in keys
    return key


def ask_upstream(
    version: str, weights: Path, cases: Sequence[Case], work: Path
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, Any]]:
    """Return the labels of the real package for every case, and its class names."""
    jobs = []
    for number, case in enumerate(cases):
        image = work / f"image_{number}.nii.gz"
        nibabel.save(case.image(), image)
        jobs.append(
            {
                "image": str(image),
                "labels": str(work / f"labels_{number}.nii.gz"),
                "fast": case.fast,
                "force_split": case.force_split,
            }
        )
    home = work / "home"
    home.mkdir()
    environment = {
        **{
            key: os.environ[key] for key in ("PATH", "LANG", "OMP_NUM_THREADS") if key in os.environ
        },
        "HOME": str(home),
        "TOTALSEG_HOME_DIR": str(home),
        "TOTALSEG_WEIGHTS_PATH": str(weights),
    }
    done = subprocess.run(
        [ENVIRONMENTS / version / "bin" / "python", Path(__file__).parent / "upstream.py"],
        input=json.dumps(jobs).encode(),
        stdout=subprocess.PIPE,
        stderr=(work / "upstream.log").open("wb"),
        env=environment,
        cwd=work,
        check=False,
    )
    if done.returncode:
        sys.stderr.write((work / "upstream.log").read_text()[-4000:])
        raise RuntimeError(f"TotalSegmentator {version} failed")
    labels = {
        case.name: np.asarray(nibabel.load(job["labels"]).dataobj).astype(np.uint8)
        for case, job in zip(cases, jobs, strict=True)
    }
    return labels, json.loads(done.stdout)


def ours(
    case: Case, card: ModelCard, predictor: NnunetPredictor | None = None
) -> NDArray[np.uint8]:
    """Return this project's labels in exact mode."""
    image = case.image()
    volume = np.asarray(image.dataobj)
    predictor = predictor or NnunetPredictor(card, threads=1)
    return segment(volume, image.affine, card, predictor, options=Options(mode="exact"))


def frozen_file(version: str) -> Path:
    """Return where the package's answers to `FROZEN_CASES` are kept."""
    return FROZEN / f"{version}.npz"


def freeze(version: str, labels: Mapping[str, NDArray[np.uint8]], names: Mapping[str, Any]) -> None:
    """Keep the package's answers for the default tests."""
    kept = {case.name: labels[case.name] for case in FROZEN_CASES}
    np.savez_compressed(frozen_file(version), names=np.array(json.dumps(names)), **kept)
