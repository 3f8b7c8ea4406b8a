"""Files of one CT image whose cells, bits and encoding are chosen, and what they decode to."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from dicomnode.imaging.decoding import decode_image, fragments_of
from dicomnode.imaging.frames import images_of
from dicomnode.imaging.parsing import parse


def image(cells: NDArray[np.generic], **attributes: object) -> Dataset:
    """Return a data set with `cells` [row, column] as its pixels; None leaves an attribute out."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = "1.2.3"
    bits = 8 * cells.dtype.itemsize
    dataset.Rows, dataset.Columns = cells.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = 1 if cells.dtype.kind == "i" else 0
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    dataset.PixelData = cells.tobytes()
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def written(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """Return the file; in an encapsulated syntax Pixel Data is taken as one fragment."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].VR = "OW"
    if syntax.is_encapsulated:
        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset["PixelData"].VR = "OB"
    elif not syntax.is_little_endian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def decoded(file: bytes, frame: int = 0) -> tuple[NDArray[np.int16], NDArray[np.bool_] | None]:
    """Return HU [row, column] and where they are padding."""
    found = images_of(parse(file))[frame]
    spans = fragments_of(found.instance, file)
    rows, columns = (int(found.fields[name][0]) for name in ("Rows", "Columns"))
    out = np.full((rows, columns), 12345, np.int16)
    return out, decode_image(found, file, None if spans is None else spans[frame], out)
