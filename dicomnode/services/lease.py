"""The lease of a job, kept alive while it is worked on."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Self

from dicomnode.domain.records import Job
from dicomnode.errors import LedgerError
from dicomnode.ledger import jobs
from dicomnode.services.common import BEAT_SECONDS, Context

log = logging.getLogger(__name__)


class Heartbeat:
    """Keeps a lease alive until the results are recorded, and knows when to end.

    It beats from a thread of its own: taking over and writing the results of thousands of slices
    may last longer than a lease.
    """

    def __init__(self, context: Context, job: Job, lease: timedelta) -> None:
        self._context = context
        self._job = job
        self._lease = lease
        self._every = min(BEAT_SECONDS, lease.total_seconds() / 4)
        self._stage, self._fraction = "starting", 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat of job {job.id}")
        self.lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self.lost and not self._done.wait(self._every):
            self._beat()

    def report(self, stage: str, fraction: float) -> None:
        """Take note of the progress; it goes to the ledger with the next beat."""
        changed = stage != self._stage
        self._stage, self._fraction = stage, fraction
        if changed:
            self._beat()

    def keep_going(self) -> bool:
        """Whether the lease is held and the role is not to stop."""
        return not self.lost and not self._context.stop.is_set()

    def _beat(self) -> None:
        try:
            with self._context.ledger.transaction() as tx:
                self.lost = not jobs.heartbeat(
                    tx, self._job, self._lease, self._stage, self._fraction
                )
        except LedgerError:
            log.exception("LEDGER_UNAVAILABLE")  # the lease may yet hold; the fence decides
