"""The plan that is left after attempts that were short of memory or time."""

from __future__ import annotations

import pytest

from dicomnode.domain.economy import MEMORY_SHORT, SHORTAGES, Economy, economise
from dicomnode.domain.reasons import REASONS

SMALLER = {"large": "small"}


def economy(*shortages: str, threads: int | None = 4, model: str = "large") -> Economy:
    return economise(
        shortages, model_id=model, threads=threads, processors=8, smaller_models=SMALLER
    )


def test_nothing_is_changed_before_something_was_short() -> None:
    assert economy() == Economy(model_id="large", threads=4)
    assert economy(threads=None).threads is None


@pytest.mark.parametrize("code", sorted(MEMORY_SHORT))
def test_memory_the_thrifty_way_then_the_smaller_model(code: str) -> None:
    first, second = economy(code), economy(code, code)
    assert (first.thrifty, first.threads, first.model_id) == (True, 3, "large")
    assert (second.thrifty, second.threads, second.model_id) == (True, 2, "small")
    assert first.sentence == (
        "For lack of memory analysed with less: the thrifty way of the engine, 3 of 4 threads."
    )
    assert second.sentence.endswith("2 of 4 threads, the model small instead of large.")


def test_time_the_smaller_model_at_once_and_no_thread_less() -> None:
    found = economy("TIMEOUT")
    assert (found.threads, found.model_id, found.thrifty) == (4, "small", False)
    assert found.sentence.startswith("For lack of time ")
    assert "threads" not in found.sentence


def test_no_other_model_is_taken_that_is_not_configured() -> None:
    for shortages in (["TIMEOUT"], ["OUT_OF_MEMORY"] * 2, ["TIMEOUT"] * 5):
        assert economy(*shortages, model="other").model_id == "other"


def test_where_nothing_helps_against_time_the_same_is_tried_again() -> None:
    assert economy("TIMEOUT", "TIMEOUT", model="other") == Economy(model_id="other", threads=4)


def test_threads_not_set_count_from_the_processors_and_one_is_left() -> None:
    assert economy("OUT_OF_MEMORY", threads=None).threads == 7
    last = economy(*["OUT_OF_MEMORY"] * 9, threads=2)
    assert last.threads == 1
    assert economy("OUT_OF_MEMORY", threads=1).sentence.endswith("the thrifty way of the engine.")


def test_both_are_named() -> None:
    found = economy("OUT_OF_MEMORY", "TIMEOUT")
    assert found.sentence.startswith("For lack of memory and time ")


def test_what_was_changed_is_a_finding_whose_code_is_explained() -> None:
    seen = economy("TIMEOUT").finding()
    assert seen.code in REASONS
    assert seen.severity == "warning"
    assert {"TIMEOUT", "OUT_OF_MEMORY", "WORKER_OUT_OF_MEMORY"} == SHORTAGES
