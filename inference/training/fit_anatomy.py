"""Provenance of `inference/phantom/anatomy.csv`: fit ellipsoids to a public label map, by name.

Source: subject s0327 of the TotalSegmentator dataset (labels only, 1.5 mm, v2 numbering; CC BY 4.0,
doi 10.5281/zenodo.6802613). Every structure becomes the union of a few ellipsoids: k-means of its
voxels, each cluster's covariance C gives half axes sqrt(5 * eigenvalues of C) (exact for a solid
ellipsoid), and k grows until the union's Dice with the voxels is 0.86 or k reaches its limit;
gradient descent on the union then closes most of the rest. What the label map lacks (head, neck,
the parts of the heart, the pulmonary artery) stands in `HAND`. Nothing of the running product
needs this module.

Frame of the table: millimetres, RAS+ (x to the patient's right, y anterior, z up); x = 0 is the
mean of the vertebrae, y = 0 the front of the spine's middle, z = 0 the centroid of vertebra L1.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.ndimage import binary_dilation

Floats = NDArray[np.float64]

WANTED_DICE = 0.86
MAX_PARTS = 14
REFINEMENTS = 150
# v2 structures that v1 leaves as background but that a CT shows: unlabelled tissue of the phantom.
UNLABELLED = frozenset(
    {
        "sternum", "costal_cartilages", "spinal_cord", "thyroid_gland", "prostate",
        "superior_vena_cava", "brachiocephalic_vein_left", "brachiocephalic_vein_right",
        "subclavian_artery_left", "subclavian_artery_right", "brachiocephalic_trunk",
    }
)  # fmt: skip
# Cut by the upper edge of the subject's image, or a whole that v1 divides: placed by hand.
REPLACED = frozenset({"vertebrae_C7", "heart", "skull", "pulmonary_vein", "vertebrae_S1"})

_APEX = (-0.62, 0.52, -0.58)  # the heart's long axis: to the left, forward and down


def _along(direction: tuple[float, float, float]) -> Floats:
    """A rotation whose first column is the direction."""
    first = np.asarray(direction) / np.linalg.norm(direction)
    second = np.cross([0.0, 0.0, 1.0], first)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)], axis=1)


_UPRIGHT = np.eye(3)
_HEART = (-5.0, 66.0, 124.0)


def _heart(x: float, y: float, z: float) -> tuple[float, float, float]:
    return (_HEART[0] + x, _HEART[1] + y, _HEART[2] + z)


# name, centre, half axes, rotation (columns: the directions of the half axes)
HAND: tuple[tuple[str, tuple[float, float, float], tuple[float, float, float], Floats], ...] = (
    ("heart_myocardium", _heart(-28, 0, -16), (58, 40, 38), _along(_APEX)),
    ("heart_ventricle_left", _heart(-25, -3, -13), (43, 25, 23), _along(_APEX)),
    ("heart_ventricle_right", _heart(2, 24, -26), (46, 30, 21), _along((-0.8, 0.25, -0.5))),
    ("heart_ventricle_right", _heart(-6, 32, 8), (24, 18, 30), _UPRIGHT),
    ("heart_atrium_left", _heart(0, -36, 24), (38, 20, 24), _UPRIGHT),
    ("heart_atrium_right", _heart(44, 6, -8), (24, 27, 38), _UPRIGHT),
    ("pulmonary_artery", _heart(-16, 18, 50), (14, 15, 26), _along((0.1, 0.85, -0.6))),
    ("pulmonary_artery", _heart(16, -12, 64), (38, 10, 11), _along((1, -0.35, 0.05))),
    ("pulmonary_artery", _heart(-38, -12, 64), (26, 10, 11), _along((-1, -0.6, 0.05))),
    *(
        item
        for name, y, z in (
            ("vertebrae_C7", 33, 310), ("vertebrae_C6", 40, 327), ("vertebrae_C5", 45, 344),
            ("vertebrae_C4", 47, 360), ("vertebrae_C3", 47, 376), ("vertebrae_C2", 46, 394),
            ("vertebrae_C1", 44, 412),
        )
        for item in (
            (name, (0, y, z), (14, 12, 9), _UPRIGHT),
            (name, (0, y - 19, z - 2), (23, 8, 8), _UPRIGHT),
            (name, (0, y - 34, z - 5), (5, 12, 6), _UPRIGHT),
        )
    ),
    ("brain", (0, 46, 484), (66, 82, 58), _UPRIGHT),
    ("brain", (0, 18, 440), (48, 36, 26), _UPRIGHT),
    ("skull", (0, 46, 482), (74, 91, 67), _UPRIGHT),
    ("skull", (0, 18, 436), (56, 43, 33), _UPRIGHT),
    ("face", (0, 122, 424), (58, 30, 50), _UPRIGHT),
    ("face", (0, 134, 402), (30, 24, 30), _UPRIGHT),
    ("mandible", (0, 104, 378), (44, 40, 12), _UPRIGHT),
)  # fmt: skip


def ellipsoids(points: Floats, parts: int, stretch: float) -> tuple[Floats, Floats, Floats]:
    """Centres [n, 3], half axes [n, 3] and rotations [n, 3, 3] of at most `parts` clusters."""
    _, owner = kmeans2(points, parts, minit="++", seed=7, iter=30)
    centres, axes, rotations = [], [], []
    for part in range(parts):
        own = points[owner == part]
        if len(own) < 8:
            continue
        values, vectors = np.linalg.eigh(np.cov(own.T))
        if np.linalg.det(vectors) < 0:
            vectors[:, 0] *= -1
        centres.append(own.mean(0))
        axes.append(np.sqrt(5 * np.maximum(values, 0.4)) * stretch)
        rotations.append(vectors)
    return np.array(centres), np.array(axes), np.array(rotations)


def inside(points: Floats, shape: tuple[Floats, Floats, Floats]) -> NDArray[np.bool_]:
    """Whether each point [n, 3] lies in any of the ellipsoids."""
    found = np.zeros(len(points), bool)
    for centre, axes, rotation in zip(*shape, strict=True):
        found |= (((points - centre) @ rotation / axes) ** 2).sum(1) <= 1
    return found


def fit(mask: NDArray[np.bool_], spacing: float) -> tuple[tuple[Floats, Floats, Floats], float]:
    """The smallest union of ellipsoids that is close enough to the mask, and its Dice."""
    grid: Floats = np.argwhere(np.ones_like(mask)).astype(np.float64) * spacing
    flat = mask.ravel()
    own = grid[flat]
    few = own[:: max(1, len(own) // 8000)]
    seen = np.random.default_rng(7).permutation(len(grid))[:60_000]
    grid, flat = grid[seen], flat[seen]
    best: tuple[tuple[Floats, Floats, Floats], float] | None = None
    for parts in (1, 2, 3, 4, 6, 8, 11, MAX_PARTS):
        if len(few) < 12 * parts:
            break
        for stretch in (0.95, 1.02, 1.1, 1.18):
            shape = ellipsoids(few, parts, stretch)
            hit = inside(grid, shape)
            dice = 2 * float((hit & flat).sum()) / float(hit.sum() + flat.sum())
            if best is None or dice > best[1] + (0.0 if best[0][0].shape[0] >= parts else 0.01):
                best = shape, dice
        if best is not None and best[1] >= WANTED_DICE:
            break
    if best is None:
        raise ValueError("a structure of fewer than 12 voxels cannot be fitted")
    return best


def refine(
    shape: tuple[Floats, Floats, Floats], mask: NDArray[np.bool_], spacing: float
) -> tuple[tuple[Floats, Floats, Floats], float]:
    """Descend on soft Dice + cross entropy of the union's smooth minimum of q; the new Dice."""
    near = binary_dilation(mask, iterations=4)
    points: Floats = np.argwhere(near).astype(np.float64) * spacing
    order = np.random.default_rng(7).permutation(len(points))[:16_000]
    hit = torch.tensor(mask[near][order], dtype=torch.float32)
    where = torch.tensor(points[order], dtype=torch.float32)
    centres = torch.tensor(shape[0], dtype=torch.float32).requires_grad_()
    # Rows of `forms` map a point to the unit ball: inverse half axes along the rotated frame.
    start = shape[2].transpose(0, 2, 1) / shape[1][:, :, None]
    forms = torch.tensor(start, dtype=torch.float32).requires_grad_()
    scale = float(shape[1].mean())
    descent = torch.optim.Adam(
        [{"params": [centres], "lr": 0.02 * scale}, {"params": [forms], "lr": 0.01 / scale}]
    )
    for _ in range(REFINEMENTS):
        unit = torch.einsum("nij,npj->npi", forms, where[None] - centres[:, None])
        score = 8 * (1 + torch.logsumexp(-8 * unit.square().sum(2), 0) / 8)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(score, hit)
        soft = torch.sigmoid(score)
        loss = loss + 1 - 2 * (soft * hit).sum() / (soft.sum() + hit.sum())
        descent.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        descent.step()
    turned, stretch, _ = np.linalg.svd(np.linalg.inv(forms.detach().double().numpy()))
    refined = centres.detach().double().numpy(), stretch, turned
    found = inside(points, refined)
    true = mask[near]
    return refined, 2 * float((found & true).sum()) / float(found.sum() + true.sum())


