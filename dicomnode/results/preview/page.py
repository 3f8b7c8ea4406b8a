"""The page: where every picture and every line of text stands.

White and amber on black, for a dark room. Every picture has its four directions at its edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from PIL import Image, ImageDraw, PngImagePlugin

from dicomnode.domain.findings import Severity
from dicomnode.results.codes import StructureCodes, load_codes
from dicomnode.results.model import Measured, Model
from dicomnode.results.preview.letters import (
    AMBER,
    COLOURS,
    DIM,
    GREY,
    WHITE,
    fitting,
    font,
    shortened,
    wrapped,
)
from dicomnode.results.preview.planes import Plane, best_places, overlay
from dicomnode.results.preview.solid import View, render
from dicomnode.results.preview.space import Box, Grid, Space
from dicomnode.results.preview.volumes import Row, choose_rows, counted
from dicomnode.results.systems import system_of
from dicomnode.scan import Scan

DISCLAIMER = "AI result, not verified, not for diagnosis"
"""On every page and in its headers."""
NOTHING_FOUND = "The model found none of its structures in these images."
WIDTH, HEIGHT = 1600, 1200
_EDGE = 14
_TOP = 84
_PICTURES = 1150
"""Width of the left part, with the pictures."""
_CAPTION = 28
_ASIDE, _ABOVE = 72, 52
"""Pixels that the letters of the directions take at both sides, and above and below."""
_ROW = 23
_MOST_ROWS = 24
_BULLET, _LINE, _BETWEEN = 16, 21, 5
_SOLIDS: tuple[tuple[str, frozenset[str], View], ...] = (
    ("Bones, from the front", frozenset({"bones"}), "front"),
    ("Bones, from the left", frozenset({"bones"}), "left"),
    ("Organs, from the front", frozenset({"organs"}), "front"),
    ("Heart, vessels, muscles, front", frozenset({"vessels", "muscles"}), "front"),
)
MARKS: dict[str, tuple[str, str, str, str]] = {
    # At the left, right, upper and lower edge of the picture.
    "front": ("R", "L", "H", "F"),
    "left": ("A", "P", "H", "F"),
    "coronal": ("R", "L", "H", "F"),
    "sagittal": ("A", "P", "H", "F"),
    "axial": ("R", "L", "A", "P"),
}

Place = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Content:
    """What is drawn."""

    scan: Scan
    labels: NDArray[np.uint8]
    """[slice, row, column] on the scan's grid."""
    model: Model
    measurements: Sequence[Measured]
    findings: Sequence[str]
    severities: Mapping[str, Severity]
    """Of findings, by their sentence; of what is not in it nothing is known."""
    series_number: int | None
    slices: tuple[int, int]
    """Analysed, and in the series."""


def draw_page(content: Content) -> NDArray[np.uint8]:
    """Return the page, RGB [row, column, 3]."""
    page = Image.new("RGB", (WIDTH, HEIGHT), "black")
    draw = ImageDraw.Draw(page)
    palette = _palette(content.model)
    _head(draw, content)
    space = Space(content.scan)
    box = space.labelled(content.labels)
    grid = None if box is None else space.grid(content.labels, box)
    middle = _TOP + (HEIGHT - _TOP) * 48 // 100
    _solids(page, content, grid, palette, middle)
    _planes(page, content, space, grid, palette, middle)
    _text(draw, content, palette)
    return np.asarray(page)


def png(page: NDArray[np.uint8]) -> bytes:
    """Return the page as PNG, which says in its text what it is."""
    said = PngImagePlugin.PngInfo()
    said.add_text("Comment", DISCLAIMER)
    buffer = BytesIO()
    Image.fromarray(page).save(buffer, "PNG", pnginfo=said, compress_level=6)
    return buffer.getvalue()


def _head(draw: ImageDraw.ImageDraw, content: Content) -> None:
    model, scan = content.model, content.scan
    used, total = content.slices
    series = "?" if content.series_number is None else content.series_number
    title = f"{'DEMONSTRATION MODEL  ' if model.demonstration else ''}{model.id} {model.version}"
    draw.text((_EDGE, 10), title, fill=WHITE, font=font(28))
    spacing = " x ".join(f"{value:.3g}" for value in reversed(scan.spacing_mm))
    of = f"{used} slices" if used == total else f"{used} of {total} slices"
    even = "" if scan.is_regular else ", tilted or unevenly spaced"
    line = f"{scan.modality} series {series}: {of}, {spacing} mm{even}"
    draw.text((_EDGE, 48), line, fill=GREY, font=font(20))
    draw.text((WIDTH - _EDGE, 26), DISCLAIMER, fill=AMBER, font=font(30), anchor="ra")
    draw.line((0, _TOP - 6, WIDTH, _TOP - 6), fill=DIM)


