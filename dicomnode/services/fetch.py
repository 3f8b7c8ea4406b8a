"""Fetch a study from an archive that did not route it: C-FIND, then C-MOVE or C-GET.

What a C-GET brings goes through the same admission and the same durable storing as what the
receiver gets. Nothing is decided here about the analysis: the ledger says that the study is
complete, and that somebody wanted it. Loads no model.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from dicomnode.domain.associations import AssociationRequest
from dicomnode.domain.holdings import StudyCount
from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry
from dicomnode.domain.retrieval import SUCCESS, Retrieved, SubOperations, Wanted, judge
from dicomnode.errors import LedgerError, SettingsError
from dicomnode.instances import Headers
from dicomnode.ledger import fetches, presence
from dicomnode.network import query, retrieve
from dicomnode.network.association import Outcome as Ended
from dicomnode.network.association import StoreRequest
from dicomnode.network.retrieve import Arrival, Terms
from dicomnode.services.arriving import House, Sender
from dicomnode.services.common import Context
from dicomnode.services.desk import Desk
from dicomnode.services.peers import call_of
from dicomnode.settings import Settings

log = logging.getLogger(__name__)

NAME = "fetch"
BEAT_SECONDS = 5.0
MOVE, GET = "MOVE", "GET"
NOTHING_YET = SubOperations()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How far a fetch is."""

    peer: str
    method: str | None = None
    """MOVE or GET; None while the archive is asked what it has."""
    expected: int | None = None
    """Instances that the archive has."""
    operations: SubOperations = NOTHING_YET


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a fetch came to."""

    outcome: Outcome
    stage: Stage
    failed_uids: tuple[str, ...] = ()
    """SOP Instance UIDs that the archive names as failed."""


Show = Callable[[Stage], None]


def sources(settings: Settings, name: str | None) -> tuple[str, ...]:
    """Return the names of the peers that are asked, in order.

    Raises:
        SettingsError: the peer does not exist or may not be asked, or none may.
    """
    able = tuple(key for key, peer in settings.peers.items() if peer.query)
    if name is None:
        if not able:
            raise SettingsError("no peer may be asked for studies: none has `query: true`")
        return able
    if name not in settings.peers:
        raise SettingsError(f"no peer is named {name!r} (peers: {', '.join(settings.peers)})")
    if name not in able:
        raise SettingsError(f"peers.{name}: may not be asked for studies: it lacks `query: true`")
    return (name,)


def fetch(context: Context, wanted: Wanted, *, peer: str | None, who: str, show: Show) -> Report:
    """Fetch a study, or one series of it; doing it again is harmless.

    Args:
        peer: whom to ask; None: whichever peer with `query: true` has it, in the order of the
            configuration.
        who: in whose name; recorded.
        show: called whenever it is a step further, from this thread.

    Raises:
        SettingsError: there is nobody to be asked.
        LedgerError: the ledger cannot be used; the fetch is taken for lost after a while.
    """
    names = sources(context.settings, peer)
    with context.ledger.transaction() as tx:
        fetches.take_back(tx)
        fetch_id = fetches.begin(tx, wanted, who)
    state = _State(Stage(peer=names[0]), show)
    with _beating(context, fetch_id, state):
        report = _first_that_has_it(context, wanted, names, state)
    _beat(context, fetch_id, state)
    with context.ledger.transaction() as tx:
        fetches.finish(tx, fetch_id, report.outcome)
    return report


class _State:
    """How far it is, for who watches and for the sign of life."""

    def __init__(self, stage: Stage, show: Show) -> None:
        self.stage = stage
        self._show = show

    def to(self, stage: Stage) -> None:
        self.stage = stage
        self._show(stage)

    def progress(self, operations: SubOperations) -> None:
        self.to(replace(self.stage, operations=operations))


def _first_that_has_it(
    context: Context, wanted: Wanted, names: tuple[str, ...], state: _State
) -> Report:
    """Ask one peer after the other until one has the study."""
    refusals: list[Outcome] = []
    for name in names:
        state.to(Stage(peer=name))
        report = _Source(context, wanted, name, state).fetch()
        if isinstance(report.outcome, Done) or report.stage.expected:
            return report
        refusals.append(report.outcome)
    # Who could not be asked may have it: that is worth another try, and says more than "unknown".
    worst = next((one for one in refusals if isinstance(one, Retry)), refusals[0])
    return Report(outcome=worst, stage=state.stage)


class _Source:
    """One archive from which a study is fetched."""

    def __init__(self, context: Context, wanted: Wanted, name: str, state: _State) -> None:
        self._context = context
        self._wanted = wanted
        self._name = name
        self._state = state
        self._peer = context.settings.peers[name]
        self._call = call_of(context.settings, self._peer)
        self._refused: list[str] = []
        policy = context.settings.fetch
        self._terms = Terms(
            silence_seconds=policy.silence_seconds,
            seconds=policy.max_seconds,
            cancelled=context.stop.is_set,
        )

    def fetch(self) -> Report:
        """Ask what there is, have it sent, and look whether it lies here."""
        first, *others = self._methods()
        report = self._by(first)
        # Nothing was sent, because the archive refuses this kind of retrieve.
        if others and report.outcome.code in ("MOVE_DESTINATION_UNKNOWN", "CONTEXT_REFUSED"):
            return self._by(others[0])
        return report

    def _by(self, method: str) -> Report:
        count = self._count(with_classes=method == GET)
        if not isinstance(count, StudyCount):
            return self._report(count)
        if not count.instances:
            return self._report(Refuse("UNKNOWN_STUDY", "the archive has nothing of it"))
        self._state.to(Stage(peer=self._name, method=method, expected=count.instances))
        return self._judged(self._move() if method == MOVE else self._get(count), count)

    def _methods(self) -> tuple[str, ...]:
        if self._peer.retrieve != "auto":
            return (self._peer.retrieve.upper(),)
        return (MOVE, GET) if self._peer.accept and self._receiver_runs() else (GET,)

    def _receiver_runs(self) -> bool:
        with self._context.ledger.transaction() as tx:
            return presence.is_alive(tx, "receive")

    def _count(self, *, with_classes: bool) -> StudyCount | Retry | Refuse:
        return query.count_instances(
            self._call,
            self._wanted.study_uid,
            series_uid=self._wanted.series_uid,
            sop_classes=with_classes,
            bounds=query.Bounds(cancelled=self._terms.cancelled),
        )

    def _move(self) -> Retrieved | Retry | Refuse:
        if not self._receiver_runs():
            detail = "C-MOVE sends to this node's receiver, which does not run"
            return Retry("RECEIVER_NOT_RUNNING", detail)
        return retrieve.move(
            self._call,
            self._wanted,
            destination_ae=self._context.settings.node.ae_title,
            terms=self._terms,
            progress=self._state.progress,
        )

    def _get(self, count: StudyCount) -> Retrieved | Retry | Refuse:
        largest_first = sorted(count.series, key=lambda one: -(one.instances or 0))
        classes: list[str] = []
        for one in largest_first:
            classes += one.sop_class_uids or retrieve.likely_classes(one.modality)
        with _storing(self._context, self._name, self._refused) as store:
            return retrieve.get(
                self._call,
                self._wanted,
                sop_classes=classes,
                terms=self._terms,
                progress=self._state.progress,
                store=store,
            )

    def _judged(self, answer: Retrieved | Retry | Refuse, count: StudyCount) -> Report:
        if not isinstance(answer, Retrieved):
            return self._report(answer)
        outcome = judge(answer)
        missing = self._missing(count)
        if isinstance(outcome, Retry):
            here = f"{count.instances - missing} of {count.instances} instances lie here"
            outcome = replace(outcome, detail=f"{outcome.detail}; {here}")
        elif isinstance(outcome, Done) and missing:
            detail = (
                f"the archive says that all was sent, and {missing} of {count.instances} instances"
                " do not lie here"
            )
            outcome = Retry("INCOMPLETE", detail)
        # Not every archive names what failed; what was refused here is known here.
        failed = dict.fromkeys([*answer.failed_uids, *self._refused])
        return replace(self._report(outcome), failed_uids=tuple(failed))

    def _missing(self, count: StudyCount) -> int:
        """Return how many of the archive's instances do not lie here, our own results left out."""
        with self._context.ledger.transaction() as tx:
            here = fetches.instances_here(tx, self._wanted.study_uid)
            own = fetches.own_series(tx, list(count.by_series))
        return sum(
            max(0, there - here.get(uid, 0))
            for uid, there in count.by_series.items()
            if uid not in own
        )

    def _report(self, outcome: Outcome) -> Report:
        return Report(outcome=outcome, stage=self._state.stage)


