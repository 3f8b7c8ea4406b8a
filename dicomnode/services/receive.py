"""The receive role: C-STORE in, bytes to the spool, a row to the ledger, then the answer.

Success is answered only when both are durable. Acceptor processes speak with the peers and write
the bytes; this one alone writes to the ledger, in groups over all associations. Neither loads a
model, or decodes a data set unless two encodings of one instance have to be compared.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import time
from dataclasses import dataclass

from dicomnode.errors import SettingsError
from dicomnode.network import tls
from dicomnode.network.acceptor import listen
from dicomnode.network.association import Outcome, Terms
from dicomnode.services import messages
from dicomnode.services.acceptor import allow_many_files
from dicomnode.services.acceptors import Acceptors, Process
from dicomnode.services.common import BEAT_SECONDS, Context, beat, role
from dicomnode.services.desk import Desk, Item, Seat
from dicomnode.services.messages import AcceptorPlan, GoneError, Leave, Message
from dicomnode.services.recovery import check_spool
from dicomnode.settings import Settings

log = logging.getLogger(__name__)

NAME = "receive"
GRACE_SECONDS = 8.0
LOOK_EVERY_SECONDS = 0.2
ABORT_SECONDS = 1.0
"""How long acceptors have to tell their peers, at the end, before they are ended."""


@dataclass(slots=True, eq=False)
class _Line:
    """The line of one connection, from its acceptor's thread."""

    channel: socket.socket
    seat: Seat
    process: Process


class Reception:
    """Listens to the acceptors and hands the desk what they have to say, in groups."""

    def __init__(self, context: Context, acceptors: Acceptors, desk: Desk) -> None:
        self._context = context
        self._acceptors = acceptors
        self._desk = desk
        self._selector = selectors.DefaultSelector()
        self._lines: set[_Line] = set()
        self._beat_at = time.monotonic() + BEAT_SECONDS

    def run_until_stopped(self) -> None:
        """Serve until the role is to stop."""
        while not self._context.stop.is_set():
            self._turn()

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

    def _turn(self) -> None:
        """Serve what has come by now, or wait a moment for something to come."""
        if not self._desk.is_stopping:
            for process in self._acceptors.start_missing():
                self._selector.register(process.control, selectors.EVENT_READ, process)
        group: list[tuple[_Line, Item]] = []
        for key, _ in self._selector.select(LOOK_EVERY_SECONDS):
            if isinstance(key.data, _Line):
                group.append((key.data, self._hear(key.data)))
            else:
                self._connect(key.data)
        self._serve(group)
        if time.monotonic() >= self._beat_at:
            beat(self._context, NAME, f"{self._desk.open_associations} associations")
            self._beat_at = time.monotonic() + BEAT_SECONDS

    def _serve(self, group: list[tuple[_Line, Item]]) -> None:
        if not group:
            return
        self._desk.serve([item for _, item in group])
        for line, item in group:
            if isinstance(item.message, Leave):
                self._hang_up(line)
            elif item.reply is not None:
                try:
                    messages.send(line.channel, item.reply)
                except GoneError:
                    continue  # its end will be heard next

    def _hear(self, line: _Line) -> Item:
        try:
            message: Message = messages.receive(line.channel)
        except GoneError:  # the acceptor died; or the connection never became an association
            message = Leave(Outcome.ABORTED)
        return Item(line.seat, message)

    def _connect(self, process: Process) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(process.control, 16, 1)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._selector.unregister(process.control)
            self._acceptors.died(process)
            return
        for descriptor in descriptors:
            channel = socket.socket(fileno=descriptor)
            line = _Line(channel, Seat(), process)
            self._lines.add(line)
            self._selector.register(channel, selectors.EVENT_READ, line)

    def _hang_up(self, line: _Line) -> None:
        self._desk.left(line.seat)
        self._selector.unregister(line.channel)
        line.channel.close()
        self._lines.discard(line)


def _plan(
    settings: Settings, context: Context, listening: dict[str, socket.socket]
) -> AcceptorPlan:
    limits = settings.limits
    sockets = {name: one.fileno() for name, one in listening.items()}
    return AcceptorPlan(
        spool_root=str(context.spool.root),
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


def run(settings: Settings) -> None:
    """Receive until the role is to stop.

    Raises:
        SettingsError: a certificate or a key of `node.tls` will not do.
    """
    node = settings.node
    if node.tls is not None and (faults := tls.faults_of_server(node.tls)):
        raise SettingsError("\n".join(f"node.tls.{key}: {fault}" for key, fault in faults))
    with role(settings, NAME) as context:
        allow_many_files()
        check_spool(context)
        ports = {"plain": node.port, "tls": node.tls.port if node.tls else None}
        listening = {
            name: listen(node.bind, port) for name, port in ports.items() if port is not None
        }
        count = settings.receive.acceptors or min(4, os.cpu_count() or 1)
        acceptors = Acceptors(_plan(settings, context, listening), list(listening.values()), count)
        desk = Desk(context)
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