def _solids(
    page: Image.Image,
    content: Content,
    grid: Grid | None,
    palette: NDArray[np.float64],
    bottom: int,
) -> None:
    draw = ImageDraw.Draw(page)
    if grid is None:
        middle = (_PICTURES // 2, (_TOP + bottom) // 2)
        draw.text(middle, NOTHING_FOUND, fill=AMBER, font=font(28), anchor="mm")
        return
    names = _names(content.model)
    found = set(np.unique(grid.labels).tolist()) - {0}
    shown = []
    for title, systems, view in _SOLIDS:
        wanted = np.zeros(256, np.bool_)
        wanted[[label for label in found if system_of(names[label]) in systems]] = True
        if wanted.any():
            shown.append((title, wanted, view))
    high, deep, wide = grid.labels.shape
    widths = [wide if view == "front" else deep for _, _, view in shown]
    scale, places = _columns(widths, high, _TOP, bottom)
    for place, (title, wanted, view) in zip(places, shown, strict=True):
        picture = Image.fromarray(render(grid.labels, wanted, palette, view))
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        _put(page, picture.resize(size, Image.Resampling.LANCZOS), place, title, view)


def _planes(
    page: Image.Image,
    content: Content,
    space: Space,
    grid: Grid | None,
    palette: NDArray[np.float64],
    top: int,
) -> None:
    box = space.body()
    place_mm = (box.low + box.high) / 2 if grid is None else best_places(grid)
    box = _around(box, grid)
    across, deep, high = box.size.tolist()
    scale, places = _columns([across, deep, across], max(high, deep), top, HEIGHT)
    kinds: tuple[tuple[Plane, int], ...] = (("coronal", 1), ("sagittal", 0), ("axial", 2))
    for place, (kind, axis) in zip(places, kinds, strict=True):
        picture = overlay(space, content.labels, palette, kind, box, place_mm, scale)
        title = kind.capitalize()
        if space.is_along(axis):
            nearest = space.slice_at(place_mm)
            title += f", slice {nearest + 1} of {len(content.scan.positions)}"
        _put(page, Image.fromarray(picture), place, title, kind)


def _around(box: Box, grid: Grid | None) -> Box:
    """Return the box, widened where something has a label outside."""
    if grid is None:
        return box
    return Box(low=np.minimum(box.low, grid.box.low), high=np.maximum(box.high, grid.box.high))


def _columns(
    widths: Sequence[float], height: float, top: int, bottom: int
) -> tuple[float, list[Place]]:
    """Return the scale at which pictures fit side by side, and a place for each."""
    free = _PICTURES - _ASIDE * len(widths)
    scale = min(free / sum(widths), (bottom - top - _CAPTION - _ABOVE) / height)
    slack = (free - scale * sum(widths)) / len(widths)
    places, left = [], 0.0
    for width in widths:
        right = left + width * scale + _ASIDE + slack
        places.append((round(left), top, round(right), bottom))
        left = right
    return scale, places


def _put(page: Image.Image, picture: Image.Image, place: Place, title: str, kind: str) -> None:
    """Put a picture into its place with its title and its four directions."""
    draw = ImageDraw.Draw(page)
    left, top, right, bottom = place
    title = shortened(title, 19, right - left - _EDGE)
    draw.text((left + _EDGE, top + 2), title, fill=GREY, font=font(19))
    top += _CAPTION
    middle, centre = (left + right) // 2, (top + bottom) // 2
    x, y = middle - picture.width // 2, centre - picture.height // 2
    page.paste(picture, (x, y))
    letter = font(20)
    letters = MARKS[kind]
    draw.text((x - 6, centre), letters[0], fill=WHITE, font=letter, anchor="rm")
    draw.text((x + picture.width + 6, centre), letters[1], fill=WHITE, font=letter, anchor="lm")
    draw.text((middle, y - 3), letters[2], fill=WHITE, font=letter, anchor="mb")
    draw.text((middle, y + picture.height + 3), letters[3], fill=WHITE, font=letter, anchor="mt")


def _text(draw: ImageDraw.ImageDraw, content: Content, palette: NDArray[np.float64]) -> None:
    """Write the table of volumes and the findings at the right."""
    left, right = _PICTURES + 10, WIDTH - _EDGE
    draw.line((_PICTURES, _TOP, _PICTURES, HEIGHT), fill=DIM)
    names = _names(content.model)
    titles = {label: codes.segment_label for label, codes in _codes(content.model).items()}
    rows = choose_rows(names, titles, content.measurements, _MOST_ROWS)
    y = _TOP + 2
    if rows:
        small = font(17)
        draw.text((left, y), "Structure", fill=GREY, font=small)
        draw.text((right - 90, y), "mL", fill=GREY, font=small, anchor="ra")
        measured = "mean HU" if content.scan.modality == "CT" else "signal"
        draw.text((right, y), measured, fill=GREY, font=small, anchor="ra")
        y += _ROW + 2
        for row in rows:
            _line(draw, row, palette, y)
            y += _ROW
        y += 6
        if any(row.cut for row in rows):
            y = _paragraph(draw, "> cut by the field of view: a part only", y, AMBER, 17, 1)
    for line in counted(names, content.measurements):
        y = _paragraph(draw, line, y, WHITE, 17, 2)
    if content.measurements:
        said = f"{len(content.measurements)} structures found; all numbers are in the report."
        y = _paragraph(draw, said, y, GREY, 17, 2)
    y += 8
    draw.line((left, y, right, y), fill=DIM)
    y += 6
    _write_findings(draw, content, y)


def _write_findings(draw: ImageDraw.ImageDraw, content: Content, y: int) -> None:
    """Write what fits, and say whether that is all; what is serious stands out."""
    left, right = _PICTURES + 10, WIDTH - _EDGE
    for text in dict.fromkeys(_findings(content)):
        colour = COLOURS[content.severities.get(text, "warning")]
        lines = wrapped(text, 17, right - left - _BULLET)
        # A line is kept for the note, unless this one is the last and ends here.
        if y + _LINE * (len(lines) + 1) > HEIGHT:
            draw.text((left, y), "... more in the report.", fill=AMBER, font=font(17))
            return
        draw.rectangle((left, y + 7, left + 6, y + 13), fill=colour)
        for line in lines:
            draw.text((left + _BULLET, y), line, fill=colour, font=font(17))
            y += _LINE
        y += _BETWEEN


def _findings(content: Content) -> Iterator[str]:
    if not content.measurements:
        yield NOTHING_FOUND
    used, total = content.slices
    if used < total:
        yield f"Only {used} of the {total} instances of the series were analysed."
    yield from content.findings


def _line(draw: ImageDraw.ImageDraw, row: Row, palette: NDArray[np.float64], y: int) -> None:
    left, right = _PICTURES + 10, WIDTH - _EDGE
    red, green, blue = (int(value) for value in palette[row.label])
    draw.rectangle((left, y + 3, left + 14, y + 17), fill=(red, green, blue))
    large, colour = font(18), AMBER if row.cut else WHITE
    room = right - 160 - left - 24
    size, title = fitting(row.title, room)
    draw.text((left + 24, y + 18 - size), title, fill=colour, font=font(size))
    volume = f"{row.volume_ml:.1f}" if row.volume_ml < 100 else f"{row.volume_ml:.0f}"
    draw.text(
        (right - 90, y), f"{'> ' if row.cut else ''}{volume}", fill=colour, font=large, anchor="ra"
    )
    if row.mean is not None:
        # A minus sign of zero would be read as a number.
        draw.text((right, y), f"{round(row.mean)}", fill=colour, font=large, anchor="ra")


def _paragraph(
    draw: ImageDraw.ImageDraw, text: str, y: int, colour: tuple[int, int, int], size: int, most: int
) -> int:
    """Write at most so many lines; return where the next paragraph begins."""
    left, right = _PICTURES + 10, WIDTH - _EDGE
    lines = wrapped(text, size, right - left)
    if len(lines) > most:
        lines = [*lines[: most - 1], shortened(f"{lines[most - 1]} ...", size, right - left)]
    for line in lines:
        draw.text((left, y), line, fill=colour, font=font(size))
        y += size + 4
    return y


def _codes(model: Model) -> Mapping[int, StructureCodes]:
    return load_codes(model.code_table)


def _names(model: Model) -> dict[int, str]:
    return {**{label: codes.name for label, codes in _codes(model).items()}, **model.structures}


def _palette(model: Model) -> NDArray[np.float64]:
    palette = np.full((256, 3), 255.0)
    for label, codes in _codes(model).items():
        palette[label] = CIELabColor.from_dicom_value(codes.cielab).to_rgb()
    return palette
