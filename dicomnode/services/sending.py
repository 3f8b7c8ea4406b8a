"""What bringing results to any destination is: when, which one next, and what an attempt came to.

How an object gets there is the affair of `archives` (C-STORE, STOW-RS) and `folders`.
"""

from __future__ import annotations

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta

from dicomnode.domain.outcomes import Outcome, Refuse, Retry
from dicomnode.domain.records import Delivery
from dicomnode.domain.subjects import IDENTITY_DIFFERS
from dicomnode.domain.web import OF_THE_DESTINATION
from dicomnode.errors import LedgerError
from dicomnode.ledger import commitments, deliveries, destinations
from dicomnode.services.common import Context
from dicomnode.services.scrutiny import Ask, Scrutiny

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
LATE_EVERY_SECONDS = 10.0

Store = Callable[[Delivery], tuple[Outcome, int | None]]
"""Bring one object there: what that came to, and the status of the answer if there was one."""


class Sender(ABC):
    """Brings what is due to one destination.

    Args:
        context: of the role.
        destination: its name.
        is_over: whether another one has its place, with other settings.
    """

    def __init__(
        self, context: Context, destination: str, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        self._context = context
        self._is_over = is_over
        self._settings = context.settings
        self._destination = destination
        self._terms = context.settings.destinations[destination]
        self._give_up_after = timedelta(days=context.settings.send.give_up_after_days)

    @abstractmethod
    def _send(self) -> None:
        """Bring what is due there; something is, and the destination may be called."""

    def run_until_stopped(self) -> None:
        """Send until the role is to stop, or these settings are no longer those that apply."""
        look_at, lost_sight = 0.0, False
        while self._goes_on():
            try:
                if lost_sight:
                    self._take_back()
                    lost_sight = False
                self.send_due()
                if time.monotonic() >= look_at:
                    self.call_late()
                    look_at = time.monotonic() + LATE_EVERY_SECONDS
            except LedgerError:
                log.exception("LEDGER_UNAVAILABLE")
                lost_sight = True
            self._context.stop.wait(IDLE_SECONDS)

    def _take_back(self) -> None:
        """Have what was under way due again: what its attempt came to could not be recorded."""
        with self._context.ledger.transaction() as tx:
            deliveries.take_back(tx, self._destination)

    def _goes_on(self) -> bool:
        return not (self._context.stop.is_set() or self._is_over())

    def send_due(self) -> None:
        """Send what is due if the destination may be called now."""
        name = self._destination
        with self._context.ledger.transaction() as tx:
            if not self._terms.is_open(tx.now.astimezone()):
                return
            commitments.time_out(tx, name, self._settings.send.retry)
            if not destinations.may_be_called(tx, name):
                return
            asks = self._terms.wants_commitment and commitments.is_due(tx, name)
            if not (asks or deliveries.is_due(tx, name)):
                return
            deliveries.cancel_outdated(tx, name)
        self._send()

    def call_late(self) -> None:
        """Call a person for what has not arrived in time."""
        within = self._terms.deliver_within_minutes
        if within is None:
            return
        with self._context.ledger.transaction() as tx:
            destinations.call_late(tx, self._destination, timedelta(minutes=within))

    def _send_all(
        self, store: Store, can_go_on: Callable[[], bool], ask: Ask | None = None
    ) -> None:
        """Send what is due, one after the other, until nothing is or it cannot go on.

        Args:
            store: one of them.
            can_go_on: whether the way there is open.
            ask: the destination whose a study is, where that is possible.
        """
        scrutiny = Scrutiny(self._context, self._destination, ask)
        while can_go_on() and self._goes_on():
            delivery = self._claim()
            if delivery is None:
                return
            outcome, status, counts = _attempt(scrutiny, store, delivery)
            if isinstance(outcome, Refuse) and outcome.code == IDENTITY_DIFFERS:
                with self._context.ledger.transaction() as tx:
                    deliveries.hold_for(tx, delivery, outcome)
            else:
                self._finish(delivery, outcome, status, counts=counts)

    def _claim(self) -> Delivery | None:
        with self._context.ledger.transaction() as tx:
            if not self._terms.is_open(tx.now.astimezone()):
                return None
            if not destinations.may_be_called(tx, self._destination):
                return None
            return deliveries.claim(tx, self._destination)

    def _stay_away(self, outcome: Retry) -> None:
        """Where there is no way to the destination everything waits; no object is to blame."""
        retry = self._settings.send.retry
        with self._context.ledger.transaction() as tx:
            destinations.note(tx, self._destination, outcome, None, retry, _jitter())
            deliveries.wait_for_destination(tx, self._destination, outcome, self._give_up_after)

    def _finish(
        self, delivery: Delivery, outcome: Outcome, status: int | None, *, counts: bool
    ) -> None:
        """Record an attempt.

        Args:
            delivery: whose.
            outcome: what it came to.
            status: of the response.
            counts: whether it says something of the destination.
        """
        retry = self._settings.send.retry
        with self._context.ledger.transaction() as tx:
            deliveries.finish(
                tx,
                delivery,
                outcome,
                status=status,
                wait=retry.after(delivery.attempt, _jitter()),
                give_up_after=self._give_up_after,
                commit=self._terms.wants_commitment,
            )
            if counts:
                whose = None if outcome.code in OF_THE_DESTINATION else delivery.id
                destinations.note(tx, self._destination, outcome, whose, retry, _jitter())
        fields = {
            "delivery": delivery.id,
            "destination": delivery.destination,
            "kind": delivery.kind,
            "sop_instance_uid": delivery.sop_instance_uid,
            "attempt": delivery.attempt,
            "outcome": outcome.code,
        }
        log.info("DELIVERY_ENDED", extra={"fields": fields})


def _attempt(
    scrutiny: Scrutiny, store: Store, delivery: Delivery
) -> tuple[Outcome, int | None, bool]:
    """Look at an object once more, and send it.

    Returns:
        What it came to, the status of the answer, and whether that says something of the
        destination.
    """
    try:
        hindrance = scrutiny.of(delivery)
        if hindrance is not None:
            return hindrance, None, isinstance(hindrance, Retry)
        return *store(delivery), True
    except OSError as error:
        log.exception("STORAGE_FAILED")
        return Retry("STORAGE_FAILED", f"the spool failed ({type(error).__name__})"), None, False
    except LedgerError:
        raise  # that is nobody's attempt
    except Exception as error:  # a fault of this software ends one attempt, never the sending
        log.exception("SENDING_FAILED")
        return Retry("SENDING_FAILED", f"see the log ({type(error).__name__})"), None, False


def _jitter() -> float:
    return random.random()  # noqa: S311 - no secret
