"""The procedural body: anatomy and tissue tables, one random person a seed, rendered on any grid.

Every structure is a union of ellipsoids. A person is the table moved by a random affine, a smooth
deformation and a little freedom of each structure; the deformation acts on the ellipsoids
themselves (centre by the map, half axes by its Jacobian), so rendering stays analytic.

World: RAS+ millimetres, x grows to the patient's right hand, y to the front, z to the head
(`nibabel.aff2axcodes` "RAS" of the label maps the tables were fitted to reads the same data so).
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from inference.phantom.solids import RADIAL_BINS, Floats, Solids, render_solids

AIR_HU = -1000
_ENVELOPE = "envelope"
"""Group of the ellipsoids that make the surface: skin, fat, muscle, then what lies within."""
_WAVES = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissue:
    """One row of tissues.csv."""

    name: str
    label: int  # of the 104-structure v1 table; 0 is unlabelled
    group: str  # tissues of a group share most of their HU draw
    priority: int  # the higher covers the lower
    hu_low: float
    hu_high: float
    shell_hu: float  # added in the outer half of each ellipsoid: cortex, wall
    freedom: float  # how far the structure moves and swells on its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """The fitted table, before anybody's variation."""

    tissues: tuple[Tissue, ...]
    owner: NDArray[np.int64]  # [n]: index into tissues
    centres: Floats  # [n, 3] mm
    axes: Floats  # [n, 3, 3]: the columns are the half axes' vectors, mm


