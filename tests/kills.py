"""A node under load whose processes are killed at random: what is asked of it, and the proof.

Senders bring studies, two at a time and interleaved, another one brings what nobody analyses; they
try every instance again until it was answered with Success. Meanwhile processes die by SIGKILL: a
role, an acceptor, the process of an analysis, or all at once. Afterwards every acknowledged
instance must be there with its bytes, and the archive must hold exactly one current result set for
each series.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from nodes import Node, Status
from peers import Orthanc, wait_until
from processes import hurry, processes
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from scu import RejectedError, Scu, Wire, scu
from small_ct import CT, encoded, instance

from dicomnode.demo.series import SeriesOptions, write_series
from inference.phantom import Body

TARGETS = {"receive": 3, "acceptor": 3, "send": 2, "all": 2, "tick": 1, "work": 1, "analysis": 1}
"""What is killed, and how often beside the others: an analysis that always dies never ends."""
SLICES = 12


@cache
def _body() -> tuple[Any, Any]:
    affine = np.diag([-8.0, -8.0, 16.0, 1.0])
    affine[:3, 3] = [192.0, 232.0, -120.0]
    hu, _ = Body(5).render((48, 48, SLICES), affine)
    return hu, affine


def series_of(seed: int) -> list[Wire]:
    """Return a series of small slices of a phantom's trunk; the seed makes its UIDs."""
    hu, affine = _body()
    return [Wire.of_file(data) for data in write_series(hu, affine, SeriesOptions(seed=seed))]


def study_uid(wires: list[Wire]) -> str:
    """Return the Study Instance UID of a series."""
    data = BytesIO(wires[0].data)
    implicit = wires[0].transfer_syntax_uid == ImplicitVRLittleEndian
    return str(read_dataset(data, implicit, True).StudyInstanceUID)


def _other(study: str, number: int, pixels: bytes) -> Wire:
    uid = f"{study}.1.{number}"
    data = encoded(
        instance(
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.1",
            SOPInstanceUID=uid,
            Modality="MR",
            Rows=128,
            Columns=256,
            PixelData=pixels[:-2] + number.to_bytes(2, "little"),
        )
    )
    return Wire(CT, uid, ExplicitVRLittleEndian, data)


@dataclass
class Load:
    """Senders that go on until they are told to end, and what was acknowledged to them."""

    node: Node
    seed: int
    at_once: int
    """More studies than these on their way wait, so that the end of it is near."""
    acknowledged: dict[str, Wire] = field(default_factory=dict)
    studies: dict[str, list[Wire]] = field(default_factory=dict)
    tries: int = 0
    ending: threading.Event = field(default_factory=threading.Event)
    done: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)
    _faults: list[BaseException] = field(default_factory=list)

    def start(self, senders: int) -> None:
        numbers = itertools.count(self.seed * 100_000)
        for index in range(senders):
            thread = threading.Thread(target=self._run, args=(numbers, index))
            thread.start()
            self._threads.append(thread)
        bulk = threading.Thread(target=self._run_bulk)
        bulk.start()
        self._threads.append(bulk)

    def end(self) -> None:
        """Let what was begun be sent to its end."""
        self.ending.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "a sender hangs"
        if self._faults:
            raise self._faults[0]

    def take_note(self) -> None:
        """See which studies have results, so that others may follow."""
        status: Status = self.node.status()
        self.done |= {row["study_uid"] for row in status["jobs"] if row["state"] == "DONE"}

    def _run(self, numbers: Iterator[int], index: int) -> None:
        try:
            while not self.ending.is_set():
                if len(self.studies) - len(self.done) > self.at_once:
                    time.sleep(0.1)
                    continue
                with self._lock:
                    pair = [series_of(next(numbers)) for _ in range(2)]
                    for wires in pair:
                        self.studies[study_uid(wires)] = wires
                self._send([wire for both in zip(*pair, strict=True) for wire in both])
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            self._faults.append(error)

    def _run_bulk(self) -> None:
        """Send what nobody analyses, without a pause: it keeps the receiver at its work."""
        try:
            for number in itertools.count():
                study = f"1.2.826.{self.seed}.{number}"
                pixels = random.Random(number).randbytes(65536)
                self._send([_other(study, index, pixels) for index in range(100)])
                if self.ending.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            self._faults.append(error)

    def _send(self, wires: list[Wire]) -> None:
        """Send until all is acknowledged; whatever was not is sent again."""
        left = list(wires)
        deadline = time.monotonic() + 240
        while left:
            assert time.monotonic() < deadline, "the receiver does not come back"
            try:
                with scu(self.node.port, left, timeout=5.0) as requestor:
                    while left and self._is_stored(requestor, left[0]):
                        self.acknowledged[left[0].sop_instance_uid] = left[0]
                        left.pop(0)
            except (AssertionError, RejectedError, OSError):
                time.sleep(0.2)

    def _is_stored(self, requestor: Scu, wire: Wire) -> bool:
        self.tries += 1
        return requestor.store(wire) == 0x0000


