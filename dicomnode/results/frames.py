"""The frames of a Segmentation in bulk: functional groups and pixels, streamed to a file.

highdicom makes the object with one frame a slice. Here these become the items of all frames, which
differ from them in three numbers, and the pixels are packed eight frames at a time: what the frames
weigh is nowhere in memory. Nothing of what the segments mean may enter here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import numpy as np
import pydicom
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.uid import ExplicitVRLittleEndian

_ITEM = b"\xfe\xff\x00\xe0"
_GROUPS = b"\x00\x52\x30\x92SQ\0\0"
_PIXELS = b"\xe0\x7f\x10\x00OB\0\0"
_AT_ONCE = 8
"""Frames whose bits are packed together: whatever their size, they fill whole bytes."""
_LONGEST = 2**32 - 2
"""Greatest length of a value (PS3.5 7.1): of all pixels, some 130,000 frames of 512x512."""
_OF_A_FRAME = frozenset(
    {
        "DerivationImageSequence",
        "FrameContentSequence",
        "PlanePositionSequence",
        "SegmentIdentificationSequence",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame: the voxels of one slice that have one label."""

    number: int
    """Segment Number."""
    label: int
    plane: int
    """Index of the slice."""
    position: int
    """Place of the slice among those that have frames, from 1, as highdicom orders them."""


def find_frames(
    present: NDArray[np.bool_], numbers: Mapping[int, int], order: Sequence[int]
) -> tuple[Frame, ...]:
    """Return the frames in the order of their segments and, within each, of the slices.

    Args:
        present: [slice, label]: whether the slice has a voxel of the label.
        numbers: Segment Numbers by label.
        order: indices of the slices that have frames, in the order of their positions.
    """
    return tuple(
        Frame(number=number, label=label, plane=plane, position=position)
        for label, number in sorted(numbers.items(), key=lambda item: item[1])
        for position, plane in enumerate(order, start=1)
        if present[plane, label]
    )


