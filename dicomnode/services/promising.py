"""Gives storage commitment to peers with `commit_here: true`: looks, keeps, and reports.

A modality deletes what is committed to it. So each file is read and compared with its digest, and
exempt from purging, before anything is said.
"""

from __future__ import annotations

import logging
import random
from datetime import timedelta

from dicomnode.domain.commitment import answer_for
from dicomnode.domain.outcomes import Done, Outcome, Refuse
from dicomnode.errors import LedgerError
from dicomnode.instances import UnreadableError, read_file
from dicomnode.ledger import promises
from dicomnode.ledger.promises import Kept, Promise
from dicomnode.network.committing import report
from dicomnode.services.common import Context
from dicomnode.services.peers import call_of

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 1.0


class Promiser:
    """Answers requests for storage commitment, one after the other."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings

    def run_until_stopped(self) -> None:
        """Answer until the role is to stop."""
        while not self._context.stop.is_set():
            try:
                while not self._context.stop.is_set() and self.answer_next():
                    continue
            except LedgerError:
                log.exception("LEDGER_UNAVAILABLE")
            self._context.stop.wait(LOOK_EVERY_SECONDS)

    def answer_next(self) -> bool:
        """Answer the request whose turn it is; return whether there was one."""
        with self._context.ledger.transaction() as tx:
            given = promises.next_due(tx)
            if given is None:
                return False
            there = promises.kept(tx, {uid for _, uid in given.references})
        reasons = {
            (sop_class, uid): answer_for(sop_class, self._found(there.get(uid)))
            for sop_class, uid in given.references
        }
        good = {uid: there[uid].id for (_, uid), reason in reasons.items() if reason is None}
        with self._context.ledger.transaction() as tx:
            held = promises.keep(tx, good.values())
        committed = [one for one in reasons if good.get(one[1]) in held and reasons[one] is None]
        failed = [
            (*one, reason if reason is not None else answer_for(one[0], None) or 0)
            for one, reason in reasons.items()
            if one not in committed
        ]
        outcome = self._tell(given, committed, failed)
        with self._context.ledger.transaction() as tx:
            if isinstance(outcome, Done):
                promises.told(tx, given, len(committed), len(failed))
            else:
                send = self._settings.send
                wait = send.retry.after(given.attempt, random.random())  # noqa: S311 - no secret
                most = timedelta(days=send.give_up_after_days)
                promises.put_off(tx, given, outcome, wait, most)
        return True

    def _found(self, one: Kept | None) -> tuple[str, bool] | None:
        """Return the SOP Class of an instance, and whether its bytes are those that were stored."""
        if one is None:
            return None
        try:
            _, digest, _ = read_file(self._context.spool.path(one.path), self._context.patient_key)
        except (OSError, UnreadableError) as error:
            fields = {"instance": one.id, "why": type(error).__name__}
            log.error("PROMISE_NOT_KEPT", extra={"fields": fields})
            return one.sop_class_uid, False
        return one.sop_class_uid, digest == one.digest

    def _tell(
        self,
        given: Promise,
        committed: list[tuple[str, str]],
        failed: list[tuple[str, str, int]],
    ) -> Outcome:
        peer = self._settings.peers.get(given.peer)
        if peer is None or not peer.commit_here or peer.port is None:
            return Refuse("PEER_UNKNOWN", "the configuration gives it no commitment any more")
        call = call_of(self._settings, peer)
        return report(call, given.transaction_uid, committed, failed)
