"""This project beside TotalSegmentator 2.18: same weights (random, full architecture), same image.

Prints the tables of docs/benchmarks.md. Needs the environment that tests/parity/environments.sh
makes. `python -m benchmarks.bench_inference [3|1.5]`: one case, or both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np

from benchmarks.common import (
    ENVIRONMENT,
    Watch,
    machine,
    peak_mib,
    read_card,
    timed,
    write_full_weights,
    write_image,
)
from inference.measuring import measure
from inference.nnunet import NnunetPredictor
from inference.pipeline import Options, segment

CASES = {
    "3 mm": ((256, 212, 96), (1.5625, 1.5625, 4.0)),
    "1.5 mm": ((128, 128, 60), (1.45, 1.45, 4.5)),
}
"""Source grid: 4 tiles of the 3 mm network, 2 tiles of each of the five networks at 1.5 mm."""


def upstream_command(
    weights: Path, image: Path, work: Path, resolution: str, device: str = "cpu"
) -> tuple[float, float]:
    home = work / "home"
    home.mkdir()
    settings = {"totalseg_id": "x", "send_usage_stats": False, "prediction_counter": 0}
    settings["statistics_disclaimer_shown"] = True
    (home / "config.json").write_text(json.dumps(settings))
    command = [ENVIRONMENT / "bin" / "TotalSegmentator", "-i", image, "-o", work / "command.nii.gz"]
    command += ["--ml", "-d", device, *(["--fast"] if resolution == "3 mm" else [])]
    return timed(command, {"TOTALSEG_WEIGHTS_PATH": str(weights), "TOTALSEG_HOME_DIR": str(home)})


def upstream_api(weights: Path, image: Path, work: Path, resolution: str) -> tuple[float, float]:
    """Seconds of a call, in a process that has loaded the package before."""
    job = {"image": str(image), "fast": resolution == "3 mm", "force_split": False}
    jobs = [{**job, "labels": str(work / "api.nii.gz")}]
    script = Path(__file__).parents[1] / "tests" / "parity" / "upstream.py"
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", script],
        input=json.dumps(jobs).encode(),
        capture_output=True,
        check=True,
        env={"TOTALSEG_WEIGHTS_PATH": str(weights), "TOTALSEG_HOME_DIR": str(work / "home")},
    )
    wall, processor = json.loads(done.stdout)["seconds"][0]
    return float(wall), float(processor)


class Stages:
    """Seconds by stage, from the progress that is reported."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, stage: str, fraction: float) -> None:  # noqa: ARG002 - of the interface
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def run(resolution: str) -> None:
    shape, spacing = CASES[resolution]
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        work = Path(folder)
        weights, image = work / "weights", work / "image.nii.gz"
        weights.mkdir()
        write_full_weights(weights, resolution)
        write_image(image, shape, spacing)
        size = "x".join(map(str, shape))
        print(f"\n## {resolution}: {size} at {'x'.join(map(str, spacing))} mm\n\n{machine()}\n")

        rows: list[tuple[str, float, float]] = []

        def add(name: str, seconds: tuple[float, float]) -> None:
            rows.append((name, *seconds))
            print(f"  {name}: {seconds[0]:.1f} s, processor {seconds[1]:.1f}", file=sys.stderr)

        add(
            "TotalSegmentator 2.18, its command", upstream_command(weights, image, work, resolution)
        )
        add(
            "TotalSegmentator 2.18, its API",
            upstream_api(weights, image, work, resolution),
        )
        arguments = [weights, resolution, image, work / "ours.nii.gz"]
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ours", *arguments]
        add("this project, a new process from file to file", timed(command, {}))

        card = read_card(weights, resolution)
        source = nibabel.load(image)
        volume, affine = np.asarray(source.dataobj), source.affine
        watch = Watch()
        predictor = NnunetPredictor(card)
        segment(volume[:8, :8, :8], affine, card, predictor)
        add("this project, loading the networks", watch.seconds())
        stages = Stages()
        watch = Watch()
        fast = segment(volume, affine, card, predictor, stages)
        add("this project, fast, warm", watch.seconds())
        peak = peak_mib()
        started = time.perf_counter()
        measure(volume, fast, float(np.prod(spacing)), card.structures)
        stages.seconds["measure"] = time.perf_counter() - started
        watch = Watch()
        exact = segment(volume, affine, card, predictor, options=Options(mode="exact"))
        add("this project, exact, warm", watch.seconds())
        half = Options(half_on=frozenset({"cpu"}))
        segment(volume[:8, :8, :8], affine, card, predictor, options=half)
        watch = Watch()
        rough = segment(volume, affine, card, predictor, options=half)
        add("this project, fast, bfloat16, warm", watch.seconds())

        upstream = np.asarray(nibabel.load(work / "command.nii.gz").dataobj)
        report(rows, stages.seconds)
        print("\n| labels that differ from TotalSegmentator's (random weights) | |\n|---|---|")
        for name, labels in (("exact", exact), ("fast", fast), ("bfloat16", rough)):
            print(f"| {name} | {int((labels != upstream).sum())} of {labels.size} |")
        print(f"\nPeak memory after the fast run: {peak:.0f} MiB; after all: {peak_mib():.0f} MiB.")


def report(rows: list[tuple[str, float, float]], stages: dict[str, float]) -> None:
    _, wall, processor = rows[0]
    print("| | s | the command takes | processor s | the command takes |\n|---|---|---|---|---|")
    for name, own_wall, own in rows:
        print(f"| {name} | {own_wall:.1f} | {wall / own_wall:.1f}x ", end="")
        print(f"| {own:.1f} | {processor / own:.1f}x |")
    total = sum(stages.values())
    print("\n| stage, fast, warm | s | share |\n|---|---|---|")
    for name, seconds in stages.items():
        print(f"| {name} | {seconds:.2f} | {seconds / total:.0%} |")


if __name__ == "__main__":
    for chosen in [f"{argument} mm" for argument in sys.argv[1:]] or list(CASES):
        run(chosen)
