"""References to the source: to an instance, or to one frame of it.

highdicom makes references to images that are each an instance of its own. Where slices are frames
of multi-frame instances, it is given a stand-in for every frame, and here the stand-ins become
references to the frames. Nothing but references may enter here.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from dicomnode.domain.identifiers import derive_uid
from dicomnode.results.headers import Source
from dicomnode.scan import SliceSource


def stand_ins(source: Source) -> tuple[Dataset, ...]:
    """Return the headers of the slices, those of frames with a SOP Instance UID of their own."""
    return tuple(
        header if image.frame_number is None else _stand_in(header, image)
        for header, image in zip(source.headers, source.scan.sources, strict=True)
    )


def as_points(images: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """Return images of one voxel at the same places, in whose likeness highdicom makes headers."""
    points = []
    for image in images:
        point = Dataset()
        point.update(image)
        point.add_new("Rows", "US", 1)
        point.add_new("Columns", "US", 1)
        points.append(point)
    return tuple(points)


def refer_to_frames(dataset: Dataset, source: Source) -> None:
    """Make references to stand-ins into references to frames (PS3.3 table 10-3).

    Where a sequence lists the instances of a series, each instance stands once, without frames.
    """
    frames = {
        _stand_in_uid(image): image
        for image in source.scan.sources
        if image.frame_number is not None
    }
    if not frames:
        return
    for series in dataset.ReferencedSeriesSequence:
        series.ReferencedInstanceSequence = _instances(series.ReferencedInstanceSequence, frames)
    for item in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in item.DerivationImageSequence:
            for reference in derivation.SourceImageSequence:
                # highdicom shares one item among all segments of a slice: it may be done already.
                image = frames.get(reference.ReferencedSOPInstanceUID)
                if image is not None:
                    _refer(reference, image)
                    reference.ReferencedFrameNumber = image.frame_number


def distinct(headers: Sequence[Dataset]) -> list[Dataset]:
    """Return the first header of each instance."""
    return list({str(header.SOPInstanceUID): header for header in reversed(headers)}.values())[::-1]


def _instances(items: Sequence[Dataset], frames: dict[str, SliceSource]) -> list[Dataset]:
    kept: dict[str, Dataset] = {}
    for item in items:
        image = frames.get(item.ReferencedSOPInstanceUID)
        kept_item = item if image is None else Dataset()
        if image is not None:
            _refer(kept_item, image)
        kept.setdefault(str(kept_item.ReferencedSOPInstanceUID), kept_item)
    return list(kept.values())


def _refer(reference: Dataset, image: SliceSource) -> None:
    reference.ReferencedSOPClassUID = image.sop_class_uid
    reference.ReferencedSOPInstanceUID = image.sop_instance_uid


def _stand_in(header: Dataset, image: SliceSource) -> Dataset:
    result = Dataset()
    result.update(header)
    # New elements: those of the header are shared, and setting a value would change them.
    result.add_new("SOPClassUID", "UI", CTImageStorage)
    result.add_new("SOPInstanceUID", "UI", _stand_in_uid(image))
    return result


def _stand_in_uid(image: SliceSource) -> str:
    return derive_uid("stand-in", image.sop_instance_uid, str(image.frame_number))
