"""The page -> DICOM Secondary Capture Image (PS3.3 A.8.1), RGB, Explicit VR Little Endian."""

from __future__ import annotations

from dataclasses import replace

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.coding import Code
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.domain.plans import PREVIEW, Plan, ResultInstance
from dicomnode.quiet import quiet_pydicom
from dicomnode.results.common import finish, times
from dicomnode.results.headers import Source
from dicomnode.results.model import Model
from dicomnode.results.objects import begin
from dicomnode.results.preview.page import DISCLAIMER, png
from dicomnode.results.uids import Identifiers

SOP_CLASS_UID = str(SecondaryCaptureImageStorage)
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
SEGMENTATION = Code("113076", "DCM", "Segmentation")
_HEAD = ("face", "skin", "body", "head", "skull", "brain", "eye", "nose", "ear")
"""Structures with which the pictures show a face, or skin."""


def encode_preview(
    source: Source,
    page: NDArray[np.uint8],
    found: list[str],
    model: Model,
    plan: Plan,
    identifiers: Identifiers,
) -> ResultInstance:
    """Return the Secondary Capture of a page.

    Args:
        page: RGB [row, column, 3].
        found: the model's names of the structures that are drawn.
    """
    moment = times(source, plan)
    with quiet_pydicom():
        dataset = begin(PREVIEW, SOP_CLASS_UID, "OT", source, model, plan, identifiers)
        dataset.Laterality = ""
        dataset.PatientOrientation = None  # several pictures on one page have none in common
        dataset.ConversionType = "WSD"
        dataset.ImageType = ["DERIVED", "SECONDARY"]
        dataset.BurnedInAnnotation = "NO"
        dataset.RecognizableVisualFeatures = "YES" if shows_face(source, found) else "NO"
        dataset.ImageComments = DISCLAIMER
        dataset.DerivationDescription = f"{DISCLAIMER}: overview of a segmentation by {model.id}"
        dataset.DerivationCodeSequence = [hd.sr.CodedConcept.from_code(SEGMENTATION)]
        dataset.SourceImageSequence = _references(source)
        dataset.SamplesPerPixel = 3
        dataset.PhotometricInterpretation = "RGB"
        dataset.PlanarConfiguration = 0
        dataset.Rows, dataset.Columns = page.shape[:2]
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelRepresentation = 0
        dataset.PixelData = page.tobytes()
        dataset["PixelData"].VR = "OB"
        dataset.LossyImageCompression = "01" if source.scan.lossy else "00"
        if source.scan.lossy:
            for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
                if keyword in source.headers[0]:
                    dataset[keyword] = source.headers[0][keyword]
    result = finish(
        dataset,
        source,
        identifiers,
        moment,
        kind=PREVIEW,
        summary={"columns": page.shape[1], "rows": page.shape[0]},
    )
    return replace(result, picture=png(page))


def shows_face(source: Source, found: list[str]) -> bool:
    """Whether a face may be recognised: the head is in the images, by model or by header."""
    if any(word in name.split("_") for name in found for word in _HEAD):
        return True
    part = str(source.acquisition.get("BodyPartExamined", "")).upper()
    return any(
        word in part for word in ("HEAD", "BRAIN", "SKULL", "FACE", "SINUS", "ORBIT", "NECK")
    )


def _references(source: Source) -> list[Dataset]:
    """Return a reference to every instance; of a multi-frame one to the frames that were used."""
    items: dict[str, Dataset] = {}
    for header, image in zip(source.headers, source.scan.sources, strict=True):
        item = items.get(image.sop_instance_uid)
        if item is None:
            item = items[image.sop_instance_uid] = Dataset()
            item.ReferencedSOPClassUID = header.SOPClassUID
            item.ReferencedSOPInstanceUID = header.SOPInstanceUID
            item.PurposeOfReferenceCodeSequence = [hd.sr.CodedConcept.from_code(SOURCE_IMAGE)]
        if image.frame_number is not None:
            earlier = item.get("ReferencedFrameNumber", [])
            item.ReferencedFrameNumber = [
                *(earlier if isinstance(earlier, MultiValue | list) else [earlier]),
                image.frame_number,
            ]
    return list(items.values())
