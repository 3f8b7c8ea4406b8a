"""The receive role: C-STORE in, bytes to the spool, a row to the ledger, then the answer.

Success is answered only when the bytes are durable, and with them all that their row needs: if the
node stops before the row is written, it is written when the node starts. Acceptor processes speak
with the peers and write the bytes; this one alone writes to the ledger, in groups over all
associations. Neither loads a model, or decodes a data set unless two encodings of one instance have
to be compared.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from dicomnode.errors import LedgerError, SettingsError
from dicomnode.network import tls
from dicomnode.network.acceptor import listen
from dicomnode.network.association import Outcome, Terms
from dicomnode.services import messages
from dicomnode.services.acceptor import allow_many_files
from dicomnode.services.acceptors import Acceptors, Process
from dicomnode.services.common import BEAT_SECONDS, Context, beat, role
from dicomnode.services.desk import Desk, Item, Seat
from dicomnode.services.messages import (
    AcceptorPlan,
    GoneError,
    Leave,
    Message,
    Stored,
    StoredAll,
)
from dicomnode.services.notifying import ALIVE, READY, notify
from dicomnode.services.recovery import TOLD_SECONDS, check_spool, register_orphans
from dicomnode.services.writing import Writer
from dicomnode.settings import Settings

log = logging.getLogger(__name__)

NAME = "receive"
GRACE_SECONDS = 8.0
LOOK_EVERY_SECONDS = 0.2
SWITCH_SECONDS = 0.0002
"""After which the thread that writes lets the one that listens go on: a peer waits for that."""
ABORT_SECONDS = 1.0
"""How long acceptors have to tell their peers, at the end, before they are ended."""


@dataclass(slots=True, eq=False)
class _Line:
    """The line of one connection, from its acceptor's thread."""

    channel: socket.socket
    seat: Seat
    process: Process


class Reception:
    """Listens to the acceptors; what they say goes to the writer, what they ask is answered."""

    def __init__(self, context: Context, acceptors: Acceptors, desk: Desk) -> None:
        self._context = context
        self._acceptors = acceptors
        self._desk = desk
        self._writer = Writer(desk, self._tell, self._beat)
        self._selector = selectors.DefaultSelector()
        self._beat_at = time.monotonic() + BEAT_SECONDS
        self._died_at, self._seen_to = time.monotonic(), 0.0
        """When the last acceptor died, which may be one of this role's last process, and up to
        which death it was looked for what they left, by `time.monotonic`. The thread that listens
        sets the one, the thread that writes the other."""

    def run_until_stopped(self) -> None:
        """Serve until the role is to stop."""
        self._writer.start()
        sys.setswitchinterval(SWITCH_SECONDS)
        notify(READY)
        alive_at = 0.0
        while not self._context.stop.is_set():
            self._turn()
            # Not by the writer alone: it may have to wait long for a ledger that is away.
            if time.monotonic() >= alive_at:
                notify(ALIVE)
                alive_at = time.monotonic() + BEAT_SECONDS

    def let_end(self, grace_seconds: float) -> None:
        """Accept nobody new, let open associations end, abort those that do not in time."""
        self._desk.is_stopping = True
        deadline = time.monotonic() + grace_seconds
        while self._desk.open_associations and time.monotonic() < deadline:
            self._turn()
        self._acceptors.abort()
        deadline = time.monotonic() + ABORT_SECONDS
        while self._desk.open_associations and time.monotonic() < deadline:
            self._turn()
        self._writer.end()

    # In the thread that listens

    def _turn(self) -> None:
        """Hear what has come by now, or wait a moment for something to come."""
        if self._writer.error is not None:
            raise self._writer.error
        self._acceptors.say_owing(self._desk.owes_rows)
        if not self._desk.is_stopping:
            for process in self._acceptors.start_missing():
                self._selector.register(process.control, selectors.EVENT_READ, process)
        for key, _ in self._selector.select(LOOK_EVERY_SECONDS):
            if isinstance(key.data, _Line):
                self._hear(key.data)
            else:
                self._connect(key.data)

    def _hear(self, line: _Line) -> None:
        try:
            message: Message = messages.receive(line.channel)
        except GoneError:  # the acceptor died; or the connection never became an association
            message = Leave(Outcome.ABORTED)
        if isinstance(message, StoredAll):
            for store in message.stores:
                self._writer.put(Item(line.seat, Stored(store), sender=line))
            return
        if isinstance(message, Leave):
            self._selector.unregister(line.channel)
        self._writer.put(Item(line.seat, message, sender=line))

    def _connect(self, process: Process) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(process.control, 16, 1)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._selector.unregister(process.control)
            self._acceptors.died(process)
            self._died_at = time.monotonic()
            return
        for descriptor in descriptors:
            channel = socket.socket(fileno=descriptor)
            line = _Line(channel, Seat(), process)
            self._selector.register(channel, selectors.EVENT_READ, line)

    # In the thread that writes

    def _tell(self, settled: list[Item]) -> None:
        for item in settled:
            line, message = cast("_Line", item.sender), item.message
            if isinstance(message, Leave):
                self._desk.left(item.seat)
                line.channel.close()
            elif item.reply is not None:
                with contextlib.suppress(GoneError):  # its end will be heard next
                    messages.send(line.channel, item.reply)

    def _beat(self) -> None:
        if time.monotonic() >= self._beat_at:
            beat(self._context, NAME, f"{self._desk.open_associations} associations")
            self._beat_at = time.monotonic() + BEAT_SECONDS
        self._see_to_orphans()

    def _see_to_orphans(self) -> None:
        died_at = self._died_at
        is_due = died_at > self._seen_to and time.monotonic() > died_at + 2 * TOLD_SECONDS
        if not is_due or self._desk.owes_rows:
            return
        try:
            register_orphans(self._context, self._desk)
        except LedgerError as error:
            log.warning("LEDGER_UNAVAILABLE", extra={"fields": {"detail": str(error)}})
        else:
            self._seen_to = died_at


