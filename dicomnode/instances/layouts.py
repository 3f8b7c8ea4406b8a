"""Where the elements of a data set lie up to its pixels: most instances of a series agree in it.

A data set whose element headers stand where another's stood, byte for byte, is walked through like
that one: one comparison instead of one step an element. Nothing but the standard library.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

MAX_FIXED = 1 << 14
"""Bytes that a layout fixes, at most."""
KEPT_LAYOUTS = 8

Places = dict[int, tuple[bytes, int, int]]
"""Tag -> value representation, begin and end of the value in the data set."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The layout of a data set, from its first byte to where the value of its pixels begins.

    Attributes:
        explicit: whether value representations are stated.
        places: of all elements before the pixel data.
        shared: where those stand that the instances of a series agree in, neighbours together.
        pixels_length: what the length field of the pixel data says.
        kept: bytes up to the pixel data element.
        size: bytes up to the pixel data's value.
        walk: takes what decides how a data set is walked through out of it.
        walked: what it finds in all data sets of this layout.
    """

    explicit: bool
    places: Places
    shared: tuple[slice, ...]
    pixels_length: int
    kept: int
    size: int
    walk: struct.Struct
    walked: tuple[bytes, ...]

    def fits(self, data: bytes | memoryview) -> bool:
        """Whether a data set that begins with these bytes has this layout."""
        return len(data) >= self.size and self.walk.unpack_from(data) == self.walked


def layout_of(
    data: bytes | memoryview,
    spans: Sequence[tuple[int, int]],
    places: Places,
    shared: Collection[int],
    *,
    explicit: bool,
    pixels_length: int,
) -> Layout | None:
    """Return the layout of a data set; None where it would hold too much.

    Args:
        data: the data set, at least up to its pixels.
        spans: begin and end of all that decides how it is walked through, in order; the last is
            the pixel data element without its value.
        places: see `Layout`.
        shared: tags of what the instances of a series agree in.
        explicit: whether value representations are stated.
        pixels_length: of the pixel data's value.
    """
    if sum(end - start for start, end in spans) > MAX_FIXED:
        return None
    code, place = [], 0
    for start, end in spans:
        code.append(f"{start - place}x{end - start}s")
        place = end
    walk = struct.Struct("".join(code))
    return Layout(
        explicit, places, _together(places, shared), pixels_length, spans[-1][0], place, walk,
        walk.unpack_from(data),
    )  # fmt: skip


def _together(places: Places, tags: Collection[int]) -> tuple[slice, ...]:
    found: list[slice] = []
    goes_on = False
    for tag, (_, start, end) in sorted(places.items(), key=lambda item: item[1][1]):
        if tag in tags:
            if goes_on:
                start = found.pop().start
            found.append(slice(start, end))
        goes_on = tag in tags
    return tuple(found)


class Layouts:
    """The last few layouts that were met. For several threads: all that is kept changes at once."""

    def __init__(self) -> None:
        self._kept: tuple[Layout, ...] = ()

    def find(self, data: bytes | memoryview, *, explicit: bool) -> Layout | None:
        """Return the layout of a data set that begins with these bytes; None if it is not known."""
        for layout in self._kept:
            if layout.explicit is explicit and layout.fits(data):
                if layout is not self._kept[0]:
                    self.add(layout)
                return layout
        return None

    def add(self, layout: Layout) -> None:
        """Keep a layout, as the first that is tried."""
        others = [one for one in self._kept if one is not layout]
        self._kept = (layout, *others[: KEPT_LAYOUTS - 1])