class Killer:
    """Kills the processes of a node that `run` has started."""

    def __init__(self, node: Node, chance: random.Random) -> None:
        self._node = node
        self._chance = chance
        self.killed: Counter[str] = Counter()

    def processes(self) -> dict[str, list[int]]:
        """Return the node's living processes by what they are, but for that of `run`."""
        return {kind: pids for kind, pids in processes(self._node).items() if kind != "run"}

    def hurry(self) -> None:
        """Let analyses compute like others do; else they wait for all that this machine does."""
        hurry(self.processes().get("analysis", []))

    def strike(self) -> str:
        """Kill something that lives; return what."""
        alive = self.processes()
        wanted = self._choose()
        if wanted == "all":
            self._all(alive)
        else:
            while wanted not in alive:
                wanted = self._choose() if wanted != "all" else "receive"
                alive = self.processes()
            with suppress(ProcessLookupError):
                os.kill(self._chance.choice(alive[wanted]), signal.SIGKILL)
        self.killed[wanted] += 1
        return wanted

    def _choose(self) -> str:
        return self._chance.choices(list(TARGETS), list(TARGETS.values()))[0]

    def _all(self, alive: dict[str, list[int]]) -> None:
        pids = [pid for many in alive.values() for pid in many]
        self._chance.shuffle(pids)
        self._node.kill_all(pids)
        self._node.start("run")


def is_settled(load: Load) -> bool:
    """Whether nothing is under way any more; what is stuck for good fails."""
    status = load.node.status()
    counts = status["counts"]
    assert not counts["jobs"].get("QUARANTINED"), status["jobs"]
    assert not counts["jobs"].get("REFUSED"), status["jobs"]
    assert not counts["deliveries"].get("REFUSED"), status["deliveries"]
    states = {row["study_uid"]: row["state"] for row in status["studies"]}
    return (
        set(counts["jobs"]) <= {"DONE", "CANCELLED"}
        and set(counts["deliveries"]) <= {"DELIVERED", "CANCELLED", "SUBSTITUTED"}
        and all(states.get(uid) == "CLOSED" for uid in load.studies)
        and "OPEN" not in states.values()
    )


def prove(load: Load, orthanc: Orthanc) -> Counter[str]:
    """Look at spool, ledger and archive once all is quiet; return what was counted."""
    found: Counter[str] = Counter()
    files = {path.stem: path for path in load.node.files()}
    for uid, wire in load.acknowledged.items():
        assert uid in files, f"{uid} was acknowledged and is lost"
        assert files[uid].read_bytes().endswith(wire.data), f"{uid} has other bytes"
        found["instances"] += 1
    assert load.node.status()["counts"]["instances"] == len(files)
    found += prove_results(load.studies, orthanc, files)
    left = [path for path in (load.node.spool / "arriving" / "receive").iterdir() if path.is_file()]
    found["unfinished files"] = sum(path.stat().st_size > 0 for path in left)
    assert not found["unfinished files"]
    return found


def prove_results(
    studies: Iterable[str], orthanc: Orthanc, files: Mapping[str, Path]
) -> Counter[str]:
    """Prove that the archive has one current result set for each study, and what that refers to.

    Args:
        studies: Study Instance UIDs.
        orthanc: the archive.
        files: SOP Instance UID -> file of the node's spool.
    """
    found: Counter[str] = Counter()
    for uid in studies:
        datasets = orthanc.datasets(uid)
        reports = [one for one in datasets if one.Modality == "SR"]
        replaced = {
            item.ReferencedSOPInstanceUID
            for report in reports
            for study in report.get("PredecessorDocumentsSequence", [])
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        current = [one for one in reports if one.SOPInstanceUID not in replaced]
        assert len(current) == 1, f"{uid}: {len(current)} current result sets"
        here = {one.SOPInstanceUID for one in datasets}
        for study in current[0].CurrentRequestedProcedureEvidenceSequence:
            for series in study.ReferencedSeriesSequence:
                for item in series.ReferencedSOPSequence:
                    is_ours = item.ReferencedSOPInstanceUID in here
                    assert is_ours or item.ReferencedSOPInstanceUID in files
        assert sum(one.Modality == "SEG" for one in datasets) == len(reports)
        found["studies"] += 1
        found["superseded"] += len(reports) - 1
    return found


def rampage(node: Node, orthanc: Orthanc, *, kills: int, seed: int, senders: int) -> dict[str, Any]:
    """Kill so many processes of a running node under load, then prove that nothing is lost.

    Returns:
        What was killed, what came and what is there, and how long it took.
    """
    chance = random.Random(seed)
    load, killer = Load(node, seed, at_once=2 * (senders - 1)), Killer(node, chance)
    began = time.monotonic()
    load.start(senders)
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(0.2, 2.5))
            killer.strike()
            load.take_note()
            killer.hurry()
    finally:
        load.end()
    struck = time.monotonic() - began

    def settled() -> bool:
        killer.hurry()
        return is_settled(load)

    wait_until(settled, 300, "everything is settled", every=0.5)
    found = prove(load, orthanc)
    return {
        "seed": seed,
        "kills": dict(sorted(killer.killed.items())),
        "tries": load.tries,
        **found,
        "seconds": round(struck),
        "seconds until all was settled": round(time.monotonic() - began - struck),
    }
