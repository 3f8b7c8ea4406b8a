"""Query SCU: C-FIND with the Study Root model (PS3.4 annex C). Asks and reads, decides nothing.

An answer is a value: records, or `Retry` (the peer cannot answer now) or `Refuse` (it will not, or
not so that it can be used). What a peer says is hostile: bounded in number and in time, and every
value is checked. Identity is in the records only if it was asked for, and never in a log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydicom.dataset import Dataset

from dicomnode.domain.holdings import SeriesRecord, StudyCount, StudyRecord
from dicomnode.domain.identifiers import (
    SeriesUID,
    StudyUID,
    parse_uid,
)
from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.network.answers import (
    IDENTITY,
    FailedError,
    classes_of,
    only_study,
    series_record,
    study_record,
    uid_of,
)
from dicomnode.network.requesting import (
    UNCOMPRESSED,
    Call,
    ConnectError,
    Proposal,
    called,
    cut_off,
)
from dicomnode.network.sockets import VERIFICATION

T = TypeVar("T")

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
"""Study Root Query/Retrieve Information Model - FIND (PS3.4 C.6.2)."""
PENDING = (0xFF00, 0xFF01)
CANCELLED = 0xFE00


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much of an answer is taken, and how long it is waited for."""

    seconds: float = 60.0
    """For all that is asked over one association; `Call.timeout_seconds` is for each answer."""
    answers: int = 10_000
    """Responses to one request at most; of more the peer is told to stop."""
    cancelled: Callable[[], bool] = _never
    """Looked at all the while; once it is true, the caller wants no answer any more."""


def find_study(
    call: Call, study_uid: str, *, identity: bool = False, bounds: Bounds | None = None
) -> StudyRecord | Retry | Refuse | None:
    """Ask for a study; None where the peer does not know it.

    Args:
        identity: ask whose it is, too.
    """
    uid = StudyUID(parse_uid(study_uid))
    return _ask(call, bounds, lambda query: query.study(uid, identity=identity))


def find_series(
    call: Call, study_uid: str, *, bounds: Bounds | None = None
) -> tuple[SeriesRecord, ...] | Retry | Refuse:
    """Ask for the series of a study; none where the peer does not know it."""
    uid = StudyUID(parse_uid(study_uid))
    return _ask(call, bounds, lambda query: query.series(uid))


def count_instances(
    call: Call,
    study_uid: str,
    *,
    series_uid: str | None = None,
    sop_classes: bool = False,
    bounds: Bounds | None = None,
) -> StudyCount | Retry | Refuse:
    """Ask how many instances a study has, series by series.

    Where the peer does not state the number, its instances are asked for and counted.

    Args:
        series_uid: only this series of it.
        sop_classes: ask for the SOP Class UID of every instance, too.
    """
    study = StudyUID(parse_uid(study_uid))
    wanted = None if series_uid is None else SeriesUID(parse_uid(series_uid))

    def count(query: _Query) -> StudyCount:
        record = query.study(study, identity=False)
        return StudyCount(
            study_uid=study,
            series=tuple(
                query.counted(one) if sop_classes or one.instances is None else one
                for one in query.series(study, wanted)
            ),
            stated=None if record is None else record.instances,
        )

    return _ask(call, bounds, count)


def _ask(call: Call, bounds: Bounds | None, act: Callable[[_Query], T]) -> T | Retry | Refuse:
    """Open an association and ask over it whatever `act` asks."""
    query = _Query(bounds or Bounds())
    # With Verification the association comes about even where queries are refused, and says so.
    proposals = [
        Proposal(abstract_syntax=uid, transfer_syntaxes=UNCOMPRESSED)
        for uid in (STUDY_ROOT_FIND, VERIFICATION)
    ]
    try:
        with called(call, proposals) as association, cut_off(association, query.is_over):
            query.begin(association)
            return act(query)
    except ConnectError as error:
        return Retry(error.code, error.detail)
    except FailedError as failed:
        return failed.outcome


