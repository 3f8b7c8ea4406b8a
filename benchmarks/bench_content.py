"""How often the checks of content are wrong: right series that they blame, wrong ones they pass.

    python -m benchmarks.bench_content

prints the tables of docs/content-checks.md. Right are the real series of DICOMNODE_TEST_DATA, each
as it is, in parts, thick, noisy and with a narrow field of view, and procedural bodies in all 48
orientations of the array. Wrong is each of them after something that goes wrong in real life.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from dicomnode.errors import Refusal
from dicomnode.imaging import read_scan
from dicomnode.imaging.hounsfield import check_values
from dicomnode.imaging.posture import check_posture
from dicomnode.scan import RAS_FROM_LPS
from inference.phantom import Body

DATA = Path(os.environ.get("DICOMNODE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
SERIES = ("crlm-ct-1004/image", "geometry/ge-hispeed-tilt-uneven")
IMAGES = ("example_ct", "example_ct_sm")
EXTRA = os.environ.get("CONTENT_EXTRA", "")
"""More NIfTI files with CT of known orientation, separated by colons."""
PARTS_MM = {
    "head": (430, 560), "chest": (60, 400), "abdomen": (-150, 150), "pelvis": (-370, -100),
    "whole": (-370, 560),
}  # fmt: skip

Volume = NDArray[np.int16]
Affine = NDArray[np.float64]
Case = tuple[str, Volume, Affine]


def real() -> Iterator[Case]:
    """Yield the real series as they came: name, HU, affine to LPS."""
    for name in SERIES:
        files = [path for path in sorted((DATA / name).iterdir()) if path.name != "LICENSE"]
        try:
            scan = read_scan([path.read_bytes() for path in files])
        except Refusal as refusal:
            print(f"{name}: {refusal}")
            continue
        yield name, scan.volume, scan.affine
    paths = [DATA / "totalsegmentator" / f"{name}.nii.gz" for name in IMAGES]
    paths += [Path(path) for path in EXTRA.split(":") if path]
    for path in paths:
        image = nibabel.load(path)
        hu = np.rint(np.asarray(image.dataobj)).clip(-1024, 32767).astype(np.int16)
        yield path.name, hu, RAS_FROM_LPS @ image.affine


def along(affine: Affine, world: int) -> int:
    """Return the array axis that runs most along x, y or z."""
    return int(np.argmax(np.abs((affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))[world])))


def crop(case: Case, axis: int, part: slice, name: str) -> Case:
    index = [slice(None)] * 3
    index[axis] = part
    moved = case[2].copy()
    moved[:3, 3] += moved[:3, axis] * (part.start or 0)
    return f"{case[0]} {name}", case[1][tuple(index)], moved


def variants(case: Case) -> Iterator[Case]:
    """Yield a real case as other protocols would have made it: all of them right."""
    name, hu, affine = case
    yield case
    up = along(affine, 2)
    length = hu.shape[up]
    for label, first, last in (("1/3", 0, 1), ("2/3", 1, 2), ("3/3", 2, 3), ("2/3+", 0, 2)):
        yield crop(case, up, slice(length * first // 3, length * last // 3), label)
    spacing = np.linalg.norm(affine[:3, up])
    step = max(1, round(10 / spacing))
    if step > 1 and length // step >= 4:
        thick = np.add.reduceat(hu.astype(np.int32), np.arange(0, length, step), axis=up) // step
        wide = affine.copy()
        wide[:3, up] *= step
        yield f"{name} thick", thick.astype(np.int16), wide
    random = np.random.default_rng(0)
    noisy = (hu + random.normal(0, 80, hu.shape)).clip(-1024, 3071).astype(np.int16)
    yield f"{name} noisy", noisy, affine
    for world, label in ((0, "narrow"), (1, "flat")):
        axis = along(affine, world)
        size = hu.shape[axis]
        yield crop(case, axis, slice(size // 4, size - size // 4), label)
    spine = crop(case, along(affine, 0), slice(hu.shape[along(affine, 0)] // 3, -1), "side cut")
    yield crop(spine, along(affine, 1), slice(0, hu.shape[along(affine, 1)] * 2 // 3), "and front")


def bodies(seeds: range) -> Iterator[Case]:
    """Yield procedural bodies with and without a table, whole and in parts."""
    for seed in seeds:
        for part, (low, high) in PARTS_MM.items():
            affine = np.diag([4.0, 4.0, 4.0, 1.0])
            affine[:3, 3] = [-240, -190, low]
            shape = (120, 105, (high - low) // 4)
            hu, _ = Body(seed, couch=bool(seed % 2)).render(shape, affine)
            yield f"body {seed} {part}", hu, RAS_FROM_LPS @ affine
            if part == "pelvis":
                leg = hu[:60, :, : len(hu[0, 0]) // 2]
                yield f"body {seed} leg", leg, RAS_FROM_LPS @ affine


def orientations(case: Case) -> Iterator[Case]:
    """Yield the same patient in all 48 ways to lay an array."""
    name, hu, affine = case
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        turned, moved = hu.transpose(order), affine[:, [*order, 3]].copy()
        for axis, flip in enumerate(flips):
            if flip:
                turned = np.flip(turned, axis)
                moved[:3, 3] += moved[:3, axis] * (turned.shape[axis] - 1)
                moved[:3, axis] *= -1
        yield f"{name} {order}{flips}", turned, moved


def clipped(values: NDArray[np.float64]) -> Volume:
    """Return values as the decoder hands them on: never below -1024."""
    return np.rint(values).clip(-1024, 32767).astype(np.int16)


def as_mr(hu: Volume) -> NDArray[np.float64]:
    """Return signal as of a T1-weighted MR: fat bright, bone and air dark, uneven, noisy."""
    levels = np.interp(hu, [-1000, -300, -100, 0, 60, 300, 1500], [0, 30, 900, 250, 400, 120, 40])
    slope = np.linspace(0.6, 1.4, hu.shape[-1])
    noise = np.random.default_rng(0).normal(0, 15, (2, *hu.shape))
    return np.hypot(levels * slope + noise[0], noise[1])


VALUES: dict[str, Callable[[Volume], Volume]] = {
    "intercept forgotten (+1024)": lambda hu: clipped(hu + 1024.0),
    "intercept twice (-1024)": lambda hu: clipped(hu - 1024.0),
    "8 bits, 0 to 255": lambda hu: clipped((hu + 1024.0) / 16),
    "8 bits, window 400": lambda hu: clipped(((hu + 160.0) / 400 * 255).clip(0, 255)),
    "8 bits with intercept -1024": lambda hu: clipped((hu + 1024.0) / 16 - 1024),
    "inverted (-HU)": lambda hu: clipped(-hu.astype(np.float64)),
    "inverted in its range": lambda hu: clipped(float(hu.max()) + float(hu.min()) - hu),
    "slope 2": lambda hu: clipped((hu + 1024.0) * 2 - 1024),
    "slope 1/2": lambda hu: clipped((hu + 1024.0) / 2 - 1024),
    "like MR": lambda hu: clipped(as_mr(hu)),
    "like MR, with intercept -1024": lambda hu: clipped(as_mr(hu) - 1024),
    "constant": lambda hu: np.full_like(hu, 40),
}
PLACES: dict[str, tuple[str, tuple[int, ...]]] = {
    "front and back exchanged": ("SPINE_NOT_AT_BACK", (1,)),
    "prone taken for supine": ("SPINE_NOT_AT_BACK", (0, 1)),
    "head and feet exchanged": ("UPSIDE_DOWN", (2,)),
    "head first taken for feet first": ("UPSIDE_DOWN", (0, 2)),
}


def report(title: str, cases: list[Case]) -> None:
    """Print a table of one group of cases."""
    blamed: Counter[str] = Counter()
    started, slowest = time.perf_counter(), 0.0
    for name, hu, affine in cases:
        before = time.perf_counter()
        found = (*check_values(hu), *check_posture(hu, affine))
        slowest = max(slowest, time.perf_counter() - before)
        for finding in found:
            blamed[finding.code] += 1
            print(f"    {name}: {finding.code}: {finding.sentence}")
    seconds = time.perf_counter() - started
    print(f"\n{title}: {len(cases)} right series; blamed: {dict(blamed) or 'none'}")
    print(f"    {seconds / len(cases):.2f} s each, at most {slowest:.2f} s")
    for label, change in VALUES.items():
        hits = sum(
            any(f.code == "VALUES_NOT_HU" for f in check_values(change(c[1]))) for c in cases
        )
        print(f"| {label} | {hits} of {len(cases)} |")
    for label, (code, worlds) in PLACES.items():
        codes = []
        for _, hu, affine in cases:
            flipped = np.flip(hu, [along(affine, world) for world in worlds])
            codes.append([finding.code for finding in check_posture(flipped, affine)])
        hits = sum(code in found for found in codes)
        astray = sum(any(other != code for other in found) for found in codes)
        print(f"| {label} | {hits} of {len(cases)} | other findings: {astray}")


def main() -> None:
    """Print all tables."""
    report("Real series, as they are", list(real()))
    report("Real series and their variants", [v for case in real() for v in variants(case)])
    report("Procedural bodies", list(bodies(range(6))))
    turned = [t for case in bodies(range(1)) for t in orientations(case)]
    found = Counter(
        finding.code for _, hu, affine in turned for finding in check_posture(hu, affine)
    )
    print(f"\n{len(turned)} arrays in 48 orientations; blamed: {dict(found) or 'none'}")


if __name__ == "__main__":
    main()
