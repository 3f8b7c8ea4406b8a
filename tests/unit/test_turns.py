"""Whose turn it is."""

from __future__ import annotations

import pytest

from dicomnode.domain.turns import FAIR_EVERY, ROUTINE, STAT, Turn, turn, urgency


def test_every_few_claims_the_one_that_waits_longest_is_next() -> None:
    turns = [turn(claims) for claims in range(3 * FAIR_EVERY)]
    assert turns.count(Turn.LONGEST_WAITING) == 3
    assert turns[0] is Turn.MOST_URGENT
    for start in range(len(turns) - FAIR_EVERY + 1):
        assert Turn.LONGEST_WAITING in turns[start : start + FAIR_EVERY]


@pytest.mark.parametrize(
    ("rule", "requested", "expected"),
    [
        (True, "", STAT),
        (False, "STAT", STAT),
        (False, "stat", STAT),
        (False, "HIGH", STAT),
        (False, "ROUTINE", ROUTINE),
        (False, "MEDIUM", ROUTINE),
        (False, "LOW", ROUTINE),
        (False, "", ROUTINE),
        (False, "URGENT!", ROUTINE),
    ],
)
def test_the_more_urgent_of_rule_and_request_counts(
    rule: bool, requested: str, expected: int
) -> None:
    assert urgency(rule_says_stat=rule, requested=requested) == expected