@cache
def load_anatomy() -> Anatomy:
    """The two tables that ship beside this module."""
    here = files("inference.phantom")
    with here.joinpath("tissues.csv").open(encoding="utf-8") as file:
        tissues = tuple(_tissue(row) for row in csv.DictReader(file))
    index = {tissue.name: n for n, tissue in enumerate(tissues)}
    with here.joinpath("anatomy.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    numbers = np.array([row[1:] for row in rows], np.float64)
    return Anatomy(
        tissues=tissues,
        owner=np.array([index[row[0]] for row in rows]),
        centres=numbers[:, :3],
        axes=numbers[:, 3:].reshape(-1, 3, 3).transpose(0, 2, 1),
    )


def _tissue(row: Mapping[str, str]) -> Tissue:
    return Tissue(
        name=row["name"],
        label=int(row["label"]),
        group=row["group"],
        priority=int(row["priority"]),
        hu_low=float(row["hu_low"]),
        hu_high=float(row["hu_high"]),
        shell_hu=float(row["shell_hu"]),
        freedom=float(row["freedom"]),
    )


def _rotation(angles: Floats) -> Floats:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turned: Floats = about_z @ about_y @ about_x
    return turned


class Body:
    """One procedural person: torso, head and pelvis with the 104 structures of the v1 table.

    The origin lies in the middle of vertebra L1 before variation; the body reaches from about
    z = -370 (upper thighs) to +560 mm (crown), x +-210, y -90 to +170. `variation` 0 is the table
    itself, 1 the range the demonstration model is trained and measured on. Same arguments, same
    body, on every machine.
    """

    __slots__ = ("_couch", "_seed", "_solids", "_variation")

    def __init__(self, seed: int, variation: float = 1.0, *, couch: bool = False) -> None:
        self._seed, self._variation, self._couch = seed, variation, couch
        self._solids = self._person(np.random.default_rng(seed))

    def render(
        self, shape: tuple[int, int, int], affine: NDArray[np.float64], *, noise: float = 12.0
    ) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """HU (int16) and v1 labels (uint8), both [i, j, k], at the voxel centres of a grid.

        `affine` [4, 4] maps array indices to world RAS+ mm, as NIfTI's does: any spacing, any
        obliqueness, any flip. `noise` is the standard deviation in HU of white noise, which
        depends on the seed and the shape; everything else depends on the world point alone.
        """
        return render_solids(
            self._solids, shape, affine, outside_hu=AIR_HU, noise=noise, seed=self._seed
        )

    def extent(self) -> tuple[Floats, Floats]:
        """The least and the greatest world RAS+ coordinates [3] of labelled structures, in mm."""
        reach = np.sqrt((self._solids.axes**2).sum(2))
        own = self._solids.labels > 0
        low, high = self._solids.centres - reach, self._solids.centres + reach
        return low[own].min(0), high[own].max(0)

    def _person(self, random: np.random.Generator) -> Solids:
        anatomy, v = load_anatomy(), self._variation
        freedom = np.array([tissue.freedom for tissue in anatomy.tissues])
        shift = random.normal(0, 2.5, (len(freedom), 3)) * (freedom * v)[:, None]
        swell = np.exp(random.normal(0, 0.06, len(freedom)) * freedom * v)
        middle = np.stack(
            [anatomy.centres[anatomy.owner == n].mean(0) for n in range(len(freedom))]
        )[anatomy.owner]
        grow = swell[anatomy.owner][:, None]
        centres = middle + (anatomy.centres - middle) * grow + shift[anatomy.owner]
        axes = anatomy.axes * grow[:, :, None]

        linear = _rotation(random.normal(0, np.radians(3), 3) * v) * np.exp(
            random.normal(0, 0.05, 3) * v
        )
        centres, axes = self._deform(random, centres, axes)
        centres = centres @ linear.T + random.normal(0, 10, 3) * v
        axes = linear @ axes
        profiles = self._profiles(random, anatomy.tissues)[anatomy.owner]
        priority = np.array([tissue.priority for tissue in anatomy.tissues])[anatomy.owner]
        labels = np.array([tissue.label for tissue in anatomy.tissues], np.uint8)[anatomy.owner]
        if self._couch:
            back = (centres[:, 1] - np.sqrt((axes[:, 1] ** 2).sum(1))).min()
            table = np.array([[0.0, back - 16.0, 0.0]])
            centres = np.vstack([centres, table])
            axes = np.concatenate([axes, np.diag([230.0, 14.0, 4000.0])[None]])
            profiles = np.vstack([profiles, np.where(np.arange(RADIAL_BINS) > 22, -120, -850)])
            priority, labels = np.append(priority, -1), np.append(labels, np.uint8(0))
        return Solids(
            centres=centres,
            axes=axes,
            priority=priority,
            labels=labels,
            profiles=profiles.astype(np.int16),
        )

    def _deform(
        self, random: np.random.Generator, centres: Floats, axes: Floats
    ) -> tuple[Floats, Floats]:
        """Smooth waves of 250 to 700 mm: each ellipsoid moves, turns and stretches with them."""
        length = random.uniform(250, 700, _WAVES)
        way = random.normal(size=(_WAVES, 3))
        wave = 2 * np.pi * way / np.linalg.norm(way, axis=1, keepdims=True) / length[:, None]
        # The longer the wave, the more it may move: the strain stays alike, 4 % a wave or so.
        push = random.normal(size=(_WAVES, 3)) * (length / 700 * 4.5 * self._variation)[:, None]
        phase = centres @ wave.T + random.uniform(0, 2 * np.pi, _WAVES)
        strain = np.einsum("nw,wi,wj->nij", np.cos(phase), push, wave)
        return centres + np.sin(phase) @ push, axes + strain @ axes

    def _profiles(self, random: np.random.Generator, tissues: tuple[Tissue, ...]) -> Floats:
        """HU from centre to surface [tissue, RADIAL_BINS]."""
        groups = sorted({tissue.group for tissue in tissues})
        common = dict(zip(groups, random.uniform(-1, 1, len(groups)), strict=True))
        own = random.uniform(-1, 1, len(tissues))
        outer = np.arange(RADIAL_BINS) >= RADIAL_BINS // 2
        layers = self._layers(random)
        table = np.empty((len(tissues), RADIAL_BINS))
        for n, tissue in enumerate(tissues):
            if tissue.group == _ENVELOPE:
                table[n] = layers[tissue.name]
                continue
            draw = (0.7 * common[tissue.group] + 0.3 * own[n]) * self._variation
            low, high = tissue.hu_low, tissue.hu_high
            table[n] = (low + high + draw * (high - low)) / 2 + outer * tissue.shell_hu
        return table

    def _layers(self, random: np.random.Generator) -> dict[str, Floats]:
        """Skin, subcutaneous fat and muscle wall; then fat in the trunk, muscle elsewhere."""
        radius = np.sqrt((np.arange(RADIAL_BINS) + 0.5) / RADIAL_BINS)
        fat_hu, wall_hu = random.uniform(-115, -90), random.uniform(35, 65)
        fat = 0.91 + 0.03 * self._variation * random.uniform(-1, 1)
        wall = fat - 0.05
        skin = np.where(radius > 0.98, 10.0, np.where(radius > fat, fat_hu, wall_hu))
        within = np.where(radius > wall, skin, fat_hu + 10)
        return {"envelope_trunk": within, "envelope_flesh": skin}
