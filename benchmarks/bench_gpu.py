"""A CUDA device: 512x512x280 and 512x512x458 with all five parts at 1.5 mm, warm, and peak memory.

`python -m benchmarks.bench_gpu [cuda:N]`. Where TotalSegmentator's environment has a CUDA torch,
run its command on the same files beside it; the one that `make parity` makes has a CPU's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.bench_inference import Stages
from benchmarks.common import machine, peak_mib, read_card, write_full_weights
from inference.nnunet import NnunetPredictor
from inference.phantom import Body
from inference.pipeline import Options, segment

SLICES = (280, 458, 824)
SPACING = (0.78, 0.78, 1.0)


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda:0"
    if not torch.cuda.is_available():
        sys.exit("bench-gpu: there is no CUDA device here; nothing was measured")
    print(f"{torch.cuda.get_device_name(device)}; {machine()}\n")
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        weights = Path(folder)
        write_full_weights(weights, "1.5 mm")
        card = read_card(weights, "1.5 mm")
        predictor = NnunetPredictor(card, device=device)
        print("| slices | mode | s | stages | device GiB | host GiB | differ from exact |")
        print("|---|---|---|---|---|---|---|")
        for slices in SLICES:
            shape = (512, 512, slices)
            affine = np.diag([*SPACING, 1.0])
            affine[:3, 3] = -(np.array(shape) - 1) / 2 * SPACING
            volume, _ = Body(3).render(shape, affine)
            segment(volume[:64, :64, :64], affine, card, predictor)  # warm
            exact = None
            for options in (Options(mode="exact"), Options(), Options(step_size=0.5)):
                torch.cuda.reset_peak_memory_stats(device)
                stages = Stages()
                started = time.perf_counter()
                labels = segment(volume, affine, card, predictor, stages, options)
                seconds = time.perf_counter() - started
                exact = labels if exact is None else exact
                row = (
                    slices,
                    f"{options.mode}, step {options.step_size or card.step_size}",
                    f"{seconds:.2f}",
                    ", ".join(f"{stage} {value:.2f}" for stage, value in stages.seconds.items()),
                    f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}",
                    f"{peak_mib() / 1024:.1f}",
                    f"{np.mean(labels != exact):.2%}",
                )
                print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
