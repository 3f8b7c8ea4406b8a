"""Each finding is provoked once; clean bodies and real label maps give none that holds or warns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest
from analysis_kit import REPOSITORY, STRUCTURES
from numpy.typing import NDArray

from inference.catalog import read_structures
from inference.measuring import find_edges
from inference.phantom import Body
from inference.quality import Finding, check_labels
from inference.quality.volumes import bounds_of, load_bounds
from inference.training.plans import whole_body

Labels = NDArray[np.uint8]
NAMES = {structure.label: structure.name for structure in STRUCTURES}
LABELS = {name: label for label, name in NAMES.items()}
V2 = {
    structure.label: structure.name
    for structure in read_structures(REPOSITORY / "inference/models/structures/total_v2_117.csv")
}
MM = 4.0
CUT = {"CUT_AT_ENDS", "CUT_IN_PLANE"}


def body(seed: int) -> tuple[Labels, NDArray[np.float64]]:
    """Return labels [slice to the head, row to the front, column to the right] and their affine."""
    shape, affine = whole_body(MM)
    _, labels = Body(seed).render(shape, affine)
    return np.ascontiguousarray(labels.transpose(2, 1, 0)), affine[:, [2, 1, 0, 3]]


CLEAN, AFFINE = body(2)


def check(
    labels: Labels, affine: NDArray[np.float64] = AFFINE, names: Mapping[int, str] = NAMES
) -> dict[str, Finding]:
    """Return the findings by code."""
    each = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    counts = np.bincount(labels.ravel(), minlength=256)
    volumes = {n: float(counts[n]) * each for n in range(1, 256) if counts[n]}
    found = check_labels(labels, affine, names, volumes, find_edges(labels))
    codes = [(finding.code, finding.sentence) for finding in found]
    assert len(codes) == len(set(codes))
    return {finding.code: finding for finding in found}


def relabelled(changes: Mapping[str, str | None], labels: Labels = CLEAN) -> Labels:
    """Return the body with other names for some structures; None: they are not found."""
    table = np.arange(256, dtype=np.uint8)
    for name, other in changes.items():
        table[LABELS[name]] = 0 if other is None else LABELS[other]
    return table[labels]


def sides_renamed(labels: Labels) -> Labels:
    """Return the labels with left and right exchanged in every name."""
    to = str.maketrans({"\1": "right"})
    pairs = {
        name: name.replace("left", "\1").replace("right", "left").translate(to) for name in LABELS
    }
    known = {a: b if b in LABELS else None for a, b in pairs.items()}
    return relabelled({a: b for a, b in known.items() if a != b and "heart" not in a}, labels)


def ball(name: str, place: tuple[int, int, int], radius: int, labels: Labels = CLEAN) -> Labels:
    """Return the labels with a ball of a structure at a voxel."""
    grid = np.indices(labels.shape)
    away = sum((axis - at) ** 2 for axis, at in zip(grid, place, strict=True))
    return np.where(away <= radius**2, np.uint8(LABELS[name]), labels)


def placed(begin: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return the affine of a part of the body that begins at a voxel."""
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ begin
    return affine


@pytest.mark.parametrize("seed", range(4))
def test_clean_bodies_have_nothing(seed: int) -> None:
    labels, affine = body(seed)
    assert set(check(labels, affine)) <= CUT


@pytest.mark.parametrize("begin", [0.0, 0.2, 0.4, 0.6])
@pytest.mark.parametrize("length", [0.15, 0.4])
def test_parts_of_a_body_are_only_cut(begin: float, length: float) -> None:
    first, last = (int(part * len(CLEAN)) for part in (begin, begin + length))
    found = check(np.ascontiguousarray(CLEAN[first:last]), placed((first, 0, 0)))
    assert set(found) <= CUT
    assert "CUT_AT_ENDS" in found


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("example_seg_v1_104", NAMES),
        ("example_seg_v2_117_fast", V2),
        ("example_seg_sm_v2_117", V2),
        ("example_seg_dicom", V2),
        ("s0327_labels_v2_117", V2),
        ("s0328_labels_v2_117", V2),
    ],
)
def test_real_label_maps_are_only_cut(name: str, table: dict[int, str], test_data: Path) -> None:
    image = nibabel.load(test_data / "totalsegmentator" / f"{name}.nii.gz")
    labels = np.ascontiguousarray(np.asarray(image.dataobj).astype(np.uint8).transpose(2, 1, 0))
    found = check(labels, image.affine[:, [2, 1, 0, 3]], table)
    assert set(found) <= CUT
    assert "CUT_AT_ENDS" in found


