"""Between Success and the row: what was acknowledged gets its row, whatever happens in between."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_ct import CT, encoded, instance
from sqlalchemy import text

from dicomnode.domain.associations import AssociationRequest
from dicomnode.errors import LedgerError
from dicomnode.instances import file_prefix, read_file, seals
from dicomnode.instances.seals import Seal
from dicomnode.ledger import Ledger, knowing, nodes
from dicomnode.ledger.schema import upgrade
from dicomnode.services.common import Context
from dicomnode.services.desk import Desk, Item, Seat
from dicomnode.services.messages import Store, Stored
from dicomnode.services.newness import Newness
from dicomnode.services.recovery import TOLD_SECONDS, check_spool, register_orphans
from dicomnode.settings import Settings
from dicomnode.spool import Spool

KEY = b"k" * 32
SYNTAX = "1.2.840.10008.1.2.1"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", "one")
    upgrade(ledger)
    with ledger.transaction() as tx:
        nodes.register_node(tx, "DICOMNODE", "key")
    spool = Spool(tmp_path / "spool", "receive")
    spool.create()
    yield Context(
        settings=Settings.model_validate({"storage": {"folder": tmp_path}}),
        spool=spool,
        ledger=ledger,
        patient_key=KEY,
        stop=threading.Event(),
    )
    ledger.close()


def sealed_file(spool: Spool, uid: str = "1.2.3.1", **changes: Any) -> Path:
    """Write what an acceptor has sealed before it answers."""
    data = encoded(instance(SOPInstanceUID=uid, StudyInstanceUID="1.2", **changes))
    path = spool.write_arriving([file_prefix(CT, uid, SYNTAX) + data])
    _, digest, size = read_file(path, KEY)
    with path.open("r+b") as file:
        file.write(seals.encode(Seal(size=size, digest=digest, association_id=None)))
    return path


def stored(path: Path) -> Stored:
    header, digest, size = read_file(path, KEY)
    return Stored(
        Store(
            header=header,
            sop_class_uid=CT,
            sop_instance_uid=header.sop_instance_uid,
            digest=digest,
            size=size,
            tmp=path.name,
        )
    )


def kept(context: Context) -> list[str]:
    with context.ledger.transaction() as tx:
        return sorted(Path(path).stem for path in knowing.stored_paths(tx))


def codes(context: Context) -> list[str]:
    with context.ledger.reading() as connection:
        rows = connection.exec_driver_sql("SELECT code FROM event ORDER BY id")
        return [row.code for row in rows]


def in_tmp(context: Context) -> list[Path]:
    return [path for path in context.spool.left_arriving() if path.stat().st_size]


def test_a_sealed_file_gets_its_row_when_the_node_starts(context: Context) -> None:
    sealed_file(context.spool)
    check_spool(context, Desk(context))
    assert kept(context) == ["1.2.3.1"]
    assert [Path(path).stem for path in context.spool.stored_instances()] == ["1.2.3.1"]
    assert in_tmp(context) == []


@pytest.mark.parametrize("fault", ["cut", "other bytes", "no seal", "garbage"])
def test_what_is_not_whole_was_never_acknowledged_and_goes(context: Context, fault: str) -> None:
    path = sealed_file(context.spool)
    data = bytearray(path.read_bytes())
    if fault == "cut":
        del data[-10:]
    elif fault == "other bytes":
        data[-1] ^= 1
    elif fault == "no seal":
        data[:128] = b"\0" * 128
    else:
        data[128:] = os.urandom(len(data) - 128)
    path.write_bytes(data)
    check_spool(context, Desk(context))
    assert kept(context) == []
    assert in_tmp(context) == []


def test_a_crash_behind_the_row_leaves_one(context: Context) -> None:
    """The row is there, and the file under its old name as well, as a power cut may leave it."""
    path = sealed_file(context.spool)
    copy = path.read_bytes()
    check_spool(context, Desk(context))
    path.write_bytes(copy)
    check_spool(context, Desk(context))
    assert kept(context) == ["1.2.3.1"]
    assert in_tmp(context) == []


def test_no_row_while_the_ledger_is_away_and_one_when_it_is_back(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(context)
    whole, path = context.ledger.transaction, sealed_file(context.spool)

    def away() -> Any:
        raise LedgerError("away")

    monkeypatch.setattr(context.ledger, "transaction", away)
    assert desk.serve([Item(Seat(), stored(path))]) == []
    assert desk.owes_rows
    monkeypatch.setattr(context.ledger, "transaction", whole)
    (settled,) = desk.serve([])
    assert isinstance(settled.message, Stored)
    assert not desk.owes_rows
    assert kept(context) == ["1.2.3.1"]


def test_a_start_without_the_ledger_leaves_the_sealed_file(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sealed_file(context.spool)

    def away() -> Any:
        raise LedgerError("away")

    monkeypatch.setattr(context.ledger, "transaction", away)
    with pytest.raises(LedgerError):
        check_spool(context, Desk(context))
    assert path.exists()


def test_two_that_were_told_success_at_once_are_both_kept(context: Context) -> None:
    """Over two associations at the same moment, with other pixels: one is stored, one set aside."""
    desk = Desk(context)
    first = sealed_file(context.spool)
    second = sealed_file(context.spool, PixelData=b"\7\0" * 16)
    desk.serve([Item(Seat(), stored(first)), Item(Seat(), stored(second))])
    assert kept(context) == ["1.2.3.1"]
    assert "PIXELS_DIFFER" in codes(context)
    assert len(list(context.spool.quarantine.glob("*.dcm"))) == 1
    assert in_tmp(context) == []


def test_the_same_bytes_twice_at_once_are_kept_once(context: Context) -> None:
    desk = Desk(context)
    messages = [Item(Seat(), stored(sealed_file(context.spool))) for _ in range(2)]
    assert len(desk.serve(messages)) == 2
    assert kept(context) == ["1.2.3.1"]
    assert "DUPLICATE" in codes(context)
    assert in_tmp(context) == []


def test_what_an_association_without_a_row_brings_is_stored(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger was away when it began, and is back."""
    request = AssociationRequest(calling_ae="CT1", called_ae="DICOMNODE", address="127.0.0.1")

    def full(_published: Any) -> None:
        raise OSError("no room")

    desk = Desk(context)
    with monkeypatch.context() as patch:
        patch.setattr(context.spool, "publish_all", full)
        line = desk.line(request, "CT1")
    line.stored(stored(sealed_file(context.spool)).store)
    assert kept(context) == ["1.2.3.1"]
    assert not desk.owes_rows
    again = desk.line(request, "CT1")
    assert again._seat.id is not None


