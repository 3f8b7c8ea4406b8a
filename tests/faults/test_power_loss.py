"""A power cut at every moment of a reception: what was acknowledged is there afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import power_loss
import pytest
from nodes import Node
from power_loss import Disk
from scu import Wire, scu
from small_ct import CT, encoded, instance

from dicomnode import settings
from dicomnode.ledger import knowing
from dicomnode.services.common import open_context
from dicomnode.services.desk import Desk
from dicomnode.services.recovery import check_spool

pytestmark = pytest.mark.peer("strace")


def wire(number: int) -> Wire:
    uid = f"1.2.3.{number}"
    series = f"1.2.{number % 2}"
    data = encoded(instance(SOPInstanceUID=uid, SeriesInstanceUID=series))
    return Wire(CT, uid, "1.2.840.10008.1.2.1", data)


WIRES = [wire(number) for number in range(1, 9)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, str]]:
    """A configuration, the state before, and the system calls of a receiver that was sent to."""
    folder = tmp_path_factory.mktemp("power")
    here = Node(folder)
    try:
        here.start("receive")  # what is made once is made; it is synchronised by now
        here.stop()
        shutil.copytree(here.state, folder / "before")
        trace = folder / "trace"
        here.start("receive", under=(*power_loss.STRACE, "-o", str(trace)), timeout=120)
        for some in (WIRES[:5], WIRES[5:]):
            with scu(here.port, some) as requestor:
                assert [requestor.store(one) for one in some] == [0x0000] * len(some)
        here.end_traced("receive")
    finally:
        here.close()
    yield here.config, folder / "before", trace.read_text()


def states(
    before: Path, here: Path, trace: str, ignored: tuple[str, ...] = ()
) -> Iterator[set[str]]:
    """Write what a power cut leaves, moment by moment; yield what was acknowledged by then."""
    disk = Disk(before)
    told: set[str] = set()
    for call in power_loss.calls(trace):
        new = power_loss.acknowledged(call)
        changed = disk.apply(call, ignored)
        told |= set(new)
        if new or changed:
            shutil.rmtree(here / "state", ignore_errors=True)
            disk.write_kept(here / "state")
            yield set(told)


def lost(config: Path, folder: Path, told: set[str]) -> set[str]:
    """Start what `receive` starts with; return what was acknowledged and is not there."""
    shutil.copy(config, folder / "dicomnode.yaml")
    context = open_context(settings.load(folder / "dicomnode.yaml"), "receive")
    try:
        check_spool(context, Desk(context))
        with context.ledger.transaction() as tx:
            rows = {Path(path).stem: context.spool.path(path) for path in knowing.stored_paths(tx)}
    finally:
        context.ledger.close()
    whole = {
        one.sop_instance_uid
        for one in WIRES
        if one.sop_instance_uid in rows
        and rows[one.sop_instance_uid].is_file()
        and rows[one.sop_instance_uid].read_bytes().endswith(one.data)
    }
    return told - whole


def test_nothing_acknowledged_is_lost_at_any_moment(
    recorded: tuple[Path, Path, str], tmp_path: Path
) -> None:
    config, before, trace = recorded
    moments = 0
    told: set[str] = set()
    for told in states(before, tmp_path, _at(trace, config, before)):
        moments += 1
        assert lost(config, tmp_path, told) == set(), f"at moment {moments}"
    assert told == {one.sop_instance_uid for one in WIRES}
    assert moments > 30


@pytest.mark.parametrize("ignored", power_loss.SYNCS)
def test_a_disk_that_does_not_synchronise_loses_some(
    recorded: tuple[Path, Path, str], tmp_path: Path, ignored: str
) -> None:
    """The proof above can fail: without these calls what was acknowledged is gone."""
    config, before, trace = recorded
    *_, told = states(before, tmp_path, _at(trace, config, before), (ignored,))
    assert lost(config, tmp_path, told)


def _at(trace: str, config: Path, before: Path) -> str:
    """Return the trace as if it had happened in the copy."""
    real, copy = str(config.parent / "state"), str(before)

    def hexed(text: str) -> str:
        return "".join(f"\\x{byte:02x}" for byte in text.encode())

    return trace.replace(real, copy).replace(hexed(real), hexed(copy))
