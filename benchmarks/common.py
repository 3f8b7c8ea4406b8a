"""What the benchmarks share: random weights in upstream's full architecture, and the machine."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
import upstream_formats
from parity import kit

from inference.catalog import ModelCard
from inference.phantom import Body

ENVIRONMENT = kit.ENVIRONMENTS / "v2"
FULL = {
    "3 mm": {"spacing": 3.0, "patch": (112, 112, 128), "pools": (*((2, 2, 2),) * 4, (1, 1, 2))},
    "1.5 mm": {"spacing": 1.5, "patch": (128, 128, 128), "pools": ((2, 2, 2),) * 5},
}
"""Patches and poolings of TotalSegmentator 2's networks; 32 features at first, 320 at most."""
NAMES = {
    291: "part1_organs_1559subj",
    292: "part2_vertebrae_1532subj",
    293: "part3_cardiac_1559subj",
    294: "part4_muscles_1559subj",
    295: "part5_ribs_1559subj",
    297: "total_3mm_1559subj",
}


def write_full_weights(folder: Path, resolution: str) -> None:
    """Write the model folders of TotalSegmentator 2 for 3 mm or 1.5 mm, with random numbers."""
    tasks = (297,) if resolution == "3 mm" else (291, 292, 293, 294, 295)
    for task in tasks:
        classes = kit.CLASSES["v2"][task] + 1
        longer = "_4000epochs_NoMirroring" if task == 297 else "NoMirroring"
        upstream_formats.write_v2(
            folder,
            upstream_formats.Architecture(classes=classes, **FULL[resolution]),
            dataset=f"Dataset{task}_TotalSegmentator_{NAMES[task]}",
            trainer=f"nnUNetTrainer{longer}__nnUNetPlans__3d_fullres",
            seed=task,
        )


def read_card(weights: Path, resolution: str) -> ModelCard:
    """Return the card of those weights, labels by the names of the package itself."""
    with np.load(kit.frozen_file("v2")) as frozen:
        names = json.loads(str(frozen["names"]))
    return kit.cards("v2", weights, weights, names)[resolution == "3 mm"]


def write_image(path: Path, shape: tuple[int, int, int], spacing: tuple[float, ...]) -> None:
    """Write a phantom of those dimensions, the middle of the trunk in the middle, as NIfTI."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    hu, _ = Body(3).render(shape, affine)
    nibabel.save(nibabel.Nifti1Image(hu, affine), path)


def machine() -> str:
    """Return a line on what this was measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores of {model}; Python {platform.python_version()}, torch "
        f"{torch.__version__}; load average before {load}"
    )


def peak_mib() -> float:
    """Return the most resident memory this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Watch:
    """Seconds on the wall, and of the processor in this process and those it waited for.

    The second is what a busy machine distorts less.
    """

    def __init__(self) -> None:
        self._started, self._used = time.perf_counter(), self._processor()

    def seconds(self) -> tuple[float, float]:
        return time.perf_counter() - self._started, self._processor() - self._used

    @staticmethod
    def _processor() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system


def timed(command: list[Any], environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds of a command that has to succeed, as `Watch` does."""
    watch = Watch()
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stderr.decode()[-4000:])
        raise RuntimeError(f"{command[0]} failed")
    return watch.seconds()
