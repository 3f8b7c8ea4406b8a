"""The clock of the machine is set back or forward an hour: all is done, and once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from ledger_kit import (
    claim,
    claimed,
    close,
    deliver_all,
    finish,
    header,
    receive,
    rows,
    states,
)

from dicomnode.domain.lifecycle import LEASED
from dicomnode.domain.outcomes import Retry
from dicomnode.ledger import Ledger, jobs
from dicomnode.ledger.tables import delivery, job, result

HOUR = 3600.0


def take_back(ledger: Ledger) -> int:
    with ledger.transaction() as tx:
        outcome = Retry("WORKER_LOST", "silent")
        return jobs.take_back(tx, outcome, max_failures=3, wait=timedelta(0))


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
@pytest.mark.parametrize("when", ["open", "queued", "done"])
def test_a_jump_delays_by_an_hour_at_most_and_doubles_nothing(
    ledger: Ledger, clock: Any, seconds: float, when: str
) -> None:
    receive(ledger, header("1.2.3.1"), header("1.2.3.2"))
    if when != "open":
        clock.forward(60)
        assert close(ledger) == 1
    if when == "done":
        assert finish(ledger, claimed(ledger))
    clock.forward(seconds)
    for _ in range(62):
        clock.forward(60)
        close(ledger)
        taken = claim(ledger)
        if taken is not None:
            assert finish(ledger, taken)
        deliver_all(ledger)
    assert states(ledger, job) == ["DONE"]
    assert states(ledger, delivery) == ["DELIVERED", "DELIVERED"]
    assert len(rows(ledger, result)) == 2


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
def test_a_jump_while_a_worker_computes_records_one_result_set(
    ledger: Ledger, clock: Any, seconds: float
) -> None:
    receive(ledger, header())
    clock.forward(60)
    assert close(ledger) == 1
    first = claimed(ledger)
    clock.forward(seconds)
    assert take_back(ledger) == (seconds > 0)  # its lease seems to be over, and it works on
    second = claim(ledger)
    assert (second is not None) == (seconds > 0)
    assert finish(ledger, first) == (second is None)
    if second is not None:
        assert states(ledger, job) == [LEASED]
        assert finish(ledger, second)
    assert states(ledger, job) == ["DONE"]
    assert len(rows(ledger, result)) == 2
