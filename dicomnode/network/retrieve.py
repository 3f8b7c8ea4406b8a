"""Retrieve SCU: C-MOVE and C-GET with the Study Root model (PS3.4 annex C). Decides nothing.

C-MOVE has the archive send to this node's receiver, on an association of the archive's. C-GET
brings the instances over the association of the request, and whoever calls `get` stores each of
them before the archive hears of success.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt

from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.domain.retrieval import Retrieved, SubOperations, Wanted
from dicomnode.network.contexts import KNOWN_STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicomnode.network.requesting import (
    UNCOMPRESSED,
    Call,
    ConnectError,
    Proposal,
    called,
    cut_off,
)
from dicomnode.network.sockets import VERIFICATION

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
"""Study Root Query/Retrieve Information Model - MOVE and - GET (PS3.4 C.6.2)."""
PENDING = (0xFF00, 0xFF01)
MAX_CONTEXTS = 128
MAX_SYNTAXES = 40
"""Of one context: DCMTK aborts where there are more than 50; the others are videos."""
CANCEL_GRACE_SECONDS = 10.0
"""After a C-CANCEL an archive may end the sub-operation under way, and answer."""
MESSAGE_ID = 1

_CT = "1.2.840.10008.5.1.4.1.1."
CLASSES_OF_MODALITY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "CT": (f"{_CT}2", f"{_CT}7", f"{_CT}2.1", f"{_CT}2.2"),  # dose screens are captures
        "MR": (f"{_CT}4", f"{_CT}7", f"{_CT}4.1", f"{_CT}4.4"),
        "PT": (f"{_CT}128", f"{_CT}7", f"{_CT}130", f"{_CT}128.1"),
        "SEG": (f"{_CT}66.4", f"{_CT}66.7"),
        "SR": (f"{_CT}88.34", f"{_CT}88.33", f"{_CT}88.22", f"{_CT}88.11", f"{_CT}88.67"),
        "KO": (f"{_CT}88.59",),
        "OT": (f"{_CT}7", f"{_CT}7.4", f"{_CT}7.2", f"{_CT}7.1", f"{_CT}7.3"),
        "PR": (f"{_CT}11.1", f"{_CT}11.2", f"{_CT}11.3", f"{_CT}11.4"),
        "RTSTRUCT": (f"{_CT}481.3",),
        "REG": (f"{_CT}66.1", f"{_CT}66.3"),
    }
)
"""What series of a modality are made of, for archives that do not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long a retrieve may take."""

    silence_seconds: float
    """Between two messages of the archive: the next one has to be whole by then."""
    seconds: float
    """For all of it."""
    cancelled: Callable[[], bool]
    """Looked at all the while; once it is true, the archive is told to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One instance, as the C-STORE of a C-GET brings it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: memoryview
    """The data set as encoded, without File Meta Information."""


Progress = Callable[[SubOperations], None]
"""Called with each response of the archive; some give only the last one."""
Store = Callable[[Arrival], int]
"""Stores an instance for good and returns the DICOM status."""


def move(
    call: Call, wanted: Wanted, *, destination_ae: str, terms: Terms, progress: Progress
) -> Retrieved | Retry | Refuse:
    """Have an archive send instances to an AE that it knows by its title."""

    def ask(association: Any) -> Any:
        return association.send_c_move(
            _identifier(wanted), destination_ae, STUDY_ROOT_MOVE, msg_id=MESSAGE_ID
        )

    return _retrieve(call, STUDY_ROOT_MOVE, [], [], ask, terms, progress)


def get(
    call: Call,
    wanted: Wanted,
    *,
    sop_classes: Iterable[str],
    terms: Terms,
    progress: Progress,
    store: Store,
) -> Retrieved | Retry | Refuse:
    """Have an archive send instances over this association, and store each of them.

    Args:
        sop_classes: of the instances; what is not among them the archive cannot send.
        store: called from this thread, one instance after another.
    """

    def stored(event: Any) -> int:
        request = event.request
        return store(
            Arrival(
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                data=memoryview(b"" if request.DataSet is None else request.DataSet.getbuffer()),
            )
        )

    def ask(association: Any) -> Any:
        return association.send_c_get(_identifier(wanted), STUDY_ROOT_GET, msg_id=MESSAGE_ID)

    handlers = [(evt.EVT_C_STORE, stored)]
    storage = storage_proposals(sop_classes)
    return _retrieve(call, STUDY_ROOT_GET, storage, handlers, ask, terms, progress)


