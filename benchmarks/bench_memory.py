"""Peak memory for a long CT: 512x512x824 at 0.78x0.78x1.0 mm, five small random networks at 1.5 mm.

The networks' width does not count for what grows with the image: the image, its resampled copy and
the sums of scores (classes x patch depth x plane). What full networks add is said in
docs/benchmarks.md. A smaller step size would only take longer.
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
from benchmarks.common import machine, peak_mib
from inference.measuring import measure
from inference.nnunet import NnunetPredictor
from inference.pipeline import Options, segment

SHAPE = (512, 512, 824)
SPACING = (0.78, 0.78, 1.0)
LIMIT_MIB = 6 * 1024


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        weights, work = Path(folder) / "weights", Path(folder) / "work"
        weights.mkdir()
        work.mkdir()
        for task, classes in kit.CLASSES["v1"].items():
            net = upstream_formats.small(classes + 1, 1.5, patch=(128, 128, 128))
            if task != 256:
                upstream_formats.write_v1(
                    weights, net, task=f"Task{task}_TotalSegmentator", seed=task
                )
        with np.load(kit.frozen_file("v1")) as frozen:
            names = json.loads(str(frozen["names"]))
        card = kit.cards("v1", weights, work, names)[False]
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
        step = float(sys.argv[1]) if len(sys.argv) > 1 else None
        labels = segment(volume, affine, card, predictor, stages, Options(step_size=step))
        print(f"segmented in {time.perf_counter() - started:.0f} s: {peak_mib():.0f} MiB")
        measure(volume, labels, float(np.prod(SPACING)), card.structures)
    peak = peak_mib()
    print(", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.seconds.items()))
    print(f"peak {peak:.0f} MiB of {LIMIT_MIB} MiB")
    sys.exit(peak > LIMIT_MIB)


if __name__ == "__main__":
    main()
