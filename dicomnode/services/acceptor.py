"""The program of an acceptor process: `python -m dicomnode.services.acceptor FD`.

The receive role starts some of them and hands each its listening sockets and a line to itself. An
acceptor ends when that line does, however the role ended. It asks the ledger one question and
writes nothing there; it loads no model.
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

from dicomnode import logs
from dicomnode.domain.associations import AssociationRequest, Rejected
from dicomnode.instances import Headers
from dicomnode.ledger import Ledger
from dicomnode.memory import settle
from dicomnode.network import tls
from dicomnode.network.acceptor import Acceptor, Listener
from dicomnode.services import messages
from dicomnode.services.arriving import House, Sender
from dicomnode.services.messages import (
    ABORT,
    OWING,
    WORD_BYTES,
    AcceptorPlan,
    Ask,
    GoneError,
    Unproven,
    Welcome,
)
from dicomnode.services.newness import Newness
from dicomnode.services.telling import DeskLine, Teller
from dicomnode.spool import Spool

NAME = "receive"


class Entrance:
    """Asks the receive role who may come in: for every connection a line of its own is made."""

    def __init__(self, control: socket.socket, house: House) -> None:
        self._control = control
        self._house = house
        self._teller = Teller()

    def admit(self, request: AssociationRequest) -> Sender | Rejected:
        """Ask for an association.

        Raises:
            GoneError: the role has ended, and this process is about to.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line = DeskLine(ours, self._teller)
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
    newness = Newness(Ledger(plan.ledger_url, plan.node_id))
    house = House(
        spool=Spool(Path(plan.spool_root), NAME),
        headers=Headers(plan.patient_key),
        min_free_bytes=plan.min_free_bytes,
        max_instance_bytes=plan.max_instance_bytes,
        newness=newness,
    )
    house.spool.make_places()  # the first peer does not wait for them
    entrance = Entrance(control, house)
    acceptor = Acceptor(_listeners(plan), plan.terms, entrance.admit, entrance.tell_unproven)
    acceptor.start()
    while word := control.recv(WORD_BYTES):
        if word == ABORT:
            acceptor.abort()
        else:
            newness.is_suspended = word == OWING


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
