"""The program of an acceptor process: `python -m dicomnode.services.acceptor FD`.

The receive role starts some of them and hands each its listening sockets and a line to itself. An
acceptor ends when that line does, however the role ended; it loads no ledger and no model.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from dicomnode import logs
from dicomnode.domain.associations import AssociationRequest, Rejected
from dicomnode.instances import Headers
from dicomnode.memory import settle
from dicomnode.network import tls
from dicomnode.network.acceptor import Acceptor, Listener
from dicomnode.network.association import Outcome
from dicomnode.services import messages
from dicomnode.services.arriving import House, Sender
from dicomnode.services.messages import (
    ABORT,
    AcceptorPlan,
    Ask,
    Expect,
    Expected,
    GoneError,
    Leave,
    Message,
    Store,
    Stored,
    Unproven,
    Welcome,
)
from dicomnode.spool import Spool

NAME = "receive"


class DeskLine:
    """The line of one connection to the receive role."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._is_expecting = False
        self._stored: Store | None = None

    def ask(self, message: Message) -> Any:
        """Say something and wait for the reply."""
        self.is_new()  # an answer that nobody has waited for
        self.tell()
        messages.send(self._channel, message)
        return messages.receive(self._channel)

    def expect(self, sop_instance_uid: str) -> bool:
        """Say that an instance is coming."""
        self.is_new()
        stored, self._stored = self._stored, None
        messages.send(self._channel, Expect(sop_instance_uid, stored))
        self._is_expecting = True
        return True

    def is_new(self) -> bool:
        """Wait for what was asked with `expect`; False where nothing was."""
        if not self._is_expecting:
            return False
        self._is_expecting = False
        reply: Expected = messages.receive(self._channel)
        return reply.is_new

    def stored(self, store: Store) -> None:
        """Have said that a new instance is sealed."""
        self._stored = store

    def tell(self) -> None:
        """Say what is still to be said."""
        if self._stored is not None:
            stored, self._stored = self._stored, None
            messages.send(self._channel, Stored(stored))

    def leave(self, outcome: Outcome) -> None:
        """Say that the association has ended."""
        with contextlib.suppress(GoneError):
            self.tell()
            messages.send(self._channel, Leave(outcome))
        self._channel.close()

    def close(self) -> None:
        """End the line of a connection that became no association."""
        self._channel.close()


class Entrance:
    """Asks the receive role who may come in: for every connection a line of its own is made."""

    def __init__(self, control: socket.socket, house: House) -> None:
        self._control = control
        self._house = house

    def admit(self, request: AssociationRequest) -> Sender | Rejected:
        """Ask for an association.

        Raises:
            GoneError: the role has ended, and this process is about to.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line = DeskLine(ours)
        try:
            with theirs:
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            answer: Welcome | Rejected = line.ask(Ask(request))
        except OSError as error:
            line.close()
            raise GoneError from error
        if isinstance(answer, Welcome):
            return Sender(self._house, line, request.calling_ae, answer.association_id)
        line.close()
        return answer

    def tell_unproven(self, address: str, detail: str) -> None:
        """Say that somebody did not prove who it is; nobody waits for an answer."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs, contextlib.suppress(OSError, GoneError):
            socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            messages.send(ours, Unproven(address, detail))


def serve(control: socket.socket) -> None:
    """Accept until the receive role ends the line."""
    plan: AcceptorPlan = messages.receive(control)
    house = House(
        spool=Spool(Path(plan.spool_root), NAME),
        headers=Headers(plan.patient_key),
        min_free_bytes=plan.min_free_bytes,
        max_instance_bytes=plan.max_instance_bytes,
    )
    house.spool.make_places()  # the first peer does not wait for them
    entrance = Entrance(control, house)
    acceptor = Acceptor(_listeners(plan), plan.terms, entrance.admit, entrance.tell_unproven)
    acceptor.start()
    while control.recv(len(ABORT)) == ABORT:
        acceptor.abort()


def _listeners(plan: AcceptorPlan) -> list[Listener]:
    found = []
    if plan.plain is not None:
        found.append(Listener(socket.socket(fileno=plan.plain)))
    if plan.secured is not None and plan.tls is not None:
        context = tls.server_context(plan.tls)
        wrap = functools.partial(tls.accept, context=context)
        found.append(Listener(socket.socket(fileno=plan.secured), wrap))
    return found


def allow_many_files() -> None:
    """Raise the limit on open files as far as it goes: an association needs three."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 16384 if most == resource.RLIM_INFINITY else min(most, 16384)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    except (OSError, ValueError):
        return  # a service manager has set it (LimitNOFILE) and allows no change


def main() -> None:
    """Run until the receive role ends, or its line does."""
    # Ctrl-C and a service manager's SIGTERM are the receive role's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logs.set_up(NAME)
    allow_many_files()
    settle()
    serve(socket.socket(fileno=int(sys.argv[1])))
    sys.stderr.flush()
    os._exit(0)  # threads that wait for their peers are not waited for


if __name__ == "__main__":
    main()
