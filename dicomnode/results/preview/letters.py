"""Letters of the page: fonts, and texts that fit a width."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from PIL import ImageFont

from dicomnode.domain.findings import Severity

WHITE, GREY, DIM, AMBER = (240, 240, 240), (176, 176, 176), (104, 104, 104), (255, 190, 80)
RED = (255, 120, 105)
COLOURS: Mapping[Severity, tuple[int, int, int]] = {
    "serious": RED,
    "warning": AMBER,
    "info": GREY,
}
SIZES = (18, 17, 16, 15, 14, 13)
"""Of a structure's name: smaller before it is cut."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font of a size in pixels."""
    # Pillow's own font: the same pixels on every machine with the same Pillow.
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType: it cannot write text of a size")
    return font


def wrapped(text: str, size: int, width: int) -> list[str]:
    """Return the lines of a text that is so many pixels wide at most."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [shortened(line, size, width) for line in lines]


def shortened(text: str, size: int, width: int) -> str:
    """Return the text, cut with dots if it is wider."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def fitting(text: str, width: int) -> tuple[int, str]:
    """Return the largest size at which a text fits, and the text; at the smallest it is cut."""
    size = next((size for size in SIZES if font(size).getlength(text) <= width), SIZES[-1])
    return size, shortened(text, size, width)
