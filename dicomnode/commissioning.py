"""May this model serve patients here? `<weights>/<model id>/commissioned.json`.

A model that is not for demonstration has to be run once on a reference case, or accepted by name,
with the very weights and the very version of the node that will be used. Entries are only ever
added: the file is the record of who commissioned what, when, and how it agreed. No model is loaded
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dicomnode import __version__
from dicomnode.errors import DicomnodeError
from inference.card import ModelCard
from inference.record import write_whole

FILE = "commissioned.json"

HALF_MAY_DIFFER = 0.001
HALF_LEAST_DICE = 0.999
HALF_FROM_ML = 5.0
"""What 16-bit floats may change, as part of the voxels and for every structure of that volume."""


class StructureAgreement(BaseModel):
    """How one structure agrees with the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: int
    name: str
    dice: float
    """2 |A and B| / (|A| + |B|), 0 to 1."""
    found_voxels: int
    reference_voxels: int


class HalfAgreement(BaseModel):
    """How the labels in 16-bit floats agree with those in single precision, on one device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    """`cpu` or `cuda`: engine and rounding differ."""
    differing: float
    """Part of the voxels, 0 to 1."""
    least_dice: float
    """Of the structures above 5 mL; 1 where there is none."""

    @property
    def agrees(self) -> bool:
        """Whether 16-bit floats may be used."""
        return self.differing <= HALF_MAY_DIFFER and self.least_dice >= HALF_LEAST_DICE


class Agreement(BaseModel):
    """The outcome on a reference case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source_digest: str
    """Of the reference scan: pixels, geometry, SOP Instance UIDs."""
    reference_sha256: str
    """Of the file with the reference labels."""
    device: str
    mode: str
    minimum: float
    """Mean Dice that was asked for."""
    mean_dice: float
    """Over the structures of the reference."""
    structures: tuple[StructureAgreement, ...]
    half: HalfAgreement | None = None
    """None: not measured, since the device gains nothing by them, or for `mode: exact`."""


class Entry(BaseModel):
    """One act of commissioning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    how: Literal["reference", "accepted"]
    passed: bool
    weights_digest: str
    node_version: str
    at: str
    """UTC, ISO 8601."""
    by: str
    agreement: Agreement | None = None


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: tuple[Entry, ...] = ()


def entries(card: ModelCard) -> tuple[Entry, ...]:
    """Return what was ever recorded for a model, oldest first.

    Raises:
        DicomnodeError: the record is damaged.
    """
    path = _path(card)
    if path is None or not path.exists():
        return ()
    try:
        return _Document.model_validate_json(path.read_bytes()).entries
    except (OSError, ValidationError) as error:
        raise DicomnodeError(f"{path}: cannot be read, or is damaged: {error}") from error


def valid_entry(card: ModelCard) -> Entry | None:
    """Return the entry by which the model serves patients with its weights and this node."""
    matching = [entry for entry in entries(card) if _matches(entry, card)]
    return matching[-1] if matching and matching[-1].passed else None


def half_on(card: ModelCard, by_default: frozenset[str]) -> frozenset[str]:
    """Return the kinds of device (`cpu`, `cuda`) on which the model is run in 16-bit floats.

    Args:
        card: of the model.
        by_default: where nothing was measured. What the commissioning measured counts more.
    """
    entry = valid_entry(card)
    half = entry.agreement.half if entry is not None and entry.agreement is not None else None
    if half is None:
        return by_default
    return by_default | {half.device} if half.agrees else by_default - {half.device}


def why_not(card: ModelCard) -> str:
    """Return why the model may not serve patients, for people; empty if it may.

    Raises:
        WeightsError: it is not installed.
    """
    if card.demonstration:
        return ""
    command = f"`dicomnode models commission {card.id}`"
    try:
        known = entries(card)
    except DicomnodeError as error:
        return str(error)
    if valid_entry(card) is not None:
        return ""
    if not known:
        return f"model {card.id!r} was never commissioned on this node; see {command}"
    last = known[-1]
    if any(_matches(entry, card) for entry in known):
        return f"model {card.id!r} failed its commissioning on {last.at}; see {command}"
    digest = card.weights_digest()
    changed = [
        f"the {what} changed from {before[:12]} to {now[:12]}"
        for what, before, now in (
            ("weights", last.weights_digest, digest),
            ("node's version", last.node_version, __version__),
        )
        if before != now
    ]
    return (
        f"model {card.id!r} was commissioned on {last.at}, but {' and '.join(changed)} since; "
        f"repeat {command}"
    )


def record(
    card: ModelCard,
    by: str,
    agreement: Agreement | None = None,
    now: datetime | None = None,
) -> Entry:
    """Add an entry and return it.

    Args:
        card: of an installed model.
        by: the person's name.
        agreement: on the reference case; None: accepted without one.
        now: UTC; default: the clock's.

    Raises:
        DicomnodeError: there is no weights folder, or the record is damaged.
        WeightsError: the model is not installed.
    """
    path = _path(card)
    if path is None:
        raise DicomnodeError(f"model {card.id!r}: no weights folder was given")
    entry = Entry(
        model=card.id,
        how="accepted" if agreement is None else "reference",
        passed=agreement is None or agreement.mean_dice >= agreement.minimum,
        weights_digest=card.weights_digest(),
        node_version=__version__,
        at=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        by=by,
        agreement=agreement,
    )
    document = _Document(entries=(*entries(card), entry))
    write_whole(path, document.model_dump_json(indent=2).encode() + b"\n")
    return entry


def mean_dice(structures: Sequence[StructureAgreement]) -> float:
    """Return the mean over the structures that the reference has; 0 if it has none."""
    dice = [structure.dice for structure in structures if structure.reference_voxels]
    return sum(dice) / len(dice) if dice else 0.0


def _matches(entry: Entry, card: ModelCard) -> bool:
    return (entry.model, entry.weights_digest, entry.node_version) == (
        card.id,
        card.weights_digest(),
        __version__,
    )


def _path(card: ModelCard) -> Path | None:
    return None if card.weights is None else card.weights / FILE
