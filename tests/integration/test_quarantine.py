"""What a receiver has put aside is put back by a person, through the same admission, or deleted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pydicom
import pytest
from nodes import Node
from peers import wait_until
from pydicom.uid import ExplicitVRLittleEndian, RLELossless
from scu import Wire, store
from small_ct import CT, encoded, instance
from sqlalchemy import select
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.errors import LedgerError
from dicomnode.instances import file_prefix, read_file
from dicomnode.ledger import tables
from dicomnode.services import quarantine
from dicomnode.services.quarantine import PutBack
from dicomnode.spool import RoleIsRunningError, Spool

NUMBERS = itertools.count(1)
ANNOUNCED = "1.2.3.4.5.6"
"""A UID that is not the data set's."""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A receive role, and nothing else that runs."""
    node = Node(tmp_path_factory.mktemp("receiver"))
    try:
        node.start("receive")
        yield node
        node.stop()
    finally:
        node.close()


@pytest.fixture(autouse=True)
def _empty(receiver: Node) -> None:
    for path in (receiver.spool / "quarantine").iterdir():
        path.unlink()


def wire(**changes: Any) -> Wire:
    """Return a small CT instance of a study of its own."""
    study = f"1.2.77.{next(NUMBERS)}"
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
    dataset = instance(**{**uids, "SOPInstanceUID": f"{study}.1.1", **changes})
    return Wire(CT, str(dataset.SOPInstanceUID), ExplicitVRLittleEndian, encoded(dataset))


def rle(one: Wire) -> Wire:
    """Return the same instance in another encoding."""
    dataset = pydicom.dcmread(BytesIO(file_of(one)))
    dataset.compress(RLELossless, generate_instance_uid=False)
    return replace(one, transfer_syntax_uid=RLELossless, data=encoded(dataset, RLELossless))


def file_of(one: Wire) -> bytes:
    return file_prefix(one.sop_class_uid, one.sop_instance_uid, one.transfer_syntax_uid) + one.data


def put_aside(node: Node, one: Wire, status: int = 0xA900) -> str:
    """Send an instance that is put aside; return its name in quarantine."""
    before = set(node.files("quarantine"))
    wrong = replace(one, sop_instance_uid=ANNOUNCED) if status == 0xA900 else one
    assert store(node.port, wrong) == [status]
    (path,) = set(node.files("quarantine")) - before
    return path.stem


def back(node: Node, name: str) -> PutBack | None:
    return quarantine.put_back(node.settings, node.ledger, name, "olga")


def row_of(node: Node, uid: str) -> Any:
    joined = select(tables.instance, tables.association.c.calling_ae).join(
        tables.association, tables.association.c.id == tables.instance.c.association_id
    )
    with node.ledger.transaction() as tx:
        return tx.connection.execute(
            joined.where(tables.instance.c.sop_instance_uid == uid)
        ).first()


def last_event(node: Node) -> Any:
    with node.ledger.transaction() as tx:
        return tx.connection.execute(
            select(tables.event).order_by(tables.event.c.id.desc())
        ).first()


def test_what_was_announced_wrongly_is_taken_as_what_it_is(receiver: Node) -> None:
    one = wire()
    name = put_aside(receiver, one)
    (kept,) = quarantine.listing(Spool(receiver.spool))["files"]
    assert (kept["name"], kept["code"], kept["status"]) == (name, "DATA_SET_DOES_NOT_MATCH", 0xA900)
    assert kept["calling_ae"] == "MODALITY"
    assert receiver.attention()[0] == "DATA_SET_DOES_NOT_MATCH"
    before = len(receiver.attention())

    came = back(receiver, name)
    assert came is not None
    assert (came.is_gone, came.code) == (True, "STORED")
    row = row_of(receiver, one.sop_instance_uid)
    assert row.calling_ae == "MODALITY", "as if it had come over the association that brought it"
    path = receiver.spool / row.path
    assert path.read_bytes() == file_of(one), (
        "with the UIDs of its data set in the meta information"
    )
    assert read_file(path, b"k" * 16)[1] == row.digest
    assert receiver.files("quarantine") == []
    assert not list((receiver.spool / "quarantine").iterdir()), "nor the note"
    assert len(receiver.attention()) == before - 1
    event = last_event(receiver)
    assert (event.code, event.detail) == ("QUARANTINE_RELEASED", f"{name} by olga: STORED")
    assert not list((receiver.spool / "arriving" / "quarantine").iterdir())
    assert back(receiver, name) is None, "twice does nothing the second time"


def test_what_is_known_by_now_leaves_quarantine_and_changes_nothing(receiver: Node) -> None:
    one = wire()
    assert store(receiver.port, one) == [0x0000]
    wait_until(lambda: row_of(receiver, one.sop_instance_uid), 5, "the row is there")
    for again in (one, rle(one)):
        came = back(receiver, put_aside(receiver, again))
        assert came is not None
        assert came.is_gone
        assert came.code in ("DUPLICATE", "DUPLICATE_HEADER")
    row = row_of(receiver, one.sop_instance_uid)
    assert row.transfer_syntax_uid == ExplicitVRLittleEndian
    assert receiver.files("quarantine") == []


def test_a_crash_after_it_was_stored_is_mended_by_doing_it_again(receiver: Node) -> None:
    name = put_aside(receiver, wire())
    folder = receiver.spool / "quarantine"
    saved = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert back(receiver, name) is not None
    for file, data in saved.items():  # the files had not gone yet
        (folder / file).write_bytes(data)
    left = receiver.spool / "arriving/quarantine/left"
    left.write_bytes(b"of one that died")
    came = back(receiver, name)
    assert came is not None
    assert (came.is_gone, came.code) == (True, "DUPLICATE")
    assert not left.exists()


