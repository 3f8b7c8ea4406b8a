"""What an answer to C-STORE means for a delivery, and how long a failed one waits."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dicomnode.domain.outcomes import Backoff, Done, Outcome, Refuse, Retry, classify_store_status


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (0x0000, Done, "DONE"),
        (0xB000, Done, "COERCED"),
        (0xB006, Done, "STORED_WITH_WARNING"),
        (0xB007, Done, "STORED_WITH_WARNING"),
        (0xBFFF, Done, "STORED_WITH_WARNING"),
        (0x0001, Done, "STORED_WITH_WARNING"),
        (0x0107, Done, "STORED_WITH_WARNING"),
        (0x0116, Done, "STORED_WITH_WARNING"),
        (0xA700, Retry, "STATUS_A700"),
        (0xA7FF, Retry, "STATUS_A7FF"),
        (0x0110, Retry, "STATUS_0110"),
        (0x0122, Refuse, "SOP_CLASS_NOT_SUPPORTED"),
        (0x0124, Refuse, "NOT_AUTHORIZED"),
        (0xA800, Refuse, "STATUS_A800"),
        (0xA900, Refuse, "STATUS_A900"),
        (0xA9FF, Refuse, "STATUS_A9FF"),
        (0xC000, Refuse, "STATUS_C000"),
        (0xCFFF, Refuse, "STATUS_CFFF"),
        (0x0210, Refuse, "STATUS_0210"),
        (0xFE00, Refuse, "STATUS_FE00"),
        (0xFFFF, Refuse, "STATUS_FFFF"),
    ],
)
def test_every_status_of_c_store_has_an_outcome(
    status: int, kind: type[Outcome], code: str
) -> None:
    outcome = classify_store_status(status)
    assert isinstance(outcome, kind)
    assert outcome.code == code


def test_only_a_plain_success_is_without_warning() -> None:
    for status in range(0x10000):
        outcome = classify_store_status(status)
        if isinstance(outcome, Done):
            assert (outcome.warning == "") == (status == 0x0000), hex(status)
        else:
            assert outcome.detail, hex(status)


@pytest.mark.parametrize("seconds", [0, -1, 86401, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["first_seconds", "ceiling_seconds"])
def test_a_wait_is_positive_and_at_most_a_day(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=name):
        Backoff(**{name: seconds})


@pytest.mark.parametrize(
    ("attempt", "jitter", "seconds"),
    [
        (1, 0.0, 2.5),
        (1, 1.0, 5.0),
        (2, 1.0, 10.0),
        (3, 0.5, 15.0),
        (8, 1.0, 640.0),
        (9, 1.0, 900.0),
        (9, 0.0, 450.0),
        (10_000, 1.0, 900.0),
        (0, 1.0, 5.0),
    ],
)
def test_the_wait_doubles_up_to_a_ceiling(attempt: int, jitter: float, seconds: float) -> None:
    assert Backoff().after(attempt, jitter) == timedelta(seconds=seconds)
