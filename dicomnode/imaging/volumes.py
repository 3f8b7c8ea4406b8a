"""Slices in their order -> one array of Hounsfield units, decoded in parallel.

NumPy and the codecs let other threads run, so threads suffice. A file is open only while it is
decoded, and no decoded slice is held twice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicomnode.errors import Refusal
from dicomnode.imaging.decoding import decode_image, fragments_of, outer_padding
from dicomnode.imaging.parsing import Parsed
from dicomnode.imaging.slices import Slice

_CHUNK = 16
"""Slices a task: few enough to share the work evenly, enough to make handing it over cheap."""

MAX_VOXELS = 1 << 32
"""Of a volume: 4,000 slices of 1024 x 1024; 8 GiB."""
_KEPT = 8
"""Shapes of padding that are remembered."""

Job = tuple[int, Slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """The volume of a stack."""

    volume: NDArray[np.int16]
    """HU [slice, row, column]."""
    padding: tuple[bytes | None, ...]
    """For each slice the packed bits (`numpy.packbits`) of where it is padding that reaches the
    edge; None where nothing is."""


def decode_volume(ordered: Sequence[Slice], threads: int | None = None) -> Decoded:
    """Decode `ordered` slices of one matrix.

    Args:
        ordered: in the order of the volume.
        threads: how many decode at a time; None: one for each processor this process may use.

    Raises:
        Refusal: UNDECODABLE.
    """
    rows, columns = ordered[0].matrix
    if len(ordered) * rows * columns > MAX_VOXELS:
        # Said before memory is asked for: a header of a few bytes can claim any matrix.
        raise Refusal(
            "UNDECODABLE", f"{len(ordered)} slices of {rows} x {columns} pixels are too much."
        )
    work = _Work(ordered)
    single: list[Job] = []
    by_instance: dict[int, list[Job]] = {}
    for index, item in enumerate(ordered):
        if item.image.frame_number is None:
            single.append((index, item))
        else:
            by_instance.setdefault(id(item.image.instance), []).append((index, item))
    workers = threads or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        list(pool.map(work.instances, _chunks(single)))
        for jobs in by_instance.values():
            # Opened once, however many tasks share it: it may be deflated as a whole.
            frames = _Frames(jobs[0][1].image.instance)
            list(pool.map(lambda chunk, of=frames: work.frames(of, chunk), _chunks(jobs)))
    return Decoded(volume=work.volume, padding=tuple(work.padding))


class _Frames:
    def __init__(self, instance: Parsed) -> None:
        self.data = instance.opened()
        self.spans = fragments_of(instance, self.data)


class _Work:
    """The volume while it is filled; every slice belongs to one task alone."""

    def __init__(self, ordered: Sequence[Slice]) -> None:
        self.volume = np.empty((len(ordered), *ordered[0].matrix), np.int16)
        self.padding: list[bytes | None] = [None] * len(ordered)
        self._outer: dict[bytes, bytes | None] = {}

    def instances(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.frames(_Frames(job[1].image.instance), [job])

    def frames(self, frames: _Frames, jobs: Sequence[Job]) -> None:
        for index, item in jobs:
            number = (item.image.frame_number or 1) - 1
            spans = None if frames.spans is None else frames.spans[number]
            found = decode_image(item.image, frames.data, spans, self.volume[index])
            if found is not None:
                self.padding[index] = self._outer_of(found)

    def _outer_of(self, padding: NDArray[np.bool_]) -> bytes | None:
        # The padding of neighbouring slices is nearly always the same circle.
        packed = np.packbits(padding).tobytes()
        known = self._outer
        if packed not in known:
            outer = outer_padding(padding)
            if len(known) >= _KEPT:
                known = self._outer = {}
            known[packed] = np.packbits(outer).tobytes() if outer.any() else None
        return known[packed]


def _chunks(jobs: Sequence[Job]) -> list[Sequence[Job]]:
    return [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
