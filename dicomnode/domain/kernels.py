"""How sharp a convolution kernel is, by the names that manufacturers give it.

Names have no standard. What is not known here is neither soft nor sharp.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum


class Sharpness(IntEnum):
    """In the order of preference for measuring soft tissue in HU."""

    SOFT = 0
    UNKNOWN = 1
    SHARP = 2


_PATTERNS: tuple[tuple[str, Sharpness], ...] = (
    # The first that matches decides. In words, whoever uses them (GE, Canon, United Imaging, ...).
    (r".*(BONE|LUNG|EDGE|SHARP|ULTRA|INNER ?EAR|HIGH ?RES|HRCT).*", Sharpness.SHARP),
    (r".*(SOFT|STAND|STND|STD|SMOOTH|BODY|BRAIN|ABDO).*", Sharpness.SOFT),
    (r"(DETAIL|CHEST)", Sharpness.UNKNOWN),
    # Canon and Toshiba: FC01 to FC29 and FC40 to FC49 body and head, FC3x and FC8x bone, FC5x lung.
    (r"FC[ _]?[0124]\d.*", Sharpness.SOFT),
    (r"FC[ _]?[3589]\d.*", Sharpness.SHARP),
    # Siemens: letters for the organ, then the sharpness from 10 to 99: B30f, Br40d, Bl57, I70f.
    (r"[A-Z]{1,2}[1-4]\d[A-Z]{0,2}", Sharpness.SOFT),
    (r"[A-Z]{1,2}[5-9]\d[A-Z]{0,2}", Sharpness.SHARP),
    # Philips: A, B, C from smooth to sharper, U brain, XC heart; D, E, L and Y are sharp.
    (r"(I?[AB]|C|U[ABC]|S[ABC]|XC[ABC])", Sharpness.SOFT),
    (r"(D|E|F|L|LA|EB|EC|Y[A-E]|XCD)", Sharpness.SHARP),
)
_COMPILED = tuple((re.compile(pattern), sharpness) for pattern, sharpness in _PATTERNS)


def sharpness(kernel: Sequence[str]) -> Sharpness:
    """Return how sharp a kernel is.

    Args:
        kernel: the values of Convolution Kernel; a second value names the strength of an iterative
            reconstruction and says nothing of sharpness.
    """
    if not kernel:
        return Sharpness.UNKNOWN
    name = kernel[0].strip().upper()
    for pattern, found in _COMPILED:
        if pattern.fullmatch(name):
            return found
    return Sharpness.UNKNOWN
