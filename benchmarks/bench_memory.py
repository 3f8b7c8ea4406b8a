"""Peak memory for a long CT: 512x512x824 at 0.78x0.78x1.0 mm, five random networks at 1.5 mm.

`python -m benchmarks.bench_memory [STEP] [full] [exact]`: small networks, whose width does not
count for what grows with the image (the image, its resampled copy and the sums of scores: classes x
patch depth x plane), or those of full size, which take 20 minutes of two cores at step 1. A smaller
step would only take longer.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import upstream_formats
from parity import kit

from benchmarks.bench_inference import Stages
from benchmarks.common import machine, peak_mib, read_card, write_full_weights
from inference.card import ModelCard
from inference.measuring import measure
from inference.nnunet import NnunetPredictor
from inference.pipeline import Options, segment

SHAPE = (512, 512, 824)
SPACING = (0.78, 0.78, 1.0)
LIMIT_MIB = 6 * 1024


def small_card(weights: Path, work: Path) -> ModelCard:
    for task, classes in kit.CLASSES["v1"].items():
        net = upstream_formats.small(classes + 1, 1.5, patch=(128, 128, 128))
        if task != 256:
            upstream_formats.write_v1(weights, net, task=f"Task{task}_TotalSegmentator", seed=task)
    with np.load(kit.frozen_file("v1")) as frozen:
        names = json.loads(str(frozen["names"]))
    return kit.cards("v1", weights, work, names)[False]


def full_card(weights: Path, _: Path) -> ModelCard:
    write_full_weights(weights, "1.5 mm")
    return read_card(weights, "1.5 mm")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        weights, work = Path(folder) / "weights", Path(folder) / "work"
        weights.mkdir()
        work.mkdir()
        arguments = sys.argv[1:]
        card = (full_card if "full" in arguments else small_card)(weights, work)
        affine = np.diag([*SPACING, 1.0])
        # Noise by the plane: real memory pages, as a scanner's image has.
        random = np.random.default_rng(0)
        volume = np.empty(SHAPE, np.int16)
        for index in range(SHAPE[0]):
            volume[index] = random.integers(-1000, 400, SHAPE[1:], dtype=np.int16)
        predictor = NnunetPredictor(card)
        print(f"{machine()}\nloaded, with the image: {peak_mib():.0f} MiB", flush=True)
        stages = Stages()
        started = time.perf_counter()
        step = next((float(text) for text in arguments if text not in ("full", "exact")), None)
        options = Options(mode="exact" if "exact" in arguments else "fast", step_size=step)
        labels = segment(volume, affine, card, predictor, stages, options)
        print(f"segmented in {time.perf_counter() - started:.0f} s: {peak_mib():.0f} MiB")
        measure(volume, labels, float(np.prod(SPACING)), card.structures)
    peak = peak_mib()
    print(", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.seconds.items()))
    print(f"peak {peak:.0f} MiB of {LIMIT_MIB} MiB")
    sys.exit(peak > LIMIT_MIB)


if __name__ == "__main__":
    main()