def test_the_first_name_stays_until_the_second_is_on_disk(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever synchronises the folder of what arrives in between takes no name away."""
    path = sealed_file(context.spool)
    message = stored(path)
    synced = []

    def cut(folder: Path | str) -> None:
        synced.append((Path(folder).name, path.exists()))
        if Path(folder).name == message.store.header.series_uid:
            raise OSError("a power cut")

    desk = Desk(context)
    with monkeypatch.context() as patch:
        patch.setattr("dicomnode.spool._sync_folder", cut)
        desk.serve([Item(Seat(), message)])
    assert synced
    assert all(exists for _, exists in synced)
    assert desk.owes_rows
    check_spool(context, Desk(context))
    assert kept(context) == ["1.2.3.1"]
    assert in_tmp(context) == []


def test_an_instance_is_new_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    newness = Newness(context.ledger)
    assert newness.claim("1.2.3.1")
    assert not newness.claim("1.2.3.1")  # it has no row yet
    Desk(context).serve([Item(Seat(), stored(sealed_file(context.spool)))])
    for _ in range(3):
        monkeypatch.setattr(newness, "_turn_at", 0.0)
        assert not newness.claim("1.2.3.1")
    assert newness._taken == newness._taken_before == set()
    assert not Newness(context.ledger).claim("1.2.3.1")


def test_what_a_dead_acceptor_did_not_tell_is_found(context: Context) -> None:
    old, young = sealed_file(context.spool), sealed_file(context.spool, "1.2.3.2")
    unsealed = context.spool.write_arriving([b"x" * 200])
    empty = context.spool.take_place()
    told = stored(old)
    ago = time.time() - 2 * TOLD_SECONDS
    for path in (old, unsealed, empty):
        os.utime(path, (ago, ago))
    desk = Desk(context)
    register_orphans(context, desk)
    assert kept(context) == ["1.2.3.1"]
    assert sorted(in_tmp(context)) == sorted((young, unsealed))
    assert empty.exists()
    # The acceptor lives, and tells of both after all.
    desk.serve([Item(Seat(), one) for one in (told, stored(young))])
    assert kept(context) == ["1.2.3.1", "1.2.3.2"]
    assert in_tmp(context) == [unsealed]


def test_what_is_not_stored_after_all_is_new_to_the_next(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    newness = Newness(context.ledger)
    for uid in ("1.2.3.1", "1.2.3.2"):
        assert newness.claim(uid)
    newness.forget("1.2.3.1")
    assert newness.claim("1.2.3.1")
    monkeypatch.setattr(newness, "_turn_at", 0.0)
    assert not newness.claim("1.2.3.2")
    newness.forget("1.2.3.2")
    assert newness.claim("1.2.3.2")


def test_nothing_is_new_while_rows_are_owed(context: Context) -> None:
    newness = Newness(context.ledger)
    newness.is_suspended = True
    assert not newness.claim("1.2.3.1")
    newness.is_suspended = False
    assert newness.claim("1.2.3.1")


def test_nothing_is_new_to_a_ledger_that_cannot_be_asked(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    newness = Newness(context.ledger)
    with context.ledger.transaction() as tx:
        tx.connection.execute(text("ALTER TABLE instance RENAME TO away"))
    assert not newness.claim("1.2.3.1")
    assert "LEDGER_UNAVAILABLE" in caplog.text
    with context.ledger.transaction() as tx:
        tx.connection.execute(text("ALTER TABLE away RENAME TO instance"))
    assert newness.claim("1.2.3.1")