def _plan(
    settings: Settings, context: Context, listening: dict[str, socket.socket]
) -> AcceptorPlan:
    limits = settings.limits
    sockets = {name: one.fileno() for name, one in listening.items()}
    return AcceptorPlan(
        spool_root=str(context.spool.root),
        node_id=settings.node.id,
        ledger_url=settings.ledger_url,
        patient_key=context.patient_key,
        terms=Terms(
            unknown_classes=settings.receive.unknown_sop_classes,
            max_pdu_bytes=limits.max_pdu_bytes,
            idle_seconds=limits.association_timeout_seconds,
            pdu_seconds=limits.pdu_timeout_seconds,
            artim_seconds=limits.artim_seconds,
        ),
        plain=sockets.get("plain"),
        secured=sockets.get("tls"),
        tls=settings.node.tls,
        min_free_bytes=limits.min_free_bytes,
        max_instance_bytes=limits.max_instance_bytes,
    )


def run(settings: Settings, config: Path | None = None) -> None:
    """Receive until the role is to stop.

    Raises:
        SettingsError: a certificate or a key of `node.tls` will not do.
    """
    node = settings.node
    if node.tls is not None and (faults := tls.faults_of_server(node.tls)):
        raise SettingsError("\n".join(f"node.tls.{key}: {fault}" for key, fault in faults))
    with role(settings, NAME, config) as context:
        allow_many_files()
        desk = Desk(context)
        check_spool(context, desk)
        ports = {"plain": node.port, "tls": node.tls.port if node.tls else None}
        listening = {
            name: listen(node.bind, port) for name, port in ports.items() if port is not None
        }
        count = settings.receive.acceptors or min(4, os.cpu_count() or 1)
        acceptors = Acceptors(_plan(settings, context, listening), list(listening.values()), count)
        reception = Reception(context, acceptors, desk)
        for name, port in ports.items():
            if port is not None:
                fields = {"address": f"{node.bind}:{port}", "tls": name == "tls"}
                log.info("LISTENING", extra={"fields": fields})
        try:
            reception.run_until_stopped()
        finally:
            for one in listening.values():
                one.shutdown(socket.SHUT_RDWR)  # in all processes at once
            reception.let_end(GRACE_SECONDS)
            acceptors.end()
            desk.close()