def rows(labels: Path, names: Path) -> Iterator[tuple[str, Floats, Floats, Floats]]:
    """Name, centre, half axes and rotation of every ellipsoid, in the frame of the table."""
    # The axes of the array, not of the world: the subject lies turned by 3.6 degrees in the latter.
    volume = np.asarray(nibabel.load(labels).dataobj)  # type: ignore[attr-defined]
    spacing = 1.5
    with names.open() as file:
        label_of = {row["name"]: int(row["label"]) for row in csv.DictReader(file)}
    lumbar = [np.argwhere(volume == label_of[f"vertebrae_L{n}"]).mean(0) for n in range(1, 6)]
    origin = np.array([np.mean(lumbar, 0)[0], lumbar[0][1], lumbar[0][2]]) * spacing
    for name, label in label_of.items():
        hit = np.argwhere(volume == label)
        wanted = not name.startswith(("skull", "common", "atrial", "kidney_cyst"))
        if len(hit) == 0 or name in REPLACED or not wanted:
            continue
        low = hit.min(0) - 3
        box = np.zeros(hit.max(0) + 4 - low, bool)
        box[tuple((hit - low).T)] = True
        shape, _ = fit(box, spacing)
        shape, dice = refine(shape, box, spacing)
        print(f"{name:32s} {len(shape[0]):3d} parts, Dice {dice:.3f}", flush=True)  # noqa: T201 - a script
        for centre, axes, rotation in zip(*shape, strict=True):
            yield name, centre + low * spacing - origin, axes, rotation
    for name, at, size, rotation in HAND:
        yield name, np.asarray(at, float), np.asarray(size, float), rotation
    yield from envelope(volume, spacing, origin)


