"""Is this CT in Hounsfield units, or does it only look so? Signs, each of them enough by itself.

An iodine map, a virtual non-contrast or a perfusion image travels as CT Image Storage beside the
original, with the same geometry and often with the same units. Analysed, it gives organs and values
that look right and are wrong. So whatever an image says of itself is asked, the codes of the
standard first, a vendor's words next and the free texts last; no rule can overrule a sign.

Sources: PS3.3 C.8.2.1.1.1, C.8.15.2.1.1, C.8.16.2.1 (Image Type, Pixel Presentation, Volumetric
Properties), C.11.1.1.2 (Rescale Type), PS3.16 CID 7203 (Image Derivation), and what scanners of
Siemens, GE, Philips and Canon write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from dicomnode.domain.images import ImageFacts

NOT_A_VOLUME = "NOT_A_VOLUME"
DERIVED_MAP = "DERIVED_MAP"
NOT_HU = "NOT_HU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """One sign that an image is no CT image in Hounsfield units."""

    code: str
    """Of `domain.reasons`."""
    says: str
    """What was found where, for people."""


HU_UNITS = frozenset({"HU", "[HNSF'U]", "HNSF'U"})
_HU_TYPES = frozenset({"", "HU"})

_DERIVATIONS: Mapping[str, str] = MappingProxyType(
    {
        # CID 7203; what only resamples, smooths, cuts or compresses is not here.
        "113042": "pixel by pixel addition",
        "113046": "pixel by pixel division",
        "113047": "pixel by pixel mask",
        "113048": "pixel by pixel maximum",
        "113050": "metabolite maps",
        "113051": "pixel by pixel minimum",
        "113053": "pixel by pixel multiplication",
        "113062": "pixel by pixel subtraction",
        "113073": "curved multiplanar reformatting",
        "113074": "volume rendering",
        "113075": "surface rendering",
        "113076": "segmentation",
        "113077": "volume editing",
        "113078": "maximum intensity projection",
        "113079": "minimum intensity projection",
        "129104": "perfusion analysis",
        "129105": "diffusion analysis",
    }
)

_TECHNIQUES = frozenset({"", "NONE", "MPR"})
"""Volume Based Calculation Techniques that keep HU; the others project or render."""

_TYPE_WORDS_TEXT = """
    IODINE IOD VNC VUE VIRTUALNONCONTRAST ZEFF EFFZ ZEFFECTIVE RHO ELECTRONDENSITY MAT ATOMIC
    PERFUSION RCBF RCBV RMTT CBF CBV MTT TTP TMAX PBV PERMEABILITY
    MIP MINIP MAXIMUM MINIMUM PROJECTION VRT SSD CPR CURVED SUBTRACTION SUBTRACT SUB DIVISION
    MULTIPLICATION DEVIATION DIFFERENCE FUSION FUSED COLOR RGB URIC CALCIUM WATER FAT OVERLAY
    SCREENSHOT SCREEN SCREENSAVE DOSE REPORT MASK
"""
_TYPE_WORDS = frozenset(_TYPE_WORDS_TEXT.split())
"""Of Image Type, value 3 and later, as words or with several words joined."""
_MR_TYPE_WORDS_TEXT = """
    ADC EADC FA TENSOR TRACE TRACEW PHASE P VELOCITY FLOW PERFUSION RCBF RCBV RMTT CBF CBV MTT TTP
    TMAX PBV PERMEABILITY MIP MINIP MAXIMUM MINIMUM PROJECTION VRT SSD CPR CURVED SUBTRACTION
    SUBTRACT SUB DIVISION MULTIPLICATION DEVIATION DIFFERENCE FUSION FUSED COLOR RGB OVERLAY
    SCREENSHOT SCREEN SCREENSAVE REPORT
