"""A model card in memory: what a model finds, on which grid it works, and which bytes it is.

Read by `inference.catalog`. No torch, no YAML.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Modality = Literal["CT", "MR"]
Scheme = Literal["CT", "zscore", "nonorm", "rescale_to_0_1"]
"""By the words with which nnU-Net's dataset.json asks for them as the name of a channel."""


class CatalogError(Exception):
    """A card, a label table or a model folder cannot be used; names file, key and expectation."""


class WeightsError(CatalogError):
    """The files of a model are missing, changed, or not what the card says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """One thing the model finds."""

    label: int
    """The model's integer, 1 to 255; 0 is background."""
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One network of the model. Later parts overwrite earlier ones where both find something."""

    name: str
    folder: Path
    """nnU-Net v2 model folder, absolute: beside the card, or where `archive` is installed."""
    labels: tuple[int, ...]
    """Index: the part's own label; value: the model's label (0 drops it). Starts with 0."""
    sha256: Mapping[str, str]
    """File below `folder` (POSIX) -> SHA-256 in hexadecimal: as the card pins it, else as it was
    recorded at the first installation. Empty: not installed."""
    archive: str | None = None
    """Upstream's name of the zip archive and of the folder in it; None: it lies beside the card."""
    trainer: str | None = None
    """Folder in the archive that holds the network."""
    archive_sha256: str | None = None
    """Pin of the archive, if the card has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """Memory without which a model must not be started; None: whatever there is."""

    gpu_memory_gib: float | None = None
    """Of one GPU; a CPU never satisfies it."""
    ram_gib: float | None = None
    """Of the machine, or of the container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """All that is known of a model without loading it."""

    id: str
    title: str
    version: str
    family: str
    task: str
    structures: tuple[Structure, ...]
    """Ordered by label."""
    parts: tuple[Part, ...]
    spacing_mm: tuple[float, float, float]
    """Of the grid the model works on, along x (right), y (anterior), z (superior)."""
    orientation: str
    """Always RAS: the directions in which array indices grow."""
    step_size: float
    """Distance of neighbouring tiles as a fraction of the patch, at most."""
    zoom_order: int
    """Spline order of the resampling to `spacing_mm`."""
    aggregation: Literal["softmax", "logits"] = "softmax"
    """What overlapping tiles add up: probabilities (nnU-Net v1) or scores (nnU-Net v2)."""
    demonstration: bool
    """Never for patients; results go to loopback destinations only."""
    modality: Modality = "CT"
    """Of the images it takes."""
    normalisation: Scheme = "CT"
    """How values are scaled; CT: clipped to the plans' percentiles, less their mean, over their
    SD."""
    requires: Requirements = Requirements()
    """What the machine must have."""
    code_table: str
    """Name of the table that gives the structures their codes; an absolute path if it lies beside
    the card."""
    licence: str
    citation: str
    intended_use: str
    limits: tuple[str, ...]
    figures: Mapping[str, Any]
    """Measured quality, as the card states it."""
    root: Path
    """Folder of the card."""
    radelement: tuple[str, ...] = ()
    """RadElement ids under which the model's public card lists what it gives."""
    source: str | None = None
    """Address under which the parts' archives stand as `<archive>.zip`."""
    weights: Path | None = None
    """Folder `<weights>/<id>` with the record of the installation; None: no place was given."""

    def weights_digest(self) -> str:
        """Return the SHA-256 over all parts: their names, label maps and files' hashes.

        A code table of the card's own counts too: it decides what the results say.

        Raises:
            WeightsError: a part is not installed.
        """
        digest = hashlib.sha256()
        if Path(self.code_table).is_absolute():
            digest.update(Path(self.code_table).read_bytes())
        for part in self.parts:
            if not part.sha256:
                raise not_installed(self, part)
            lines = [part.name, " ".join(map(str, part.labels))]
            lines += [f"{file} {part.sha256[file]}" for file in sorted(part.sha256)]
            digest.update("\n".join([*lines, "", ""]).encode())
        return digest.hexdigest()


def verify(card: ModelCard) -> None:
    """Compare every file of the model with the card's SHA-256.

    Raises:
        WeightsError: names the first file that is missing or differs, with expected and found; or
            says how to install what never was.
    """
    for part in card.parts:
        if not part.sha256:
            raise not_installed(card, part)
        for name, expected in sorted(part.sha256.items()):
            path = part.folder / name
            try:
                found = sha256_of(path)
            except OSError as error:
                raise WeightsError(
                    f"{path}: cannot be read ({error.strerror}); expected sha256 {expected}"
                ) from error
            if found != expected:
                raise WeightsError(f"{path}: sha256 is {found}; expected {expected}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed(card: ModelCard) -> bool:
    """Whether every file of the model is there. Their content is `verify`'s matter."""
    return all(part_installed(part) for part in card.parts)


def part_installed(part: Part) -> bool:
    """Whether the part's files are known and there."""
    return bool(part.sha256) and all((part.folder / name).is_file() for name in part.sha256)


def not_installed(card: ModelCard, part: Part) -> WeightsError:
    """Return the error that says how to get the weights."""
    return WeightsError(
        f"model {card.id!r}: the weights of part {part.name!r} are not installed; install them "
        f"with `dicomnode models install {card.id}`, or where there is no internet with "
        "`dicomnode models import PATH`"
    )
