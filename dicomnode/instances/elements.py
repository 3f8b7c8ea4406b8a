"""A scanner's elements in the clothes of a pydicom data set, for those who read fields of one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from dicomnode.instances.fields import SERIES_KEYWORDS
from dicomnode.instances.layouts import Layout
from dicomnode.instances.scanning import Scanner, UnusualError

_PLAIN = {
    "SOPInstanceUID": (0x00080018, b"UI"),
    "SOPClassUID": (0x00080016, b"UI"),
    "Rows": (0x00280010, b"US"),
    "Columns": (0x00280011, b"US"),
    "NumberOfFrames": (0x00280008, b"IS"),
    "PixelSpacing": (0x00280030, b"DS"),
    "ImageOrientationPatient": (0x00200037, b"DS"),
    "ImagePositionPatient": (0x00200032, b"DS"),
    "FrameOfReferenceUID": (0x00200052, b"UI"),
    "RescaleSlope": (0x00281053, b"DS"),
    "RescaleIntercept": (0x00281052, b"DS"),
    "InstanceNumber": (0x00200013, b"IS"),
    "AcquisitionNumber": (0x00200012, b"IS"),
    "ImagesInAcquisition": (0x00201002, b"IS"),
    "ConcatenationUID": (0x00209161, b"UI"),
}
"""Tag and value representation (PS3.6) of what `instance_fields` looks at in every image."""
SERIES_TAGS = tuple(int(Tag(keyword)) for keyword in SERIES_KEYWORDS)
"""Of what the instances of a series agree in."""


@dataclass(frozen=True, slots=True)
class _Raw:
    value: bytes


class Elements:
    """Plain values without pydicom's help, all others with it.

    Args:
        scanner: that has found the elements.
        layout: of the data set, if it was known before.
    """

    def __init__(self, scanner: Scanner, layout: Layout | None) -> None:
        self._scanner = scanner
        self._layout = layout
        self.raw = scanner.raw
        self._dataset: Dataset | None = None

    @property
    def dataset(self) -> Dataset:
        """All elements that are not long, as pydicom reads them."""
        if self._dataset is None:
            self._dataset = read_dataset(
                BytesIO(self._scanner.kept), not self._scanner.is_explicit, is_little_endian=True
            )
        return self._dataset

    def shared(self) -> tuple[object, ...] | None:
        """Return what decides on the fields of a series; None where the layout was not known."""
        if self._layout is None:
            return None
        return self._layout, *self._scanner.parts(self._layout.shared)

    def get(self, keyword: str) -> Any:
        tag, vr = _PLAIN.get(keyword, (0, b""))
        if tag:
            with suppress(UnusualError):
                return self._scanner.value(tag, vr)
        self._scanner.raw((tag or Tag(keyword),))
        return self.dataset.get(keyword)

    def get_item(self, keyword: str) -> _Raw | None:
        (raw,) = self._scanner.raw((_PLAIN[keyword][0],))
        return None if raw is None else _Raw(raw[2 if self._scanner.is_explicit else 0 :])
