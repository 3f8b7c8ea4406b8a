"""A disk that is full, at each place that is written to, or read-only: said, survived, and over."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kills import SLICES, series_of
from nodes import Node
from peers import wait_until
from pydicom.uid import ExplicitVRLittleEndian
from scu import Wire, store
from small_ct import CT, encoded, instance

SIZE = 8 << 20


def wire(number: int) -> Wire:
    uid = f"1.2.3.{number}"
    return Wire(CT, uid, ExplicitVRLittleEndian, encoded(instance(SOPInstanceUID=uid)))


def names(node: Node) -> set[str]:
    return {path.stem for path in node.files()}


class Small:
    """A file system of a few megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @contextmanager
    def full(self) -> Iterator[None]:
        """Fill it to the last byte."""
        with self._ballast.open("wb", buffering=0) as file:
            for block in (1 << 16, 1 << 12, 1):
                try:
                    while file.write(b"x" * block):
                        pass
                except OSError:
                    continue
        try:
            yield
        finally:
            self._ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Allow nothing to be written; by its folders, since locks are open for writing."""
        assert _mount("--bind", str(self.folder), str(self.folder))
        try:
            # Not while something is being written: names for what arrives are made now and then.
            wait_until(lambda: _mount("-o", "remount,bind,ro", str(self.folder)), 10, "read-only")
            yield
        finally:
            subprocess.run(["umount", str(self.folder)], check=True)


def _mount(*arguments: str) -> bool:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    """A tmpfs of its own; without the right to mount one the test is skipped."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not _mount("-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(folder)):
        pytest.skip("this user may not mount a tmpfs")
    yield Small(folder)
    # Lazily: whatever of the node still runs when the test failed lets go of it in time.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_spool_is_out_of_resources_and_recovers(
    node: Callable[..., Node], small: Small
) -> None:
    ledger = f"sqlite:///{small.folder.parent}/elsewhere.sqlite"
    here = node("receive", overrides={"storage": {"folder": str(small.folder), "ledger": ledger}})
    here.spool = small.folder / "spool"
    bad = Wire(CT, "1.2.3.99", ExplicitVRLittleEndian, b"odd" * 1000)
    assert store(here.port, wire(1)) == [0x0000]
    with small.full():
        assert store(here.port, wire(2), wire(3)) == [0xA700, 0xA700]
        assert store(here.port, bad) == [0xA700]  # not even into quarantine
        assert here.quarantine() == []
        assert names(here) == {"1.2.3.1"}
    assert store(here.port, wire(2), wire(3), bad) == [0x0000, 0x0000, 0xC000]
    assert names(here) == {"1.2.3.1", "1.2.3.2", "1.2.3.3"}
    assert [data[-9:] for _, data in here.quarantine()] == [b"odd" * 3]
    assert here.status()["counts"]["instances"] == 3


def test_a_read_only_spool_is_out_of_resources_and_recovers(
    node: Callable[..., Node], small: Small
) -> None:
    ledger = f"sqlite:///{small.folder.parent}/elsewhere.sqlite"
    here = node("receive", overrides={"storage": {"folder": str(small.folder), "ledger": ledger}})
    here.spool = small.folder / "spool"
    assert store(here.port, wire(1)) == [0x0000]
    with small.read_only():
        assert store(here.port, wire(2)) == [0xA700]
    assert store(here.port, wire(2)) == [0x0000]
    assert names(here) == {"1.2.3.1", "1.2.3.2"}


def test_a_full_disk_under_the_ledger_loses_nothing(
    node: Callable[..., Node], small: Small
) -> None:
    """The first are sealed before it shows: their rows follow when there is room again."""
    ledger = f"sqlite:///{small.folder}/ledger.sqlite"
    here = node("receive", overrides={"storage": {"ledger": ledger}})
    assert store(here.port, wire(1)) == [0x0000]
    acknowledged = {"1.2.3.1"}
    statuses = set()
    with small.full():
        for number in range(2, 40):
            (status,) = store(here.port, wire(number))
            statuses.add(status)
            if status == 0x0000:
                acknowledged.add(f"1.2.3.{number}")
    assert statuses <= {0x0000, 0xA700}
    assert 0xA700 in statuses
    assert store(here.port, wire(100)) == [0x0000]
    here.wait_for(lambda s: s["counts"]["instances"] == len(acknowledged) + 1)
    # A refused one may have its name already when its commit fails; the next start finds it.
    assert names(here) >= acknowledged | {"1.2.3.100"}


@pytest.mark.skipif("DICOMNODE_KILLS" not in os.environ, reason="runs with `make soak-kill`")
def test_results_wait_for_room(node: Callable[..., Node], small: Small) -> None:
    """An analysis whose results cannot be written is done again, and nothing is left half."""
    ledger = f"sqlite:///{small.folder.parent}/elsewhere.sqlite"
    here = node(
        "receive",
        "tick",
        overrides={
            "storage": {"folder": str(small.folder), "ledger": ledger},
            "work": {"max_attempts": 20},
        },
    )
    here.spool = small.folder / "spool"
    assert set(store(here.port, *series_of(1))) == {0x0000}
    here.wait_for(lambda status: status["counts"]["jobs"] == {"QUEUED": 1})
    here.start("work")
    with small.full():
        failed = here.wait_for(lambda status: status["jobs"][0]["failures"] >= 1, timeout=120)
        assert failed["jobs"][0]["reason"] in ("STORAGE_FAILED", "ANALYSIS_FAILED")
    here.wait_for(lambda status: status["counts"]["jobs"] == {"DONE": 1}, timeout=120)
    assert len(here.files()) == SLICES
