"""Data sets of storage commitment: the request that goes out, the report that comes (PS3.4 J.3)."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from dicomnode.domain.commitment import CommitmentReport
from dicomnode.domain.identifiers import InvalidUIDError, parse_uid
from dicomnode.instances.fields import UnreadableError

MAX_REFERENCES = 10_000


def request(transaction_uid: str, references: Iterable[tuple[str, str]]) -> Dataset:
    """Return the Action Information of a request.

    Args:
        transaction_uid: of the request.
        references: SOP Class and SOP Instance UIDs.
    """
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_reference(*one) for one in references]
    return information


def event(
    transaction_uid: str,
    committed: Iterable[tuple[str, str]],
    failed: Iterable[tuple[str, str, int]],
) -> Dataset:
    """Return the Event Information of a report of our own.

    Args:
        transaction_uid: of the request.
        committed: SOP Class and SOP Instance UIDs.
        failed: the same, and the Failure Reason.
    """
    information = Dataset()
    information.TransactionUID = transaction_uid
    kept = [_reference(*one) for one in committed]
    lost = []
    for sop_class, sop_instance, reason in failed:
        item = _reference(sop_class, sop_instance)
        item.FailureReason = reason
        lost.append(item)
    if kept:
        information.ReferencedSOPSequence = kept
    if lost:
        information.FailedSOPSequence = lost
    return information


def parse_request(data: bytes, transfer_syntax: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Read the Action Information of a request: Transaction UID, SOP Class and Instance UIDs.

    Raises:
        UnreadableError: it is none.
    """
    uid = UID(transfer_syntax)
    try:
        asked = read_dataset(BytesIO(data), uid.is_implicit_VR, uid.is_little_endian)
        found = tuple(
            (parse_uid(str(item.get("ReferencedSOPClassUID") or "")), _uid(item))
            for item in _items(asked, "ReferencedSOPSequence")
        )
        transaction = parse_uid(str(asked.get("TransactionUID") or ""))
    except UnreadableError:
        raise
    except Exception as error:  # hostile bytes can raise anything in a parser
        raise UnreadableError(f"the request is not readable ({type(error).__name__})") from error
    if not found:
        raise UnreadableError("the request names no instances")
    return transaction, found


def _reference(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_instance
    return item


def parse(data: bytes, transfer_syntax: str) -> CommitmentReport:
    """Read a report as it came over the network.

    Raises:
        UnreadableError: it is none.
    """
    uid = UID(transfer_syntax)
    try:
        return read(read_dataset(BytesIO(data), uid.is_implicit_VR, uid.is_little_endian))
    except UnreadableError:
        raise
    except Exception as error:  # hostile bytes can raise anything in a parser
        raise UnreadableError(f"the report is not readable ({type(error).__name__})") from error


def read(information: Dataset) -> CommitmentReport:
    """Read the Event Information of a report.

    Raises:
        UnreadableError: it lacks its Transaction UID, or names what are no instances.
    """
    try:
        done = [_uid(item) for item in _items(information, "ReferencedSOPSequence")]
        failed = [
            (_uid(item), int(item.get("FailureReason") or 0x0110))
            for item in _items(information, "FailedSOPSequence")
        ]
        return CommitmentReport(
            transaction_uid=parse_uid(str(information.get("TransactionUID") or "")),
            committed=frozenset(done),
            failed=tuple(failed),
        )
    except InvalidUIDError as error:
        raise UnreadableError(f"the report: {error}") from error


def _items(information: Dataset, keyword: str) -> list[Dataset]:
    items = list(information.get(keyword) or ())
    if len(items) > MAX_REFERENCES:
        raise UnreadableError(f"the report names more than {MAX_REFERENCES} instances")
    return items


def _uid(item: Dataset) -> str:
    return parse_uid(str(item.get("ReferencedSOPInstanceUID") or ""))