def test_the_order_of_the_axes_decides_nothing() -> None:
    wrong = relabelled({"kidney_left": "kidney_right", "kidney_right": "kidney_left"})
    expected = check(wrong)
    turned = np.ascontiguousarray(wrong[::-1, :, ::-1])
    flipped = np.diag([-1.0, 1.0, -1.0, 1.0])
    flipped[:3, 3] = [len(wrong) - 1, 0, wrong.shape[2] - 1]
    assert check(turned, AFFINE @ flipped).keys() == expected.keys()
    sagittal = np.ascontiguousarray(wrong.transpose(2, 0, 1))
    assert check(sagittal, AFFINE[:, [2, 0, 1, 3]]).keys() == expected.keys()


def test_a_mirrored_body_is_seen_whether_or_not_its_names_are_mirrored_too() -> None:
    mirrored = np.ascontiguousarray(CLEAN[:, :, ::-1])
    found = check(mirrored)
    assert {"SITUS_MIRRORED", "SIDES_SWAPPED"} <= set(found)
    assert {"liver", "spleen"} <= set(found["SITUS_MIRRORED"].structures)
    assert {"kidney_left", "hip_right"} <= set(found["SIDES_SWAPPED"].structures)
    assert found["SITUS_MIRRORED"].severity == "serious"
    assert set(check(sides_renamed(mirrored))) - CUT == {"SITUS_MIRRORED"}


def test_without_a_spine_liver_and_spleen_tell_the_situs() -> None:
    no_spine = relabelled({n: None for n in LABELS if n.startswith(("vertebrae", "sacrum"))})
    assert set(check(no_spine)) <= CUT
    mirrored = sides_renamed(np.ascontiguousarray(no_spine[:, :, ::-1]))
    assert set(check(mirrored)) - CUT == {"SITUS_MIRRORED"}


def test_a_single_organ_on_the_other_side_contradicts_the_rest() -> None:
    labels = relabelled({"spleen": None})
    mirrored = CLEAN[:, :, ::-1] == LABELS["spleen"]
    labels[mirrored] = LABELS["spleen"]
    found = check(labels)
    assert found["SITUS_CONTRADICTS"].structures == ("spleen",)
    assert "liver" in found["SITUS_CONTRADICTS"].sentence
    assert "SITUS_MIRRORED" not in found


def upside_down(labels: Labels) -> Labels:
    return labels[::-1]


def front_to_back(labels: Labels) -> Labels:
    return labels[:, ::-1]


def prone_for_supine(labels: Labels) -> Labels:
    return labels[:, ::-1, ::-1]


def on_the_side(labels: Labels) -> Labels:
    return labels.transpose(0, 2, 1)[:, ::-1]


@pytest.mark.parametrize("turn", [upside_down, front_to_back, prone_for_supine, on_the_side])
def test_implausible_orientations_are_seen(turn: Callable[[Labels], Labels]) -> None:
    found = check(np.ascontiguousarray(turn(CLEAN)))
    assert found["ORIENTATION_IMPLAUSIBLE"].severity == "serious"


def test_a_real_trunk_that_is_turned_is_seen(test_data: Path) -> None:
    image = nibabel.load(test_data / "totalsegmentator/example_seg_v2_117_fast.nii.gz")
    labels = np.asarray(image.dataobj).astype(np.uint8).transpose(2, 1, 0)
    affine = image.affine[:, [2, 1, 0, 3]]
    for turn in (upside_down, front_to_back, prone_for_supine, on_the_side):
        found = check(np.ascontiguousarray(turn(labels)), affine, V2)
        assert "ORIENTATION_IMPLAUSIBLE" in found
    mirrored = check(np.ascontiguousarray(labels[:, :, ::-1]), affine, V2)
    assert {"SITUS_MIRRORED", "SIDES_SWAPPED"} <= set(mirrored)


def test_exchanged_sides_are_seen_of_a_pair_and_of_one_alone() -> None:
    found = check(relabelled({"kidney_left": "kidney_right", "kidney_right": "kidney_left"}))
    assert found["SIDES_SWAPPED"].structures == ("kidney_left", "kidney_right")
    assert set(found) - CUT == {"SIDES_SWAPPED"}
    found = check(relabelled({"kidney_left": "kidney_right", "kidney_right": None}))
    assert "kidney_right" in found["SIDES_SWAPPED"].structures


def test_what_the_field_of_view_cuts_is_named_by_where() -> None:
    assert "liver" not in check(CLEAN).get("CUT_AT_ENDS", found_none()).structures
    liver = np.argwhere(LABELS["liver"] == CLEAN)
    middle = int(liver[:, 0].mean())
    found = check(np.ascontiguousarray(CLEAN[:middle]))
    assert "liver" in found["CUT_AT_ENDS"].structures
    assert "spleen" in found["CUT_AT_ENDS"].structures
    assert "urinary_bladder" not in found["CUT_AT_ENDS"].structures
    right = int(liver[:, 2].mean())
    found = check(np.ascontiguousarray(CLEAN[:, :, :right]))
    assert "liver" in found["CUT_IN_PLANE"].structures
    assert found["CUT_IN_PLANE"].severity == "info"
    assert "spleen" not in found["CUT_IN_PLANE"].structures


def found_none() -> Finding:
    return Finding(code="", sentence="", severity="info")


