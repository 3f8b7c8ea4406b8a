"""The lease is kept alive from the claim until the results are recorded, whatever takes long."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from dicomnode.errors import LedgerError
from dicomnode.services import lease as service
from dicomnode.services.lease import Heartbeat


class Ledger:
    """Counts transactions; says what a heartbeat is answered."""

    def __init__(self) -> None:
        self.beats: list[tuple[str, float]] = []
        self.is_away = False
        self.is_ours = True

    @contextmanager
    def transaction(self) -> Any:
        if self.is_away:
            raise LedgerError("away")
        yield self


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    def heartbeat(tx: Ledger, _job: Any, _lease: Any, stage: str, fraction: float) -> bool:
        tx.beats.append((stage, fraction))
        return tx.is_ours

    monkeypatch.setattr(service.jobs, "heartbeat", heartbeat)
    return Ledger()


def heart(ledger: Ledger, lease: float = 0.2) -> Heartbeat:
    context = SimpleNamespace(ledger=ledger, stop=threading.Event())
    job = SimpleNamespace(id=1)
    return Heartbeat(context, job, timedelta(seconds=lease))  # type: ignore[arg-type]


def until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_beats_by_itself_while_nothing_is_reported(ledger: Ledger) -> None:
    with heart(ledger) as beat:
        beat.report("encode", 1.0)
        until(lambda: len(ledger.beats) >= 4)
        assert beat.keep_going()
    assert set(ledger.beats) == {("encode", 1.0)}
    count = len(ledger.beats)
    time.sleep(0.2)
    assert len(ledger.beats) == count


def test_a_lease_that_is_lost_ends_the_work(ledger: Ledger) -> None:
    ledger.is_ours = False
    with heart(ledger) as beat:
        until(lambda: beat.lost)
        assert not beat.keep_going()


def test_a_ledger_that_is_away_does_not(ledger: Ledger) -> None:
    ledger.is_away = True
    with heart(ledger) as beat:
        time.sleep(0.2)
        assert beat.keep_going()
        ledger.is_away = False
        until(lambda: ledger.beats)
