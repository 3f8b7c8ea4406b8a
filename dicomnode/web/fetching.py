"""Fetches that were asked for on the page: `dicomnode fetch` as a process, one after the other."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue

from dicomnode.errors import LedgerError
from dicomnode.ledger import Ledger

log = logging.getLogger(__name__)

MOST_WAITING = 100
LOOK_SECONDS = 0.5
GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A study that somebody wants."""

    study_uid: str
    peer: str | None
    who: str


class Fetcher:
    """Runs the command for each wish; what comes of it stands in the ledger.

    Args:
        config: of the node.
        ledger: where a fetch that could not even begin is told.
    """

    def __init__(self, config: Path, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self._wishes: Queue[Wish] = Queue(MOST_WAITING)
        self._waiting: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fetcher", daemon=True)

    def start(self) -> None:
        """Begin to fetch what is asked for."""
        self._thread.start()

    def stop(self) -> None:
        """End; a fetch that is under way tells its archive to stop, and keeps what came."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(GRACE_SECONDS + 5)

    def ask(self, wish: Wish) -> bool:
        """Have a study fetched; return False if it is asked for already, or too many are."""
        with self._lock:
            if wish.study_uid in self._waiting:
                return False
            try:
                self._wishes.put_nowait(wish)
            except Full:
                return False
            self._waiting.add(wish.study_uid)
            return True

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                wish = self._wishes.get(timeout=LOOK_SECONDS)
            except Empty:
                continue
            try:
                self._fetch(wish)
            except OSError as error:  # no process is to be had: the next wish may find one
                self._tell(wish, str(error))
            finally:
                with self._lock:
                    self._waiting.discard(wish.study_uid)

    def _fetch(self, wish: Wish) -> None:
        arguments = ["fetch", str(self._config), "--study", wish.study_uid, "--who", wish.who]
        arguments += ["--from", wish.peer] if wish.peer else []
        process = subprocess.Popen(
            [sys.executable, "-m", "dicomnode", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = ""
        while True:
            try:
                _, said = process.communicate(timeout=LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if self._stop.is_set():
                    process.terminate()
                    try:
                        process.communicate(timeout=GRACE_SECONDS)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.communicate()
                    return
        if process.returncode:
            self._tell(wish, said)

    def _tell(self, wish: Wish, said: str) -> None:
        lines = [line for line in said.splitlines() if line.strip()]
        detail = f"for {wish.who}: {lines[-1][:300] if lines else 'it said nothing'}"
        try:
            with self._ledger.transaction() as tx:
                tx.event("FETCH_FAILED", level="warning", detail=detail)
        except LedgerError:
            log.exception("LEDGER_UNAVAILABLE")