def test_vertebrae_out_of_order_missing_and_doubled() -> None:
    found = check(relabelled({"vertebrae_T8": "vertebrae_T9", "vertebrae_T9": "vertebrae_T8"}))
    assert {"vertebrae_T8", "vertebrae_T9"} <= set(found["VERTEBRAE_OUT_OF_ORDER"].structures)
    found = check(relabelled({"vertebrae_T8": None, "vertebrae_L2": None}))
    assert found["VERTEBRAE_MISSING"].structures == ("vertebrae_T8", "vertebrae_L2")
    found = check(relabelled({"vertebrae_L3": "vertebrae_T10"}))
    assert found["VERTEBRA_DOUBLED"].structures == ("vertebrae_T10",)
    assert found["VERTEBRAE_MISSING"].structures == ("vertebrae_L3",)


def test_ribs_out_of_order_missing_and_doubled() -> None:
    found = check(relabelled({"rib_left_6": "rib_left_9", "rib_left_9": "rib_left_6"}))
    assert "rib_left_6" in found["RIBS_OUT_OF_ORDER"].structures
    found = check(relabelled({"rib_right_8": None}))
    assert found["RIBS_MISSING"].structures == ("rib_right_8",)
    found = check(relabelled({"rib_right_6": "rib_right_5"}))
    assert found["RIB_DOUBLED"].structures == ("rib_right_5",)


def test_a_side_that_is_missing_or_small() -> None:
    found = check(relabelled({"kidney_left": None}))
    assert found["ONE_SIDE_SMALL"].structures == ("kidney_left",)
    labels = CLEAN.copy()
    kidney = np.argwhere(labels == LABELS["kidney_right"])
    low = kidney[kidney[:, 0] < np.quantile(kidney[:, 0], 0.8)]
    labels[tuple(low.T)] = 0
    found = check(labels)
    assert found["ONE_SIDE_SMALL"].structures == ("kidney_right",)
    found = check(relabelled({"lung_upper_lobe_left": None, "lung_lower_lobe_left": None}))
    assert "ONE_SIDE_SMALL" not in found  # of absent lungs nothing was measured


def test_a_lung_that_is_small_against_the_other() -> None:
    labels = CLEAN.copy()
    for name in ("lung_upper_lobe_left", "lung_lower_lobe_left"):
        lobe = np.argwhere(labels == LABELS[name])
        labels[tuple(lobe[np.argsort(lobe[:, 2], kind="stable")][: len(lobe) * 4 // 5].T)] = 0
    assert check(labels)["ONE_SIDE_SMALL"].structures == (
        "lung_upper_lobe_left",
        "lung_lower_lobe_left",
    )


def test_pieces_that_lie_apart() -> None:
    femur = np.argwhere(LABELS["gluteus_maximus_left"] == CLEAN).mean(axis=0)
    place = tuple(int(value) for value in femur)
    found = check(ball("spleen", place, 3))
    assert found["DETACHED_PIECES"].structures == ("spleen",)
    assert "DETACHED_PIECES" not in check(ball("spleen", place, 1))


@pytest.mark.parametrize(("scale", "organ"), [(2.2, "liver"), (0.35, "kidney_left")])
def test_implausible_volumes(scale: float, organ: str) -> None:
    affine = AFFINE.copy()
    affine[:3, :3] *= scale
    found = check(CLEAN, affine)
    assert organ in found["VOLUME_IMPLAUSIBLE"].structures
    bounds = bounds_of(organ)
    assert bounds is not None
    assert "mL (" in found["VOLUME_IMPLAUSIBLE"].sentence


def test_nothing_found_is_a_finding() -> None:
    found = check(np.zeros((20, 30, 30), np.uint8))
    assert {code: one.severity for code, one in found.items()} == {"NOTHING_FOUND": "serious"}


def test_limbs_alone_are_said_to_be_limbs() -> None:
    only = relabelled({name: None for name in LABELS if not name.startswith("femur")})
    assert set(check(only)) - CUT == {"EXTREMITY_ONLY"}


def test_structures_of_other_names_are_only_seen_to_be_cut() -> None:
    names = {label: f"thing {label}" for label in NAMES}
    labels = np.ascontiguousarray(CLEAN[40:80, :, ::-1])
    assert set(check(labels, names=names)) == {"CUT_AT_ENDS"}


def test_noise_is_looked_at_in_time_and_without_an_error() -> None:
    random = np.random.default_rng(0).integers(0, 105, (60, 80, 80), np.uint8)
    assert check(random)


def test_the_table_of_volumes() -> None:
    rows = load_bounds()
    assert len({row.pattern for row in rows}) == len(rows)
    for row in rows:
        assert 0 < row.low_ml < row.high_ml
        assert row.published == (len(row.source) > 20)
    known = {*NAMES.values(), *V2.values()}
    for row in rows:
        assert any(bounds_of(name) is row for name in known), row.pattern
