"""The code tables: what every label of a model is, in SNOMED CT, with its laterality and colour.

Category and type follow PS3.16 CID 7150 and 7151 and their context groups for organs, laterality
CID 244; SegmentLabel and colours are for people. A table is data beside this module.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType

SNOMED_CT = "SCT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """A SNOMED CT code with its meaning."""

    value: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureCodes:
    """One row: what a label of the model stands for."""

    label: int
    name: str
    """The model's own name."""
    segment_label: str
    category: Concept
    type: Concept
    type_modifier: Concept | None
    """Laterality of the type."""
    region: Concept | None
    """Where it is, if the type does not say it."""
    region_modifier: Concept | None
    """Laterality of the region."""
    cielab: tuple[int, int, int]
    """Recommended Display CIELab Value (PS3.3 C.10.7.1.1), 16 bits each."""

    @property
    def concepts(self) -> tuple[Concept | None, ...]:
        """All that says what the structure is, in codes."""
        return (self.category, self.type, self.type_modifier, self.region, self.region_modifier)


class CodeTableError(ValueError):
    """There is no such table, or a row of it cannot be used."""


def load_codes(table: str) -> Mapping[int, StructureCodes]:
    """Return the rows of `codes/<table>.csv` by label; `table` may be a path of a model's own.

    Raises:
        CodeTableError: no such table, a row is incomplete, or two rows have one label or the same
            codes: nobody could tell their segments apart, as left from right.
    """
    # What is in the package stays as it is; a model's own file may change under a running node.
    return _read(Path(table)) if Path(table).is_absolute() else _bundled(table)


@cache
def _bundled(table: str) -> Mapping[int, StructureCodes]:
    path = resources.files(__name__).joinpath(f"{table}.csv")
    if not path.is_file():
        raise CodeTableError(f"there is no code table {table!r}")
    return _read(path)


def _read(path: Traversable) -> Mapping[int, StructureCodes]:
    rows: dict[int, StructureCodes] = {}
    coded: dict[tuple[Concept | None, ...], StructureCodes] = {}
    with path.open(encoding="utf-8") as lines:
        for number, row in enumerate(csv.DictReader(lines), start=2):
            try:
                codes = _structure(row)
            except (KeyError, ValueError) as error:
                raise CodeTableError(f"{path.name}, line {number}: {error}") from error
            if codes.label in rows:
                raise CodeTableError(f"{path.name}, line {number}: label {codes.label} again")
            other = coded.setdefault(codes.concepts, codes)
            if other is not codes:
                raise CodeTableError(
                    f"{path.name}, line {number}: {codes.name} has the codes of {other.name}"
                )
            rows[codes.label] = codes
    return MappingProxyType(rows)


def _structure(row: Mapping[str, str]) -> StructureCodes:
    lightness, a, b = (int(value) for value in row["cielab_dicom"].split())
    category, kind = _concept(row, "category"), _concept(row, "type")
    if category is None or kind is None:
        raise ValueError("category and type need a code and a meaning")
    return StructureCodes(
        label=int(row["label"]),
        name=row["name"],
        segment_label=row["segment_label"],
        category=category,
        type=kind,
        type_modifier=_concept(row, "type_modifier"),
        region=_concept(row, "anatomic_region"),
        region_modifier=_concept(row, "anatomic_region_modifier"),
        cielab=(lightness, a, b),
    )


def _concept(row: Mapping[str, str], column: str) -> Concept | None:
    value, meaning = row[f"{column}_code"], row[f"{column}_meaning"]
    if bool(value) != bool(meaning):
        raise ValueError(f"{column} has a code without a meaning or the other way round")
    return Concept(value=value, meaning=meaning) if value else None
