"""The audit trail in files of our own, a message a line, apart from the logs: it names patients.

`audit.log` is written to; when it is large or old it becomes `audit-<time>.log`. A message counts
as kept when it is on the disk; half a line, which a power cut may leave, is cut off before the next
one is written: whoever wrote it was not told that it is there, and writes it again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicomnode.domain.audit_policy import AuditFile

CURRENT = "audit.log"


class AuditFiles:
    """A folder of audit messages.

    Args:
        folder: of the node's user alone.
        policy: when a file is full, and how long it stays.
    """

    def __init__(self, folder: Path, policy: AuditFile) -> None:
        self.folder = folder
        self.current = folder / CURRENT
        self._policy = policy

    def write(self, messages: Sequence[bytes], now: datetime) -> None:
        """Append messages, and return when they are on the disk.

        Raises:
            OSError: they are not, or not all; writing them once more is right.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._rotate(now)
        is_new = not self.current.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(self.current, flags, 0o600), "r+b", buffering=0) as file:
            end = _end_of_lines(file.fileno())
            file.truncate(end)
            file.seek(end)
            data = memoryview(b"".join(b"%s\n" % message for message in messages))
            try:
                while data:
                    data = data[file.write(data) or 0 :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
        if is_new:
            _sync(self.folder)

    def remove_old(self, now: datetime) -> list[Path]:
        """Remove files that are older than they have to be kept; return which."""
        if self._policy.keep_days is None:
            return []
        before = now - timedelta(days=self._policy.keep_days)
        gone = []
        for path in sorted(self.folder.glob("audit-*.log")):
            if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before:
                path.unlink()
                gone.append(path)
        return gone

    def _rotate(self, now: datetime) -> None:
        """Begin another file where this one is full. Its first line tells how old it is."""
        try:
            found = self.current.stat()
        except FileNotFoundError:
            return
        began = _began(self.current)
        is_old = began is not None and now - began > timedelta(days=self._policy.max_days)
        if found.st_size < self._policy.max_bytes and not is_old:
            return
        stamp, number = f"{now:%Y%m%dT%H%M%SZ}", 0
        while (target := self.folder / f"audit-{stamp}-{number}.log").exists():
            number += 1
        self.current.rename(target)
        _sync(self.folder)


def _began(path: Path) -> datetime | None:
    with path.open("rb") as file:
        line = file.readline(4096)
    _, _, rest = line.partition(b'EventDateTime="')
    try:
        return datetime.fromisoformat(rest.partition(b'"')[0].decode("ascii"))
    except ValueError:
        return None


def _end_of_lines(descriptor: int) -> int:
    """Return where the last whole line ends."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    while end:
        begin = max(0, end - 65536)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
