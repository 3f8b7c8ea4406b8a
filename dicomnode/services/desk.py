"""The one place where arrivals become facts: groups of them, each group one transaction.

Whatever the acceptor processes have said by now is decided together, over all associations: rows
in one transaction, the files' names and their folders before it commits, and only then the answers.
If a group fails, each of its members is tried alone, so that one bad apple spoils nothing. Of what
was answered already the row is owed: it is tried until it is there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from dicomnode.domain import admission
from dicomnode.domain.admission import Decision, Fate
from dicomnode.domain.assembly import AssemblyPolicy
from dicomnode.domain.associations import (
    ABOUT_WHO,
    AssociationRequest,
    OpenAssociations,
    Rejected,
    decide,
)
from dicomnode.domain.identifiers import PatientKey
from dicomnode.domain.records import Header
from dicomnode.errors import LedgerError
from dicomnode.ledger import associations, commitments, intake, knowing, promises, rejections
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.intake import Arrival
from dicomnode.ledger.knowing import Known
from dicomnode.network.association import Outcome
from dicomnode.network.commands import PROCESSING_FAILURE, SOP_CLASS_NOT_SUPPORTED
from dicomnode.services.common import Context
from dicomnode.services.messages import (
    Ask,
    Compare,
    Leave,
    Message,
    Note,
    Reply,
    Reported,
    Settle,
    Settled,
    Store,
    Stored,
    Unproven,
    Wanted,
    Welcome,
)
from dicomnode.services.strangers import Strangers
from dicomnode.settings import Settings

log = logging.getLogger(__name__)

KEPT = (Fate.STORE, Fate.STORE_ASIDE, Fate.RESTORE)


@dataclass(slots=True)
class Seat:
    """An association, or a connection that asks for one."""

    request: AssociationRequest | None = None
    peer: str | None = None
    """Whose association it is, once it is one."""
    sender: str | None = None
    """The peer that what comes is from: told by the rules of associations, not by an AE title."""
    id: int | None = None
    """In the ledger."""
    instances: int = 0
    size: int = 0


@dataclass(slots=True, eq=False)
class Item:
    """A message and who sent it."""

    seat: Seat
    message: Message
    reply: Reply | None = None
    sender: object | None = None
    """Whatever the caller knows the sender by."""


class Desk:
    """Decides on what the acceptors ask, and makes each decision durable before it is told."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._spool = context.spool
        self._ledger = context.ledger
        self._strangers = Strangers(context.ledger)
        self._open: Counter[str] = Counter()
        self._owed: list[Item] = []
        self.is_stopping = False

    @property
    def _settings(self) -> Settings:
        """Those that apply now: an association that is open may see them change."""
        return self._context.settings

    @property
    def open_associations(self) -> int:
        """How many associations are established now."""
        return self._open.total()

    @property
    def owes_rows(self) -> bool:
        """Whether instances that were acknowledged wait for the ledger to be back."""
        return bool(self._owed)

    def close(self) -> None:
        """Write what waits to be written."""
        self._strangers.flush()

    def serve(self, items: Sequence[Item]) -> list[Item]:
        """Decide on a group; afterwards each item has its reply, if it gets one.

        Returns:
            Those that are settled, and what was owed before and is settled now.
        """
        for item in items:
            self._prepare(item)
        items, self._owed = [*self._owed, *items], []
        if len(items) <= 1 or not self._try(items):
            for item in items:
                # Another node may have stored the same at the same moment: it is known now.
                if not self._try([item]) and not self._try([item], last=True):
                    self._fail(item)
        return [item for item in items if item not in self._owed]

    def _prepare(self, item: Item) -> None:
        """Do what does not depend on the ledger."""
        if isinstance(item.message, Ask):
            self._admit(item, item.message.request)
        elif isinstance(item.message, Settle):
            item.reply = Settled()
        elif isinstance(item.message, Stored):
            item.seat.instances += 1
            item.seat.size += item.message.store.size

    def _try(self, items: Sequence[Item], *, last: bool = False) -> bool:
        try:
            with self._ledger.transaction() as tx:
                batch, others = _batch(items)
                published = self._store_all(tx, batch)
                for item in others:
                    published += self._record(tx, item)
                self._spool.publish_all(published)
        except (LedgerError, OSError):
            if last:
                log.exception("STORAGE_FAILED")
            for item in items:
                if isinstance(item.message, Ask):
                    self._forget_row(item)
            return False
        for item in items:
            self._count(item)
        return True

    def _forget_row(self, item: Item) -> None:
        """No row of an association that has none may be named by what it brings."""
        item.seat.id = None
        if isinstance(item.reply, Welcome):
            item.reply = Welcome()

    def _fail(self, item: Item) -> None:
        if isinstance(item.message, Stored):
            self._owed.append(item)
        elif isinstance(item.message, Store | Note):
            item.reply = admission.NO_LEDGER
        elif isinstance(item.message, Reported | Wanted):
            item.reply = PROCESSING_FAILURE

    def _count(self, item: Item) -> None:
        message, reply = item.message, item.reply
        if not isinstance(message, Store | Note) or not isinstance(reply, Decision):
            return
        # What is to be set aside is counted when that is done.
        if isinstance(message, Store) and reply.fate is Fate.QUARANTINE:
            return
        if reply.status == admission.SUCCESS:
            item.seat.instances += 1
            item.seat.size += message.size

    def line(self, request: AssociationRequest, sender: str) -> LocalLine:
        """Return a line for what this process fetches itself: nobody asks to come in."""
        item = Item(Seat(request=request, sender=sender), Ask(request), Welcome())
        if not self._try([item]):
            log.error("LEDGER_UNAVAILABLE")
        return LocalLine(self, item.seat)

    # Associations

    def _admit(self, item: Item, request: AssociationRequest) -> None:
        now_open = OpenAssociations(
            in_all=self.open_associations, of_peer=self._open, is_stopping=self.is_stopping
        )
        answer = decide(request, self._settings.association_rules, now_open)
        if isinstance(answer, Rejected):
            item.reply = answer
            return
        item.seat.request = request
        item.seat.peer = item.seat.sender = answer.peer
        self._open[answer.peer] += 1
        item.reply = Welcome()

    def left(self, seat: Seat) -> None:
        """The association's end has been taken in."""
        if seat.peer is not None:
            self._open[seat.peer] -= 1
            seat.peer = None

    def _record_request(self, tx: Transaction, item: Item, request: AssociationRequest) -> None:
        if isinstance(item.reply, Welcome):
            item.seat.id = associations.open_association(
                tx,
                calling_ae=request.calling_ae,
                called_ae=request.called_ae,
                address=request.address,
            )
            item.reply = Welcome(item.seat.id)
        elif isinstance(item.reply, Rejected):
            self._record_rejection(tx, request, item.reply)

    def _record_rejection(
        self, tx: Transaction, request: AssociationRequest, rejected: Rejected
    ) -> None:
        reason = rejected.reason
        who = {
            "calling_ae": request.calling_ae,
            "called_ae": request.called_ae,
            "address": request.address,
        }
        log.warning("ASSOCIATION_REJECTED", extra={"fields": {"code": reason.code, **who}})
        if reason.code in ABOUT_WHO:
            self._strangers.note(request, rejected)
            return
        # Anybody may ask: what the event says is ours alone, so that it counts and does not grow.
        peer = f", peer {rejected.peer}" if rejected.peer else ""
        detail = f"{reason.code}: {reason.meaning}{peer}"
        tx.event_again("ASSOCIATION_REJECTED", level="warning", detail=detail)

    def _record_end(self, tx: Transaction, seat: Seat, outcome: Outcome) -> None:
        if seat.id is not None:
            associations.close_association(
                tx, seat.id, outcome=outcome, instances=seat.instances, size=seat.size
            )

    # Instances

    def _record(self, tx: Transaction, item: Item) -> list[tuple[str, str]]:
        """Record one message; return what is to be published."""
        message = item.message
        if isinstance(message, Ask):
            self._record_request(tx, item, message.request)
        elif isinstance(message, Leave):
            self._record_end(tx, item.seat, message.outcome)
        elif isinstance(message, Store):
            return self._store_all(tx, [(item, message)])
        elif isinstance(message, Stored):
            return self._store_all(tx, [(item, message.store)])
        elif isinstance(message, Reported):
            calling = item.seat.request.calling_ae if item.seat.request else ""
            item.reply = commitments.answered(
                tx,
                self._settings.destinations_of(calling),
                message.report,
                self._settings.send.retry,
            )
        elif isinstance(message, Wanted):
            item.reply = self._promise(tx, item.seat, message)
        elif isinstance(message, Unproven):
            self._strangers.note_unproven(message.address, message.detail)
        elif not isinstance(message, Note):
            return []
        elif message.decision.fate is Fate.DISCARD:
            decision = message.decision
            tx.event_again(decision.code, level=admission.ATTENTION, detail=decision.detail)
            item.reply = decision
        else:
            intake.record_only(tx, message.header, message.decision, item.seat.id)
            item.reply = message.decision
        return []

    def _promise(self, tx: Transaction, seat: Seat, wanted: Wanted) -> int:
        """Take in a request for commitment, of who may ask: it is looked into later."""
        peer = self._settings.peers.get(seat.peer or "")
        if seat.peer is None or peer is None or not peer.commit_here:
            return SOP_CLASS_NOT_SUPPORTED
        promises.ask(tx, seat.peer, wanted.transaction_uid, wanted.references)
        return admission.SUCCESS

    def _store_all(
        self, tx: Transaction, stores: Sequence[tuple[Item, Store]]
    ) -> list[tuple[str, str]]:
        """Decide on instances of different UIDs and record them; return what is to be published."""
        if not stores:
            return []
        published: list[tuple[str, str]] = []
        arrivals: list[Arrival] = []
        restored: list[Arrival] = []
        patients: dict[str, PatientKey] = {}  # of studies that begin with one of these
        policy_of = cache(self._settings.assembly_of)
        facts = knowing.known_all(tx, [store.header for _, store in stores])
        for (item, store), known in zip(stores, facts, strict=True):
            header = store.header
            patient = known.study_patient or patients.get(header.study_uid)
            # Of what was answered it is too late to have the pixels compared.
            may_compare = not isinstance(item.message, Stored)
            reply = _decide(store, known, patient, may_compare=may_compare)
            if not may_compare:
                self._keep_out(tx, item.seat, store, reply)
            else:
                item.reply = reply
            if isinstance(reply, Compare) or reply.fate is Fate.QUARANTINE:
                continue
            if reply.fate is Fate.DROP:
                intake.record_only(tx, header, reply, item.seat.id)
                continue
            path = self._spool.instance_path(
                header.study_uid, header.series_uid, header.sop_instance_uid
            )
            patients.setdefault(header.study_uid, header.patient_key)
            kept = restored if reply.fate is Fate.RESTORE else arrivals
            kept.append(self._arrival(item.seat, store, reply, path, policy_of(item.seat.sender)))
            published.append((store.tmp, path))
        if arrivals:
            intake.add_all(tx, arrivals)
        for arrival in restored:
            intake.restore(tx, arrival)
        for item, store in stores:
            if store.header.rejection is not None and isinstance(item.reply, Decision):
                self._consider(tx, item.seat, store.header, item.reply)
        return published

    def _keep_out(
        self, tx: Transaction, seat: Seat, store: Store, decision: Decision | Compare
    ) -> None:
        """See to what turned out to be known only after its sender had heard Success.

        It came over two associations at once, or another node took it at the same moment, or its
        row was written before a crash and its file's name was not.
        """
        if isinstance(decision, Compare) or decision.fate in KEPT:
            return
        path = self._spool.arriving / store.tmp
        if decision.fate is Fate.DROP:
            path.unlink(missing_ok=True)
            return
        place = "quarantine"
        if path.exists():  # else this transaction was tried before
            about: dict[str, str | int] = {
                "sop_instance_uid": store.header.sop_instance_uid,
                "code": decision.code,
                "detail": decision.detail,
                "status": decision.status,
            }
            if seat.id is not None:
                about["association_id"] = seat.id
            if seat.request is not None:
                about["calling_ae"] = seat.request.calling_ae
            place = self._spool.put_into_quarantine(path, about)
        told = replace(decision, detail=f"{decision.detail}; bytes kept in {place}")
        intake.record_only(tx, store.header, told, seat.id)

    def _arrival(
        self, seat: Seat, store: Store, decision: Decision, path: str, policy: AssemblyPolicy
    ) -> Arrival:
        return Arrival(
            header=store.header,
            decision=decision,
            digest=store.digest,
            size=store.size,
            path=path,
            association_id=seat.id,
            policy=policy,
            counts=decision.fate is Fate.STORE,
        )

    def _consider(self, tx: Transaction, seat: Seat, header: Header, decision: Decision) -> None:
        """Do what a rejection note demands."""
        trusted = self._settings.is_authority(seat.sender)
        policy = self._settings.assembly_of(seat.sender)
        rejections.consider(tx, header, decision, policy, trusted=trusted)