class _Query:
    """An association over which a peer is asked."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._deadline = time.monotonic() + bounds.seconds
        self._association: Any = None
        self._message_id = 0

    def begin(self, association: Any) -> None:
        if STUDY_ROOT_FIND not in {one.abstract_syntax for one in association.accepted_contexts}:
            raise FailedError(Refuse("CONTEXT_REFUSED", "the peer answers no queries (C-FIND)"))
        self._association = association

    def is_over(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return time.monotonic() > self._deadline or self._bounds.cancelled()

    def study(self, study_uid: str, *, identity: bool) -> StudyRecord | None:
        keys = ["StudyDate", "AccessionNumber", "ModalitiesInStudy", "SOPClassesInStudy"]
        keys += ["NumberOfStudyRelatedInstances", *(IDENTITY if identity else ())]
        found = [
            study_record(answer, identity=identity)
            for answer in self._find("STUDY", keys, StudyInstanceUID=study_uid)
        ]
        return only_study(found, study_uid)

    def series(
        self, study_uid: str, series_uid: SeriesUID | None = None
    ) -> tuple[SeriesRecord, ...]:
        keys = ["Modality", "SeriesNumber", "NumberOfSeriesRelatedInstances"]
        answers = self._find(
            "SERIES", keys, StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid or ""
        )
        found = {
            record.series_uid: record
            for record in (series_record(answer, StudyUID(study_uid)) for answer in answers)
            if record.study_uid == study_uid and series_uid in (None, record.series_uid)
        }
        return tuple(found[uid] for uid in sorted(found))

    def counted(self, series: SeriesRecord) -> SeriesRecord:
        """Ask for the instances of a series, and count them where the peer has not."""
        answers = self._find(
            "IMAGE",
            ["SOPClassUID"],
            StudyInstanceUID=series.study_uid,
            SeriesInstanceUID=series.series_uid,
            SOPInstanceUID="",
        )
        found = {uid_of(answer, "SOPInstanceUID") for answer in answers}
        classes = {uid for answer in answers for uid in classes_of(answer, "SOPClassUID")}
        stated = series.instances
        count = len(found) if stated is None else stated
        return replace(series, instances=count, sop_class_uids=tuple(sorted(classes)))

    def _find(self, level: str, keys: Sequence[str], **matching: str) -> list[Dataset]:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        for keyword, value in (dict.fromkeys(keys, "") | matching).items():
            setattr(identifier, keyword, value)
        self._message_id += 1
        try:
            responses = self._association.send_c_find(
                identifier, STUDY_ROOT_FIND, msg_id=self._message_id
            )
            return self._read(responses)
        except (RuntimeError, ValueError) as error:  # the association ended before it was asked
            raise FailedError(self._silence()) from error

    def _read(self, responses: Iterator[tuple[Dataset, Dataset | None]]) -> list[Dataset]:
        answers: list[Dataset] = []
        for response, identifier in responses:
            status = response.get("Status")
            if self.is_over():
                self._cancel()
                raise FailedError(self._silence())
            if status is None:
                raise FailedError(self._silence())
            if status not in PENDING:
                _check(status)
                return answers
            if not isinstance(identifier, Dataset):
                self._cancel()
                raise FailedError(Refuse("UNUSABLE_ANSWER", "an answer is not readable"))
            answers.append(identifier)
            if len(answers) > self._bounds.answers:
                self._cancel()
                detail = f"more than {self._bounds.answers} answers to one query"
                raise FailedError(Refuse("TOO_MANY_ANSWERS", detail))
        raise FailedError(self._silence())

    def _cancel(self) -> None:
        """Tell the peer to stop, and end the association: what it still sends is of no use."""
        if self._association.is_established:
            self._association.send_c_cancel(self._message_id, query_model=STUDY_ROOT_FIND)
            self._association.abort()

    def _silence(self) -> Retry:
        if self._bounds.cancelled():
            return Retry("CANCELLED", "the query was given up")
        if time.monotonic() > self._deadline:
            detail = f"no complete answer within {self._bounds.seconds:g} seconds"
            return Retry("QUERY_TIMEOUT", detail)
        # Orthanc ends it so where it does not know the node: the text names that, too.
        detail = "the association ended without an answer: does the peer know this node?"
        return Retry("NO_RESPONSE", detail)


def _check(status: int) -> None:
    """Raise for the status of a final C-FIND response other than Success (PS3.4 C.4.1.1.4)."""
    if status == 0x0000:
        return
    if status == CANCELLED or status & 0xFF00 == 0xA700 or status == 0x0110:
        detail = "the peer ended the query or is out of resources"
        raise FailedError(Retry(f"STATUS_{status:04X}", detail))
    raise FailedError(Refuse(f"STATUS_{status:04X}", "the peer refused the query"))
