"""What the disk and this language allow: a receiver that keeps bytes and no facts.

It takes C-STORE over the project's own PDUs, writes each data set to a file, hashes it on the way,
synchronises the file, and answers. No rules, no headers, no ledger: what is faster than this would
have to leave one of the three out, or be no Python.

    python -m benchmarks.bare_receiver PORT FOLDER
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

from blake3 import blake3

from dicomnode.domain.associations import AssociationRequest
from dicomnode.network.acceptor import Acceptor, Listener, listen
from dicomnode.network.association import Answer, Outcome, StoreRequest, Terms

PROCESSES = 2
TERMS = Terms(
    unknown_classes="keep",
    max_pdu_bytes=131072,
    idle_seconds=60,
    pdu_seconds=60,
    artim_seconds=10,
)


class Bare:
    """An association: takes anybody and everything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def store(self, request: StoreRequest) -> BareFile:
        """A data set begins."""
        return BareFile(self._folder / request.sop_instance_uid)

    def settle(self) -> None:
        """Nothing waits."""

    def close(self, outcome: Outcome) -> None:
        """Nothing is kept of it."""


class BareFile:
    """A data set on its way to a file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._digest = blake3()

    def write(self, fragment: memoryview) -> bool:
        """Take the next bytes."""
        os.write(self._file, fragment)
        self._digest.update(fragment)
        return True

    def finish(self) -> Answer:
        """Synchronise the file."""
        self._digest.digest()
        os.fdatasync(self._file)
        return Answer(status=0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def main() -> None:
    """Receive until this is ended."""
    listening = listen("127.0.0.1", int(sys.argv[1]))
    for _ in range(PROCESSES - 1):
        if os.fork() == 0:
            threading.Thread(target=_end_with_parent, daemon=True).start()
            break
    serve(listening, Path(sys.argv[2]))


def serve(listening: socket.socket, folder: Path) -> None:
    """Accept in this process, for ever."""

    def admit(_request: AssociationRequest) -> Bare:
        return Bare(folder)

    Acceptor([Listener(listening)], TERMS, admit).start()
    threading.Event().wait()


def _end_with_parent() -> None:
    """End when the first process has."""
    parent = os.getppid()
    while os.getppid() == parent:
        threading.Event().wait(0.2)
    os._exit(0)


if __name__ == "__main__":
    main()
