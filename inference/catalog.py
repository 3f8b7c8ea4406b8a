"""Model cards: what a model finds, on which grid it works, and which bytes it is.

A card is `<folder>/<id>/card.yaml`; its label table is `structures/<name>.csv` beside the folder's
models or beside the bundled ones. No torch here: a role that only lists models loads nothing heavy.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from inference.card_document import CardDocument, PartDocument, explain, load_yaml

BUNDLED = Path(__file__).parent / "models"
CARD_FILE = "card.yaml"
MAX_LABEL = 255


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
    """nnU-Net v2 model folder, absolute."""
    labels: tuple[int, ...]
    """Index: the part's own label; value: the model's label (0 drops it). Starts with 0."""
    sha256: Mapping[str, str]
    """File below `folder` (POSIX) -> SHA-256 in hexadecimal."""


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
    code_table: str
    """Name of the table that gives the structures their codes."""
    licence: str
    citation: str
    intended_use: str
    limits: tuple[str, ...]
    figures: Mapping[str, Any]
    """Measured quality, as the card states it."""
    root: Path
    """Folder of the card."""

    def weights_digest(self) -> str:
        """Return the SHA-256 over all parts: their names, label maps and files' hashes."""
        digest = hashlib.sha256()
        for part in self.parts:
            lines = [part.name, " ".join(map(str, part.labels))]
            lines += [f"{file} {part.sha256[file]}" for file in sorted(part.sha256)]
            digest.update("\n".join([*lines, "", ""]).encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The cards by their id."""

    cards: Mapping[str, ModelCard]

    def ids(self) -> tuple[str, ...]:
        """Return the ids, sorted."""
        return tuple(sorted(self.cards))

    def card(self, model_id: str) -> ModelCard:
        """Return the card of `model_id`.

        Raises:
            CatalogError: there is none.
        """
        if model_id not in self.cards:
            known = ", ".join(self.ids()) or "none"
            raise CatalogError(f"model {model_id!r} is not in the catalog; known: {known}")
        return self.cards[model_id]


def load_catalog(extra: Sequence[Path] = ()) -> Catalog:
    """Read the bundled cards and those of the folders in `extra`.

    Raises:
        CatalogError: a folder is missing, a card or table is wrong, an id occurs twice.
    """
    cards: dict[str, ModelCard] = {}
    for folder in (BUNDLED, *extra):
        if folder is not BUNDLED and not folder.is_dir():
            raise CatalogError(f"{folder}: not a folder; expected one with <id>/{CARD_FILE}")
        for path in sorted(folder.glob(f"*/{CARD_FILE}")):
            card = read_card(path)
            if card.id in cards:
                other = cards[card.id].root / CARD_FILE
                raise CatalogError(f"{path}: id: {card.id!r} is taken by {other}")
            cards[card.id] = card
    return Catalog(cards=cards)


def read_card(path: Path) -> ModelCard:
    """Read one card and its label table.

    Raises:
        CatalogError: with a line `file:line: key: what was expected` for every fault.
    """
    try:
        data, lines = load_yaml(path)
        document = CardDocument.model_validate(data)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise CatalogError(explain(path, error, lines)) from None
    except ValueError as error:
        raise CatalogError(str(error)) from None
    if document.id != path.parent.name:
        raise CatalogError(
            f"{path}:{lines[('id',)]}: id: is {document.id!r}; expected the folder's name, "
            f"{path.parent.name!r}"
        )
    structures = read_structures(_structures_file(path, document.structures, lines))
    parts = tuple(_part(path.parent, part, structures) for part in document.parts)
    for index, part in enumerate(parts):
        unknown = set(part.labels) - {s.label for s in structures} - {0}
        if unknown:
            raise CatalogError(
                f"{path}:{lines[('parts', index, 'labels')]}: parts.{index}.labels: "
                f"{sorted(unknown)} expected labels of {document.structures!r}, or 0"
            )
    lost = [s.name for s in structures if not any(s.label in part.labels for part in parts)]
    if lost:
        raise CatalogError(
            f"{path}:{lines[('parts',)]}: parts: no part finds {', '.join(lost)}; expected every "
            f"structure of {document.structures!r} in a part's labels"
        )
    fields = document.model_dump(exclude={"structures", "parts", "spacing_mm", "limits"})
    x, y, z = document.spacing_mm
    return ModelCard(
        structures=structures,
        parts=parts,
        spacing_mm=(x, y, z),
        limits=tuple(document.limits),
        root=path.parent.resolve(),
        **fields,
    )


def read_structures(path: Path) -> tuple[Structure, ...]:
    """Read a label table: CSV with the header `label,name`; labels 1 to 255, each once.

    Raises:
        CatalogError: names file, line and what was expected.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows or rows[0] != ["label", "name"]:
        raise CatalogError(f"{path}:1: expected the header `label,name`")
    found: dict[int, str] = {}
    for line, row in enumerate(rows[1:], start=2):
        label = int(row[0]) if len(row) == 2 and row[0].isdecimal() else 0
        if not 1 <= label <= MAX_LABEL or not row[1].strip():
            raise CatalogError(f"{path}:{line}: expected a label from 1 to {MAX_LABEL} and a name")
        if label in found or row[1] in found.values():
            raise CatalogError(f"{path}:{line}: {row[1]!r} or label {label} occurs twice")
        found[label] = row[1]
    if not found:
        raise CatalogError(f"{path}:2: expected at least one structure")
    return tuple(Structure(label=label, name=found[label]) for label in sorted(found))


def verify(card: ModelCard) -> None:
    """Compare every file of the model with the card's SHA-256.

    Raises:
        WeightsError: names the first file that is missing or differs, with expected and found.
    """
    for part in card.parts:
        for name, expected in sorted(part.sha256.items()):
            path = part.folder / name
            try:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise WeightsError(
                    f"{path}: cannot be read ({error.strerror}); expected sha256 {expected}"
                ) from error
            if found != expected:
                raise WeightsError(f"{path}: sha256 is {found}; expected {expected}")


def installed(card: ModelCard) -> bool:
    """Whether every file that the card names is there. Their content is `verify`'s matter."""
    return all((part.folder / name).is_file() for part in card.parts for name in part.sha256)


def _structures_file(card: Path, name: str, lines: Mapping[tuple[str | int, ...], int]) -> Path:
    for folder in (card.parent.parent, BUNDLED):
        path = folder / "structures" / f"{name}.csv"
        if path.is_file():
            return path
    raise CatalogError(
        f"{card}:{lines[('structures',)]}: structures: there is no table {name!r}; expected "
        f"{card.parent.parent / 'structures' / (name + '.csv')}"
    )


def _part(root: Path, part: PartDocument, structures: Sequence[Structure]) -> Part:
    if isinstance(part.labels, dict):
        labels = (0, *(part.labels[label] for label in range(1, len(part.labels) + 1)))
    else:
        labels = tuple(range(structures[-1].label + 1))
    return Part(
        name=part.name,
        folder=(root / part.folder).resolve(),
        labels=labels,
        sha256=dict(part.sha256),
    )
