"""A node that works for a while under load from several senders: speed, memory, nothing lost.

Each sender is DCMTK's storescu. It brings one study after the other, and begins the next one when
the results of the last lie in the archive: as many studies are on their way as there are senders,
from the first to the last. Every sender has patients of its own and a body of its own.
Somebody reads the metrics meanwhile, as Prometheus does. Before all that they bring the backlog of
an archive: studies too old to be analysed, until the acceptors keep as many headers as they may.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from kills import prove_results, study_uid
from nodes import Node
from peers import HOST, Dcmtk, Orthanc, tail
from processes import MemoryWatch, hurry, processes
from scu import Wire
from soak_report import Report, Sent, Size, Stored
from sqlalchemy import select

from dicomnode.demo.series import SeriesOptions, Subject, write_series
from dicomnode.domain.lifecycle import ARRIVED, DONE
from dicomnode.instances import split_file
from dicomnode.ledger.tables import delivery, instance, job, result, study
from dicomnode.users import Users
from inference.phantom import Body

LOOK_SECONDS = 0.25
SCRAPE_SECONDS = 15.0
MEMORY_SECONDS = 1.0
WARM_STUDIES = 0.2
"""Of all studies: memory is judged when these have arrived, and the caches are full."""
FIELD_MM, LENGTH_MM = 384.0, 300.0
BACKLOG_MATRIX = 16
LONG_AGO = datetime(2001, 1, 1, 12, 0, 0)  # noqa: DTZ001 - local, as a scanner's
MAX_STUDY_AGE_DAYS = 3652.0


@dataclass(slots=True)
class Senders:
    """Send studies, and know what was acknowledged to them."""

    node: Node
    size: Size
    is_stored: Callable[[str], bool]
    studies: int
    series_of: Callable[[int, int], list[bytes]]
    """The files of a study, of the sender with an index and the study's number from 1."""
    dcmtk: Dcmtk = field(default_factory=Dcmtk)
    sent: dict[str, Sent] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _faults: list[BaseException] = field(default_factory=list)

    def start(self) -> None:
        numbers = iter(range(1, self.studies + 1))
        lock = threading.Lock()

        def taken() -> Iterator[int]:
            while not self.done.is_set():
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                yield number

        for index in range(self.size.senders):
            thread = threading.Thread(target=self._run, args=(index, taken()), name=f"CT{index}")
            thread.start()
            self._threads.append(thread)

    @property
    def are_busy(self) -> bool:
        """Whether one has something to send yet; a fault of one is raised."""
        if self._faults:
            raise self._faults[0]
        return any(thread.is_alive() for thread in self._threads)

    def end(self) -> None:
        self.done.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, index: int, numbers: Iterator[int]) -> None:
        try:
            for number in numbers:
                uid = self._send(self.series_of(index, number), f"CT{index + 1}")
                while not (self.is_stored(uid) or self.done.is_set()):
                    self.done.wait(LOOK_SECONDS)
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            self._faults.append(error)

    def _send(self, files: list[bytes], calling: str) -> str:
        wires = [Wire.of_file(data) for data in files]
        with tempfile.TemporaryDirectory(dir=self.node.folder) as folder:
            for number, data in enumerate(files):
                (Path(folder) / f"{number:04}.dcm").write_bytes(data)
            began = datetime.now(UTC)
            done = self.dcmtk.storescu(self.node.port, Path(folder), calling=calling)
            ended = datetime.now(UTC)
        acknowledged = (done.stdout + done.stderr).count("Received Store Response (Success)")
        assert acknowledged == len(files), f"{acknowledged} of {len(files)} were acknowledged"
        uid = study_uid(wires)
        digests = {wire.sop_instance_uid: digest(wire.data) for wire in wires}
        self.sent[uid] = Sent(uid=uid, digests=digests, began=began, ended=ended)
        return uid


def digest(data: bytes) -> str:
    """Return the sha256 of a data set's bytes."""
    return hashlib.sha256(data).hexdigest()


def body(index: int, size: Size) -> tuple[Any, Any]:
    """Return the trunk of a sender's invented body, and its affine."""
    pixel, slice_mm = FIELD_MM / size.matrix, LENGTH_MM / size.slices
    affine = np.diag([-pixel, -pixel, slice_mm, 1.0])
    affine[:3, 3] = [FIELD_MM / 2, FIELD_MM / 2 + 40.0, -LENGTH_MM / 2]
    hu, _ = Body(5 + index).render((size.matrix, size.matrix, size.slices), affine)
    return hu, affine


def load(node: Node, size: Size, is_stored: Callable[[str], bool]) -> Senders:
    """Return senders of studies that are analysed, each the next when its last one is stored."""
    bodies = [body(index, size) for index in range(size.senders)]

    def series_of(index: int, number: int) -> list[bytes]:
        subject = Subject(patient_id=f"SOAK{number}", accession=f"SOAK{number}")
        return write_series(*bodies[index], SeriesOptions(seed=number, subject=subject))

    return Senders(node, size, is_stored, size.studies, series_of)


def backlog(node: Node, size: Size) -> Senders:
    """Return senders of what is too old to be analysed, one study after the other."""
    hu = np.zeros((BACKLOG_MATRIX, BACKLOG_MATRIX, size.slices), np.int16)
    pixel, slice_mm = FIELD_MM / BACKLOG_MATRIX, LENGTH_MM / size.slices

    def series_of(_index: int, number: int) -> list[bytes]:
        subject = Subject(patient_id=f"OLD{number}", accession=f"OLD{number}", started=LONG_AGO)
        options = SeriesOptions(seed=size.studies + number, subject=subject)
        return write_series(hu, np.diag([pixel, pixel, slice_mm, 1.0]), options)

    return Senders(node, size, lambda _uid: True, size.backlog, series_of)


