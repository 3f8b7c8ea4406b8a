"""Deliveries to a folder: the same states, retries and holds as to an archive, without a network.

    <folder>/<Study UID>/<Series UID of the source>/<model>/labels.nii.gz, seg.dcm, ...

A file appears whole or not at all; a later generation replaces it. The folder itself is never made:
where it is missing, what should be mounted there is away.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from dicomnode.domain.destinations import may_go
from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry
from dicomnode.domain.plans import FILES, file_name
from dicomnode.domain.records import Delivery
from dicomnode.errors import LedgerError
from dicomnode.instances import UnreadableError
from dicomnode.instances.subjects import read_subject
from dicomnode.ledger import deliveries, destinations
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.places import place_of
from dicomnode.services.common import Context

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
LATE_EVERY_SECONDS = 10.0
CHUNK = 1 << 20
FILE_MODE, FOLDER_MODE = 0o640, 0o750
"""Whoever shares the folder's group may read."""


class FolderSender:
    """Brings what is due to one folder."""

    def __init__(
        self,
        context: Context,
        destination: str,
        folder: Path,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._context = context
        self._is_over = is_over
        self._settings = context.settings
        self._destination = destination
        self._terms = context.settings.destinations[destination]
        self._folder = folder

    def run_until_stopped(self) -> None:
        """Deliver until the role is to stop, or these settings are no longer those that apply."""
        look_at = 0.0
        while not (self._context.stop.is_set() or self._is_over()):
            try:
                self.send_due()
                if time.monotonic() >= look_at:
                    self._call_late()
                    look_at = time.monotonic() + LATE_EVERY_SECONDS
            except LedgerError:
                log.exception("LEDGER_UNAVAILABLE")
            self._context.stop.wait(IDLE_SECONDS)

    def send_due(self) -> None:
        """Deliver what is due, as long as the folder is there."""
        name = self._destination
        while not (self._context.stop.is_set() or self._is_over()):
            with self._context.ledger.transaction() as tx:
                if not self._terms.is_open(tx.now.astimezone()):
                    return
                if not (destinations.may_be_called(tx, name) and deliveries.is_due(tx, name)):
                    return
                deliveries.cancel_outdated(tx, name)
                if not self._folder.is_dir():
                    self._stay_away(tx)
                    return
                delivery = deliveries.claim(tx, name)
                if delivery is None:
                    return
                place = place_of(tx, delivery.job_id)
            into = self._folder / place.study_uid / place.series_uid / place.model_id
            self._finish(delivery, self._deliver(delivery, into / file_name(delivery.kind)))

    def _stay_away(self, tx: Transaction) -> None:
        """Without the folder everything waits, and no file is to blame."""
        outcome = Retry("FOLDER_UNAVAILABLE", f"{self._folder} is not there")
        retry = self._settings.send.retry
        destinations.note(tx, self._destination, outcome, None, retry, _jitter())
        deliveries.wait_for_destination(tx, self._destination, outcome, self._give_up_after)

    @property
    def _give_up_after(self) -> timedelta:
        return timedelta(days=self._settings.send.give_up_after_days)

    def _deliver(self, delivery: Delivery, target: Path) -> Outcome:
        source = self._context.spool.path(delivery.path)
        if not source.is_file():
            return Refuse("BYTES_MISSING", "the result is not in the spool")
        if delivery.kind not in FILES:
            try:
                subject = read_subject(source)
            except UnreadableError as error:
                return Refuse("BYTES_CHANGED", str(error))
            refusal = may_go(self._terms.kind, is_deidentified=subject.is_deidentified)
            if refusal is not None:
                return refusal
        try:
            _make_folders(target.parent, self._folder)
            same = place(source, target, delivery.digest)
        except OSError as error:
            return Retry("FOLDER_UNAVAILABLE", f"{self._folder}: {error.strerror or error}")
        if not same:
            detail = "the result in the spool is not the one that was recorded"
            return Refuse("BYTES_CHANGED", detail)
        return Done()

    def _finish(self, delivery: Delivery, outcome: Outcome) -> None:
        retry = self._settings.send.retry
        jitter = _jitter()
        with self._context.ledger.transaction() as tx:
            deliveries.finish(
                tx,
                delivery,
                outcome,
                status=None,
                wait=retry.after(delivery.attempt, jitter),
                give_up_after=self._give_up_after,
            )
            if not isinstance(outcome, Refuse):
                destinations.note(tx, self._destination, outcome, delivery.id, retry, jitter)
        fields = {
            "delivery": delivery.id,
            "destination": delivery.destination,
            "kind": delivery.kind,
            "attempt": delivery.attempt,
            "outcome": outcome.code,
        }
        log.info("DELIVERY_ENDED", extra={"fields": fields})

    def _call_late(self) -> None:
        within = self._terms.deliver_within_minutes
        if within is not None:
            with self._context.ledger.transaction() as tx:
                destinations.call_late(tx, self._destination, timedelta(minutes=within))


def _jitter() -> float:
    return random.random()  # noqa: S311 - no secret


def place(source: Path, target: Path, digest: str) -> bool:
    """Copy a file under its name for good, beside first, then renamed; all of it on the disk.

    Args:
        source: of the spool.
        target: in a folder that exists.
        digest: sha256 that the bytes must have.

    Returns:
        Whether they have it; otherwise nothing was placed.

    Raises:
        OSError: the folder cannot be written.
    """
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    found = hashlib.sha256()
    try:
        with source.open("rb") as reading, beside.open("xb") as writing:
            while chunk := reading.read(CHUNK):
                found.update(chunk)
                writing.write(chunk)
            writing.flush()
            os.fchmod(writing.fileno(), FILE_MODE)
            os.fsync(writing.fileno())
        if found.hexdigest() != digest:
            return False
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    _sync(target.parent)
    return True


def _make_folders(folder: Path, root: Path) -> None:
    """Make what is missing below the root."""
    for one in [*reversed(folder.parents), folder]:
        if one.is_relative_to(root) and one != root and not one.is_dir():
            one.mkdir()
            one.chmod(FOLDER_MODE | (one.parent.stat().st_mode & 0o2000))  # a shared group stays
            _sync(one.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
