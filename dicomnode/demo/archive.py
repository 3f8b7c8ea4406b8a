"""A loopback archive: keeps what it is sent as DICOM files in a folder. For demonstration only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode.domain.admission import CANNOT_UNDERSTAND, SUCCESS
from dicomnode.domain.associations import (
    AssociationRequest,
    AssociationRules,
    KnownPeer,
    Rejected,
    decide,
)
from dicomnode.domain.identifiers import InvalidUIDError, parse_uid
from dicomnode.instances import file_prefix
from dicomnode.network.acceptor import Acceptor, Listener, listen
from dicomnode.network.association import Answer, Outcome, StoreRequest, Terms

_TERMS = Terms(
    unknown_classes="keep",
    max_pdu_bytes=131072,
    idle_seconds=60.0,
    pdu_seconds=30.0,
    artim_seconds=30.0,
)


class FolderArchive:
    """A storage SCP that writes every instance into one folder; it is its own `Session`."""

    def __init__(self, folder: Path, *, ae_title: str, sender: str) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._rules = AssociationRules(
            ae_title=ae_title,
            peers=(KnownPeer(name=sender, ae_title=sender, accept=True),),
            max_associations=10,
        )
        self._lock = threading.Lock()
        self.paths: list[Path] = []

    @contextmanager
    def serving(self, port: int) -> Iterator[None]:
        """Listen on a port of loopback during the block."""
        listening = listen("127.0.0.1", port)
        acceptor = Acceptor([Listener(listening)], _TERMS, self._admit)
        acceptor.start()
        try:
            yield
        finally:
            acceptor.stop()

    def _admit(self, request: AssociationRequest) -> FolderArchive | Rejected:
        answer = decide(request, self._rules)
        return answer if isinstance(answer, Rejected) else self

    def store(self, request: StoreRequest) -> _Arrival:
        """A data set begins."""
        return _Arrival(self, request)

    def pause(self) -> None:
        """Nothing waits."""

    def settle(self) -> None:
        """What was stored is in its folder."""

    def close(self, outcome: Outcome) -> None:
        """An archive of this size keeps no record of associations."""

    def keep(self, request: StoreRequest, data: bytes) -> int:
        """Write an instance and return the status."""
        try:
            name = parse_uid(request.sop_instance_uid)
        except InvalidUIDError:
            return CANNOT_UNDERSTAND
        path = self._folder / f"{name}.dcm"
        prefix = file_prefix(
            request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid
        )
        path.write_bytes(prefix + data)
        with self._lock:
            self.paths.append(path)
        return SUCCESS


class _Arrival:
    """A data set on its way into the folder."""

    def __init__(self, archive: FolderArchive, request: StoreRequest) -> None:
        self._archive = archive
        self._request = request
        self._data = bytearray()

    def write(self, fragment: memoryview) -> bool:
        self._data += fragment
        return True

    def finish(self) -> Answer:
        return Answer(status=self._archive.keep(self._request, bytes(self._data)))

    def close(self) -> None:
        self._data.clear()
