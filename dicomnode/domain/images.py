"""What an image says of itself that decides whether and how its series is analysed.

Slices of one reconstruction have equal facts; only their place differs, and that stands beside.
So a series of two thousand slices is a handful of facts, counted. No decision is taken here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """Of one image, from its header alone; what is not stated is empty or None."""

    image_type: tuple[str, ...] = ()
    """Image Type, upper case; of a multi-frame image its Frame Types as well."""
    frame_of_reference_uid: str = ""
    orientation: tuple[float, ...] = ()
    """[6] Image Orientation (Patient), LPS, to three decimals."""
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None
    """Number of Frames of a multi-frame image; None for a single image."""
    span: tuple[float, ...] = ()
    """Of a multi-frame image: least place, greatest place (mm), and number of different places."""
    pixel_spacing: tuple[float, ...] = ()
    """mm between rows, and between columns, to four decimals."""
    slice_thickness_mm: float | None = None
    photometric: str = ""
    """Photometric Interpretation."""
    rescaled: bool = False
    """Rescale Slope and Intercept are there."""
    rescale_type: str = ""
    units: tuple[str, ...] = ()
    """Measurement Units of the Real World Value Mappings (UCUM codes)."""
    pixel_presentation: str = ""
    volumetric_properties: str = ""
    calculation_technique: str = ""
    """Volume Based Calculation Technique."""
    derivation_codes: tuple[str, ...] = ()
    """Derivation Code Sequence, each as scheme:value."""
    derivation: str = ""
    """Derivation Description."""
    multienergy: bool = False
    """Multi-energy CT Acquisition is YES."""
    kev: float | None = None
    """Energy of a virtual monoenergetic image, where an attribute says it."""
    kvp: float | None = None
    kernel: tuple[str, ...] = ()
    """Convolution Kernel."""
    contrast: str = ""
    """Contrast/Bolus Agent; `coded` where only a code says that there was one."""
    acquisition: str = ""
    """Acquisition Number."""
    temporal_position: str = ""
    cardiac_phase: str = ""
    """Nominal Percentage of Cardiac Phase."""
    manufacturer: str = ""
    device: str = ""
    """Manufacturer's Model Name."""
    station: str = ""
    """Station Name."""
    study_description: str = ""
    protocol: str = ""
    """Protocol Name."""
    description: str = ""
    """Series Description."""

    def __reduce__(self) -> tuple[Callable[[str], ImageFacts], tuple[str]]:
        """Pickle the text, of which the images of a series have one."""
        return decode, (encode(self),)

    @property
    def is_original(self) -> bool:
        """Whether Image Type begins with ORIGINAL."""
        return self.image_type[:1] == ("ORIGINAL",)

    @property
    def distance_from_original(self) -> int:
        """0: original, or nothing is said; 1: derived; 2: reformatted, or made afterwards.

        Some scanners write the first values of Image Type in another order.
        """
        if "DERIVED" not in self.image_type:
            return 0
        return 2 if any(_REFORMATTED & set(value.split()) for value in self.image_type) else 1

    @property
    def contrast_given(self) -> bool:
        """Whether a contrast agent is stated, and not that there was none."""
        return self.contrast.upper() not in _NO_CONTRAST


_REFORMATTED = frozenset({"MPR", "REFORMATTED", "RESAMPLED", "SECONDARY"})
_NO_CONTRAST = frozenset({"", "NO", "NONE", "N", "NATIVE", "WITHOUT", "UNENHANCED", "OHNE"})


_DEFAULTS: dict[str, Any] = {item.name: item.default for item in fields(ImageFacts)}


@lru_cache(maxsize=128)
def encode(facts: ImageFacts) -> str:
    """Return facts as canonical JSON without what is not stated: equal facts, equal text."""
    stated = {
        name: value
        for name, default in _DEFAULTS.items()
        if (value := getattr(facts, name)) != default
    }
    return json.dumps(stated, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@lru_cache(maxsize=128)
def decode(text: str) -> ImageFacts:
    """Return the facts that `encode` made a text of; names that are not known are passed over."""
    found: dict[str, Any] = json.loads(text or "{}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in found.items()
        if name in _DEFAULTS
    }
    return ImageFacts(**values)


NOTHING_STATED = ImageFacts()