def write_frames(
    file: BinaryIO,
    dataset: Dataset,
    items: Mapping[int, Dataset],
    frames: Sequence[Frame],
    labels: NDArray[np.uint8],
) -> None:
    """Write a Segmentation (PS3.10, Explicit VR Little Endian) with other frames than it has.

    Args:
        file: is written from where it stands.
        dataset: all of the object; its functional groups of frames, their number, the size of the
            image and its pixels are replaced, and it is changed.
        items: for each slice that has frames, the functional groups of a frame on it.
        frames: in their order.
        labels: [slice, row, column].

    Raises:
        ValueError: there is no frame, the object cannot be written so, or is too large.
    """
    _, rows, columns = labels.shape
    if not frames:
        raise ValueError("a Segmentation has at least one frame")
    if dataset.file_meta.TransferSyntaxUID != ExplicitVRLittleEndian:
        raise ValueError("expected Explicit VR Little Endian")
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = len(frames), rows, columns
    known: dict[int, bytes] = {}
    groups = {plane: _Groups(item, known) for plane, item in items.items()}
    bits = len(frames) * rows * columns
    pixels = (bits + 15) // 16 * 2
    described = sum(groups[frame.plane].length for frame in frames)
    if max(pixels, described) > _LONGEST:
        raise ValueError(f"{len(frames)} frames are too many for one Segmentation")
    _write_header(file, dataset)
    file.write(_GROUPS + struct.pack("<I", described))
    for frame in frames:
        file.write(groups[frame.plane].of(frame))
    file.write(_PIXELS + struct.pack("<I", pixels))
    for packed in _packed(frames, labels):
        file.write(packed)
    # A value has an even length; what is added is null (PS3.5 7.1.1).
    file.write(b"\0" * (pixels - (bits + 7) // 8))


def write_encapsulated(file: BinaryIO, dataset: Dataset) -> None:
    """Write a multi-frame object (PS3.10) whose Pixel Data are encapsulated, as pydicom would.

    Only faster: pydicom looks through all functional groups at every level of their nesting.

    Args:
        file: is written from where it stands.
        dataset: is changed.
    """
    known: dict[int, bytes] = {}
    items = [_encode_item(item, known) for item in dataset.PerFrameFunctionalGroupsSequence]
    pixels = dataset.PixelData
    _write_header(file, dataset)
    file.write(_GROUPS + struct.pack("<I", sum(map(len, items))))
    file.writelines(items)
    # Of undefined length, and ended by a Sequence Delimitation Item (PS3.5 A.4).
    file.write(_PIXELS + b"\xff\xff\xff\xff" + pixels + b"\xfe\xff\xdd\xe0" + bytes(4))


def _write_header(file: BinaryIO, dataset: Dataset) -> None:
    """Write all but the functional groups of frames and the pixels, which it loses."""
    for keyword in ("PerFrameFunctionalGroupsSequence", "PixelData"):
        del dataset[keyword]
    if any(element.tag > 0x52009230 for element in dataset):
        raise ValueError("an element stands behind the functional groups")
    head = BytesIO()
    pydicom.dcmwrite(head, dataset, enforce_file_format=True)
    file.write(head.getvalue())


class _Groups:
    """The functional groups of the frames on one slice, as bytes with room for three numbers.

    The room is at the end of an element each: Dimension Index Values (two UL) and, where there are
    several segments, Referenced Segment Number (US).
    """

    def __init__(self, item: Dataset, known: dict[int, bytes]) -> None:
        if {element.keyword for element in item} - _OF_A_FRAME:
            raise ValueError("a frame has unknown functional groups")
        index = list(item.FrameContentSequence[0].DimensionIndexValues)
        if len(index) != 2:
            raise ValueError("expected a segment and a position as dimension indices")
        content = _encode(item["FrameContentSequence"], known)
        head = _encode(item["DerivationImageSequence"], known)
        head += _without(content, struct.pack("<II", *index))
        self._middle = _encode(item["PlanePositionSequence"], known)
        self._is_numbered = "SegmentIdentificationSequence" in item
        if self._is_numbered:
            number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            identification = _encode(item["SegmentIdentificationSequence"], known)
            self._middle += _without(identification, struct.pack("<H", number))
        inner = len(head) + 8 + len(self._middle) + 2 * self._is_numbered
        self._head = _ITEM + struct.pack("<I", inner) + head
        self.length = 8 + inner

    def of(self, frame: Frame) -> bytes:
        """Return the item of a frame."""
        index = struct.pack("<II", frame.number, frame.position)
        number = struct.pack("<H", frame.number) if self._is_numbered else b""
        return self._head + index + self._middle + number


def _without(encoded: bytes, last: bytes) -> bytes:
    if not encoded.endswith(last):
        raise ValueError("an element does not end with its number")
    return encoded[: len(encoded) - len(last)]


def _encode(element: DataElement, known: dict[int, bytes]) -> bytes:
    """Return an element as bytes: pydicom writes the values, and the sequences come from here.

    Args:
        known: encoded codes; highdicom has the same ones in the items of all slices.
    """
    if element.VR == "SQ":
        items = b"".join(_encode_item(item, known) for item in element.value)
        tag = struct.pack("<HH", element.tag.group, element.tag.element)
        return tag + b"SQ\0\0" + struct.pack("<I", len(items)) + items
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element)
    return buffer.getvalue()


def _encode_item(item: Dataset, known: dict[int, bytes]) -> bytes:
    if id(item) in known:
        return known[id(item)]
    inner = b"".join(_encode(element, known) for element in item)
    encoded = _ITEM + struct.pack("<I", len(inner)) + inner
    if isinstance(item, CodedConcept):
        known[id(item)] = encoded
    return encoded


def _packed(frames: Sequence[Frame], labels: NDArray[np.uint8]) -> Iterator[memoryview]:
    """Yield the bits of the frames, row by row, the first in the lowest bit (PS3.5 8.1.1).

    The bits of a frame follow those of the one before without a gap.
    """
    masks = np.empty((_AT_ONCE, *labels.shape[1:]), np.bool_)
    for start in range(0, len(frames), _AT_ONCE):
        some = frames[start : start + _AT_ONCE]
        for mask, frame in zip(masks, some, strict=False):
            np.equal(labels[frame.plane], frame.label, out=mask)
        yield np.packbits(masks[: len(some)].reshape(-1), bitorder="little").data