def storage_proposals(sop_classes: Iterable[str]) -> list[Proposal]:
    """Return the Presentation Contexts for what a C-GET brings, at most `MAX_CONTEXTS` - 2.

    The archive takes one Transfer Syntax of a context, and may hold instances in several: each has
    a context of its own as far as there is room, and the rest of them share one. The classes that
    come first get their room first, and what we prefer comes first in each.
    """
    classes = list(dict.fromkeys(sop_classes))[: MAX_CONTEXTS - 2]
    room = MAX_CONTEXTS - 2 - len(classes)
    proposals = []
    for sop_class in classes:
        alone = min(room, len(TRANSFER_SYNTAXES) - 1)
        room -= alone
        groups: list[tuple[str, ...]] = [(one,) for one in TRANSFER_SYNTAXES[:alone]]
        groups.append(TRANSFER_SYNTAXES[alone:][:MAX_SYNTAXES])
        proposals += [
            Proposal(abstract_syntax=sop_class, transfer_syntaxes=group, as_scp=True)
            for group in groups
        ]
    return proposals


def likely_classes(modality: str) -> tuple[str, ...]:
    """Return what instances of such a series usually are; of another modality all that we know."""
    return CLASSES_OF_MODALITY.get(modality, KNOWN_STORAGE_CLASSES)


def _identifier(wanted: Wanted) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY" if wanted.series_uid is None else "SERIES"
    identifier.StudyInstanceUID = wanted.study_uid
    if wanted.series_uid is not None:
        identifier.SeriesInstanceUID = wanted.series_uid
    return identifier


def _retrieve(
    call: Call,
    model: str,
    storage: Sequence[Proposal],
    handlers: Sequence[tuple[Any, ...]],
    ask: Callable[[Any], Any],
    terms: Terms,
    progress: Progress,
) -> Retrieved | Retry | Refuse:
    # With Verification the association comes about even where the retrieve is refused.
    proposals = [
        Proposal(abstract_syntax=uid, transfer_syntaxes=UNCOMPRESSED)
        for uid in (model, VERIFICATION)
    ]
    try:
        with called(call, [*proposals, *storage], handlers) as association:
            if model not in {one.abstract_syntax for one in association.accepted_contexts}:
                kind = "C-MOVE" if model == STUDY_ROOT_MOVE else "C-GET"
                return Refuse("CONTEXT_REFUSED", f"the archive does not offer {kind}")
            association.dimse_timeout = terms.silence_seconds
            end = _End(association, model, terms)
            with cut_off(association, end.is_due):
                return _read(ask(association), end, progress)
    except ConnectError as error:
        return Retry(error.code, error.detail)
    except RuntimeError as error:
        return Retry("NO_RESPONSE", f"the association ended before the request: {error}")
    except ValueError as error:
        return Retry("UNUSABLE_ANSWER", f"the answer is not readable: {error}")


class _End:
    """Ends a retrieve that is given up or takes too long: first by C-CANCEL, then for good."""

    def __init__(self, association: Any, model: str, terms: Terms) -> None:
        self._association = association
        self._model = model
        self._terms = terms
        self._deadline = time.monotonic() + terms.seconds
        self._cancelled_at: float | None = None
        self._lock = threading.Lock()

    def is_due(self) -> bool:
        """Whether the connection is to be cut; looked at from a thread of its own."""
        now = time.monotonic()
        if self._cancelled_at is not None:
            return now > self._cancelled_at + CANCEL_GRACE_SECONDS
        if self._terms.cancelled() or now > self._deadline:
            self._cancelled_at = now
            if self._association.is_established:
                self._association.send_c_cancel(MESSAGE_ID, query_model=self._model)
        return False

    def silence(self) -> Retry:
        """Say why there was no last word."""
        if self._terms.cancelled():
            return Retry("CANCELLED", "the retrieve was given up")
        if time.monotonic() > self._deadline:
            return Retry("FETCH_TIMEOUT", f"not complete within {self._terms.seconds:g} seconds")
        return Retry("NO_RESPONSE", "the association ended without an answer, or none came in time")


def _read(
    responses: Iterator[tuple[Dataset, Dataset | None]], end: _End, progress: Progress
) -> Retrieved | Retry:
    last = SubOperations()
    for response, identifier in responses:
        status = response.get("Status")
        if status is None:
            break
        last = SubOperations(
            remaining=_number(response, "NumberOfRemainingSuboperations", None),
            completed=_number(response, "NumberOfCompletedSuboperations", last.completed) or 0,
            failed=_number(response, "NumberOfFailedSuboperations", last.failed) or 0,
            warning=_number(response, "NumberOfWarningSuboperations", last.warning) or 0,
        )
        progress(last)
        if status not in PENDING:
            return Retrieved(status=int(status), operations=last, failed_uids=_failed(identifier))
    return end.silence()


def _number(response: Dataset, keyword: str, otherwise: int | None) -> int | None:
    value = response.get(keyword)
    return value if isinstance(value, int) else otherwise


def _failed(identifier: Dataset | None) -> tuple[str, ...]:
    if identifier is None:
        return ()
    try:
        value = identifier.get("FailedSOPInstanceUIDList")
    except Exception as error:
        raise ValueError(f"the list of failed instances: {type(error).__name__}") from error
    many = [value] if isinstance(value, str) else list(value or ())
    return tuple(str(one) for one in many if str(one))
