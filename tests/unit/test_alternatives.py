"""A destination gets one object of a kind, and never one that names what it has not."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, combinations

import pytest

from dicomnode.domain.alternatives import (
    COMPREHENSIVE_3D_SR,
    COMPREHENSIVE_SR,
    ENHANCED_SR,
    INSTEAD,
    NAMED_BY_REPORTS,
    REPORT_CLASSES,
    first_choice,
    in_preference,
    needed,
    reports,
)
from dicomnode.domain.identifiers import SOPClassUID
from dicomnode.domain.plans import (
    FILES,
    LABELMAP,
    OBJECTS,
    PREVIEW,
    REJECTION,
    RTSTRUCT,
    SEG,
    SEG_PARTS,
    SR,
)
from dicomnode.domain.profiles import PROFILES

CLASSES = {
    SEG: SOPClassUID("1.2.840.10008.5.1.4.1.1.66.4"),
    LABELMAP: SOPClassUID("1.2.840.10008.5.1.4.1.1.66.7"),
    RTSTRUCT: SOPClassUID("1.2.840.10008.5.1.4.1.1.481.3"),
    PREVIEW: SOPClassUID("1.2.840.10008.5.1.4.1.1.7"),
    **dict.fromkeys(SEG_PARTS, SOPClassUID("1.2.840.10008.5.1.4.1.1.66.4")),
}
PACS = (SEG, PREVIEW, SR)
MODERN = (LABELMAP, PREVIEW, SR)


@dataclass(frozen=True, kw_only=True)
class Item:
    kind: str
    sop_class_uid: SOPClassUID
    refers_to: tuple[str, ...] = ()


def made_for(*profiles: tuple[str, ...], without: str = "") -> tuple[Item, ...]:
    """What `work` makes for destinations of these profiles."""
    kinds = {kind for profile in profiles for kind in profile}
    kinds |= {other for kind in kinds for other in INSTEAD[kind]}
    images = [
        Item(kind=kind, sop_class_uid=CLASSES[kind])
        for kind in NAMED_BY_REPORTS
        if kind in kinds and kind != without
    ]
    forms = [
        Item(kind=SR, sop_class_uid=form.sop_class_uid, refers_to=form.refers_to)
        for form in reports(profiles)
        if without not in form.refers_to
    ]
    return (*images, *forms)


def test_every_kind_stands_first_for_itself() -> None:
    assert {*OBJECTS, *FILES, REJECTION} == set(INSTEAD)
    for kind, order in INSTEAD.items():
        assert order[0] == kind
        assert set(order) <= set(INSTEAD)


def test_a_destination_that_refuses_nothing_gets_the_whole_and_the_best() -> None:
    chosen = first_choice(made_for(PACS, MODERN), PACS)
    assert [item.kind for item in chosen] == [SEG, PREVIEW, SR]
    assert chosen[-1].sop_class_uid == COMPREHENSIVE_3D_SR
    assert chosen[-1].refers_to == (SEG, PREVIEW)
    chosen = first_choice(made_for(PACS, MODERN), MODERN)
    assert [item.kind for item in chosen] == [LABELMAP, PREVIEW, SR]
    assert chosen[-1].refers_to == (LABELMAP, PREVIEW)


def test_a_refused_class_falls_to_the_next_of_the_same_references() -> None:
    made = made_for(PACS)
    order = in_preference(made, SR, {SEG, PREVIEW})
    assert [item.sop_class_uid for item in order[:3]] == list(REPORT_CLASSES)
    assert {item.refers_to for item in order[:3]} == {(SEG, PREVIEW)}
    for refused, left in (
        ({COMPREHENSIVE_3D_SR}, COMPREHENSIVE_SR),
        ({COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR}, ENHANCED_SR),
    ):
        best = in_preference(made, SR, {SEG, PREVIEW}, refused)[0]
        assert (best.sop_class_uid, best.refers_to) == (left, (SEG, PREVIEW))
    assert in_preference(made, SR, {SEG, PREVIEW}, REPORT_CLASSES) == ()


def test_without_the_segmentation_the_report_names_the_source_and_the_picture() -> None:
    made = made_for(PACS)
    best = in_preference(made, SR, {PREVIEW})[0]
    assert (best.sop_class_uid, best.refers_to) == (COMPREHENSIVE_3D_SR, (PREVIEW,))
    assert in_preference(made, SR, ())[0].refers_to == ()


def test_a_label_map_falls_to_the_binary_segmentation_and_the_report_with_it() -> None:
    made = made_for(MODERN)
    order = in_preference(made, LABELMAP, ())
    assert [item.kind for item in order] == [LABELMAP, SEG]
    (left,) = in_preference(made, LABELMAP, (), {CLASSES[LABELMAP]})
    assert left.kind == SEG
    assert in_preference(made, SR, {SEG, PREVIEW})[0].refers_to == (SEG, PREVIEW)
    assert in_preference(made, SEG, (), {CLASSES[SEG]}) == ()


def test_a_binary_segmentation_is_not_taken_for_two() -> None:
    made = made_for((SEG, LABELMAP, SR), without=LABELMAP)
    assert [item.kind for item in first_choice(made, (SEG, LABELMAP, SR))] == [SEG, SR]


def test_where_nothing_was_found_the_report_names_no_segmentation() -> None:
    chosen = first_choice(made_for(PACS, without=SEG), PACS)
    assert [item.kind for item in chosen] == [PREVIEW, SR]
    assert chosen[-1].refers_to == (PREVIEW,)


@pytest.mark.parametrize(
    "profile",
    [
        *PROFILES.values(),
        MODERN,
        (SEG, SR),
        (PREVIEW, SR),
        (SEG, LABELMAP, RTSTRUCT, PREVIEW, SR),
        (*SEG_PARTS, PREVIEW, SR),
    ],
)
def test_whatever_is_refused_no_report_names_what_is_not_there(profile: tuple[str, ...]) -> None:
    """All ways to refuse, with other profiles' results among those that were made."""
    made = made_for(profile, PACS, MODERN)
    classes = [*CLASSES.values(), *REPORT_CLASSES]
    for refused in chain.from_iterable(combinations(classes, n) for n in range(len(classes) + 1)):
        took: list[str] = []
        for kind in profile:
            best = next(iter(in_preference(made, kind, took, refused)), None)
            if best is None:
                assert all(
                    item.sop_class_uid in refused for item in made if item.kind in INSTEAD[kind]
                )
                continue
            assert best.sop_class_uid not in refused
            assert set(best.refers_to) <= set(took)
            took.append(best.kind)


def test_the_reports_needed_come_best_first_and_once() -> None:
    forms = reports([PACS, PACS, (PREVIEW,)])
    assert [form.refers_to for form in forms[::3]] == [(SEG, PREVIEW), (PREVIEW,), ()]
    assert [form.sop_class_uid for form in forms] == list(REPORT_CLASSES) * 3
    assert reports([(PREVIEW,), (RTSTRUCT,)]) == ()
    assert len(set(reports([PACS, MODERN]))) == len(reports([PACS, MODERN]))


def test_what_has_to_be_made_for_a_profile() -> None:
    assert needed(PACS) == (SEG, PREVIEW, SR)
    assert needed((PREVIEW,)) == (PREVIEW,)
    assert SEG in needed(MODERN)