"""
_MR_TYPE_WORDS = frozenset(_MR_TYPE_WORDS_TEXT.split())
"""Maps of diffusion, perfusion, phase and flow; water and fat images of Dixon are images."""
_MONO_WORDS = frozenset({"VMI", "MONO", "MONOE", "MONOENERGETIC", "MONOCHROMATIC", "MONOPLUS"})
_LOCALIZER_WORDS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "SCANOGRAM"})

_TEXT_MAP = re.compile(
    r"""(?<![a-z0-9])(?:
        iodine | iodkarte | jodkarte | vnc
        | virtual[\s_-]*(?:non|un)[\s_-]*(?:contrast|enhanced)
        | z[\s_-]*eff(?:ective)? | eff(?:ective)?[\s_-]*(?:z|atomic) | rho[\s/_-]*z
        | electron[\s_-]*density
        | (?:iodine|water|calcium|fat|hap)\s*\((?:iodine|water|calcium|fat|hap)\)
        | (?:calcium|uric[\s_-]*acid)[\s_-]*(?:suppress\w*|map|removed)
        | bone[\s_-]*marrow[\s_-]*map
        | cbf | cbv | mtt | ttp | tmax | pbv | rcbf | rcbv | perf(?:usion)?[\s_-]*maps?
        | mip | minip | thin[\s_-]*mip | max(?:imum)?[\s_-]*intensity | vrt
        | volume[\s_-]*render\w* | cpr
        | subtract\w* | subtraktion | rgb | colou?r[\s_-]*map | overlay
        | dose[\s_-]*(?:report|info\w*|screen) | patient[\s_-]*protocol
        | screen[\s_-]*(?:save|shot|capture)\w*
    )(?![a-z0-9])""",
    re.IGNORECASE | re.VERBOSE,
)
"""In Series and Derivation Description. Protocol and Study Description name the examination, not
the image, and are not looked at. Words that also stand for other things ("low dose", "fusion" of a
spine) are not here."""
_TEXT_LOCALIZER = re.compile(
    r"(?<![a-z0-9])(?:topogram\w*|scout|localizer|surview|scanogram)(?![a-z0-9])", re.IGNORECASE
)
_TEXT_MONO = re.compile(
    r"(?<![a-z0-9])(?:mono(?:[\s_-]*e(?:nergetic)?)?[\s_+-]*(?:plus)?|vmi)(?![a-z])"
    r"|(?<![0-9])[0-9]{2,3}[\s_-]*kev(?![a-z])",
    re.IGNORECASE,
)
_KEV = re.compile(r"(?<![0-9.])([0-9]{2,3}(?:\.[0-9]+)?)[\s_-]*kev(?![a-z])", re.IGNORECASE)


def _texts(facts: ImageFacts) -> tuple[tuple[str, str], ...]:
    return ("Series Description", facts.description), ("Derivation Description", facts.derivation)


def _type_words(facts: ImageFacts) -> set[str]:
    """Words of Image Type from value 3 on, and each value with its words joined."""
    later = [value for value in facts.image_type if value not in ("ORIGINAL", "DERIVED")]
    later = [value for value in later if value not in ("PRIMARY", "SECONDARY")]
    words = {word for value in later for word in re.split(r"[^A-Z]+", value)}
    return words | {re.sub(r"[^A-Z]+", "", value) for value in later}


def _localizer(facts: ImageFacts) -> Iterable[str]:
    found = sorted(_type_words(facts) & _LOCALIZER_WORDS)
    if found:
        yield f"Image Type has {', '.join(found)}"


def _described_localizer(facts: ImageFacts) -> Iterable[str]:
    match = _TEXT_LOCALIZER.search(facts.description)
    if match:
        yield f"Series Description has {match.group()!r}"


def _rescale(facts: ImageFacts) -> Iterable[str]:
    if not facts.rescaled:
        yield "Rescale Slope or Intercept is missing"
    if facts.rescale_type not in _HU_TYPES:
        yield f"Rescale Type is {facts.rescale_type}"


def _units(facts: ImageFacts) -> Iterable[str]:
    other = [unit for unit in facts.units if unit.upper() not in HU_UNITS]
    if other:
        yield f"Real World Values are in {', '.join(other)}"


def _image_type(facts: ImageFacts) -> Iterable[str]:
    found = sorted(_type_words(facts) & _TYPE_WORDS)
    if found:
        yield f"Image Type has {', '.join(found)}"


def _mr_image_type(facts: ImageFacts) -> Iterable[str]:
    found = sorted(_type_words(facts) & _MR_TYPE_WORDS)
    if found:
        yield f"Image Type has {', '.join(found)}"


def _derivation(facts: ImageFacts) -> Iterable[str]:
    for code in facts.derivation_codes:
        scheme, _, value = code.partition(":")
        if scheme == "DCM" and value in _DERIVATIONS:
            yield f"Derivation Code is {value}, {_DERIVATIONS[value]}"


def _calculation(facts: ImageFacts) -> Iterable[str]:
    if facts.calculation_technique not in _TECHNIQUES:
        yield f"Volume Based Calculation Technique is {facts.calculation_technique}"
    if facts.volumetric_properties in ("DISTORTED", "MIXED"):
        yield f"Volumetric Properties are {facts.volumetric_properties}"


def _presentation(facts: ImageFacts) -> Iterable[str]:
    if facts.pixel_presentation not in ("", "MONOCHROME"):
        yield f"Pixel Presentation is {facts.pixel_presentation}"
    if facts.photometric not in ("", "MONOCHROME1", "MONOCHROME2"):
        yield f"Photometric Interpretation is {facts.photometric}"


def _described_map(facts: ImageFacts) -> Iterable[str]:
    for name, text in _texts(facts):
        match = _TEXT_MAP.search(text)
        if match:
            yield f"{name} has {match.group().strip()!r}"


_TABLE: tuple[tuple[str, Callable[[ImageFacts], Iterable[str]]], ...] = (
    (NOT_A_VOLUME, _localizer),
    (NOT_A_VOLUME, _described_localizer),
    (NOT_HU, _rescale),
    (NOT_HU, _units),
    (DERIVED_MAP, _image_type),
    (DERIVED_MAP, _derivation),
    (DERIVED_MAP, _calculation),
    (DERIVED_MAP, _presentation),
    (DERIVED_MAP, _described_map),
)
_ORDER = {NOT_A_VOLUME: 0, DERIVED_MAP: 1, NOT_HU: 2}
"""Which code tells most where signs of several are found."""


_MR_TABLE: tuple[tuple[str, Callable[[ImageFacts], Iterable[str]]], ...] = (
    (NOT_A_VOLUME, _localizer),
    (NOT_A_VOLUME, _described_localizer),
    (DERIVED_MAP, _mr_image_type),
    (DERIVED_MAP, _derivation),
    (DERIVED_MAP, _calculation),
    (DERIVED_MAP, _presentation),
    (DERIVED_MAP, _described_map),
)
_TABLES = {"CT": _TABLE, "MR": _MR_TABLE}


@lru_cache(maxsize=1024)
def signs(facts: ImageFacts, modality: Literal["CT", "MR"] = "CT") -> tuple[Sign, ...]:
    """Return every sign that the image is no CT image in HU; what tells most comes first.

    Of MR: that it shows no signal. Virtual monoenergetic images are in HU and have no sign by that
    alone: see `energy`.
    """
    found = [Sign(code=code, says=says) for code, look in _TABLES[modality] for says in look(facts)]
    return tuple(sorted(found, key=lambda sign: _ORDER[sign.code]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Of a virtual monoenergetic image."""

    kev: float | None
    """None where nothing says it."""
    says: str


@lru_cache(maxsize=1024)
def energy(facts: ImageFacts) -> Energy | None:
    """Return the energy of a virtual monoenergetic image, or None where the image is none."""
    says = ""
    if facts.kev is not None:
        says = "Monoenergetic Energy Equivalent is stated"
    elif found := sorted(_type_words(facts) & _MONO_WORDS):
        says = f"Image Type has {', '.join(found)}"
    else:
        for name, text in _texts(facts):
            if match := _TEXT_MONO.search(text):
                says = f"{name} has {match.group().strip()!r}"
                break
    if not says:
        return None
    kev = facts.kev
    for text in (*facts.image_type, facts.description, facts.derivation):
        if kev is None and (match := _KEV.search(text.replace("_", " "))):
            kev = float(match.group(1))
    return Energy(kev=kev, says=says)
