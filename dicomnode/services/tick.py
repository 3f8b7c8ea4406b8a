"""The tick role: the clock that looks for what is due. APScheduler keeps no state, the ledger does.

Closes studies that are complete, asks archives how much there is, takes back jobs whose worker is
silent, makes the notes that withdraw results, and lets go what is old.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from dicomnode.domain.assembly import Close
from dicomnode.domain.choosing import choose_series
from dicomnode.domain.outcomes import Retry
from dicomnode.errors import LedgerError
from dicomnode.ledger import closing, jobs
from dicomnode.services import auditing
from dicomnode.services.common import Context, beat_until_stopped, role
from dicomnode.services.counting import Asker
from dicomnode.services.retain import EVERY_SECONDS as RETAIN_EVERY_SECONDS
from dicomnode.services.retain import finish_purges, retain
from dicomnode.services.withdrawing import withdraw_due
from dicomnode.settings import Settings

log = logging.getLogger(__name__)

NAME = "tick"
CLOSE_EVERY_SECONDS = 1.0
LEASES_EVERY_SECONDS = 2.0
ASK_EVERY_SECONDS = 1.0
ASKING = "ask "
"""Before the name of a peer: what asks it."""
MAX_THREADS = 256
"""Started when they are needed."""
WITHDRAW_EVERY_SECONDS = 2.0


def close_due_studies(context: Context) -> int:
    """Look at every study that may be complete, and close those that are; return how many."""
    count, settings = 0, context.settings
    while not context.stop.is_set():
        with context.ledger.transaction() as tx:
            decided = closing.close_due_study(
                tx, partial(choose_series, settings.rules, settings.choosing), settings.assembly
            )
        if decided is None:
            return count
        count += isinstance(decided, Close)
    return count


def take_back_jobs(context: Context) -> int:
    """Take back jobs whose lease ran out; return how many."""
    work = context.settings.work
    with context.ledger.transaction() as tx:
        return jobs.take_back(
            tx,
            Retry("WORKER_LOST", "the worker was silent for longer than its lease"),
            max_failures=work.max_attempts,
            wait=timedelta(0),
        )


def _guarded(context: Context, act: Callable[[Context], int]) -> None:
    try:
        act(context)
    except LedgerError:
        log.exception("LEDGER_UNAVAILABLE")  # the next tick tries again
    except OSError:
        log.exception("STORAGE_FAILED")


def _ask_whom_to_ask(context: Context, scheduler: BackgroundScheduler) -> None:
    """Have every archive asked that may be, and no other one."""
    settings = context.settings
    for job in scheduler.get_jobs():
        if job.id.startswith(ASKING):
            job.remove()
    for name, peer in settings.peers.items():
        if peer.query and peer.accept:
            ask = Asker(replace(context, settings=settings), name).ask
            _every(scheduler, ASK_EVERY_SECONDS, context, ask, ASKING + name)


def _every(
    scheduler: BackgroundScheduler,
    seconds: float,
    context: Context,
    act: Callable[[Context], int],
    name: str,
) -> None:
    options = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    scheduler.add_job(_guarded, "interval", [context, act], seconds=seconds, id=name, **options)


def run(settings: Settings, config: Path | None = None) -> None:
    """Tick until the role is to stop."""
    with role(settings, NAME, config) as context:
        # A thread for each: an archive that does not answer must not keep a study from closing.
        threads = ThreadPoolExecutor(MAX_THREADS)
        scheduler = BackgroundScheduler(timezone="UTC", executors={"default": threads})
        for seconds, act in (
            (CLOSE_EVERY_SECONDS, close_due_studies),
            (LEASES_EVERY_SECONDS, take_back_jobs),
            (WITHDRAW_EVERY_SECONDS, withdraw_due),
            (RETAIN_EVERY_SECONDS, retain),
            (auditing.EVERY_SECONDS, auditing.keep_in_files),
            (auditing.EVERY_SECONDS, auditing.send_to_repository),
            (RETAIN_EVERY_SECONDS, auditing.remove_old_files),
        ):
            _every(scheduler, seconds, context, act, act.__name__)
        _ask_whom_to_ask(context, scheduler)
        context.on_reload.append(lambda: _ask_whom_to_ask(context, scheduler))
        _guarded(context, finish_purges)
        scheduler.start()
        try:
            beat_until_stopped(context, NAME, lambda: "watching what is due")
        finally:
            scheduler.shutdown(wait=True)