@contextmanager
def _storing(context: Context, name: str, refused: list[str]) -> Iterator[retrieve.Store]:
    """Store what comes as the receiver does; in the ledger it is an association of the peer's.

    The SOP Instance UIDs of what is refused are added to `refused`.
    """
    peer = context.settings.peers[name]
    request = AssociationRequest(
        calling_ae=peer.ae_title, called_ae=context.settings.node.ae_title, address=peer.host[:64]
    )
    limits = context.settings.limits
    house = House(
        spool=context.spool,
        headers=Headers(context.patient_key),
        min_free_bytes=limits.min_free_bytes,
        max_instance_bytes=limits.max_instance_bytes,
    )
    sender = Sender(house, Desk(context).line(request, name), peer.ae_title)

    def store(arrival: Arrival) -> int:
        instance = sender.store(
            StoreRequest(
                sop_class_uid=arrival.sop_class_uid,
                sop_instance_uid=arrival.sop_instance_uid,
                transfer_syntax_uid=arrival.transfer_syntax_uid,
            )
        )
        try:
            instance.write(memoryview(arrival.data))
            status = instance.finish().status
        finally:
            instance.close()
        if status != SUCCESS:
            refused.append(arrival.sop_instance_uid)
        return status

    outcome = Ended.ABORTED
    try:
        yield store
        outcome = Ended.RELEASED
    finally:
        sender.close(outcome)


@contextmanager
def _beating(context: Context, fetch_id: int, state: _State) -> Iterator[None]:
    """Say every few seconds that the fetch is under way."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            try:
                _beat(context, fetch_id, state)
            except LedgerError:
                log.exception("LEDGER_UNAVAILABLE")

    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beat(context: Context, fetch_id: int, state: _State) -> None:
    stage = state.stage
    with context.ledger.transaction() as tx:
        fetches.beat(
            tx,
            fetch_id,
            peer=stage.peer,
            method=stage.method,
            expected=stage.expected,
            operations=stage.operations,
        )
