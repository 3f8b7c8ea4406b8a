"""Bytes: where they lie, and how they get there so that they stay.

    arriving/<role>/                        what is being received, or was and waits for its row
    tmp/<role>/                             what else a role is writing; emptied when it starts
    instances/<study>/<series>/<sop>.dcm    what was received, named by validated UIDs
    results/<job>/<sop>.dcm, labels.npz     what was computed
    quarantine/<name>.dcm, .json            what could not be used, and why

A file is written beside, synchronised, renamed, and its folder synchronised: only then it is
there. No facts, no decisions, no DICOM beyond the names.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode.domain.identifiers import InstanceUID, SeriesUID, StudyUID, parse_uid
from dicomnode.errors import DicomnodeError

PLACES = 32
"""How many names for what arrives are made in advance."""


class RoleIsRunningError(DicomnodeError):
    """Another process already has this role on this spool."""


class Spool:
    """The folders of one node's bytes.

    Args:
        root: of all of them.
        role: who writes. Each has a folder of its own for what is unfinished: a role that starts
            must not clear away what another one is writing.
    """

    def __init__(self, root: Path, role: str = "tool") -> None:
        self.root = root
        self.tmp = root / "tmp" / role
        self.arriving = root / "arriving" / role
        self.instances = root / "instances"
        self.results = root / "results"
        self.quarantine = root / "quarantine"
        self._lock = threading.Lock()
        self._places: list[Path] = []
        self._is_making_places = False

    def create(self) -> None:
        """Make the folders that are missing, for their owner only."""
        for folder in (self.tmp, self.instances, self.results, self.quarantine):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def free_bytes(self) -> int:
        """Return how many bytes an unprivileged process may still write."""
        return shutil.disk_usage(self.root).free

    @contextmanager
    def only(self, role: str) -> Iterator[None]:
        """Hold the place of a role on this spool; the lock goes with the process, however it ends.

        Raises:
            RoleIsRunningError: another process holds it.
        """
        self.create()
        with (self.root / f"{role}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RoleIsRunningError(
                    f"another process runs the role {role} on {self.root}"
                ) from error
            yield

    def instance_path(self, study: StudyUID, series: SeriesUID, instance: InstanceUID) -> str:
        """Return where an instance belongs, relative to the spool."""
        names = [parse_uid(uid) for uid in (study, series, instance)]
        return f"instances/{names[0]}/{names[1]}/{names[2]}.dcm"

    def result_path(self, job_id: int, name: str) -> str:
        """Return where a file of a job's result set belongs, relative to the spool."""
        if Path(name).name != name or name in ("", ".."):
            raise ValueError(f"{name!r} is not a plain file name")
        return f"results/{job_id}/{name}"

    def path(self, relative: str) -> Path:
        """Return the place of a path that the ledger knows."""
        return self.root / relative

    def take_place(self) -> Path:
        """Return an empty file whose name is on disk already: its bytes alone need to be synced.

        The names are made in advance, several for one synchronisation of their folder, and by a
        thread of its own: a peer waits for that only if it is faster.
        """
        with self._lock:
            place = self._places.pop() if self._places else None
            if len(self._places) < PLACES and not self._is_making_places:
                self._is_making_places = True
                threading.Thread(target=self.make_places, daemon=True).start()
        return place or self._make(1)[0]

    def make_places(self) -> None:
        """Make names for what arrives in advance."""
        try:
            made = self._make(PLACES)
        except OSError:
            made = []  # who takes a place next makes it himself, and hears why that cannot be
        with self._lock:
            self._places = made + self._places
            self._is_making_places = False

    def _make(self, count: int) -> list[Path]:
        self._make_folder(self.arriving)
        made = [self.arriving / uuid.uuid4().hex for _ in range(count)]
        for path in made:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _sync_folder(self.arriving)
        return made

    def left_arriving(self) -> list[Path]:
        """Return what was arriving when this role's last process ended."""
        return sorted(self.arriving.iterdir()) if self.arriving.is_dir() else []

    def write_tmp(self, chunks: Iterable[bytes]) -> Path:
        """Write a temporary file and synchronise it."""
        path = self.tmp / uuid.uuid4().hex
        try:
            with path.open("xb", buffering=0) as file:
                for chunk in chunks:
                    view = memoryview(chunk)
                    while view:
                        view = view[file.write(view) :]
                os.fdatasync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def write_arriving(self, chunks: Iterable[bytes]) -> Path:
        """Write a file to where what arrives lies, and synchronise it."""
        tmp = self.write_tmp(chunks)
        self._make_folder(self.arriving)
        path = self.arriving / tmp.name
        tmp.rename(path)
        _sync_folder(self.arriving)
        return path

    def publish(self, tmp: Path, relative: str) -> None:
        """Give a synchronised temporary file its name for good."""
        target = self.root / relative
        self._make_folder(target.parent)
        tmp.rename(target)
        _sync_folder(target.parent)

    def publish_all(self, files: Iterable[tuple[str, str]]) -> None:
        """Give files that arrived their names for good, synchronising each folder once.

        One that is missing was published before: a transaction that failed is tried again.

        Args:
            files: of each its name among what arrives, and its place in the spool.
        """
        root, arriving, folders = str(self.root), str(self.arriving), set()
        sources = []
        for name, relative in files:
            # As text: a Path takes longer than the naming.
            source, target = f"{arriving}/{name}", f"{root}/{relative}"
            folder = target.rpartition("/")[0]
            if folder not in folders:
                self._make_folder(Path(folder))
                folders.add(folder)
            try:
                _link(source, target)
            except FileNotFoundError:
                if not Path(target).exists():
                    raise
            else:
                sources.append(source)
        for folder in folders:
            _sync_folder(folder)
        # Not before: if the folder of what arrives were synchronised first, no name would be kept.
        for source in sources:
            with contextlib.suppress(FileNotFoundError):  # the file system knows no second name
                os.unlink(source)  # noqa: PTH108

    def write(self, relative: str, data: bytes) -> None:
        """Write a file for good."""
        self.publish(self.write_tmp([data]), relative)

    def adopt(self, path: Path, relative: str) -> None:
        """Give a file from a workspace, whoever wrote it, its name for good."""
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
        self.publish(path, relative)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Yield a new folder for unfinished files; it is gone with the end of the block."""
        folder = self.tmp / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def put_into_quarantine(self, tmp: Path, reason: dict[str, str | int]) -> str:
        """Move a temporary file into quarantine with its reason; return its name there."""
        name = uuid.uuid4().hex
        note = self.write_tmp([json.dumps(reason, sort_keys=True).encode()])
        self.publish(note, f"quarantine/{name}.json")
        self.publish(tmp, f"quarantine/{name}.dcm")
        return f"quarantine/{name}.dcm"

    def remove(self, relative: str) -> None:
        """Remove an instance's file, and the folders of its series and study if it was the last."""
        path = self.root / relative
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or not there any more
            path.parent.rmdir()
            path.parent.parent.rmdir()

    def remove_results(self, job_id: int) -> None:
        """Remove whatever a job has left."""
        folder = self.results / str(job_id)
        if folder.is_dir():
            shutil.rmtree(folder)

    def clear_tmp(self) -> int:
        """Remove what a dead writer left unfinished; nobody was told that it was stored."""
        count = 0
        for path in self.tmp.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            count += 1
        return count

    def stored_instances(self) -> Iterator[str]:
        """Yield the relative paths of all instances that lie in the spool."""
        for path in sorted(self.instances.glob("*/*/*.dcm")):
            yield str(path.relative_to(self.root))

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
        _sync_folder(folder.parent)


def _link(source: str, target: str) -> None:
    """Give a file a second name; where the file system knows none, another one."""
    try:
        os.link(source, target)
    except FileExistsError:
        if not Path(source).samefile(target):  # of one that was refused before it had its row
            os.unlink(target)  # noqa: PTH108
            os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        os.rename(source, target)  # noqa: PTH104


def _sync_folder(folder: Path | str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
