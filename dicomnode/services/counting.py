"""Asking archives how much there is of a study: a thread a peer, beside the closing of studies.

An archive that is away, slow or wrong delays nothing: without its answer quiet time decides.
"""

from __future__ import annotations

import time
from dataclasses import replace

from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.ledger import answers
from dicomnode.network.query import Bounds, count_instances
from dicomnode.network.requesting import Call
from dicomnode.services.common import Context
from dicomnode.services.peers import call_of

TIMEOUT_SECONDS = 10.0
"""For connecting, and for every answer."""
BOUND_SECONDS = 30.0
"""For all that is asked about one study."""


class Asker:
    """Asks one peer, and leaves it alone for a while when it does not answer."""

    def __init__(self, context: Context, name: str) -> None:
        self._context = context
        self._name = name
        self._peer = context.settings.peers[name]
        self._not_before = 0.0

    def ask(self, context: Context) -> int:
        """Ask for every study that the peer sent something of and that is still for a moment.

        Returns:
            How many answers there were.
        """
        policy = context.settings.assembly
        answered = 0
        while not context.stop.is_set() and time.monotonic() >= self._not_before:
            with context.ledger.transaction() as tx:
                question = answers.next_question(tx, self._name, self._peer.ae_title, policy)
            if question is None:
                break
            outcome = count_instances(
                self._call(),
                question.study_uid,
                bounds=Bounds(seconds=BOUND_SECONDS, cancelled=context.stop.is_set),
            )
            if context.stop.is_set():
                break
            with context.ledger.transaction() as tx:
                if isinstance(outcome, (Retry, Refuse)):
                    answers.record_none(tx, question, self._name, outcome)
                else:
                    answers.record(tx, question, self._name, outcome.by_series)
                    answered += 1
            if isinstance(outcome, Retry):
                self._not_before = time.monotonic() + policy.count_apart_seconds
        return answered

    def _call(self) -> Call:
        call = call_of(self._context.settings, self._peer)
        return replace(call, timeout_seconds=TIMEOUT_SECONDS)
