"""Labels land on the voxels they were made from, whatever the source grid's orientation."""

from __future__ import annotations

import itertools
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from tiny_nnunet import write_model

from inference.catalog import ModelCard, read_card
from inference.pipeline import (
    DEFAULT,
    Options,
    Progress,
    no_progress,
    segment,
    to_canonical,
    wanted_labels,
)

SHAPE_MM = (150.0, 130.0, 170.0)
"""Of the scene, along x, y, z."""

# Three balls that no mirror or rotation of the box maps onto themselves: centre, radius, HU.
BALLS = (
    ((40.0, 45.0, 50.0), 22.0, 300),
    ((105.0, 50.0, 60.0), 26.0, 600),
    ((60.0, 90.0, 120.0), 30.0, 900),
)


def scene(points_mm: NDArray[np.float64]) -> NDArray[np.int16]:
    """HU at points [..., 3] in millimetres, RAS+."""
    hu = np.zeros(points_mm.shape[:-1], np.int16)
    for centre, radius, value in BALLS:
        hu[np.linalg.norm(points_mm - np.array(centre), axis=-1) < radius] = value
    return hu


def world(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points: NDArray[np.float64] = index @ affine[:3, :3].T + affine[:3, 3]
    return points


class Threshold:
    """Labels by HU: what it is told to find is where it is in the image, nowhere else."""

    def predict(
        self,
        image: NDArray[np.float32],
        progress: Progress = no_progress,
        options: Options = DEFAULT,
    ) -> NDArray[np.uint8]:
        progress("predict", 1.0)
        return np.digitize(image, [150, 450, 750]).astype(np.uint8)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    path = write_model(tmp_path_factory.mktemp("models"), structures=3, spacing_xyz=(3.0, 3.5, 4.0))
    return read_card(path)


def grid(
    axes: tuple[int, ...], signs: tuple[int, ...], rotation: NDArray[np.float64] | None = None
) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """A grid over the scene whose array axis n runs along world axis axes[n], with signs[n]."""
    spacing = np.array([2.3, 3.1, 4.3])
    shape = tuple(int(SHAPE_MM[axis] / spacing[n]) + 1 for n, axis in enumerate(axes))
    directions = np.zeros((3, 3))
    for n, axis in enumerate(axes):
        directions[axis, n] = signs[n]
    if rotation is not None:
        directions = rotation @ directions
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    affine[:3, 3] = np.array(SHAPE_MM) / 2 - middle
    return shape, affine


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def assert_labels_are_in_place(
    shape: tuple[int, ...], affine: NDArray[np.float64], card: ModelCard
) -> None:
    points = world(shape, affine)
    volume = scene(points)
    labels = segment(volume, affine, card, Threshold())
    assert labels.shape == shape
    assert labels.dtype == np.uint8
    assert labels.flags.c_contiguous
    assert np.array_equal(volume, scene(points)), "the source was written to"
    for label, (centre, radius, value) in enumerate(BALLS, start=1):
        assert (volume == value).sum() > 200
        # The bright balls' blurred rims pass through the others' HU: judge the cores.
        distance = np.linalg.norm(points - np.array(centre), axis=-1)
        assert (labels[distance < radius - 5] == label).all()
        around = distance < radius + 5
        assert dice(labels[around] > 0, volume[around] > 0) > 0.9
        shift = points[around & (labels > 0)].mean(axis=0) - points[around & (volume > 0)].mean(
            axis=0
        )
        assert np.abs(shift).max() < 2.0, "half a voxel"
    assert not labels[scene_distance(points) > 5].any()


def scene_distance(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of points to the nearest ball's surface, from outside."""
    nearest = [np.linalg.norm(points - np.array(c), axis=-1) - radius for c, radius, _ in BALLS]
    distance: NDArray[np.float64] = np.min(nearest, axis=0)
    return distance


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)), ids=str)
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))), ids=str)
def test_every_axis_order_and_flip(
    axes: tuple[int, ...], signs: tuple[int, ...], card: ModelCard
) -> None:
    assert_labels_are_in_place(*grid(axes, signs), card)


