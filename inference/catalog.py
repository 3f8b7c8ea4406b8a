"""Model cards: what a model finds, on which grid it works, and which bytes it is.

A card is `<folder>/<id>/card.yaml`; its label table is `structures/<name>.csv` beside the folder's
models or beside the bundled ones. No torch here: a role that only lists models loads nothing heavy.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from inference.card import (
    CatalogError,
    ModelCard,
    Part,
    Requirements,
    Structure,
    WeightsError,
    installed,
    sha256_of,
    verify,
)
from inference.card_document import NNUNET_FILES, CardDocument, PartDocument, explain, load_yaml
from inference.record import Record, read_record

__all__ = [
    "BUNDLED",
    "Catalog",
    "CatalogError",
    "ModelCard",
    "Part",
    "Structure",
    "WeightsError",
    "installed",
    "load_catalog",
    "read_card",
    "read_structures",
    "sha256_of",
    "verify",
]

BUNDLED = Path(__file__).parent / "models"
CARD_FILE = "card.yaml"
MAX_LABEL = 255


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


def load_catalog(extra: Sequence[Path] = (), weights: Path | None = None) -> Catalog:
    """Read the bundled cards and those of the folders in `extra`.

    Args:
        extra: folders with `<id>/card.yaml`.
        weights: folder with what was installed, `<model id>/<part>`. Cards are read whether
            their weights are there or not; see `installed`.

    Raises:
        CatalogError: a folder is missing, a card or table is wrong, an id occurs twice.
    """
    cards: dict[str, ModelCard] = {}
    for folder in (BUNDLED, *extra):
        if folder is not BUNDLED and not folder.is_dir():
            raise CatalogError(f"{folder}: not a folder; expected one with <id>/{CARD_FILE}")
        for path in sorted(folder.glob(f"*/{CARD_FILE}")):
            card = read_card(path, weights)
            if card.id in cards:
                other = cards[card.id].root / CARD_FILE
                raise CatalogError(f"{path}: id: {card.id!r} is taken by {other}")
            cards[card.id] = card
    return Catalog(cards=cards)


def read_card(path: Path, weights: Path | None = None) -> ModelCard:
    """Read one card, its label table, and the record of its installation in `weights`.

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
    home = None if weights is None else weights.absolute() / document.id
    try:
        record = Record(model=document.id) if home is None else read_record(home, document.id)
    except (OSError, ValueError) as error:
        raise WeightsError(str(error)) from error
    parts = tuple(
        _part(part, (home or path.parent) if part.archive else path.parent, record, structures)
        for part in document.parts
    )
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
    changed = {
        "structures", "parts", "spacing_mm", "limits", "radelement", "code_table", "requires"
    }  # fmt: skip
    fields = document.model_dump(exclude=changed)
    x, y, z = document.spacing_mm
    return ModelCard(
        structures=structures,
        parts=parts,
        spacing_mm=(x, y, z),
        limits=tuple(document.limits),
        radelement=tuple(document.radelement),
        requires=Requirements(**document.requires.model_dump()),
        code_table=_code_table(path, document.code_table, lines),
        root=path.parent.resolve(),
        weights=home,
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


def _structures_file(card: Path, name: str, lines: Mapping[tuple[str | int, ...], int]) -> Path:
    for folder in (card.parent.parent, BUNDLED):
        path = folder / "structures" / f"{name}.csv"
        if path.is_file():
            return path
    raise CatalogError(
        f"{card}:{lines[('structures',)]}: structures: there is no table {name!r}; expected "
        f"{card.parent.parent / 'structures' / (name + '.csv')}"
    )


def _code_table(card: Path, name: str, lines: Mapping[tuple[str | int, ...], int]) -> str:
    if not name.startswith("./"):
        return name
    path = card.parent.resolve() / name
    if not path.is_file():
        raise CatalogError(f"{card}:{lines[('code_table',)]}: code_table: expected a file {path}")
    return str(path)


def _part(part: PartDocument, root: Path, record: Record, structures: Sequence[Structure]) -> Part:
    if isinstance(part.labels, dict):
        labels = (0, *(part.labels[label] for label in range(1, len(part.labels) + 1)))
    else:
        labels = tuple(range(structures[-1].label + 1))
    recorded = record.parts.get(part.name)
    files = {} if recorded is None else dict(recorded.files)
    files = dict(part.sha256) or {name: files[name] for name in NNUNET_FILES if name in files}
    return Part(
        name=part.name,
        folder=(root / (part.folder or part.name)).resolve(),
        labels=labels,
        sha256=files,
        archive=part.archive,
        trainer=part.trainer,
        archive_sha256=part.archive_sha256,
    )
