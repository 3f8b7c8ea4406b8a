"""One association as its acceptor: the upper layer's states and the messages within (PS3.8 9.2).

The states that an acceptor passes through, by their names in PS3.8 table 9-10, and what ends them:

    Sta2   the connection is open    A-ASSOCIATE-RQ -> Sta6, or rejected -> Sta13; else abort
    Sta6   the association is open   P-DATA-TF stays; A-RELEASE-RQ -> replied, Sta13; else abort
    Sta13  the connection is to be closed by the peer, within the ARTIM time

This side never asks for a release, so none can collide. One operation at a time: a request is
answered before the next one is read. What an instance's bytes become is a `Session`'s business.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn, Protocol, runtime_checkable

from dicomnode.domain.associations import AssociationRequest, Rejected
from dicomnode.network import commands, contexts, pdus
from dicomnode.network.commands import Command
from dicomnode.network.contexts import COMMITMENT, VERIFICATION, UnknownClasses
from dicomnode.network.wire import ClosedError, OversizeError, Wire, WireError

log = logging.getLogger(__name__)

COMMITMENT_REQUESTS = (commands.N_EVENT_REPORT_RQ, commands.N_ACTION_RQ)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """One C-STORE request."""

    sop_class_uid: str
    """Affected SOP Class UID."""
    sop_instance_uid: str
    """Affected SOP Instance UID."""
    transfer_syntax_uid: str
    """Of the accepted Presentation Context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a peer hears to its request: a status, and why, if it is not Success."""

    status: int
    comment: str = ""


class Outcome(StrEnum):
    """How an association ended."""

    RELEASED = "RELEASED"
    ABORTED = "ABORTED"


class Sink(Protocol):
    """Where the data set of one C-STORE request goes while it arrives."""

    def write(self, fragment: memoryview) -> bool:
        """Take the next bytes; they are valid during the call. False ends the association."""

    def finish(self) -> Answer:
        """The data set is whole: make it durable, and say what the peer is to hear."""

    def close(self) -> None:
        """The peer has its answer, or the rest of the data set will not come: the last call."""


class Session(Protocol):
    """What stands behind an established association. Called from the association's thread."""

    def store(self, request: StoreRequest) -> Sink:
        """A data set begins."""

    def settle(self) -> None:
        """The peer asks for the association's release, which is about to be confirmed."""

    def close(self, outcome: Outcome) -> None:
        """The association ended."""


@runtime_checkable
class Committing(Protocol):
    """A session that takes part in storage commitment, too."""

    def commitment(self, field: int, transfer_syntax: str) -> Sink:
        """The data set of an N-EVENT-REPORT or N-ACTION begins; `field` says of which."""


Admit = Callable[[AssociationRequest], Session | Rejected]
"""Decides on a request for an association."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What this side offers and how long it waits."""

    unknown_classes: UnknownClasses
    """What becomes of SOP Classes that the tables do not name."""
    max_pdu_bytes: int
    """Longest P-DATA-TF that is taken; never 0, which would mean any length."""
    idle_seconds: float
    """How long an association may be silent."""
    pdu_seconds: float
    """How long a PDU may take from its first byte to its last."""
    artim_seconds: float
    """How long a peer may take to ask for an association, and to close the connection at its end
    (PS3.8 9.1.5)."""


class _End(Exception):  # noqa: N818 - it may end in good order
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


@dataclass(slots=True)
class _Message:
    """What has come of the message in hand (PS3.7 annex E, PS3.8 annex E.2)."""

    context_id: int = 0
    command: bytearray = field(default_factory=bytearray)
    request: Command | None = None
    """The command, once it is whole and a data set follows it."""
    sink: Sink | None = None
    """Of that data set; None where it is read only to be thrown away."""
    answer: Answer | None = None
    """To a request whose data set is thrown away."""
    size: int = 0


