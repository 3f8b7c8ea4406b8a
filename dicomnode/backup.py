"""A copy of the facts, made while the node runs, and the way back: the ledger and the patient key.

The spool's bytes are not in it: they are copied as files, after this copy. What arrives between the
two is then a file without a row, which is registered; the other way round bytes would be missing.
"""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import tarfile
import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.engine import make_url

from dicomnode.errors import BackupError
from dicomnode.settings import Settings

LEDGER = "ledger.sqlite"
KEY = "patient.key"


def ledger_file(settings: Settings) -> Path | None:
    """Return the file of an embedded ledger; None where it is on a database server."""
    url = make_url(settings.ledger_url)
    is_file = url.get_backend_name() == "sqlite" and url.database
    return Path(str(url.database)) if is_file else None


def write_backup(settings: Settings, target: Path) -> int:
    """Write a backup beside `target`, check it, and give it its name; return its size in bytes.

    It is for its owner's eyes only: the key in it hashes patients.

    Raises:
        BackupError: there is no embedded ledger, it is damaged, or the file cannot be written.
    """
    source = ledger_file(settings)
    if source is None:
        raise BackupError("the ledger is on a database server: back it up with pg_dump")
    if not source.is_file():
        raise BackupError(f"{source}: there is no ledger yet")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as folder:
            copy = Path(folder) / LEDGER
            _copy_ledger(source, copy)
            whole = Path(folder) / "whole"
            with whole.open("wb") as file:
                with tarfile.open(fileobj=file, mode="w:gz") as tar:
                    tar.add(copy, LEDGER)
                    _add(tar, KEY, settings.patient_key_file.read_bytes())
                file.flush()
                os.fsync(file.fileno())
            whole.chmod(0o600)
            size = whole.stat().st_size
            whole.rename(target)
            _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"no backup was made: {error}") from error
    return size


def restore_backup(settings: Settings, backup: Path) -> list[str]:
    """Put ledger and patient key back; what is there is moved aside, and nothing is overwritten.

    Returns:
        What was done, a sentence each.

    Raises:
        BackupError: the backup is none or is damaged, or another patient key is in place.
    """
    target = ledger_file(settings)
    if target is None:
        raise BackupError("the ledger is on a database server: restore it with pg_restore")
    done = []
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".restore-") as folder:
            key = _unpack(backup, Path(folder) / LEDGER)
            _check(Path(folder) / LEDGER)
            place = settings.patient_key_file
            if place.exists() and place.read_bytes() != key:
                raise BackupError(f"{place} is not the key of this backup: move it away first")
            if not place.exists():
                _write_key(place, key)
                done.append(f"{place} was restored")
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            for suffix in ("", "-wal", "-shm"):
                old = target.with_name(target.name + suffix)
                if old.exists():
                    aside = old.with_name(f"{old.name}.{stamp}")
                    old.rename(aside)
                    done.append(f"{old.name} was moved to {aside.name}")
            (Path(folder) / LEDGER).rename(target)
            _sync(target.parent)
    except (OSError, EOFError, sqlite3.Error, tarfile.TarError, zlib.error) as error:
        raise BackupError(f"{backup}: cannot be restored: {error}") from error
    return [*done, f"{target} was restored"]


def _copy_ledger(source: Path, copy: Path) -> None:
    """Copy a database that others write to, as one state of it (SQLite's online backup)."""
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as old,
        contextlib.closing(sqlite3.connect(copy)) as new,
    ):
        old.backup(new)
    _check(copy)


def _check(ledger: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as opened:
        (verdict,) = opened.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            raise BackupError(f"the ledger is damaged: {str(verdict).splitlines()[0]}")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))


def _unpack(backup: Path, ledger: Path) -> bytes:
    """Write the ledger of a backup to a file, synchronised; return the patient key."""
    with tarfile.open(backup, "r:gz") as tar:
        found = {name: tar.extractfile(name) for name in (LEDGER, KEY) if name in tar.getnames()}
        key, facts = found.get(KEY), found.get(LEDGER)
        if key is None or facts is None:
            raise BackupError(f"{backup}: is no backup of this node")
        descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            while block := facts.read(1 << 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return key.read()


def _write_key(place: Path, key: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    _sync(place.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