def _batch(items: Sequence[Item]) -> tuple[list[tuple[Item, Store]], list[Item]]:
    """Return the instances that can be decided on at once, and the rest.

    An instance that comes twice, and a note that takes others out, are taken one after the other.
    """
    batch: dict[str, tuple[Item, Store]] = {}
    others = []
    for item in items:
        message = item.message
        if isinstance(message, Stored):
            message = message.store
        if (
            isinstance(message, Store)
            and message.header.rejection is None
            and message.header.sop_instance_uid not in batch
        ):
            batch[message.header.sop_instance_uid] = (item, message)
        else:
            others.append(item)
    return list(batch.values()), others


def _decide(
    store: Store, known: Known, study_patient: PatientKey | None, *, may_compare: bool
) -> Decision | Compare:
    if (
        may_compare
        and known.path is not None
        and known.instance is not None
        and not store.compared
        and admission.needs_comparing(store.header, store.digest, known.instance)
    ):
        decode = store.header.pixel_digest != known.instance.pixel_digest
        return Compare(known.path, decode)
    return admission.decide(
        store.header,
        request_sop_class_uid=store.sop_class_uid,
        request_sop_instance_uid=store.sop_instance_uid,
        digest=store.digest,
        known=known.instance,
        study_patient=study_patient,
        is_own_result=known.is_own_result,
        is_rejected=known.is_rejected,
        same_image=store.same_image,
    )


class LocalLine:
    """A line to a desk in the same process."""

    def __init__(self, desk: Desk, seat: Seat) -> None:
        self._desk = desk
        self._seat = seat

    def ask(self, message: Message) -> Reply | None:
        """Say something and wait for the reply."""
        item = Item(self._seat, message)
        self._desk.serve([item])
        return item.reply

    def stored(self, store: Store) -> None:
        """Say that a new instance is sealed."""
        self._desk.serve([Item(self._seat, Stored(store))])

    def leave(self, outcome: Outcome) -> None:
        """Say that the association has ended."""
        self._desk.serve([Item(self._seat, Leave(outcome))])