def stored_studies(node: Node) -> dict[str, Stored]:
    """Return the studies whose results have all arrived, by Study Instance UID."""
    with node.ledger.reading() as connection:
        rows = connection.execute(
            select(
                study.c.study_uid,
                job.c.created_at,
                job.c.analysed_at,
                job.c.timings,
                job.c.state,
                result.c.created_at.label("made_at"),
                delivery.c.state.label("delivery_state"),
                delivery.c.arrived_at,
            )
            .join(job, job.c.study_id == study.c.id)
            .join(result, result.c.job_id == job.c.id)
            .join(delivery, delivery.c.result_id == result.c.id)
            .order_by(study.c.study_uid)
        ).all()
    found = {}
    for uid, group in itertools.groupby(rows, lambda row: row.study_uid):
        own = list(group)
        if all(row.state == DONE and row.delivery_state in ARRIVED for row in own):
            found[uid] = Stored(
                closed=own[0].created_at,
                taken_up=own[0].analysed_at,
                analysed=own[0].made_at,
                arrived=max(row.arrived_at for row in own),
                computed=sum(own[0].timings.values()),
            )
    return found


def soak(node: Node, orthanc: Orthanc, size: Size, say: Callable[[str], None]) -> Report:
    """Put a running node under load, and prove afterwards that nothing is lost.

    Args:
        node: that runs, with the peers that `peers_of` gives.
        orthanc: its archive.
        size: of the load.
        say: is told the progress, a line each.
    """
    old = backlog(node, size)
    old.start()
    while old.are_busy:
        time.sleep(LOOK_SECONDS)
    say(f"a backlog of {len(old.sent)} studies has come")
    stored: dict[str, Stored] = {}
    senders = load(node, size, lambda uid: uid in stored)
    warm, warm_since = max(1, int(WARM_STUDIES * size.studies)), time.monotonic()
    token = Users(node.settings.users_file).add_token("prometheus", 1.0)
    scrape_at = told = 0.0
    with MemoryWatch(node, MEMORY_SECONDS) as memory:
        began = time.monotonic()
        senders.start()
        try:
            while senders.are_busy:
                time.sleep(LOOK_SECONDS)
                before, now = len(stored), time.monotonic()
                stored.update(stored_studies(node))
                if before < warm <= len(stored):
                    warm_since = now
                if now >= scrape_at:
                    scrape(node, token)
                    scrape_at = now + SCRAPE_SECONDS
                if len(stored) != before and now >= told:
                    say(f"{now - began:6.0f} s: {len(stored)} of {size.studies} studies stored")
                    told = now + 10.0
                refuse_faults(node)
                if size.hurried:
                    hurry(processes(node).get("analysis", []))
        finally:
            senders.end()
        seconds = time.monotonic() - began
    memory.check()
    proof = prove_instances(node, senders.sent | old.sent)
    files = {path.stem: path for path in node.files()}
    proof += prove_results(senders.sent, orthanc, files)
    return Report(
        size=size, sent=senders.sent, stored=stored, proof=proof, memory=memory, seconds=seconds,
        warm_since=warm_since,
    )  # fmt: skip


def scrape(node: Node, token: str) -> str:
    """Read the metrics."""
    request = urllib.request.Request(
        f"http://{HOST}:{node.document['web']['port']}/metrics",
        headers={"Authorization": f"Bearer {token}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        return str(answer.read().decode())


def refuse_faults(node: Node) -> None:
    """Fail where a job or a delivery ended otherwise than it should."""
    with node.ledger.reading() as connection:
        jobs = connection.execute(select(job.c.state, job.c.reason, job.c.detail)).all()
        sendings = connection.execute(select(delivery.c.state, delivery.c.reason)).all()
    wrong = [row for row in jobs if row.state not in ("QUEUED", "LEASED", "DONE")]
    wrong += [row for row in sendings if row.state not in ("PENDING", "SENDING", "DELIVERED")]
    assert not wrong, f"{wrong}\n{tail(node.log, 80)}"


def prove_instances(node: Node, sent: dict[str, Sent]) -> Counter[str]:
    """Prove that every acknowledged instance is in ledger and spool with its bytes, once."""
    found: Counter[str] = Counter()
    with node.ledger.reading() as connection:
        rows = connection.execute(
            select(instance.c.sop_instance_uid, instance.c.path, instance.c.size)
        ).all()
    kept = {row.sop_instance_uid: row for row in rows}
    assert len(kept) == sum(len(one.digests) for one in sent.values())
    for one in sent.values():
        for uid, expected in one.digests.items():
            assert uid in kept, f"{uid} was acknowledged and is lost"
            data = (node.spool / kept[uid].path).read_bytes()
            whole = data[split_file(data)[1] :]
            assert len(whole) == kept[uid].size
            assert digest(whole) == expected, f"{uid} has other bytes"
            found["instances"] += 1
    return found


def overrides(size: Size) -> dict[str, Any]:
    """Return what the configuration of a node under this load needs: its senders, and the page."""
    return {
        "peers": {
            f"CT{number}": {"ae_title": f"CT{number}", "host": HOST, "accept": True}
            for number in range(1, size.senders + 1)
        },
        "web": {"enabled": True},
        "assembly": {"max_study_age_days": MAX_STUDY_AGE_DAYS},
        # A lease of the default length; a new process would hide a leak of the analysis.
        "work": {"lease_seconds": 60.0, "jobs_per_process": 100_000},
    }


def add_reader(node: Node) -> None:
    """Add who reads the metrics."""
    Users(node.settings.users_file).add("prometheus", "viewer", None)