class AcceptedConnection:
    """A connection that a peer has opened, from its first byte to its last.

    Args:
        wire: the connection.
        address: the peer's.
        terms: what is offered.
        admit: decides on the association.
    """

    def __init__(self, wire: Wire, address: str, terms: Terms, admit: Admit) -> None:
        self._wire = wire
        self._address = address
        self._terms = terms
        self._admit = admit
        self._contexts: dict[int, tuple[str, str]] = {}
        self._message = _Message()
        self._longest_reply = 0
        self._lingers = False

    def run(self) -> None:
        """Serve the peer until the connection is closed."""
        try:
            session = self._establish()
            if session is not None:
                self._serve(session)
        except WireError as error:
            # Before an association: the peer came and went, as a port scanner or a balancer does.
            log.info("CONNECTION_ENDED", extra={"fields": {"why": type(error).__name__}})
        finally:
            if self._lingers:
                self._wire.drain(self._terms.artim_seconds)
            self._wire.close()

    def abort(self) -> None:
        """Tell the peer, from another thread, that its association ends now."""
        try:
            self._wire.write(pdus.encode_abort(pdus.SERVICE_USER, pdus.REASON_NOT_SPECIFIED))
        except ClosedError:
            return

    # Sta2

    def _establish(self) -> Session | None:
        artim = self._terms.artim_seconds
        try:
            pdu = self._wire.read(pdus.MAX_ASSOCIATE_BYTES, artim)
            if pdu.kind == pdus.ABORT:
                return None
            if pdu.kind != pdus.ASSOCIATE_RQ:
                raise pdus.MalformedPduError(f"PDU {pdu.kind:02X}H instead of an A-ASSOCIATE-RQ")
            request = pdus.decode_associate_request(bytes(pdu.body))
        except (OversizeError, pdus.MalformedPduError) as error:
            # AA-1: whatever comes instead of a request is answered as by the service user.
            log.warning(
                "NO_ASSOCIATION_REQUEST",
                extra={"fields": {"address": self._address, "detail": str(error)}},
            )
            self._send_abort(pdus.SERVICE_USER, pdus.REASON_NOT_SPECIFIED)
            return None
        decision = self._admit(
            AssociationRequest(
                calling_ae=request.calling_ae,
                called_ae=request.called_ae,
                address=self._address,
                application_context=request.application_context,
                protocol_version=request.protocol_version,
                certificate_sha256=self._wire.peer_certificate_sha256(),
            )
        )
        if isinstance(decision, Rejected):
            why = decision.reason
            self._wire.write(pdus.encode_associate_reject(why.result, why.source, why.reason))
            self._lingers = True
            return None
        results = contexts.answer(request.contexts, self._terms.unknown_classes)
        self._contexts = {
            context.id: (context.abstract_syntax, context.transfer_syntax)
            for context in results
            if context.is_accepted
        }
        self._longest_reply = request.max_pdu_bytes
        try:
            self._wire.write(
                pdus.encode_associate_accept(request, results, self._terms.max_pdu_bytes)
            )
        except ClosedError:
            decision.close(Outcome.ABORTED)
            raise
        return decision

    # Sta6

    def _serve(self, session: Session) -> None:
        outcome = Outcome.ABORTED
        try:
            while True:
                self._next(session)
        except _End as end:
            outcome = end.outcome
        except OversizeError as error:
            self._log_abort(str(error))
            self._send_abort(pdus.SERVICE_PROVIDER, pdus.INVALID_PARAMETER)
        except ClosedError:
            pass
        except WireError as error:
            self._log_abort(type(error).__name__)
            self._send_abort(pdus.SERVICE_USER, pdus.REASON_NOT_SPECIFIED)
        finally:
            if self._message.sink is not None:
                self._message.sink.close()
            session.close(outcome)

    def _next(self, session: Session) -> None:
        pdu = self._wire.read(self._terms.max_pdu_bytes, self._terms.idle_seconds)
        if pdu.kind == pdus.P_DATA:
            self._data(pdu.body, session)
        elif pdu.kind == pdus.RELEASE_RQ and len(pdu.body) == pdus.RELEASE_BYTES:
            session.settle()
            self._wire.write(pdus.encode_release_reply())
            self._lingers = True
            raise _End(Outcome.RELEASED)
        elif pdu.kind == pdus.ABORT:
            raise _End(Outcome.ABORTED)
        elif pdu.kind == pdus.RELEASE_RQ:
            self._abort(pdus.INVALID_PARAMETER, "an A-RELEASE-RQ of another length than 4")
        elif pdus.ASSOCIATE_RQ <= pdu.kind <= pdus.ABORT:
            self._abort(pdus.UNEXPECTED_PDU, f"PDU {pdu.kind:02X}H is not expected here")
        else:
            self._abort(pdus.UNRECOGNIZED_PDU, f"PDU {pdu.kind:02X}H is none")

    def _data(self, body: memoryview, session: Session) -> None:
        """Take the Presentation Data Values of a P-DATA-TF (PS3.8 9.3.5)."""
        place, size = 0, len(body)
        if size == 0:
            self._abort(pdus.INVALID_PARAMETER, "a P-DATA-TF without a value")
        while place < size:
            if size - place < 6:
                self._abort(pdus.INVALID_PARAMETER, "a value ends within its header")
            length, context_id, control = struct.unpack_from(">IBB", body, place)
            end = place + 4 + length
            if length < 2 or end > size:
                self._abort(pdus.INVALID_PARAMETER, "a value is longer than its PDU, or empty")
            self._fragment(context_id, control, body[place + 6 : end], session)
            place = end

    def _fragment(self, context_id: int, control: int, value: memoryview, session: Session) -> None:
        is_command, is_last = bool(control & 1), bool(control & 2)
        message = self._message
        if context_id not in self._contexts:
            self._abort(pdus.INVALID_PARAMETER, "a value for a context that was not accepted")
        begun = message.request is not None or bool(message.command)
        if begun and context_id != message.context_id:
            self._abort(pdus.INVALID_PARAMETER, "two messages in turn")
        if is_command != (message.request is None):
            self._abort(pdus.INVALID_PARAMETER, "command and data set not one after the other")
        message.context_id = context_id
        if is_command:
            message.command += value
            if len(message.command) > commands.MAX_COMMAND_BYTES:
                self._abort(pdus.INVALID_PARAMETER, "the command set is too long")
            if is_last:
                self._command(session)
            return
        message.size += len(value)
        if message.sink is not None and not message.sink.write(value):
            self._give_up("more of a data set came than is taken")
        if is_last:
            self._finish(message)

    def _command(self, session: Session) -> None:
        message = self._message
        try:
            request = commands.decode(bytes(message.command))
        except commands.MalformedCommandError as error:
            self._give_up(f"malformed command set: {error}")
        message.request = request
        if request.field == commands.C_CANCEL_RQ:  # of what is long answered
            self._message = _Message()
            return
        if request.field & commands.RESPONSE:
            self._give_up("a response to nothing")
        abstract_syntax, transfer_syntax = self._contexts[message.context_id]
        storage = abstract_syntax not in (VERIFICATION, COMMITMENT)
        if request.field == commands.C_STORE_RQ and storage:
            message.sink = session.store(
                StoreRequest(
                    sop_class_uid=request.sop_class_uid,
                    sop_instance_uid=request.sop_instance_uid,
                    transfer_syntax_uid=transfer_syntax,
                )
            )
        elif (
            abstract_syntax == COMMITMENT
            and request.field in COMMITMENT_REQUESTS
            and isinstance(session, Committing)
        ):
            message.sink = session.commitment(request.field, transfer_syntax)
        elif request.field in (commands.C_STORE_RQ, commands.C_ECHO_RQ):
            fits = request.field == commands.C_ECHO_RQ and abstract_syntax == VERIFICATION
            status = commands.SUCCESS if fits else commands.SOP_CLASS_NOT_SUPPORTED
            message.answer = Answer(status=status)
        else:
            message.answer = Answer(status=commands.UNRECOGNIZED_OPERATION)
        if not request.has_data_set:
            self._finish(message)

    def _finish(self, message: _Message) -> None:
        """Answer a request that is whole."""
        self._message = _Message()  # what fails from here on is the answer's business
        sink = message.sink
        if sink is None:
            self._respond(message, message.answer or Answer(status=commands.SUCCESS))
            return
        try:
            self._respond(message, sink.finish())
        finally:
            sink.close()

    def _respond(self, message: _Message, answer: Answer) -> None:
        if message.request is None:
            return
        body = commands.encode_response(message.request, answer.status, answer.comment)
        longest = max(self._longest_reply, 7) - 6 if self._longest_reply else len(body)
        out = bytearray()
        for start in range(0, len(body), longest):
            part = body[start : start + longest]
            control = 3 if start + longest >= len(body) else 1
            size = len(part) + 2
            out += struct.pack(">BxIIBB", pdus.P_DATA, size + 4, size, message.context_id, control)
            out += part
        self._wire.write(bytes(out))

    # Ends

    def _abort(self, reason: int, detail: str) -> NoReturn:
        """AA-8: the peer has broken the protocol of the upper layer."""
        self._log_abort(detail)
        self._send_abort(pdus.SERVICE_PROVIDER, reason)
        raise _End(Outcome.ABORTED)

    def _give_up(self, detail: str) -> NoReturn:
        """AA-1: the peer has broken what goes over it."""
        self._log_abort(detail)
        self._send_abort(pdus.SERVICE_USER, pdus.REASON_NOT_SPECIFIED)
        raise _End(Outcome.ABORTED)

    def _send_abort(self, source: int, reason: int) -> None:
        try:
            self._wire.write(pdus.encode_abort(source, reason))
        except ClosedError:
            return
        self._lingers = True

    def _log_abort(self, detail: str) -> None:
        log.warning(
            "ASSOCIATION_ABORTED", extra={"fields": {"address": self._address, "detail": detail}}
        )
