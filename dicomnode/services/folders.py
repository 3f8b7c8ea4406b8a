"""Deliveries to a folder: the same states, retries and holds as to an archive, without a network.

    <folder>/<Study UID>/<Series UID of the source>/<model>/labels.nii.gz, seg.dcm, ...

A file appears whole or not at all; a later generation replaces it. The folder itself is never made:
where it is missing, what should be mounted there is away.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry
from dicomnode.domain.plans import file_name
from dicomnode.domain.records import Delivery
from dicomnode.ledger.places import place_of
from dicomnode.services.common import Context
from dicomnode.services.sending import Sender

CHUNK = 1 << 20
FILE_MODE, FOLDER_MODE = 0o640, 0o750
"""Whoever shares the folder's group may read."""
AWAY = "FOLDER_UNAVAILABLE"


class FolderSender(Sender):
    """Brings what is due to one folder."""

    def __init__(
        self, context: Context, destination: str, is_over: Callable[[], bool], folder: Path
    ) -> None:
        super().__init__(context, destination, is_over)
        self._folder = folder

    def _send(self) -> None:
        if self._is_there():
            self._send_all(self._store, self._is_there)
        else:
            self._stay_away(Retry(AWAY, f"{self._folder} is not there"))

    def _is_there(self) -> bool:
        try:
            return self._folder.is_dir()
        except OSError:  # as of a mount whose server is away
            return False

    def _store(self, delivery: Delivery) -> tuple[Outcome, None]:
        with self._context.ledger.looking() as tx:
            of = place_of(tx, delivery.job_id)
        folder = self._folder / of.study_uid / of.series_uid / of.model_id
        try:
            _make_folders(folder, self._folder)
            source = self._context.spool.path(delivery.path)
            same = place(source, folder / file_name(delivery.kind), delivery.digest)
        except OSError as error:
            return Retry(AWAY, f"{self._folder}: {error.strerror or error}"), None
        if not same:
            return Refuse("BYTES_CHANGED", "the result in the spool changes while it is read"), None
        return Done(), None


def place(source: Path, target: Path, digest: str) -> bool:
    """Copy a file under its name for good, beside first, then renamed; all of it on the disk.

    Args:
        source: of the spool.
        target: in a folder that exists.
        digest: sha256 that the bytes must have.

    Returns:
        Whether they have it; otherwise nothing was placed.

    Raises:
        OSError: the folder cannot be written.
    """
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    found = hashlib.sha256()
    try:
        with source.open("rb") as reading, beside.open("xb") as writing:
            while chunk := reading.read(CHUNK):
                found.update(chunk)
                writing.write(chunk)
            writing.flush()
            os.fchmod(writing.fileno(), FILE_MODE)
            os.fsync(writing.fileno())
        if found.hexdigest() != digest:
            return False
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    _sync(target.parent)
    return True


def _make_folders(folder: Path, root: Path) -> None:
    """Make what is missing below the root."""
    for one in [*reversed(folder.parents), folder]:
        if one.is_relative_to(root) and one != root and not one.is_dir():
            one.mkdir()
            one.chmod(FOLDER_MODE | (one.parent.stat().st_mode & 0o2000))  # a shared group stays
            _sync(one.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
