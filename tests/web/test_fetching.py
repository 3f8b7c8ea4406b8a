"""Fetches asked for on the page outlive a machine that has no process to give."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledger_kit import rows
from peers import wait_until

from dicomnode.ledger import Ledger
from dicomnode.ledger.tables import event
from dicomnode.web.fetching import Fetcher, Wish

WISH = Wish(study_uid="1.2.3", peer=None, who="olga")


def told(ledger: Ledger) -> list[str]:
    return [row.detail for row in rows(ledger, event) if row.code == "FETCH_FAILED"]


def test_a_wish_that_could_not_begin_is_told_and_the_next_is_tried(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher = Fetcher(tmp_path / "no.yaml", ledger)
    fetcher.start()
    try:
        with monkeypatch.context() as here:
            here.setattr("sys.executable", str(tmp_path / "no python"))
            assert fetcher.ask(WISH)
            wait_until(lambda: len(told(ledger)) == 1, 10, "that it did not begin")
            assert "for olga" in told(ledger)[0]
            assert "no python" in told(ledger)[0]
        wait_until(lambda: fetcher.ask(WISH), 10, "that it may be asked for again")
        wait_until(lambda: len(told(ledger)) == 2, 20, "what the command said")
    finally:
        fetcher.stop()
