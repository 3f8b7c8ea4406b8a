"""Which kernels are soft and which are sharp, by the names of the manufacturers."""

from __future__ import annotations

import pytest

from dicomnode.domain.kernels import Sharpness, sharpness

SOFT = """B10s B20f B30f B31s B40f B41s B45f Br36d Br38f Br40d Br44f Bv40d Bf39f Hr40f Hc40s Qr40d
    I26f     I30f I41s J30s STANDARD SOFT STND STD+ A B C UB XCB
    FC01 FC08 FC13 FC18 FC21 FC26 FC43
    BODY_STANDARD IB"""
SHARP = """B50f B60f B70f B80s Br59d Br64d Bl57d Bl64f Br76u Hr60h Hr64f I50f I70f U90s
    BONE BONEPLUS LUNG EDGE D E L YA YB YC
    FC30 FC31 FC35 FC50 FC51 FC52 FC53 FC55 FC81 FC86 B_SHARP_C B_BONE"""
UNKNOWN = ["DETAIL", "CHEST", "", "?", "1", "ASTRAL", "HELICAL 3D"]


@pytest.mark.parametrize("name", SOFT.split())
def test_soft(name: str) -> None:
    assert sharpness((name,)) is Sharpness.SOFT


@pytest.mark.parametrize("name", SHARP.split())
def test_sharp(name: str) -> None:
    assert sharpness((name,)) is Sharpness.SHARP


@pytest.mark.parametrize("name", UNKNOWN)
def test_not_known(name: str) -> None:
    assert sharpness((name,)) is Sharpness.UNKNOWN


def test_not_stated() -> None:
    assert sharpness(()) is Sharpness.UNKNOWN


def test_the_strength_of_an_iteration_is_no_kernel() -> None:
    assert sharpness(("Br38f", "3")) is Sharpness.SOFT
    assert sharpness(("Br64d", "2")) is Sharpness.SHARP
