"""The phantom: anatomy where anatomists have it, and the same world point the same on any grid."""

from itertools import pairwise, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from inference.phantom import Body, Marker, load_anatomy, render_markers
from inference.training.evaluate import by_hu_alone
from inference.training.plans import structures, whole_body

NAMES = structures()
SPINE = [
    *(f"vertebrae_C{n}" for n in range(1, 8)),
    *(f"vertebrae_T{n}" for n in range(1, 13)),
    *(f"vertebrae_L{n}" for n in range(1, 6)),
    "sacrum",
]


def _centroids(labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """World centroid [label, 3] of every label."""
    index = np.argwhere(labels)
    own = labels[labels > 0]
    count = np.bincount(own, minlength=105)
    sums = np.stack([np.bincount(own, index[:, axis], 105) for axis in range(3)], axis=1)
    with np.errstate(invalid="ignore"):
        return sums / count[:, None] @ affine[:3, :3].T + affine[:3, 3]


@pytest.fixture(scope="module", params=[0, 1, 2])
def person(request: pytest.FixtureRequest) -> tuple[NDArray[np.int16], NDArray[np.uint8], dict]:
    """HU and labels of a whole body at 4 mm, and the world centroids by name."""
    shape, affine = whole_body(4.0)
    hu, labels = Body(request.param).render(shape, affine)
    where = _centroids(labels, affine)
    return hu, labels, {name: where[label] for name, label in NAMES.items()}


def test_every_structure_is_there(person: tuple) -> None:
    _, labels, _ = person
    assert set(np.unique(labels)) == set(range(105))


def test_left_is_left(person: tuple) -> None:
    _, _, where = person
    pairs = [(n, n.replace("_right", "_left")) for n in NAMES if "_right" in n]
    pairs = [(right, left) for right, left in pairs if left in NAMES]
    assert len(pairs) == 30
    for right, left in pairs:
        assert where[right][0] > where[left][0], f"{right} is on the left"
    middle = where["vertebrae_T12"][0]
    for name in ("liver", "gallbladder", "inferior_vena_cava", "lung_middle_lobe_right"):
        assert where[name][0] > middle, name
    for name in ("spleen", "stomach", "heart_myocardium", "heart_ventricle_left"):
        assert where[name][0] < middle, name


def test_the_head_is_up_and_the_face_in_front(person: tuple) -> None:
    _, _, where = person
    for above, below in pairwise(["brain", *SPINE, "urinary_bladder"]):
        assert where[above][2] > where[below][2], (above, below)
    for side in ("left", "right"):
        heights = [where[f"rib_{side}_{n}"][2] for n in range(1, 13)]
        assert all(upper > lower - 25 for upper, lower in pairwise(heights))
        assert heights[0] > heights[5] > heights[11]
    fronts = (
        ("face", "brain"),
        ("heart_ventricle_right", "vertebrae_T8"),
        ("liver", "kidney_right"),
        ("urinary_bladder", "sacrum"),
        ("trachea", "vertebrae_T4"),
    )
    for front, back in fronts:
        assert where[front][1] > where[back][1], (front, back)


def test_the_real_ct_has_the_same_sides(test_data: Path) -> None:
    image = nibabel.load(test_data / "totalsegmentator/example_seg_v1_104.nii.gz")
    real = _centroids(np.asarray(image.dataobj, np.uint8), image.affine)
    shape, affine = whole_body()
    ours = _centroids(Body(0).render(shape, affine)[1], affine)
    pairs = (
        ("liver", "spleen", 0),
        ("kidney_right", "kidney_left", 0),
        ("hip_right", "hip_left", 0),
        ("urinary_bladder", "sacrum", 1),
        ("liver", "urinary_bladder", 2),
    )
    for one, other, axis in pairs:
        for where in (real, ours):
            assert where[NAMES[one], axis] > where[NAMES[other], axis] + 40, (one, other)


def test_hounsfield_units_are_those_of_tissues(person: tuple) -> None:
    hu, labels, _ = person
    assert abs(np.median(hu[0, 0]) + 1000) < 10
    for name, low, high in (
        ("lung_lower_lobe_left", -900, -720), ("liver", 30, 130), ("hip_left", 100, 520),
        ("trachea", -1024, -900), ("autochthon_right", 25, 85), ("urinary_bladder", -5, 40),
    ):  # fmt: skip
        assert low < np.median(hu[labels == NAMES[name]]) < high, name
    fat = (hu > -130) & (hu < -70) & (labels == 0)
    assert fat.mean() > 0.03


def test_a_classifier_by_hu_alone_fails() -> None:
    assert max(by_hu_alone((1, 2)).values()) < 0.3


def test_a_seed_is_a_body() -> None:
    shape, affine = whole_body(12.0)
    first, again, other = Body(5), Body(5), Body(6)
    for one, two in zip(first.render(shape, affine), again.render(shape, affine), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first.render(shape, affine)[1] != other.render(shape, affine)[1]).any()


def test_variation_zero_is_the_table() -> None:
    shape, affine = whole_body(12.0)
    one, two = (Body(seed, 0.0).render(shape, affine)[1] for seed in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_noise_changes_no_label() -> None:
    shape, affine = whole_body(12.0)
    clean, labels = Body(5).render(shape, affine, noise=0)
    noisy, same = Body(5).render(shape, affine, noise=20)
    np.testing.assert_array_equal(labels, same)
    shaken = (noisy.astype(float) - clean)[clean > -900]
    assert abs(shaken.mean()) < 1
    assert 18 < shaken.std() < 22


def test_the_couch_lies_behind_the_body() -> None:
    shape, affine = whole_body(8.0)
    bare, labels = Body(5).render(shape, affine, noise=0)
    lying, same = Body(5, couch=True).render(shape, affine, noise=0)
    np.testing.assert_array_equal(labels, same)
    y = np.argwhere(bare != lying)[:, 1] * 8.0 + affine[1, 3]
    assert y.size > 0
    behind = np.argwhere(labels)[:, 1].min() * 8.0 + affine[1, 3]
    assert y.max() < behind


def test_flipped_and_permuted_grids_show_the_same_points() -> None:
    body = Body(3)
    shape, affine = whole_body(8.0)
    hu, labels = body.render(shape, affine, noise=0)
    for axes, flips in product([(0, 1, 2), (2, 1, 0), (1, 2, 0)], [(1, 1, 1), (-1, 1, -1)]):
        other = affine.copy()
        for axis, flip in enumerate(flips):
            if flip < 0:
                other[:3, 3] += other[:3, axis] * (shape[axis] - 1)
                other[:3, axis] *= -1
        other[:3, :3] = other[:3, list(axes)]
        size = (shape[axes[0]], shape[axes[1]], shape[axes[2]])
        moved_hu, moved = body.render(size, other, noise=0)
        view = tuple(slice(None, None, flip) for flip in flips)
        expected = labels[view].transpose(axes)
        assert (moved != expected).mean() < 1e-5  # a centre exactly on a surface may round
        assert (moved_hu != hu[view].transpose(axes)).mean() < 1e-3


def test_an_oblique_anisotropic_grid_equals_its_points_one_by_one() -> None:
    body = Body(4)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([3.0, 5.0, 11.0])
    affine[:3, 3] = np.array([0, 40, 100]) - affine[:3, :3] @ np.array([35, 25, 10])
    hu, labels = body.render((70, 50, 20), affine, noise=0)
    index = np.argwhere(labels)
    assert len(np.unique(labels)) > 20
    for at in index[:: len(index) // 40]:
        point = np.eye(4)
        point[:3, 3] = affine[:3, :3] @ at + affine[:3, 3]
        one_hu, one = body.render((1, 1, 1), point, noise=0)
        assert one[0, 0, 0] == labels[tuple(at)]
        assert one_hu[0, 0, 0] == hu[tuple(at)]


def test_a_large_grid_equals_its_parts() -> None:
    body = Body(7)
    shape, affine = whole_body(3.0)
    assert np.prod(shape) > 3_000_000  # more than one slab
    hu, labels = body.render(shape, affine, noise=0)
    part = affine.copy()
    part[:3, 3] += affine[:3, :3] @ np.array([60, 20, 90])
    part_hu, part_labels = body.render((70, 60, 50), part, noise=0)
    box = (slice(60, 130), slice(20, 80), slice(90, 140))
    np.testing.assert_array_equal(part_labels, labels[box])
    np.testing.assert_array_equal(part_hu, hu[box])


def test_the_extent_holds_every_label() -> None:
    shape, affine = whole_body(6.0)
    body = Body(9)
    index = np.argwhere(body.render(shape, affine)[1])
    world = index @ affine[:3, :3].T + affine[:3, 3]
    low, high = body.extent()
    assert (world.min(0) >= low).all()
    assert (world.max(0) <= high).all()


def test_the_tables_name_the_104_structures() -> None:
    anatomy = load_anatomy()
    labelled = {t.name: t.label for t in anatomy.tissues if t.label}
    assert labelled == NAMES
    assert set(anatomy.owner) == set(range(len(anatomy.tissues)))
    assert (np.linalg.det(anatomy.axes) > 0).all()


MARKERS = (
    Marker(centre=(40.0, 10.0, 30.0), half_axes=(12.0, 8.0, 20.0), label=3, hu=300),
    Marker(centre=(-30.0, 35.0, -20.0), half_axes=(9.0, 15.0, 9.0), label=7, hu=-200),
    Marker(centre=(5.0, -40.0, 60.0), half_axes=(10.0, 10.0, 10.0), label=200, hu=1000),
)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_markers_lie_at_their_world_coordinates(seed: int) -> None:
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(random.uniform(2, 5, 3))
    shape = (60, 55, 50)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + random.normal(0, 5, 3)
    hu, labels = render_markers(shape, affine, MARKERS)
    world = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T
    world += affine[:3, 3]
    for marker in MARKERS:
        q = (((world - marker.centre) / marker.half_axes) ** 2).sum(-1)
        np.testing.assert_array_equal(labels == marker.label, q < 1)
        assert (hu[q < 1] == marker.hu).all()
    assert set(np.unique(hu[labels == 0])) == {-1000, 0}


def test_markers_can_have_a_body_of_their_own() -> None:
    body = Marker(centre=(0.0, 0.0, 0.0), half_axes=(20.0, 30.0, 40.0), label=1, hu=40)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -100
    hu, labels = render_markers((50, 50, 50), affine, MARKERS[:1], body=body)
    volume = 4 / 3 * np.pi * 20 * 30 * 40
    assert (hu == 40).sum() * 64 == pytest.approx(volume, rel=0.05)
    assert set(np.unique(labels)) == {0, 3}
