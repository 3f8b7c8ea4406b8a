"""The code tables are complete, every structure has its own codes, and bad tables are refused."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.results import codes
from dicomnode.results.codes import CodeTableError, load_codes
from inference.catalog import BUNDLED, read_structures
from inference.phantom import Body

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


def test_two_structures_with_the_same_codes_are_refused(tmp_path: Path) -> None:
    """As upstream's, where left and right kidney are both Kidney."""
    lines = (Path(codes.__file__).parent / "total_v1_104.csv").read_text().splitlines()
    right, left = (line for line in lines if ",kidney_" in line)
    assert right.count(",24028007,Right,") == 1
    table = tmp_path / "codes.csv"
    table.write_text("\n".join([lines[0], right, left]))
    assert len(load_codes(str(table))) == 2
    nowhere = [row.replace(",24028007,Right,", ",,,") for row in (right, left)]
    nowhere[1] = nowhere[1].replace(",7771000,Left,", ",,,")
    table.write_text("\n".join([lines[0], *nowhere]))
    with pytest.raises(CodeTableError, match=r"line 3: kidney_left has the codes of kidney_right"):
        load_codes(str(table))


LEAST_DIFFERENCE = 15.0
"""Of colours in CIELab (CIE76); 2.3 is just noticeable side by side, and an overlay halves it."""


def colours(table: str) -> dict[str, NDArray[np.float64]]:
    """L*, a*, b* by name (PS3.3 C.10.7.1.1)."""
    scale, shift = np.array([100, 255, 255]) / 65535, np.array([0, 128, 128])
    return {row.name: row.cielab * scale - shift for row in load_codes(table).values()}


def touching(labels: NDArray[np.uint8], reach: int = 2) -> set[tuple[int, int]]:
    """Labels of voxels that lie side by side, or nearly so."""
    found: set[int] = set()
    for axis in range(3):
        cells = np.moveaxis(labels, axis, 0).astype(int)
        for step in range(1, reach + 1):
            one, other = cells[:-step], cells[step:]
            meet = (one != other) & (one > 0) & (other > 0)
            found |= set(np.unique(one[meet] * 256 + other[meet]).tolist())
    return {(pair // 256, pair % 256) for pair in found}


def in_a_skeleton() -> Iterator[tuple[str, str]]:
    spine = [
        f"{part}{n}" for part, last in (("C", 7), ("T", 12), ("L", 5)) for n in range(1, last + 1)
    ]
    for above, below in pairwise([*spine, "S1"]):
        yield f"vertebrae_{above}", f"vertebrae_{below}"
    for side in ("left", "right"):
        for number in range(1, 13):
            for near in (number - 1, number, number + 1):
                yield f"rib_{side}_{number}", f"vertebrae_T{near}"
            yield f"rib_{side}_{number}", f"rib_{side}_{number + 1}"


def assert_apart(table: str, pairs: set[tuple[str, str]]) -> None:
    known = colours(table)
    met = {pair for pair in pairs if set(pair) <= set(known)}
    assert len(met) > 50
    alike = {
        pair: round(float(np.linalg.norm(known[pair[0]] - known[pair[1]])), 1)
        for pair in met
        if np.linalg.norm(known[pair[0]] - known[pair[1]]) < LEAST_DIFFERENCE
    }
    assert alike == {}


@pytest.mark.parametrize("table", TABLES)
def test_neighbours_have_colours_that_can_be_told_apart(table: str) -> None:
    rows = load_codes("total_v1_104")
    affine = np.diag([-3.0, -3.0, 3.0, 1.0])
    shape = (160, 110, 270)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    labels = Body(3).render(shape, affine)[1]
    bodies = {(rows[a].name, rows[b].name) for a, b in touching(labels)}
    assert len(bodies) > 150
    assert_apart(table, bodies | set(in_a_skeleton()))


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("total_v1_104", "example_seg_v1_104.nii.gz"),
        ("total_v2_117", "example_seg_v2_117_fast.nii.gz"),
        ("total_v2_117", "s0327_labels_v2_117.nii.gz"),
        ("total_v2_117", "s0328_labels_v2_117.nii.gz"),
    ],
)
def test_so_have_neighbours_in_real_label_maps(table: str, name: str, test_data: Path) -> None:
    image = nibabel.load(test_data / "totalsegmentator" / name)
    rows = load_codes(table)
    pairs = touching(np.asarray(image.dataobj).astype(np.uint8))
    assert_apart(table, {(rows[a].name, rows[b].name) for a, b in pairs})
