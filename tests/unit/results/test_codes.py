"""The code tables are complete, every structure has its own codes, and bad tables are refused."""

from __future__ import annotations

import pytest

from dicomnode.results import codes
from dicomnode.results.codes import CodeTableError, load_codes
from inference.catalog import BUNDLED, read_structures

TABLES = {"total_v1_104": 104, "total_v2_117": 117}


@pytest.mark.parametrize(("table", "count"), TABLES.items())
def test_labels_run_from_1_and_every_tuple_of_codes_is_unique(table: str, count: int) -> None:
    rows = load_codes(table)
    assert list(rows) == list(range(1, count + 1))
    tuples = {
        (row.category, row.type, row.type_modifier, row.region, row.region_modifier)
        for row in rows.values()
    }
    assert len(tuples) == count
    assert len({row.name for row in rows.values()}) == count
    assert all(0 <= value <= 65535 for row in rows.values() for value in row.cielab)


@pytest.mark.parametrize("table", TABLES)
def test_left_and_right_say_their_side(table: str) -> None:
    for row in load_codes(table).values():
        side = (row.type_modifier or row.region_modifier) if row else None
        for word, code in (("left", "7771000"), ("right", "24028007")):
            if f"_{word}" in row.name and side is not None:
                assert side.value == code, row.name
        if side is not None:
            assert side.meaning.lower() in row.segment_label.lower()


def test_the_table_names_the_models_structures() -> None:
    structures = read_structures(BUNDLED / "structures/total_v1_104.csv")
    rows = load_codes("total_v1_104")
    assert {item.label: item.name for item in structures} == {
        label: row.name for label, row in rows.items()
    }


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(CodeTableError, match="no code table 'other'"):
        load_codes("other")


def test_a_code_without_meaning_is_refused() -> None:
    row = {"type_code": "123", "type_meaning": ""}
    with pytest.raises(ValueError, match="code without a meaning"):
        codes._concept(row, "type")
