"""Measurements against direct computation, and against upstream's numbers of a real CT."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from inference import measuring
from inference.catalog import Structure
from inference.measuring import Measurement, measure

STRUCTURES = tuple(Structure(label=label, name=f"thing_{label}") for label in range(1, 10))


def by_label(measurements: tuple[Measurement, ...]) -> dict[int, Measurement]:
    return {measurement.label: measurement for measurement in measurements}


@pytest.fixture
def volume() -> NDArray[np.int16]:
    return np.random.default_rng(3).integers(-1024, 3071, (12, 9, 11), dtype=np.int16)


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    return np.random.default_rng(4).choice(np.array([0, 0, 2, 3, 9], np.uint8), (12, 9, 11))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chunk", [1, 250, 1 << 23])
def test_statistics_are_those_of_the_voxels(
    volume: NDArray[np.int16],
    labels: NDArray[np.uint8],
    masked: bool,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "CHUNK_VOXELS", chunk)
    valid = np.random.default_rng(5).random(volume.shape) > 0.3
    measured = measure(volume, labels, 2.5, STRUCTURES, valid if masked else None)
    assert [m.label for m in measured] == [2, 3, 9]
    for m in measured:
        inside = labels == m.label
        hu = volume[inside & valid if masked else inside].astype(np.float64)
        assert m.name == f"thing_{m.label}"
        assert m.voxels == inside.sum()
        assert m.volume_ml == pytest.approx(inside.sum() * 2.5 / 1000, rel=1e-12)
        assert m.mean == pytest.approx(hu.mean(), rel=1e-12)
        assert m.sd == pytest.approx(hu.std(), rel=1e-12)
        assert m.median == np.median(hu)


def test_the_whole_int16_range_does_not_wrap() -> None:
    volume = np.array([[[-32768, 32767], [32767, 32767]]], np.int16)
    labels = np.full(volume.shape, 255, np.uint8)
    (m,) = measure(volume, labels, 1.0, [Structure(label=255, name="last")])
    assert (m.mean, m.median) == (volume.mean(), 32767)
    assert m.sd == pytest.approx(volume.astype(float).std())


@pytest.mark.parametrize(("hu", "median"), [([7], 7), ([1, 4], 2.5), ([9, 1, 2], 2)])
def test_median_of_few(hu: list[int], median: float) -> None:
    volume = np.array(hu, np.int16).reshape(1, 1, -1)
    (m,) = measure(volume, np.ones(volume.shape, np.uint8), 1.0, STRUCTURES)
    assert m.median == median


def test_padding_counts_in_the_volume_and_has_no_hu() -> None:
    volume = np.full((4, 4, 4), -2000, np.int16)
    labels = np.zeros(volume.shape, np.uint8)
    labels[1:3, 1:3, 1:3] = 1
    (m,) = measure(volume, labels, 1000.0, STRUCTURES, np.zeros(volume.shape, bool))
    assert (m.voxels, m.volume_ml) == (8, 8.0)
    assert (m.mean, m.sd, m.median) == (None, None, None)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [0, -1])
def test_a_structure_at_any_face_is_flagged(axis: int, side: int) -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2:4, 2:4, 2:4] = 1
    place: list[slice | int] = [slice(2, 4)] * 3
    place[axis] = side
    labels[tuple(place)] = 2
    measured = by_label(measure(np.zeros((6, 6, 6), np.int16), labels, 1.0, STRUCTURES))
    assert not measured[1].touches_border
    assert measured[2].touches_border


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("gap", [0, 1])
def test_a_structure_beside_padding_is_flagged(axis: int, gap: int) -> None:
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[3:5, 3:5, 3:5] = 1
    for low, high in ((0, 3 - gap), (5 + gap, 8)):
        valid = np.ones(labels.shape, bool)
        np.moveaxis(valid, axis, 0)[low:high] = False
        (m,) = measure(np.zeros(labels.shape, np.int16), labels, 1.0, STRUCTURES, valid)
        assert m.touches_border is (gap == 0)


def test_nothing_found_gives_nothing(volume: NDArray[np.int16]) -> None:
    assert measure(volume, np.zeros(volume.shape, np.uint8), 1.0, STRUCTURES) == ()


def test_faults_are_named(volume: NDArray[np.int16], labels: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="one shape"):
        measure(volume, labels[1:], 1.0, STRUCTURES)
    with pytest.raises(ValueError, match="one shape"):
        measure(volume, labels, 1.0, STRUCTURES, np.ones((1, 1, 1), bool))
    with pytest.raises(ValueError, match=r"labels \[9\] are in no structure"):
        measure(volume, labels, 1.0, STRUCTURES[:-1])


def test_a_real_ct_gives_upstreams_volumes_and_intensities(test_data: Path) -> None:
    """Upstream's numbers are of its fast model's labels, which are not here: only the full model's.

    The two models agree on large organs within a few per cent, so this shows units, not exactness.
    """
    folder = test_data / "totalsegmentator"
    upstream = json.loads((folder / "example_seg_sm_fast_statistics.json").read_text())
    ct = nibabel.load(folder / "example_ct_sm.nii.gz")
    labels = nibabel.load(folder / "example_seg_sm_v2_117.nii.gz")
    names = {1: "spleen", 2: "kidney_right", 3: "kidney_left", 5: "liver", 6: "stomach"}
    structures = [
        Structure(label=label, name=names.get(label, f"other_{label}")) for label in range(1, 118)
    ]
    voxel = float(abs(np.linalg.det(ct.affine[:3, :3])))
    measured = by_label(
        measure(
            np.asarray(ct.dataobj, np.int16),
            np.asarray(labels.dataobj, np.uint8),
            voxel,
            structures,
        )
    )
    for label, name in names.items():
        expected = upstream[name]
        assert measured[label].volume_ml == pytest.approx(expected["volume"] / 1000, rel=0.03)
        assert measured[label].mean == pytest.approx(expected["intensity"], abs=2)
