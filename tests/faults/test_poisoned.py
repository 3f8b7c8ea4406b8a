"""A study that kills every analysis of it is put aside, and the others go on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest
from kills import series_of, study_uid
from nodes import Node
from peers import Orthanc
from processes import analyses
from scu import store

from dicomnode.domain.outcomes import Retry
from dicomnode.ledger import jobs

pytestmark = pytest.mark.peer("orthanc")

SERIES = 3


def test_a_poisoned_study_stops_nobody_and_one_that_was_too_large_is_done_with_less(
    node: Callable[..., Node], orthanc: Orthanc
) -> None:
    work = {"max_attempts": 2, "threads": 2}
    running = node("receive", "tick", archive=orthanc, overrides={"work": work})
    for seed in range(SERIES):
        assert set(store(running.port, *series_of(seed))) == {0x0000}
    running.wait_for(lambda status: status["counts"]["jobs"] == {"QUEUED": SERIES}, timeout=60)
    large = too_large_once(running)
    poisoned = next(
        uid for uid in (study_uid(series_of(seed)) for seed in range(SERIES)) if uid != large
    )
    running.start("work", "send")
    with poison(running, poisoned):
        status = running.wait_for(
            lambda status: (
                status["counts"]["jobs"] == {"DONE": 2, "QUARANTINED": 1}
                and status["counts"]["deliveries"] == {"DELIVERED": 6}
            ),
            timeout=150,
        )

    by_study = {row["study_uid"]: row for row in status["jobs"]}
    aside = by_study[poisoned]
    assert (aside["state"], aside["reason"], aside["failures"]) == (
        "QUARANTINED",
        "WORKER_KILLED",
        2,
    )
    assert "JOB_QUARANTINED" in running.attention()
    assert orthanc.results(poisoned) == {}

    less = by_study[large]
    assert less["shortages"] == ["OUT_OF_MEMORY"]
    (said,) = [one["sentence"] for one in less["coded"] if one["code"] == "SMALLER_PLAN"]
    assert said.endswith("the thrifty way of the engine, 1 of 2 threads.")
    report = orthanc.results(large)["SR"]
    assert said in [element.value for element in report.iterall() if element.VR == "UT"]
    assert "SMALLER_PLAN" in shown(running)
    others = [row for uid, row in by_study.items() if uid not in (poisoned, large)]
    assert all("SMALLER_PLAN" not in str(row["coded"]) for row in others)


def too_large_once(running: Node) -> str:
    """Have an attempt at the first job end for lack of memory; return its Study Instance UID."""
    with running.ledger.transaction() as tx:
        first = jobs.claim(tx, "node-1:work:another", timedelta(minutes=1))
        assert first is not None
        short = Retry("OUT_OF_MEMORY", "the analysis ran out of memory")
        assert jobs.fail(tx, first, short, max_failures=2, wait=timedelta(0))
    return first.study_uid


@contextmanager
def poison(running: Node, study: str) -> Iterator[None]:
    """Kill the process of every analysis of a study."""
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.05):
            leased = [row for row in running.status()["jobs"] if row["state"] == "LEASED"]
            if [row["study_uid"] for row in leased] == [study]:
                for pid in analyses(running.pid("work")):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def shown(running: Node) -> str:
    """Return what `dicomnode status` prints."""
    return running.command("status").stdout
