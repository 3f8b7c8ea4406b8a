"""What becomes of a result set at a destination that refuses one of its objects."""

from __future__ import annotations

import itertools

from dicomnode.domain.alternatives import first_choice
from dicomnode.domain.fallback import Candidate, Place, Standing, fall_back
from dicomnode.domain.identifiers import SOPClassUID

SETS = ("labelmap", "seg", "preview", "sr:labelmap,preview", "sr:seg,preview", "sr:preview", "sr:")


def made(*forms: str) -> list[Candidate]:
    result = []
    for number, form in enumerate(forms):
        kind, _, named = form.partition(":")
        refers_to = tuple(filter(None, named.split(",")))
        uid = SOPClassUID(f"1.{number}")
        result.append(Candidate(id=number, kind=kind, sop_class_uid=uid, refers_to=refers_to))
    return result


def waiting(candidates: list[Candidate], *profile: str) -> list[Standing]:
    first = first_choice(candidates, profile)
    return [Standing(wanted=one.kind, result=one.id, place=Place.WAITS) for one in first]


def test_as_long_as_nothing_is_refused_all_stays_as_it_is() -> None:
    candidates = made(*SETS)
    found = fall_back(candidates, waiting(candidates, "labelmap", "preview", "sr"), ())
    assert {kind: one and one.id for kind, one in found.items()} == {
        "labelmap": 0,
        "preview": 2,
        "sr": 3,
    }


def test_what_is_there_is_not_asked_for_again_and_may_be_named() -> None:
    candidates = made(*SETS)
    standings = [
        Standing(wanted="labelmap", result=1, place=Place.THERE),
        Standing(wanted="preview", result=2, place=Place.LOST),
        Standing(wanted="sr", result=3, place=Place.WAITS),
    ]
    # No report names the segmentation without the preview, which the destination has not.
    found = fall_back(candidates, standings, ())
    assert {kind: one and one.id for kind, one in found.items()} == {"sr": 6}


def test_one_object_stands_in_one_place_only() -> None:
    candidates = made("labelmap", "seg")
    found = fall_back(candidates, waiting(candidates, "labelmap", "seg"), {SOPClassUID("1.0")})
    assert [one and one.id for one in found.values()] == [1, None]


def test_whatever_is_refused_nothing_refers_to_what_is_not_there() -> None:
    candidates = made(*SETS)
    standings = waiting(candidates, "labelmap", "preview", "sr")
    classes = [one.sop_class_uid for one in candidates]
    for size in range(len(classes) + 1):
        for refused in itertools.combinations(classes, size):
            found = fall_back(candidates, standings, refused)
            gone = [one for one in found.values() if one is not None]
            kinds = {one.kind for one in gone}
            assert len({one.id for one in gone}) == len(gone)
            assert not {one.sop_class_uid for one in gone} & set(refused)
            assert all(set(one.refers_to) <= kinds for one in gone)
            left = [one for one in candidates if one.sop_class_uid not in refused]
            assert ("sr" in kinds) or all(
                one.kind != "sr" or not set(one.refers_to) <= kinds for one in left
            ), "a report that could go goes"
