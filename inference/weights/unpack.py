"""Model folders in zip archives and folders of others: found by their files, taken out safely.

Only the files that a network needs are ever taken out. An archive with a name that leads elsewhere,
a link, a secret, or more than a set of weights can hold is refused as a whole.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from inference.card import WeightsError
from inference.card_document import NNUNET_FILES

Format = Literal["nnU-Net v1", "nnU-Net v2"]
FILES: Mapping[Format, tuple[str, ...]] = {
    "nnU-Net v1": (
        "fold_0/model_final_checkpoint.model",
        "fold_0/model_final_checkpoint.model.pkl",
    ),
    "nnU-Net v2": NNUNET_FILES,
}
TASK = re.compile(r"(?:Task|Dataset)[0-9]{3}_\w+")
MAX_ENTRIES = 20_000
MAX_BYTES = 16 * 2**30
MAX_DEPTH = 12
CHUNK = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A folder with one network in the layout of nnU-Net, on disk or in a zip archive."""

    container: Path
    """The zip archive, or the folder itself."""
    prefix: str
    """Of its files in the archive, with the slash; empty on disk."""
    task: str
    """Name of the folder above: Task251_..., Dataset291_...; empty if there is none."""
    trainer: str
    """Name of the folder: <trainer>__<plans>..."""
    format: Format
    size: int
    """Of the files it needs, bytes."""

    @property
    def zipped(self) -> bool:
        return bool(self.prefix)


def find_models(path: Path) -> list[ModelFolder]:
    """Return the model folders in a zip archive, or in a folder and the archives below it.

    Raises:
        WeightsError: the path is missing, or an archive is damaged or not to be trusted.
    """
    if path.is_file():
        return _in_archive(path)
    if not path.is_dir():
        raise WeightsError(f"{path}: no such file or folder")
    path = path.resolve()
    files: dict[str, int] = {}
    archives = []
    for count, file in enumerate(_walk(path)):
        if count > MAX_ENTRIES:
            raise WeightsError(f"{path}: more than {MAX_ENTRIES} files; name the folder of weights")
        files[file.relative_to(path.parent).as_posix()] = file.stat().st_size
        if file.suffix == ".zip":
            archives.append(file)
    # The names above `path` tell the task where the path is the trainer's own folder.
    above = "/".join(path.parts[1:-1])
    found = [
        ModelFolder(
            container=path.parent / prefix,
            prefix="",
            task=_task(f"{above}/{prefix}"),
            trainer=PurePosixPath(prefix).name,
            format=kind,
            size=size,
        )
        for prefix, kind, size in _match(files)
    ]
    return found + [model for archive in archives for model in _in_archive(archive)]


def take_out(model: ModelFolder, target: Path) -> None:
    """Copy the files that the network needs to the new folder `target`.

    Raises:
        WeightsError: the archive is damaged, or a file is longer than it says.
    """
    for name in FILES[model.format]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
    if not model.zipped:
        for name in FILES[model.format]:
            shutil.copyfile(model.container / name, target / name)
        return
    try:
        with zipfile.ZipFile(model.container) as archive:
            for name in FILES[model.format]:
                entry = archive.getinfo(model.prefix + name)
                with archive.open(entry) as source, (target / name).open("xb") as file:
                    left = entry.file_size
                    while chunk := source.read(CHUNK):
                        left -= len(chunk)
                        if left < 0:
                            raise WeightsError(f"{model.container}: {entry.filename}: too long")
                        file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _damaged(model.container, str(error)) from error


def _in_archive(path: Path) -> list[ModelFolder]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if len(entries) > MAX_ENTRIES:
        raise WeightsError(f"{path}: refused: more than {MAX_ENTRIES} files")
    if sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise WeightsError(f"{path}: refused: unpacks to more than {MAX_BYTES} bytes")
    if min((entry.header_offset for entry in entries), default=0) != 0:
        # A checkpoint is a zip archive too: of a cut archive, Python opens the one inside it.
        raise _damaged(path, "its directory is missing")
    files: dict[str, int] = {}
    for entry in entries:
        _check_entry(path, entry)
        if entry.filename in files:
            raise WeightsError(f"{path}: refused: {entry.filename!r} occurs twice")
        if not entry.is_dir():
            files[entry.filename] = entry.file_size
    return [
        ModelFolder(
            container=path,
            prefix=f"{prefix}/",
            task=_task(prefix),
            trainer=PurePosixPath(prefix).name,
            format=kind,
            size=size,
        )
        for prefix, kind, size in _match(files)
    ]


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or re.search(r"[\\:\x00-\x1f]", name):
        raise WeightsError(f"{path}: refused: {name!r} leads out of the archive")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise WeightsError(f"{path}: refused: {name!r} is a link or a device")
    if entry.flag_bits & 0x1:
        raise WeightsError(f"{path}: refused: {name!r} is encrypted")


def _match(files: Mapping[str, int]) -> Iterator[tuple[str, Format, int]]:
    """Yield folder, format and size of every set of files that makes a network."""
    for kind, names in FILES.items():
        ending = f"/{names[1]}"
        for file in files:
            folder = file.removesuffix(ending)
            if folder == file or any(f"{folder}/{name}" not in files for name in names):
                continue
            yield folder, kind, sum(files[f"{folder}/{name}"] for name in names)


def _task(prefix: str) -> str:
    """Return the innermost name on the way that is one of a task."""
    names: Iterable[str] = reversed(PurePosixPath(prefix).parts)
    return next((name for name in names if TASK.fullmatch(name)), "")


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the plain files below a folder; links are not followed."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if len(here.relative_to(folder).parts) >= MAX_DEPTH:
            folders.clear()
        folders[:] = [name for name in sorted(folders) if not (here / name).is_symlink()]
        yield from (here / name for name in sorted(files) if (here / name).is_file())


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(
        f"{path}: the zip archive is damaged or incomplete ({why}); delete it and fetch it again"
    )