def envelope(
    volume: NDArray[np.uint8], spacing: float, origin: Floats
) -> Iterator[tuple[str, Floats, Floats, Floats]]:
    """The body's surface: one wide ellipsoid every 30 mm around all labels, and the head's."""
    step = int(30 / spacing)
    for start in range(0, volume.shape[2], step):
        hit = np.argwhere(volume[:, :, start : start + step].any(2)) * spacing - origin[:2]
        low, high = hit.min(0), hit.max(0)
        at = np.array([*(low + high) / 2, (start + step / 2) * spacing - origin[2]])
        half = (high - low) / 2
        fleshy = at[2] < -200 or at[2] > 235  # hips and shoulders: muscle, where the trunk has fat
        name = "envelope_flesh" if fleshy else "envelope_trunk"
        yield name, at, np.array([half[0] * 1.06 + 14, half[1] * 1.06 + 16, 62.0]), _UPRIGHT
    for y, z, size in (
        (44, 330, (62, 62, 60)), (48, 365, (62, 70, 62)), (46, 480, (81, 99, 76)),
        (100, 415, (68, 66, 66)), (20, 435, (68, 62, 60)),
    ):  # fmt: skip
        yield "envelope_flesh", np.array([0.0, y, z]), np.array(size, float), _UPRIGHT


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", type=Path, help="s0327_labels_v2_117.nii.gz")
    parser.add_argument("names", type=Path, help="CSV with the columns label and name (v2)")
    parser.add_argument("out", type=Path, help="anatomy.csv")
    given = parser.parse_args()
    with given.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        head = [f"{what}{axis}" for what in "abc" for axis in "xyz"]
        writer.writerow(["name", "x", "y", "z", *head])
        for name, at, axes, rotation in rows(given.labels, given.names):
            half = (rotation * axes).T.ravel()  # three vectors: the half axes in millimetres
            writer.writerow([name, *(f"{v:.1f}" for v in at), *(f"{v:.1f}" for v in half)])


if __name__ == "__main__":
    main()
