"""A CT instance of a few pixels, for tests that look at bytes and not at images."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomnode.instances import split_file

CT = "1.2.840.10008.5.1.4.1.1.2"


def instance(**changes: Any) -> Dataset:
    """Return a small CT instance; a value None leaves the attribute out."""
    dataset = Dataset()
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": CT,
        "SOPInstanceUID": "1.2.3.4",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.3",
        "PatientID": "4711",
        "PatientName": "Müller^Jörg",
        "PatientBirthDate": "19500101",
        "AccessionNumber": "A1",
        "Modality": "CT",
        "SeriesNumber": 3,
        "SeriesDescription": "Thorax 1.0",
        "BodyPartExamined": "CHEST",
        "SliceThickness": "1.5",
        "Rows": 4,
        "Columns": 4,
        "PixelSpacing": [0.5, 0.5],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, 10],
        "FrameOfReferenceUID": "1.2.9",
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": np.arange(16, dtype="<u2").tobytes(),
    }
    for keyword, value in (values | changes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return the bytes of a data set as a C-STORE request carries them."""
    buffer = BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=False)
    data = buffer.getvalue()
    # pydicom writes group 0002 even so, without the preamble.
    whole = data if data[128:132] == b"DICM" else b"\0" * 128 + b"DICM" + data
    return whole[split_file(whole)[1] :]
