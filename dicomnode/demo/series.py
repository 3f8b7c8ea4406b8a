"""A CT series as DICOM files from an array of Hounsfield units, as a modality would send it.

For the demonstration and for tests. Any affine is written right: the slices run along the last
axis of the array, whichever way that points in the patient, and Image Position and Orientation
follow from the affine alone. Patients are invented here and nowhere else.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from dicomnode.domain.identifiers import derive_uid
from dicomnode.scan import RAS_FROM_LPS

RESCALE_INTERCEPT = -1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The invented patient and study."""

    patient_id: str = "DICOMNODE-PHANTOM"
    patient_name: str = "PHANTOM^DICOMNODE"
    birth_date: str = "19700101"
    sex: str = "O"
    accession: str = "DEMO0001"
    study_description: str = "Phantom CT"
    started: datetime = datetime(2026, 1, 1, 12, 0, 0)  # noqa: DTZ001 - local, as a scanner's


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesOptions:
    """How the series is written, beside its voxels."""

    seed: int = 0
    """Decides all UIDs and the order of the files."""
    subject: Subject = field(default_factory=Subject)
    series_number: int = 2
    series_description: str = "Phantom 3.0 B"
    patient_position: str = "HFS"
    """Written as it is: nobody may rely on it."""
    tilt_degrees: float = 0.0
    """Gantry tilt: slices are shifted along their columns, as the real tilted gantry does."""
    jitter_mm: float = 0.0
    """Greatest random shift of a slice along the normal."""
    extra: Mapping[str, object] = field(default_factory=dict)
    """Attributes by keyword for every slice; None removes one."""


def write_series(
    hu: NDArray[np.int16],
    affine: NDArray[np.float64],
    options: SeriesOptions | None = None,
) -> list[bytes]:
    """Return the files (PS3.10, Explicit VR Little Endian) of a CT series, in shuffled order.

    Args:
        hu: [i, j, k] Hounsfield units from -1024 to 3071. A column of an image runs along j, a row
            along i, and k counts the slices.
        affine: 4x4, array indices to RAS+ millimetres, with orthogonal axes of any direction.
        options: the rest.

    Raises:
        ValueError: the array has no three axes, or the affine's axes are not orthogonal.
    """
    options = options or SeriesOptions()
    lps = RAS_FROM_LPS @ affine  # the matrix is its own inverse
    axes, spacing = lps[:3, :3], np.linalg.norm(lps[:3, :3], axis=0)
    cosines = axes / spacing
    if hu.ndim != 3 or np.abs(cosines.T @ cosines - np.eye(3)).max() > 1e-6:
        raise ValueError("expected an array [i, j, k] and an affine with orthogonal axes")
    generator = np.random.default_rng(options.seed)
    shear = np.tan(np.radians(options.tilt_degrees)) * spacing[2] * cosines[:, 1]
    common = _common(options, cosines, spacing, hu.shape[0], hu.shape[1])
    files = []
    for k in range(hu.shape[2]):
        jitter = generator.uniform(-1, 1) * options.jitter_mm * cosines[:, 2]
        position = lps[:3, 3] + k * (axes[:, 2] + shear) + jitter
        files.append(_write(_slice(common, options, hu[:, :, k], position, k)))
    random.Random(options.seed).shuffle(files)  # noqa: S311 - an order for tests, no secret
    return files


def _common(
    options: SeriesOptions,
    cosines: NDArray[np.float64],
    spacing: NDArray[np.float64],
    columns: int,
    rows: int,
) -> Dataset:
    subject, seed = options.subject, str(options.seed)
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = CTImageStorage
    for kind in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{kind}Date", subject.started.strftime("%Y%m%d"))
        setattr(dataset, f"{kind}Time", subject.started.strftime("%H%M%S"))
    dataset.AccessionNumber = subject.accession
    dataset.Modality = "CT"
    dataset.Manufacturer = "dicomnode"
    dataset.ManufacturerModelName = "Phantom"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = subject.study_description
    dataset.SeriesDescription = options.series_description
    dataset.PatientName = subject.patient_name
    dataset.PatientID = subject.patient_id
    dataset.PatientBirthDate = subject.birth_date
    dataset.PatientSex = subject.sex
    dataset.BodyPartExamined = "CHEST"
    dataset.SliceThickness = format_number_as_ds(float(spacing[2]))
    dataset.KVP = "120"
    dataset.PatientPosition = options.patient_position
    dataset.ConvolutionKernel = "B"
    dataset.StudyInstanceUID = derive_uid("demo study", subject.patient_id, seed)
    dataset.SeriesInstanceUID = derive_uid(
        "demo series", subject.patient_id, seed, str(options.series_number)
    )
    dataset.StudyID = "1"
    dataset.SeriesNumber = options.series_number
    dataset.AcquisitionNumber = 1
    dataset.ImageOrientationPatient = [
        format_number_as_ds(float(value)) for value in (*cosines[:, 0], *cosines[:, 1])
    ]
    dataset.FrameOfReferenceUID = derive_uid("demo frame", subject.patient_id, seed)
    dataset.PositionReferenceIndicator = ""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelSpacing = [format_number_as_ds(float(value)) for value in (spacing[1], spacing[0])]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.RescaleIntercept, dataset.RescaleSlope = str(RESCALE_INTERCEPT), "1"
    dataset.RescaleType = "HU"
    return dataset


def _slice(
    common: Dataset,
    options: SeriesOptions,
    hu: NDArray[np.int16],
    position: NDArray[np.float64],
    index: int,
) -> Dataset:
    dataset = Dataset()
    dataset.update(common)
    dataset.SOPInstanceUID = derive_uid("demo instance", common.SeriesInstanceUID, str(index))
    dataset.InstanceNumber = index + 1
    dataset.ImagePositionPatient = [format_number_as_ds(float(value)) for value in position]
    for keyword, value in options.extra.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    stored = hu.T.astype(np.int32) - RESCALE_INTERCEPT
    dataset.PixelData = stored.clip(0, 4095).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _write(dataset: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
