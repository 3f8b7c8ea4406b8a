"""A loopback archive: keeps what it is sent as DICOM files in a folder. For demonstration only."""

from __future__ import annotations

import threading
from pathlib import Path

from dicomnode.domain.admission import CANNOT_UNDERSTAND, SUCCESS
from dicomnode.domain.identifiers import InvalidUIDError, parse_uid
from dicomnode.instances import file_prefix
from dicomnode.network.scp import Requestor, StoreRequest


class FolderArchive:
    """The `Reception` of a storage SCP that writes every instance into one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self.paths: list[Path] = []

    def opened(self, requestor: Requestor) -> int | None:
        """An archive of this size keeps no record of associations."""

    def closed(self, association_id: int, *, outcome: str, instances: int, size: int) -> None:
        """Nothing to record."""

    def rejected(self, requestor: Requestor) -> None:
        """Nothing to record."""

    def store(self, request: StoreRequest) -> int:
        """Write the instance and return the status."""
        try:
            name = parse_uid(request.sop_instance_uid)
        except InvalidUIDError:
            return CANNOT_UNDERSTAND
        path = self._folder / f"{name}.dcm"
        prefix = file_prefix(
            request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid
        )
        path.write_bytes(prefix + request.data)
        with self._lock:
            self.paths.append(path)
        return SUCCESS
