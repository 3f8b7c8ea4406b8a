"""Multi-frame CT made of single-frame series: by highdicom, and by hand where it makes none.

highdicom writes Legacy Converted Enhanced CT. Enhanced CT with stacks, temporal positions and
concatenations is written here, by PS3.3 A.38 and without any of the code under test.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import highdicom
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate_extended
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, EnhancedCTImageStorage, ExplicitVRLittleEndian

from dicomnode.domain.identifiers import derive_uid

DIMENSIONS = {
    # Dimension Index Pointer -> Functional Group Pointer
    "StackID": "FrameContentSequence",
    "InStackPositionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
}
Change = Callable[[int, Dataset], None]
"""Is given the index of a frame and its item of the Per-Frame Functional Groups Sequence."""


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(data))


def save(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def legacy_converted(files: Sequence[bytes], syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """Return the series as one Legacy Converted Enhanced CT instance, by highdicom."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = highdicom.legacy.LegacyConvertedEnhancedCTImage(
            [read(data) for data in files],
            series_instance_uid=derive_uid("legacy", "series"),
            series_number=7,
            sop_instance_uid=derive_uid("legacy", "instance"),
            instance_number=1,
            transfer_syntax_uid=syntax,
        )
        return save(converted)


def enhanced(
    files: Sequence[bytes],
    *,
    change: Change | None = None,
    shared: bool = True,
    name: str = "enhanced",
    compress: Callable[[bytes], bytes] | None = None,
    syntax: UID = ExplicitVRLittleEndian,
) -> bytes:
    """Return single-frame files as one Enhanced CT instance, its frames in the order given.

    Args:
        files: of one series.
        change: what else to do to the functional groups of a frame.
        shared: orientation, measures and rescale are shared, not each frame's own.
        name: decides the SOP Instance UID.
        compress: makes the bitstream of a frame's cells.
        syntax: what `compress` makes.
    """
    slices = [read(data) for data in files]
    dataset = _instance(slices[0], name, len(slices))
    groups = [_groups(item) for item in slices]
    if shared:
        dataset.SharedFunctionalGroupsSequence = [groups[0]]
    frames = []
    for index, (item, own) in enumerate(zip(slices, groups, strict=True)):
        frame = Dataset() if shared else own
        frame.PlanePositionSequence = [_only(item, "ImagePositionPatient")]
        content = Dataset()
        content.FrameAcquisitionDateTime = "20260101120000"
        content.FrameReferenceDateTime = "20260101120000"
        content.FrameAcquisitionDuration = 100.0
        content.FrameAcquisitionNumber = 1
        content.StackID = "1"
        content.InStackPositionNumber = index + 1
        content.TemporalPositionIndex = 1
        frame.FrameContentSequence = [content]
        if change is not None:
            change(index, frame)
        values = [1, content.InStackPositionNumber, content.TemporalPositionIndex]
        content.DimensionIndexValues = values
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    cells = [item.PixelData for item in slices]
    if compress is None:
        dataset.PixelData = b"".join(cells)
        dataset["PixelData"].VR = "OW"
    else:
        streams, offsets, lengths = encapsulate_extended([compress(one) for one in cells])
        dataset.PixelData = streams
        dataset["PixelData"].VR = "OB"
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    dataset.file_meta.TransferSyntaxUID = syntax
    return save(dataset)


def concatenated(files: Sequence[bytes], parts: Sequence[slice], **options: Any) -> list[bytes]:
    """Return the series as a concatenation (PS3.3 C.7.6.16.2.2.4), an instance for each part."""
    written = []
    for number, part in enumerate(parts, start=1):
        dataset = read(enhanced(files[part], name=f"part {number}", **options))
        dataset.ConcatenationUID = derive_uid("concatenation")
        dataset.SOPInstanceUIDOfConcatenationSource = derive_uid("concatenation", "source")
        dataset.InConcatenationNumber = number
        dataset.InConcatenationTotalNumber = len(parts)
        dataset.ConcatenationFrameOffsetNumber = part.start or 0
        written.append(save(dataset))
    return written


def _instance(first: Dataset, name: str, count: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    for element in first:
        # What one slice has, and what belongs into functional groups, is not the instance's.
        if element.keyword not in _OF_A_FRAME and element.keyword != "PixelData":
            dataset.add(element)
    dataset.SOPClassUID = EnhancedCTImageStorage
    dataset.SOPInstanceUID = derive_uid("multi-frame", name)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SeriesInstanceUID = derive_uid("multi-frame", "series")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames = count
    organization = Dataset()
    organization.DimensionOrganizationUID = derive_uid("dimensions", name)
    dataset.DimensionOrganizationSequence = [organization]
    dataset.DimensionIndexSequence = Items()
    for pointer, group in DIMENSIONS.items():
        item = Dataset()
        item.DimensionOrganizationUID = organization.DimensionOrganizationUID
        item.DimensionIndexPointer = pydicom.datadict.tag_for_keyword(pointer)
        item.FunctionalGroupPointer = pydicom.datadict.tag_for_keyword(group)
        dataset.DimensionIndexSequence.append(item)
    return dataset


_OF_A_FRAME = (
    "ImageType", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "KVP",
    "SliceThickness", "RescaleSlope", "RescaleIntercept", "RescaleType", "ConvolutionKernel",
    "AcquisitionNumber", "WindowCenter", "WindowWidth",
)  # fmt: skip


def _groups(item: Dataset) -> Dataset:
    """Return the functional groups that all frames may share."""
    groups = Dataset()
    groups.PlaneOrientationSequence = [_only(item, "ImageOrientationPatient")]
    groups.PixelMeasuresSequence = [_only(item, "PixelSpacing", "SliceThickness")]
    rescale = _only(item, "RescaleSlope", "RescaleIntercept")
    rescale.RescaleType = "HU"
    groups.PixelValueTransformationSequence = [rescale]
    kind = Dataset()
    kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    kind.PixelPresentation = "MONOCHROME"
    kind.VolumetricProperties = "VOLUME"
    kind.VolumeBasedCalculationTechnique = "NONE"
    groups.CTImageFrameTypeSequence = [kind]
    groups.CTXRayDetailsSequence = [_only(item, "KVP")]
    groups.CTReconstructionSequence = [_only(item, "ConvolutionKernel")]
    return groups


def _only(item: Dataset, *keywords: str) -> Dataset:
    result = Dataset()
    for keyword in keywords:
        if keyword in item:
            result.add(item[keyword])
    return result
