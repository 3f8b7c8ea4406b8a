"""The lives of studies, jobs, deliveries and fetches, row by row."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dicomnode.domain import lifecycle
from dicomnode.domain.lifecycle import DELIVERY, JOB, LIVES, STUDY, Step

ALLOWED = {
    "study": {
        ("OPEN", "arrive", "OPEN"),
        ("CLOSED", "arrive", "OPEN"),
        ("OPEN", "close", "CLOSED"),
        ("OPEN", "hold", "HELD"),
        ("CLOSED", "hold", "HELD"),
        ("HELD", "hold", "HELD"),
        ("HELD", "release", "OPEN"),
    },
    "job": {
        ("QUEUED", "claim", "LEASED"),
        ("LEASED", "done", "DONE"),
        ("LEASED", "retry", "QUEUED"),
        ("LEASED", "refuse", "REFUSED"),
        ("LEASED", "quarantine", "QUARANTINED"),
        ("QUEUED", "cancel", "CANCELLED"),
        ("LEASED", "cancel", "CANCELLED"),
        ("REFUSED", "cancel", "CANCELLED"),
        ("QUARANTINED", "cancel", "CANCELLED"),
        ("REFUSED", "requeue", "QUEUED"),
        ("QUARANTINED", "requeue", "QUEUED"),
    },
    "delivery": {
        ("PENDING", "claim", "SENDING"),
        ("SENDING", "delivered", "DELIVERED"),
        ("SENDING", "retry", "PENDING"),
        ("PENDING", "refuse", "REFUSED"),
        ("SENDING", "refuse", "REFUSED"),
        ("PENDING", "cancel", "CANCELLED"),
        ("SENDING", "cancel", "CANCELLED"),
        ("HELD", "cancel", "CANCELLED"),
        ("REFUSED", "cancel", "CANCELLED"),
        ("PENDING", "hold", "HELD"),
        ("SENDING", "hold", "HELD"),
        ("HELD", "release", "PENDING"),
        ("REFUSED", "requeue", "PENDING"),
        ("DELIVERED", "requeue", "PENDING"),
        ("PENDING", "substitute", "SUBSTITUTED"),
        ("SENDING", "substitute", "SUBSTITUTED"),
        ("SUBSTITUTED", "requeue", "PENDING"),
        ("DELIVERED", "commit", "COMMITTED"),
        ("DELIVERED", "resend", "PENDING"),
        ("COMMITTED", "requeue", "PENDING"),
    },
    "commitment": {
        ("ASKED", "answer", "ANSWERED"),
        ("SILENT", "answer", "ANSWERED"),
        ("ASKED", "silence", "SILENT"),
        ("ASKED", "refuse", "REFUSED"),
    },
    "promise": {("ASKED", "answer", "ANSWERED"), ("ASKED", "fail", "FAILED")},
    "retrieval": {
        ("FETCHING", "fetched", "FETCHED"),
        ("FETCHING", "fail", "FAILED"),
    },
}
FIRST = {"study": "OPEN", "job": "QUEUED", "delivery": "PENDING", "retrieval": "FETCHING"}
FIRST |= {"commitment": "ASKED", "promise": "ASKED"}
FINAL = {
    "study": set(),
    "job": {"DONE", "CANCELLED"},
    "delivery": {"CANCELLED"},
    "commitment": {"ANSWERED", "REFUSED"},
    "promise": {"ANSWERED", "FAILED"},
    "retrieval": {"FETCHED", "FAILED"},
}

each_life = pytest.mark.parametrize(("name", "life"), LIVES.items())


def moves(life: Mapping[str, Step]) -> set[tuple[str, str, str]]:
    return {(source, event, step.target) for event, step in life.items() for source in step.sources}


def states(life: Mapping[str, Step]) -> set[str]:
    return {state for source, _, target in moves(life) for state in (source, target)}


@each_life
def test_these_moves_and_no_others(name: str, life: Mapping[str, Step]) -> None:
    assert moves(life) == ALLOWED[name]


@each_life
def test_every_state_has_a_name_and_can_be_reached(name: str, life: Mapping[str, Step]) -> None:
    named = {value for key, value in vars(lifecycle).items() if key.isupper() and value == key}
    assert states(life) <= named
    reached = {FIRST[name]}
    while True:
        further = reached | {target for source, _, target in moves(life) if source in reached}
        if further == reached:
            break
        reached = further
    assert reached == states(life)


@each_life
def test_no_state_is_a_dead_end_but_the_final_ones(name: str, life: Mapping[str, Step]) -> None:
    sources = {source for source, _, _ in moves(life)}
    assert states(life) - sources == FINAL[name]


def test_a_finished_analysis_is_never_undone() -> None:
    """The first recorded result set is immutable; a new one is a new job."""
    assert all("DONE" not in step.sources for step in JOB.values())


def test_a_held_study_neither_closes_nor_opens_by_itself() -> None:
    assert {event for event, step in STUDY.items() if "HELD" in step.sources} == {"hold", "release"}


def test_the_tables_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        DELIVERY["claim"] = Step(frozenset(), "SENDING")  # type: ignore[index]
