"""A CUDA device: 512x512 slices at 0.78x0.78x1.0 mm through all five parts at 1.5 mm, model warm.

`python -m benchmarks.bench_gpu [DEVICE [SLICES ...]]`; cuda:0 and 280, 458, 824 if nothing is said.
Prints seconds by stage, peak memory, how the modes differ, the share of the networks' own work and
how far that is from the device's rate of multiplying matrices. Peers run beside it on the same
weights and files where their environments (`var/parity/v2` of `make parity`, `var/parity/fast` with
fastsegmentator) have a torch that sees the device; where they do not, that is said.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from numpy.typing import NDArray
from parity import kit
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench_inference import Stages, upstream_command
from benchmarks.common import (
    ENVIRONMENT,
    machine,
    peak_mib,
    read_card,
    timed,
    write_full_weights,
    write_image,
)
from inference.card import ModelCard
from inference.nnunet import NnunetPredictor
from inference.phantom import Body
from inference.pipeline import Options, segment
from inference.resampling import zoomed_shape

SLICES = (280, 458, 824)
ROWS = 512
SPACING = (0.78, 0.78, 1.0)
MODES = (Options(mode="exact"), Options(), Options(step_size=0.5))
MATRIX = 8192


def main() -> None:
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda:0")
    slices = [int(text) for text in sys.argv[2:]] or SLICES
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("bench-gpu: there is no CUDA device here; nothing was measured")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no CUDA device"
    print(f"{name}; {machine()}\n")
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        weights = Path(folder) / "weights"
        weights.mkdir()
        write_full_weights(weights, "1.5 mm")
        card = read_card(weights, "1.5 mm")
        predictor = NnunetPredictor(card, device=str(device))
        ours(device, slices, card, predictor)
        networks(device, slices, card, predictor)
        peers(device, slices[0], weights, Path(folder))


def scene(slices: int) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    shape = (ROWS, ROWS, slices)
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * SPACING
    return Body(3).render(shape, affine)[0], affine


def ours(
    device: torch.device, slices: list[int], card: ModelCard, predictor: NnunetPredictor
) -> None:
    print("| slices | mode | s | stages | device GiB | host GiB | differ from exact |")
    print("|---|---|---|---|---|---|---|")
    for number in slices:
        volume, affine = scene(number)
        segment(volume[:64, :64, :64], affine, card, predictor)  # warm
        exact = None
        for options in MODES:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            stages = Stages()
            started = time.perf_counter()
            labels = segment(volume, affine, card, predictor, stages, options)
            seconds = time.perf_counter() - started
            exact = labels if exact is None else exact
            used = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
            row = (
                number,
                f"{options.mode}, step {options.step_size or card.step_size}",
                f"{seconds:.2f}",
                ", ".join(f"{stage} {value:.2f}" for stage, value in stages.seconds.items()),
                f"{used / 2**30:.1f}",
                f"{peak_mib() / 1024:.1f}",
                f"{np.mean(labels != exact):.2%}",
            )
            print("|", " | ".join(map(str, row)), "|", flush=True)


def networks(
    device: torch.device, slices: list[int], card: ModelCard, predictor: NnunetPredictor
) -> None:
    """What the networks alone take, against products of matrices in 16-bit floats."""
    kind = torch.float16 if device.type == "cuda" else torch.float32
    side = MATRIX if device.type == "cuda" else 1024
    one, other = (torch.randn((side, side), device=device, dtype=kind) for _ in range(2))
    matrix_rate = 2 * side**3 / seconds_of(lambda: one @ other, device)
    work = spent = 0.0
    for index, part in enumerate(predictor._parts):
        tile = torch.randn((1, 1, *part.patch), device=device)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            part.network(tile)
        work += counter.get_total_flops()
        network = predictor._fast[index, predictor.has_half and device.type == "cuda"]
        spent += seconds_of(lambda network=network, tile=tile: network(tile), device)
    print("\n| slices | tiles | networks, s | TFLOP/s | matrices, TFLOP/s | share of that |")
    print("|---|---|---|---|---|---|")
    for number in slices:
        shape = zoomed_shape((ROWS, ROWS, number), SPACING, card.spacing_mm)[::-1]
        steps = compute_steps_for_sliding_window(shape, predictor._parts[0].patch, card.step_size)
        tiles = int(np.prod([len(starts) for starts in steps]))
        rates = f"{work / spent / 1e12:.1f} | {matrix_rate / 1e12:.1f}"
        share = f"{work / spent / matrix_rate:.0%}"
        print(f"| {number} | {tiles} | {tiles * spent:.2f} | {rates} | {share} |", flush=True)


def seconds_of(act: object, device: torch.device, times: int = 5) -> float:
    """Return the seconds of a call, the device's work included."""
    assert callable(act)
    for turn in range(times + 2):
        if turn == 2:
            _wait(device)
            started = time.perf_counter()
        with torch.inference_mode():
            act()
    _wait(device)
    return (time.perf_counter() - started) / times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peers(device: torch.device, slices: int, weights: Path, work: Path) -> None:
    """Run the peers' commands from file to file, if they can use the device."""
    image = work / "image.nii.gz"
    write_image(image, (ROWS, ROWS, slices), SPACING)
    print("\n| peer, its command, from file to file | s |\n|---|---|")
    if sees_device(ENVIRONMENT, device):
        wall, _ = upstream_command(weights, image, work, "1.5 mm", "gpu")
        print(f"| TotalSegmentator 2.18 | {wall:.1f} |")
    else:
        print("| TotalSegmentator 2.18 | not measured: no torch for this device in var/parity/v2 |")
    fast = kit.ENVIRONMENTS / "fast"
    if sees_device(fast, device):
        images = work / "images"
        images.mkdir()
        image.rename(images / image.name)
        command = [fast / "bin" / "FastSegmentator", "totalseg", "--task", "total"]
        command += ["-i", images, "-o", work / "peer", "--weights_dir", weights]
        wall, _ = timed(command, {})
        print(f"| fastsegmentator | {wall:.1f} |")
    else:
        print("| fastsegmentator | not measured: no torch for this device in var/parity/fast |")


def sees_device(environment: Path, device: torch.device) -> bool:
    """Whether the environment's torch can use the device."""
    python = environment / "bin" / "python"
    if device.type != "cuda" or not python.exists():
        return False
    check = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    try:
        timed([python, "-c", check], {})
    except RuntimeError:
        return False
    return True


if __name__ == "__main__":
    main()
