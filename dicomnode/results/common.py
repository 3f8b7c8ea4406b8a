"""What SEG and SR have in common: descriptions, times, equipment, and the bytes of a file.

Every result says that it is made by a machine and not for diagnosis, and every byte is decided by
the source, the model and the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from highdicom import UID, ContributingEquipment
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicomnode import __version__
from dicomnode.domain.identifiers import SOPClassUID, TransferSyntaxUID
from dicomnode.domain.moments import in_zone_of
from dicomnode.domain.plans import MANUFACTURER, Plan, ResultInstance
from dicomnode.quiet import quiet_pydicom
from dicomnode.results.headers import Source, value_of
from dicomnode.results.model import Model
from dicomnode.results.uids import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    Identifiers,
    device_uid,
)

NOT_FOR_DIAGNOSIS = "AI not for diagnosis"
MAX_LONG_STRING = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When the analysis was first taken up, as DICOM writes it."""

    date: str
    time: str
    date_time: str
    """With its offset from UTC."""


def times(source: Source, plan: Plan) -> Times:
    """Return the plan's time in the time zone of the source, or in its own where that is unknown.

    Timezone Offset From UTC counts for all dates and times of an object (PS3.3 C.12.1.1.8), those
    copied from the source among them: so the source's offset is kept and never one added.
    """
    moment = in_zone_of(plan.analysed_at, str(source.extra.get("TimezoneOffsetFromUTC", "")))
    return Times(
        date=moment.strftime("%Y%m%d"),
        time=moment.strftime("%H%M%S"),
        date_time=moment.strftime("%Y%m%d%H%M%S%z"),
    )


def series_description(kind: str, source: Source, model: Model, plan: Plan) -> str:
    """Return the Series Description, at most 64 characters; the model's id is cut if need be."""
    number = value_of(source.acquisition, "SeriesNumber")
    of = f" {kind.upper().replace('_', ' ')} of S{'?' if number is None else number}"
    used, total = slices_used(source, plan)
    part = f" ({used} of {total} slices)" if used < total else ""
    start = f"{'DEMO ' if model.demonstration else ''}{NOT_FOR_DIAGNOSIS}: "
    room = MAX_LONG_STRING - len(start) - len(of) - len(part)
    return f"{start}{model.id[:room]}{of}{part}"


def software_versions(model: Model) -> Any:
    """Return the versions of this node and of the model.

    Typed loosely, because highdicom's annotation allows a single text only.
    """
    return (__version__, model.version[:MAX_LONG_STRING])


def slices_used(source: Source, plan: Plan) -> tuple[int, int]:
    """Return how many slices were analysed, and how many instances the series has in all."""
    total = max(plan.total_in_series or 0, source.scan.total_instances)
    return len(source.headers), total


def contributing_equipment(model: Model, plan: Plan, moment: Times) -> ContributingEquipment:
    """Return what made the result (PS3.3 C.12.1.1.5): this node, with the weights as a device."""
    item = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=model.id[:MAX_LONG_STRING],
        software_versions=list(software_versions(model)),
        station_name=plan.station_name[:16],
        contribution_datetime=moment.date_time,
        contribution_description=f"{NOT_FOR_DIAGNOSIS}: segmentation by {model.title}",
    )
    item.DeviceUID = device_uid(model)
    return item


def write_whole(file: BinaryIO, dataset: Dataset) -> None:
    """Write an object as a file (PS3.10)."""
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)


def finish(
    dataset: Dataset,
    source: Source,
    identifiers: Identifiers,
    moment: Times,
    *,
    kind: str,
    summary: dict[str, int | float | str],
    refers_to: tuple[str, ...] = (),
    write: Callable[[BinaryIO, Dataset], None] = write_whole,
    folder: str | None = None,
) -> ResultInstance:
    """Give a highdicom object its exact identity and fixed times, and write it.

    Args:
        write: writes the object.
        folder: where it becomes a file, without being in memory whole; None: it comes as bytes.
    """
    buffer = BytesIO()
    path = None if folder is None else Path(folder) / f"{identifiers.sop_instance_uid}.dcm"
    with quiet_pydicom():
        for element in (*source.identity, *source.extra):
            dataset.add(element)
        dataset.InstanceCreationDate = moment.date
        dataset.InstanceCreationTime = moment.time
        for item in dataset.ContributingEquipmentSequence:
            if item.PurposeOfReferenceCodeSequence[0].CodeValue != "109101":
                item.ContributionDateTime = moment.date_time
        meta = dataset.file_meta
        meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        if path is None:
            write(buffer, dataset)
        else:
            with path.open("wb") as file:
                write(file, dataset)
    return ResultInstance(
        kind=kind,
        sop_class_uid=SOPClassUID(str(dataset.SOPClassUID)),
        sop_instance_uid=identifiers.sop_instance_uid,
        series_uid=identifiers.series_uid,
        transfer_syntax_uid=TransferSyntaxUID(str(meta.TransferSyntaxUID)),
        data=buffer.getvalue(),
        file=path,
        summary=summary,
        refers_to=refers_to,
    )