@pytest.mark.parametrize(("axes", "signs"), [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1))])
def test_oblique_by_12_degrees(
    axes: tuple[int, ...], signs: tuple[int, ...], card: ModelCard
) -> None:
    tilt = Rotation.from_euler("xyz", (12, -7, 5), degrees=True).as_matrix()
    assert_labels_are_in_place(*grid(axes, signs, tilt), card)


def test_the_memory_layout_of_the_source_changes_nothing(card: ModelCard) -> None:
    shape, affine = grid((2, 1, 0), (1, -1, 1))
    volume = scene(world(shape, affine))
    expected = segment(volume, affine, card, Threshold())
    fortran = np.asfortranarray(volume)
    strided = np.repeat(volume, 2, axis=1)[:, ::2]
    for same in (fortran, strided):
        np.testing.assert_array_equal(segment(same, affine, card, Threshold()), expected)


class Recorder(Threshold):
    def predict(
        self,
        image: NDArray[np.float32],
        progress: Progress = no_progress,
        options: Options = DEFAULT,
    ) -> NDArray[np.uint8]:
        self.image = image
        return super().predict(image, progress)


def test_the_predictor_sees_canonical_hu_at_the_cards_spacing(card: ModelCard) -> None:
    shape, affine = grid((1, 2, 0), (-1, 1, -1))
    recorder = Recorder()
    segment(scene(world(shape, affine)), affine, card, recorder)
    image = recorder.image
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    assert (image == np.trunc(image)).all()
    for (x, y, z), _, value in BALLS:
        assert abs(image[round(z / 4.0), round(y / 3.5), round(x / 3.0)] - value) < 60


def test_progress_tells_every_stage_in_order(card: ModelCard) -> None:
    seen: list[tuple[str, float]] = []
    shape, affine = grid((0, 1, 2), (1, 1, 1))
    volume = scene(world(shape, affine))
    segment(volume, affine, card, Threshold(), lambda *step: seen.append(step))
    assert seen == [
        ("resample", 0.0),
        ("resample", 1.0),
        ("predict", 1.0),
        ("restore", 0.0),
        ("restore", 1.0),
    ]


class Fixed:
    def __init__(self, labels: NDArray[np.generic]) -> None:
        self.labels = labels

    def predict(
        self,
        image: NDArray[np.float32],
        progress: Progress = no_progress,
        options: Options = DEFAULT,
    ) -> NDArray[np.uint8]:
        return self.labels  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (np.zeros((4, 4, 5), np.uint8), "expected uint8"),
        (np.zeros((4, 4, 4), np.int32), "expected uint8"),
        (np.full((4, 4, 4), 9, np.uint8), r"\[9\] are no labels of model 'tiny'"),
    ],
)
def test_what_a_predictor_must_not_return(
    labels: NDArray[np.generic], fault: str, card: ModelCard
) -> None:
    affine = np.diag([3.0, 3.5, 4.0, 1.0])
    with pytest.raises(ValueError, match=fault):
        segment(np.zeros((4, 4, 4), np.int16), affine, card, Fixed(labels))


@pytest.mark.parametrize(
    "volume",
    [
        np.zeros((4, 4), np.int16),
        np.zeros((4, 1, 4), np.int16),
        np.zeros((0, 4, 4), np.int16),
        np.zeros((4, 4, 4), np.float32),
    ],
    ids=["two axes", "one sample", "no sample", "float"],
)
def test_volumes_that_are_refused(volume: NDArray[np.int16], card: ModelCard) -> None:
    with pytest.raises(ValueError, match=r"volume: expected int16 \[i, j, k\] with at least 2"):
        segment(volume, np.eye(4), card, Threshold())


