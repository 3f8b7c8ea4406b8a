"""What the last word of an archive on a retrieve means, and what is proposed for a C-GET."""

from __future__ import annotations

import pytest

from dicomnode.domain.outcomes import Done, Refuse, Retry
from dicomnode.domain.retrieval import FetchPolicy, Retrieved, SubOperations, judge
from dicomnode.network.contexts import KNOWN_STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicomnode.network.retrieve import (
    CLASSES_OF_MODALITY,
    MAX_CONTEXTS,
    MAX_SYNTAXES,
    likely_classes,
    storage_proposals,
)

CT = "1.2.840.10008.5.1.4.1.1.2"


def ended(status: int, **numbers: int) -> Retrieved:
    return Retrieved(status=status, operations=SubOperations(**numbers))


@pytest.mark.parametrize(
    ("retrieved", "kind", "code"),
    [
        (ended(0x0000, completed=3), Done, "DONE"),
        (ended(0x0000), Done, "DONE"),
        (ended(0x0000, completed=3, warning=1), Done, "FETCHED_WITH_WARNING"),
        (ended(0xB000, completed=3, warning=1), Done, "FETCHED_WITH_WARNING"),
        (ended(0xB000, completed=3, failed=1), Retry, "PARTLY_FETCHED"),
        # An archive that says Success although something failed.
        (ended(0x0000, completed=3, failed=1), Retry, "PARTLY_FETCHED"),
        (ended(0xA702, failed=4), Retry, "PARTLY_FETCHED"),
        (ended(0xA701), Retry, "STATUS_A701"),
        (ended(0xA702), Retry, "STATUS_A702"),
        (ended(0x0110), Retry, "STATUS_0110"),
        (ended(0xFE00, completed=1, failed=1), Retry, "CANCELLED"),
        (ended(0xA801), Refuse, "MOVE_DESTINATION_UNKNOWN"),
        (ended(0xA801, failed=4), Refuse, "MOVE_DESTINATION_UNKNOWN"),
        (ended(0xA900), Refuse, "STATUS_A900"),
        (ended(0xC123), Retry, "STATUS_C123"),
        (ended(0x0122), Refuse, "CONTEXT_REFUSED"),
        (ended(0x0124), Refuse, "NOT_AUTHORIZED"),
    ],
)
def test_the_last_word(retrieved: Retrieved, kind: type, code: str) -> None:
    outcome = judge(retrieved)
    assert isinstance(outcome, kind)
    assert outcome.code == code


def test_a_list_of_failed_instances_says_more_than_the_numbers() -> None:
    operations = SubOperations(completed=3)
    outcome = judge(Retrieved(status=0xB000, operations=operations, failed_uids=("1.2", "1.3")))
    assert outcome == Retry("PARTLY_FETCHED", "2 instances failed, 3 came")


def test_a_warning_that_says_nothing_more_is_none() -> None:
    """Status B000 without a number and without a list: the counts decide."""
    assert judge(ended(0xB000, completed=3)) == Done()


@pytest.mark.parametrize("seconds", [0, -1, 86401])
def test_times_have_bounds(seconds: float) -> None:
    with pytest.raises(ValueError, match="max_seconds"):
        FetchPolicy(max_seconds=seconds)


@pytest.mark.parametrize("count", [1, 2, 3, 20, len(KNOWN_STORAGE_CLASSES), 126, 300])
def test_there_is_room_for_what_is_proposed(count: int) -> None:
    classes = [f"1.2.{number}" for number in range(count)]
    proposals = storage_proposals(classes)
    assert len(proposals) <= MAX_CONTEXTS - 2
    assert all(one.as_scp for one in proposals)
    assert all(1 <= len(one.transfer_syntaxes) <= MAX_SYNTAXES for one in proposals)
    assert [*dict.fromkeys(one.abstract_syntax for one in proposals)] == classes[:126]
    for sop_class in classes[:126]:
        offered = [
            syntax
            for one in proposals
            if one.abstract_syntax == sop_class
            for syntax in one.transfer_syntaxes
        ]
        assert len(set(offered)) == len(offered)
        # Videos are left out before anything else is.
        assert set(TRANSFER_SYNTAXES[:MAX_SYNTAXES]) <= set(offered)


def test_what_the_archive_holds_in_any_form_has_a_context_of_its_own() -> None:
    proposals = storage_proposals([CT, CT])
    assert [one.transfer_syntaxes for one in proposals] == [
        (syntax,) for syntax in TRANSFER_SYNTAXES
    ]


def test_what_a_modality_is_made_of() -> None:
    assert likely_classes("CT")[0] == CT
    assert likely_classes("ECG") == KNOWN_STORAGE_CLASSES
    assert {uid for classes in CLASSES_OF_MODALITY.values() for uid in classes} <= set(
        KNOWN_STORAGE_CLASSES
    )
