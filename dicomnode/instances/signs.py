"""What an instance says of its study's time, its urgency, its series' end, and what it rejects.

Read with the header and as hostile as it: what is missing or malformed is taken as not said. Pixels
and anything that names a patient may not enter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

from pydicom.dataset import Dataset

from dicomnode.domain.identifiers import InstanceUID, InvalidUIDError, parse_uid
from dicomnode.domain.records import EndSign, Rejection

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
REJECTION_CODES = frozenset({"113001", "113037", "113038", "113039"})
"""DCM, CID 7011: quality, patient safety, wrong worklist entry, data retention expired."""
_LARGEST = 2**31


SERIES_KEYWORDS = (
    "StudyDate",
    "StudyTime",
    "TimezoneOffsetFromUTC",
    "RequestedProcedurePriority",
    "RequestAttributesSequence",
)
"""What `study_at` and `priority` look at, at the top of the data set."""


def study_at(dataset: Dataset) -> datetime | None:
    """Return Study Date and Time in UTC, or None where the date is missing or no date.

    Without a time it is the end of that day. Without Timezone Offset From UTC (PS3.3 C.12.1.1) it
    is local time of this machine, which stands beside its modalities.
    """
    match = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", _text(dataset, "StudyDate"))
    if match is None:
        return None
    try:
        day = date(*map(int, match.groups()))
        local = datetime.combine(day, _time(_text(dataset, "StudyTime")))
        return _zoned(local, _text(dataset, "TimezoneOffsetFromUTC"))
    except (ValueError, OverflowError, OSError):  # 20230231, or at the end of all years
        return None


def _time(text: str) -> time:
    """PS3.5 6.2, value representation TM: minutes and seconds may be missing, colons be there."""
    match = re.fullmatch(r"(\d{2}):?(\d{2})?:?(\d{2})?(\.\d*)?", text)
    if match is None:
        return time(23, 59, 59)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()[:3])
    return time(hours, minutes, min(seconds, 59))  # 60 is a leap second


def _zoned(local: datetime, offset: str) -> datetime:
    match = re.fullmatch(r"([+-])(\d{2})(\d{2})", offset)
    if match is None:
        return local.astimezone(UTC)
    sign, hours, minutes = match.groups()
    shift = timedelta(hours=int(hours), minutes=int(minutes))
    return local.replace(tzinfo=timezone(-shift if sign == "-" else shift)).astimezone(UTC)


def priority(dataset: Dataset) -> str:
    """Return Requested Procedure Priority: it is the worklist's, but some modalities copy it."""
    for item in (dataset, *_items(dataset, "RequestAttributesSequence")):
        text = _text(item, "RequestedProcedurePriority").upper()[:16]
        if text:
            return text
    return ""


def end(dataset: Dataset) -> EndSign | None:
    """Return which acquisition (PS3.3 C.7.10.1) or concatenation (C.7.6.16.2.2.4) it is part of."""
    concatenation = _text(dataset, "ConcatenationUID")[:64]
    if concatenation:
        group = f"C{concatenation}"
        total = _whole(dataset, "InConcatenationTotalNumber")
        number = _whole(dataset, "InConcatenationNumber")
    else:
        acquisition = _whole(dataset, "AcquisitionNumber")
        group = "A" if acquisition is None else f"A{acquisition}"
        total = _whole(dataset, "ImagesInAcquisition")
        number = _whole(dataset, "InstanceNumber")
    if total is None or number is None or total < 1:
        return None
    return EndSign(group=group, total=total, number=number)


def rejection(dataset: Dataset) -> Rejection | None:
    """Return what a rejection note names in its evidence (PS3.3 C.17.6.2, IHE RAD 4.66)."""
    if _text(dataset, "SOPClassUID") != KEY_OBJECT_SELECTION:
        return None
    title = next(iter(_items(dataset, "ConceptNameCodeSequence")), None)
    if title is None or _text(title, "CodingSchemeDesignator") != "DCM":
        return None
    code = _text(title, "CodeValue")
    if code not in REJECTION_CODES:
        return None
    named: dict[InstanceUID, None] = {}
    for study in _items(dataset, "CurrentRequestedProcedureEvidenceSequence"):
        for series in _items(study, "ReferencedSeriesSequence"):
            for instance in _items(series, "ReferencedSOPSequence"):
                try:
                    uid = parse_uid(_text(instance, "ReferencedSOPInstanceUID"))
                except InvalidUIDError:
                    continue  # no instance here can have that UID
                named[InstanceUID(uid)] = None
    return Rejection(code=code, instances=tuple(named))


def _items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    value = dataset.get(keyword)
    for item in value if isinstance(value, (list, tuple)) or hasattr(value, "append") else ():
        if isinstance(item, Dataset):
            yield item


def _text(dataset: Dataset, keyword: str) -> str:
    value: Any = dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def _whole(dataset: Dataset, keyword: str) -> int | None:
    try:
        number = int(dataset.get(keyword))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < _LARGEST else None
