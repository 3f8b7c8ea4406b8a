"""The question that is asked for every instance, on each kind of ledger."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ledger_kit import header, receive
from sqlalchemy import text

from dicomnode.errors import LedgerError
from dicomnode.ledger import Ledger, knowing
from dicomnode.ledger.asking import Question
from dicomnode.ledger.tables import rejection


@pytest.fixture
def heard_of(ledger: Ledger) -> Iterator[Question]:
    """Whether anything is known of an instance."""
    question = knowing.heard_of(ledger)
    yield question
    question.close()


def test_what_is_stored_or_named_by_a_note_is_heard_of(ledger: Ledger, heard_of: Question) -> None:
    assert not heard_of.ask("1.1")
    receive(ledger, header("1.1"))
    assert heard_of.ask("1.1")
    assert not heard_of.ask("1.2")
    assert not heard_of.ask("' OR '1'='1")


def test_it_sees_what_is_committed_and_waits_for_nobody(ledger: Ledger, heard_of: Question) -> None:
    assert not heard_of.ask("1.1")
    with ledger.transaction() as tx:
        tx.connection.execute(
            rejection.insert().values(
                sop_instance_uid="1.1", note_uid="1.9", code="113001", at=tx.now
            )
        )
        assert not heard_of.ask("1.1")
    assert heard_of.ask("1.1")


def test_after_a_fault_the_next_question_is_answered(ledger: Ledger, heard_of: Question) -> None:
    receive(ledger, header("1.1"))
    with ledger.transaction() as tx:
        tx.connection.execute(text("ALTER TABLE instance RENAME TO away"))
    with pytest.raises(LedgerError):
        heard_of.ask("1.1")
    with ledger.transaction() as tx:
        tx.connection.execute(text("ALTER TABLE away RENAME TO instance"))
    assert heard_of.ask("1.1")


def test_whoever_asks_can_change_nothing(ledger: Ledger, heard_of: Question) -> None:
    receive(ledger, header("1.1"))
    assert heard_of.ask("1.1")
    with pytest.raises(heard_of._faults, match=r"read-?only"):
        heard_of._cursor.execute("DELETE FROM rejection")
    assert heard_of.ask("1.1")
