"""What the images say against their headers: values, posture, orientation; and what they cannot."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import nibabel
import numpy as np
import pytest
from analysis_kit import plan
from numpy.typing import NDArray

from dicomnode.domain.content import ContentPolicy
from dicomnode.domain.findings import Finding, of_action
from dicomnode.imaging import read_scan
from dicomnode.imaging.content import check_orientation
from dicomnode.imaging.hounsfield import check_values
from dicomnode.imaging.posture import Posture, check_posture, posture
from dicomnode.scan import RAS_FROM_LPS
from inference.phantom import Body

Volume = NDArray[np.int16]
Affine = NDArray[np.float64]

MM = 5.0
LOW, HIGH = -360, 560
AFFINE = np.diag([MM, MM, MM, 1.0])
AFFINE[:3, 3] = [-240, -190, LOW]
BODY, _ = Body(1).render((96, 84, int((HIGH - LOW) / MM)), AFFINE)
LPS = RAS_FROM_LPS @ AFFINE
SEEN = Posture(spine_at_back=True, head_up=True)
UNKNOWN = Posture(spine_at_back=None, head_up=None)


def part(low: float, high: float) -> tuple[Volume, Affine]:
    """Return the planes of the body between two heights, mm."""
    first, last = int((low - LOW) / MM), int((high - LOW) / MM)
    moved = LPS.copy()
    moved[:3, 3] += moved[:3, 2] * first
    return BODY[:, :, first:last], moved


def clipped(values: NDArray[np.float64]) -> Volume:
    return np.rint(values).clip(-1024, 32767).astype(np.int16)


# Values


CHEST = part(50, 350)[0]
WRONG: dict[str, Callable[[Volume], NDArray[np.float64]]] = {
    "intercept forgotten": lambda hu: hu + 1024.0,
    "intercept twice": lambda hu: hu - 1024.0,
    "8 bits": lambda hu: (hu + 1024.0) / 16,
    "8 bits of a window": lambda hu: ((hu + 160.0) / 400 * 255).clip(0, 255),
    "8 bits with intercept": lambda hu: (hu + 1024.0) / 16 - 1024,
    "inverted": lambda hu: -hu.astype(np.float64),
    "inverted in its range": lambda hu: float(hu.max()) + float(hu.min()) - hu,
    "slope 2": lambda hu: (hu + 1024.0) * 2 - 1024,
    "constant": lambda hu: hu * 0.0 + 40,
    "air alone": lambda hu: hu * 0.0 - 1000 + np.arange(hu.shape[2]) % 50,
}


@pytest.mark.parametrize("name", WRONG)
def test_values_that_are_no_hounsfield_units_are_found(name: str) -> None:
    (finding,) = check_values(clipped(WRONG[name](CHEST)))
    assert finding.code == "VALUES_NOT_HU"
    assert "99 % below" in finding.sentence


@pytest.mark.parametrize(("low", "high"), [(430, 560), (50, 350), (-150, 150), (-360, -200)])
def test_hounsfield_units_of_every_part_pass(low: float, high: float) -> None:
    hu, _ = part(low, high)
    assert check_values(hu) == ()
    noise = np.random.default_rng(0).normal(0, 100, hu.shape)
    assert check_values(clipped(hu + noise)) == ()


def test_a_field_of_view_without_air_is_said_and_not_blamed() -> None:
    hu, _ = part(-150, -50)
    (finding,) = check_values(np.maximum(hu[30:66, 40:60], -150))
    assert finding.code == "NO_AIR_SEEN"


def test_padding_is_no_value() -> None:
    hu = CHEST.copy()
    hu[:, :30] = -1024
    valid = np.ones(hu.shape, np.bool_)
    valid[:, :30] = False
    assert check_values(hu, valid) == ()
    assert check_values(clipped(hu + 1024.0), valid)[0].code == "VALUES_NOT_HU"


# Posture


ORDERS = list(permutations(range(3)))


@pytest.mark.parametrize("number", range(6))
def test_a_body_is_seen_as_it_lies_in_any_orientation_of_the_array(number: int) -> None:
    hu, affine = part(-200, 460)
    order = ORDERS[number]
    turned, moved = hu.transpose(order), affine[:, [*order, 3]].copy()
    for axis in (axis for axis in range(3) if (number + 2) & 1 << axis):
        turned = np.flip(turned, axis)
        moved[:3, 3] += moved[:3, axis] * (turned.shape[axis] - 1)
        moved[:3, axis] *= -1
    assert posture(turned, moved) == SEEN


def test_who_lies_prone_or_on_the_side_is_not_blamed() -> None:
    """The affine says how the patient lies; only the array turns, and the table is elsewhere."""
    whole, affine = part(-200, 460)
    for turns in range(1, 4):
        hu = np.rot90(whole, turns, axes=(0, 1))
        turn = np.eye(4)
        turn[:2, :2] = np.linalg.matrix_power(np.array([[0.0, 1.0], [-1.0, 0.0]]), turns)
        centre, there = (np.array([*((np.array(s) - 1) / 2), 1]) for s in (whole.shape, hu.shape))
        moved = affine @ turn
        moved[:3, 3] += (affine @ centre - moved @ there)[:3]
        assert posture(hu, moved) == SEEN


def codes(found: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in found]


def test_a_patient_the_wrong_way_round_is_found() -> None:
    hu, affine = part(-200, 460)
    assert codes(check_posture(hu[:, ::-1], affine)) == ["SPINE_NOT_AT_BACK"]
    assert codes(check_posture(hu[::-1, ::-1], affine)) == ["SPINE_NOT_AT_BACK"]
    assert codes(check_posture(hu[:, :, ::-1], affine)) == ["UPSIDE_DOWN"]
    both = check_posture(hu[:, ::-1, ::-1], affine)
    assert codes(both) == ["SPINE_NOT_AT_BACK", "UPSIDE_DOWN"]


def test_a_leg_tells_nothing_of_the_spine() -> None:
    hu, affine = part(-360, -220)
    leg = hu[: len(hu) // 2]
    for flipped in (leg, leg[:, ::-1], leg[:, :, ::-1]):
        assert posture(flipped, affine) == UNKNOWN


def test_a_spine_whose_front_or_back_is_not_in_view_tells_nothing() -> None:
    hu, affine = part(-150, 150)
    assert posture(hu, affine).spine_at_back
    assert posture(hu[:, 30:], affine).spine_at_back is None
    valid = np.ones(hu.shape, np.bool_)
    valid[:, :30] = False
    padded = np.where(valid, hu, -1024).astype(np.int16)
    assert posture(padded, affine, valid).spine_at_back is None


def test_air_and_noise_have_no_posture() -> None:
    assert posture(np.full((20, 20, 20), -1000, np.int16), LPS) == UNKNOWN
    noise = np.random.default_rng(0).normal(-200, 400, (40, 40, 40)).astype(np.int16)
    assert posture(noise, LPS) == UNKNOWN


@pytest.fixture(scope="module")
def real(test_data: Path) -> dict[str, tuple[Volume, Affine]]:
    """The real series: volume and affine to LPS."""
    found = {}
    for name in ("crlm-ct-1004/image", "geometry/ge-hispeed-tilt-uneven"):
        paths = [path for path in (test_data / name).iterdir() if path.name != "LICENSE"]
        scan = read_scan([path.read_bytes() for path in paths])
        found[name.split("/")[-1]] = scan.volume, scan.affine
    image = nibabel.load(test_data / "totalsegmentator/example_ct.nii.gz")
    hu = clipped(np.asarray(image.dataobj, np.float64))
    found["abdomen"] = hu, RAS_FROM_LPS @ image.affine
    return found


def test_real_patients_pass(real: dict[str, tuple[Volume, Affine]]) -> None:
    seen = {name: posture(hu, affine) for name, (hu, affine) in real.items()}
    assert seen == {
        "image": SEEN,
        "abdomen": Posture(spine_at_back=True, head_up=None),
        "ge-hispeed-tilt-uneven": Posture(spine_at_back=None, head_up=True),
    }
    assert all(check_values(hu) == () for hu, _ in real.values())


def test_real_patients_the_wrong_way_round_are_found(
    real: dict[str, tuple[Volume, Affine]],
) -> None:
    chest, affine = real["image"]
    assert codes(check_posture(chest[:, ::-1], affine)) == ["SPINE_NOT_AT_BACK"]
    assert codes(check_posture(chest[::-1], affine)) == ["UPSIDE_DOWN"]
    head, affine = real["ge-hispeed-tilt-uneven"]
    assert codes(check_posture(head[::-1], affine)) == ["UPSIDE_DOWN"]
    abdomen, affine = real["abdomen"]
    assert codes(check_posture(abdomen[:, ::-1], affine)) == ["SPINE_NOT_AT_BACK"]


def test_real_values_that_were_spoilt_are_found(real: dict[str, tuple[Volume, Affine]]) -> None:
    for name, (hu, _) in real.items():
        for fault, change in WRONG.items():
            if (name, fault) == ("abdomen", "inverted"):
                continue  # a field of view without air: fat and muscle change places
            found = check_values(clipped(change(hu[..., ::4])))
            assert codes(found) == ["VALUES_NOT_HU"], (name, fault)


# Orientation


AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0)


@pytest.mark.parametrize(
    ("stated", "orientation", "good"),
    [
        (("L", "P"), AXIAL, True),
        (("LF", "PH"), AXIAL, True),
        (("R", "P"), AXIAL, False),
        (("L", "A"), AXIAL, False),
        (("P", "F"), AXIAL, False),
        (("L", "P"), OBLIQUE, True),
        (("P", "R"), OBLIQUE, True),
        (("A", "R"), OBLIQUE, False),
        (("L",), AXIAL, True),
        (("", ""), AXIAL, True),
        (("LE", "CD"), AXIAL, True),
    ],
)
def test_patient_orientation_must_not_contradict(
    stated: tuple[str, ...], orientation: tuple[float, ...], good: bool
) -> None:
    found = check_orientation({"PatientOrientation": stated}, orientation)
    assert codes(found) == ([] if good else ["ORIENTATION_CONTRADICTS"])
    assert check_orientation({}, orientation) == ()


# What follows


def test_the_policy_sorts_findings_by_what_follows() -> None:
    found = tuple(
        Finding(code=code, sentence=".")
        for code in ("VALUES_NOT_HU", "NO_AIR_SEEN", "SPINE_NOT_AT_BACK")
    )
    policy = plan(content=ContentPolicy(no_air_seen="hold"))
    assert codes(of_action(found, policy, "refuse")) == ["VALUES_NOT_HU"]
    assert codes(of_action(found, policy, "hold")) == ["NO_AIR_SEEN", "SPINE_NOT_AT_BACK"]
    assert of_action(found, policy, "note") == ()
