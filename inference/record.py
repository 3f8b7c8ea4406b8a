"""What is known of installed weights: `<weights>/<model id>/installed.json`.

Written when a part is installed for the first time (trust on first use), read with every card
since. No torch here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

RECORD_FILE = "installed.json"
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class PartRecord(BaseModel):
    """One installed part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, Sha256]
    """File of the nnU-Net v2 model folder (POSIX) -> SHA-256; verified before every use."""
    origin: str
    """Address or name of what it was installed from."""
    format: Literal["nnU-Net v1", "nnU-Net v2"]
    """Of the origin; v1 was converted."""
    origin_files: dict[str, Sha256]
    """The same of the origin's own files: a second installation has to bring the same ones."""
    archive_sha256: Sha256 | None = None
    """Of the zip archive, if it came in one."""
    installed_at: str
    """UTC, ISO 8601."""


class Record(BaseModel):
    """All installed parts of one model, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    parts: dict[str, PartRecord] = {}


def read_record(folder: Path, model_id: str) -> Record:
    """Read the record in `<weights>/<model id>`; an empty one if nothing is installed.

    Raises:
        ValueError: it is damaged or of another model; the text begins with the file.
        OSError: it cannot be read.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return Record(model=model_id)
    try:
        record = Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: damaged: {error.errors()[0]['msg']}") from error
    if record.model != model_id:
        raise ValueError(f"{path}: is of model {record.model!r}; expected {model_id!r}")
    return record


def write_record(folder: Path, record: Record) -> None:
    """Write the record whole or not at all."""
    write_whole(folder / RECORD_FILE, record.model_dump_json(indent=2).encode() + b"\n")


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file by `data`: written beside, synced, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