def test_what_is_still_refused_stays(receiver: Node) -> None:
    one = wire()
    assert store(receiver.port, one) == [0x0000]
    other = pydicom.dcmread(BytesIO(file_of(one)))
    other.PixelData = b"\1" * len(other.PixelData)
    changed = replace(one, data=encoded(other))
    broken = replace(wire(), data=b"garbage!")
    for bad, status, code in (
        (changed, 0xC001, "PIXELS_DIFFER"), (broken, 0xC000, "CANNOT_UNDERSTAND"),
    ):  # fmt: skip
        name = put_aside(receiver, bad, status)
        waiting = receiver.attention()
        came = back(receiver, name)
        assert came is not None
        assert (came.is_gone, came.code) == (False, code)
        assert receiver.attention() == waiting, "it still needs a person"
        assert last_event(receiver).code == "QUARANTINE_STAYS"
        assert (receiver.spool / f"quarantine/{name}.dcm").exists()
    assert (receiver.spool / row_of(receiver, one.sop_instance_uid).path).exists()
    assert not list((receiver.spool / "arriving" / "quarantine").iterdir())


def test_a_study_that_is_held_for_it_stays_held_and_on_the_list(receiver: Node) -> None:
    one = wire()
    other = pydicom.dcmread(BytesIO(file_of(one)))
    other.PatientID = "4711-B"
    assert store(receiver.port, one, replace(one, data=encoded(other))) == [0x0000, 0x0000]
    (path,) = receiver.files("quarantine")
    came = back(receiver, path.stem)
    assert came is not None
    assert (came.is_gone, came.code) == (False, "IDENTITY_CHANGED")
    spool = Spool(receiver.spool)
    assert quarantine.discard(spool, receiver.ledger, path.stem, "olga", "the first is right")
    assert receiver.attention()[0] == "IDENTITY_CHANGED"


def test_a_file_is_discarded_once_and_by_name(receiver: Node) -> None:
    name = put_aside(receiver, replace(wire(), data=b"garbage!"), 0xC000)
    waiting = len(receiver.attention())
    spool = Spool(receiver.spool)
    assert quarantine.discard(spool, receiver.ledger, name, "olga", "a test of the scanner")
    assert not list(spool.quarantine.iterdir())
    event = last_event(receiver)
    assert event.code == "QUARANTINE_DISCARDED"
    assert event.detail.startswith(f"{name} (CANNOT_UNDERSTAND, ")
    assert event.detail.endswith("by olga: a test of the scanner")
    assert len(receiver.attention()) == waiting - 1
    assert not quarantine.discard(spool, receiver.ledger, name, "olga", "again")


@pytest.mark.parametrize("name", ["../instances/x", "", "0" * 31, "0" * 32, "A" * 32])
def test_no_other_file_is_reached(receiver: Node, name: str) -> None:
    (receiver.spool / "instances" / "x.dcm").write_bytes(b"somebody's")
    assert back(receiver, name) is None
    assert not quarantine.discard(Spool(receiver.spool), receiver.ledger, name, "olga", "no")
    assert (receiver.spool / "instances" / "x.dcm").exists()
    (receiver.spool / "instances" / "x.dcm").unlink()


def test_a_full_disk_or_another_hand_leaves_it_where_it_is(receiver: Node) -> None:
    name = put_aside(receiver, wire())
    settings = receiver.settings
    limits = settings.limits.model_copy(update={"min_free_bytes": 1 << 60})
    full = settings.model_copy(update={"limits": limits})
    with pytest.raises(LedgerError):
        quarantine.put_back(full, receiver.ledger, name, "olga")
    tmp = receiver.spool / "tmp" / quarantine.NAME
    tmp.rmdir()
    tmp.write_text("no folder")
    with pytest.raises(LedgerError, match="spool"):
        back(receiver, name)
    tmp.unlink()
    with Spool(receiver.spool).only(quarantine.NAME), pytest.raises(RoleIsRunningError):
        back(receiver, name)
    assert back(receiver, name) is not None


def test_a_note_that_is_lost_or_old_does_not_hinder(receiver: Node) -> None:
    name = put_aside(receiver, wire())
    note = receiver.spool / f"quarantine/{name}.json"
    note.write_text("{")
    (kept,) = quarantine.listing(Spool(receiver.spool))["files"]
    assert kept["code"] == "QUARANTINE_NOTE_UNREADABLE"
    note.unlink()
    came = back(receiver, name)
    assert came is not None
    assert came.is_gone


def test_the_commands(receiver: Node) -> None:
    def run(*arguments: str) -> Any:
        given = ["quarantine", *arguments, "-c", str(receiver.config)]
        return CliRunner().invoke(cli.app, given, env={"COLUMNS": "200", "NO_COLOR": "1"})

    first, second = put_aside(receiver, wire()), put_aside(receiver, wire())
    listed = json.loads(run("list", "--json").stdout)
    assert {one["name"] for one in listed["files"]} == {first, second}
    assert first in run("list").stdout
    assert run("release", first).exit_code == 0
    assert run("release", first).exit_code == 1
    assert run("discard", second).exit_code == 2, "a reason is wanted"
    assert run("discard", second, "--reason", "a test").exit_code == 0
    assert json.loads(run("list", "--json").stdout) == {"files": [], "count": 0, "bytes": 0}
