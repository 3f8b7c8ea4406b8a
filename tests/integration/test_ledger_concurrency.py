"""Many at once: nothing is claimed twice, nothing is lost, nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ledger_kit import (
    LEASE,
    POLICY,
    QUIET_SECONDS,
    analysed,
    claimed,
    close,
    come,
    deliver_all,
    each,
    finish,
    header,
    receive,
    rows,
    states,
    take,
    taken,
    to_demo,
)

from dicomnode.domain.assembly import Close
from dicomnode.domain.records import Job
from dicomnode.errors import LedgerError
from dicomnode.ledger import Ledger, closing, jobs
from dicomnode.ledger.tables import delivery, instance, job, series, study

THREADS = 6


@pytest.fixture
def together(ledger: Ledger) -> Iterator[Callable[[Callable[[int], Any]], list[Any]]]:
    """Run a function in several threads, which begin at the same moment."""
    barrier = threading.Barrier(THREADS)

    def at_once(act: Callable[[int], Any], number: int) -> Any:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(THREADS) as pool:
        yield lambda act: list(pool.map(lambda number: at_once(act, number), range(THREADS)))


def test_every_job_is_claimed_by_exactly_one_worker(
    ledger: Ledger, clock: Any, together: Any
) -> None:
    receive(ledger, *(header(f"1.{number}", series=f"1.2.{number}") for number in range(10)))
    clock.forward(QUIET_SECONDS)
    close(ledger)

    def work(number: int) -> list[Job]:
        mine = []
        for _ in range(10):
            with ledger.transaction() as tx:
                leased = jobs.claim(tx, f"worker-{number}", LEASE)
            if leased is not None:
                mine.append(leased)
        return mine

    leased = [one.id for mine in together(work) for one in mine]
    assert sorted(leased) == [row.id for row in rows(ledger, job)]
    assert len(set(leased)) == 10
    assert {row.attempt for row in rows(ledger, job)} == {1}


def test_every_delivery_is_claimed_once(ledger: Ledger, clock: Any, together: Any) -> None:
    for number in range(4):
        analysed(ledger, clock, header(f"1.{number}", study=f"1.2.{number}"))
    found = together(lambda _: [take(ledger) for _ in range(4)])
    ids = [one.id for mine in found for one in mine if one is not None]
    assert len(ids) == len(set(ids)) == 4
    assert states(ledger, delivery).count("SENDING") == 4


def test_a_study_is_closed_once(ledger: Ledger, clock: Any, together: Any) -> None:
    receive(ledger, header("1.1"), header("1.2", study="1.7"))
    clock.forward(QUIET_SECONDS)

    def tick(_: int) -> int:
        with ledger.transaction() as tx:
            return int(isinstance(closing.close_due_study(tx, each(to_demo), POLICY), Close))

    assert sum(together(tick)) + close(ledger) == 2
    assert states(ledger, job) == ["QUEUED", "QUEUED"]


def test_instances_of_one_study_over_several_associations(ledger: Ledger, together: Any) -> None:
    def send(number: int) -> None:
        for index in range(5):
            given = header(f"1.{number}.{index}", series=f"1.2.{number % 2}")
            with ledger.transaction() as tx:
                come(tx, given)

    together(send)
    assert len(rows(ledger, instance)) == 5 * THREADS
    assert len(rows(ledger, study)) == 1
    assert len(rows(ledger, series)) == 2


def test_the_same_instance_over_several_associations(ledger: Ledger, together: Any) -> None:
    """One wins, the others learn of a conflict and find a duplicate when they look again."""

    def send(_: int) -> str:
        try:
            with ledger.transaction() as tx:
                return come(tx, header()).code
        except LedgerError:
            with ledger.transaction() as tx:
                return come(tx, header()).code

    codes = together(send)
    assert sorted(codes) == ["DUPLICATE"] * (THREADS - 1) + ["STORED"]
    assert len(rows(ledger, instance)) == 1


def test_results_and_a_late_slice_at_the_same_moment(
    ledger: Ledger, clock: Any, together: Any
) -> None:
    """Either the results are there and called back, or they never are; in no order both stay."""
    for number in range(3):
        receive(ledger, header(f"1.{number}.1", study=f"1.2.{number}"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    leased = [claimed(ledger) for _ in range(3)]

    def race(number: int) -> None:
        if number < 3:
            finish(ledger, leased[number])
        else:
            receive(ledger, header(f"1.{number - 3}.2", study=f"1.2.{number - 3}"))

    together(race)
    assert {row.generation for row in rows(ledger, series)} == {2}
    assert set(states(ledger, delivery)) <= {"CANCELLED"}
    assert set(states(ledger, job)) <= {"DONE", "CANCELLED"}
    assert deliver_all(ledger) == 0


def test_results_and_a_hold_at_the_same_moment(ledger: Ledger, clock: Any, together: Any) -> None:
    for number in range(3):
        receive(ledger, header(f"1.{number}", study=f"1.2.{number}"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    leased = [claimed(ledger) for _ in range(3)]

    def race(number: int) -> None:
        if number < 3:
            finish(ledger, leased[number])
        else:
            again = header(f"1.{number - 3}", study=f"1.2.{number - 3}", identity_digest="new")
            receive(ledger, again)

    together(race)
    assert states(ledger, study) == ["HELD"] * 3
    assert states(ledger, delivery) == ["HELD"] * 6


def test_a_delivery_that_ends_while_its_study_grows(ledger: Ledger, clock: Any) -> None:
    """Both need the delivery and the study, in another order: neither may wait for ever."""
    if ledger.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    analysed(ledger, clock, header("1.1"))
    sending = taken(ledger)
    failed: list[BaseException] = []

    def late_slice() -> None:
        try:
            receive(ledger, header("1.2"))
        except LedgerError as error:
            failed.append(error)

    thread = threading.Thread(target=late_slice)
    with ledger.transaction() as tx:
        tx.move(delivery, sending.id, "delivered", updated_at=tx.now)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "it holds the study and waits for the delivery"
        tx.event("DELIVERED", study=sending.study_id, delivery=sending.id)
    thread.join(10)
    assert not thread.is_alive()
    assert failed == []
    assert states(ledger, delivery) == ["DELIVERED", "CANCELLED"]