@pytest.mark.parametrize(
    ("affine", "fault"),
    [
        (np.eye(3), "expected 4x4 finite"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), "expected 4x4 finite"),
        (np.diag([1.0, 0.0, 1.0, 1.0]), "spacing 0"),
        (np.array([[1.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]), "one plane"),
    ],
)
def test_affines_that_are_refused(affine: NDArray[np.float64], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        to_canonical(affine)


@pytest.mark.parametrize("seed", range(5))
def test_orientation_is_nibabels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for rotation in Rotation.random(200, random_state=seed).as_matrix():
        affine = np.eye(4)
        shear = np.eye(3) + rng.uniform(-0.1, 0.1, (3, 3))
        mirror = np.diag(rng.choice([-1, 1], 3))
        affine[:3, :3] = rotation @ shear @ mirror @ np.diag(rng.uniform(0.3, 8, 3))
        expected = nibabel.io_orientation(affine)
        found = to_canonical(affine)
        for world_axis in range(3):
            axis = found.axes[world_axis]
            assert expected[axis, 0] == world_axis
            assert (expected[axis, 1] < 0) == found.flipped[world_axis]


class Asked(Threshold):
    """Remembers the options and the size of the image."""

    def predict(
        self,
        image: NDArray[np.float32],
        progress: Progress = no_progress,
        options: Options = DEFAULT,
    ) -> NDArray[np.uint8]:
        self.options, self.shape = options, image.shape
        return super().predict(image, progress, options)


def test_options_reach_the_predictor(card: ModelCard) -> None:
    shape, affine = grid((0, 1, 2), (1, 1, 1))
    asked = Asked()
    options = Options(mode="exact", step_size=0.8)
    segment(scene(world(shape, affine)), affine, card, asked, options=options)
    assert asked.options == options


def test_a_label_that_nobody_asked_for_is_an_error(card: ModelCard) -> None:
    shape, affine = grid((0, 1, 2), (1, 1, 1))
    with pytest.raises(ValueError, match=r"\[1, 3\] are no labels"):
        segment(
            scene(world(shape, affine)),
            affine,
            card,
            Threshold(),
            options=Options(structures=("thing_2",)),
        )
    with pytest.raises(ValueError, match="finds no spleen"):
        wanted_labels(card, Options(structures=("thing_1", "spleen")))
    assert wanted_labels(card, Options(structures=("thing_3",))) == {3}
    assert wanted_labels(card, DEFAULT) == {1, 2, 3}


@pytest.mark.parametrize("wrong", [{"mode": "quick"}, {"step_size": 0.0}, {"step_size": 1.5}])
def test_options_that_are_no_way_to_run_a_model(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        Options(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("aggregation", ["softmax", "logits"])
@pytest.mark.parametrize("shape", [(8, 20, 18), (20, 21, 22)])
def test_exact_mode_zooms_as_scipy_does(
    aggregation: str, shape: tuple[int, ...], card: ModelCard
) -> None:
    """42 samples from 8: the plane that SciPy loses is lost, unless it takes the nearest."""
    order, border = (3, "constant") if aggregation == "softmax" else (1, "nearest")
    changed = replace(card, aggregation=aggregation, zoom_order=order, spacing_mm=(1.0, 1.0, 1.0))
    affine = np.diag([42 / 8, 1.3, 0.7, 1.0])
    volume = np.random.default_rng(2).integers(-1000, 1000, shape, dtype=np.int16)
    recorder = Recorder()
    labels = segment(volume, affine, changed, recorder, options=Options(mode="exact"))
    factors = np.array([42 / 8, 1.3, 0.7], np.float32).astype(float)
    zoomed = ndimage.zoom(volume.astype(float), factors, order=order, mode=border)
    np.testing.assert_array_equal(recorder.image, zoomed.astype(np.int32).transpose(2, 1, 0))
    model = np.digitize(recorder.image.transpose(2, 1, 0), [150, 450, 750]).astype(float)
    back = ndimage.zoom(model, np.array(shape) / model.shape, order=0, mode=border)
    np.testing.assert_array_equal(labels, back)
