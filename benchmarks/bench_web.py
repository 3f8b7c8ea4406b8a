"""The page with 100,000 studies in the ledger: each answer within 300 ms, or this fails.

    make bench-web

The ledger is made here: studies over a year, three series and six instances each, one job, three
results, three deliveries, six events; 1 in 200 failed. A `dicomnode web` of its own is asked
over HTTP.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from peers import end, free_port, wait_until

from dicomnode.ledger import Ledger, nodes
from dicomnode.ledger.schema import upgrade
from dicomnode.ledger.tables import (
    association,
    delivery,
    event,
    instance,
    job,
    result,
    series,
    study,
)
from dicomnode.users import Users

STUDIES = 100_000
SERIES, INSTANCES, EVENTS = 3, 6, 6
BATCH = 5_000
MOST_MS = 300.0
TIMES = 12
DIGEST = "0" * 64
KEY = b"k" * 32


def fill(ledger: Ledger) -> None:
    """Make the ledger."""
    now = datetime.now(UTC)
    chance = random.Random(7)
    for first in range(1, STUDIES + 1, BATCH):
        rows: dict[str, list[dict[str, Any]]] = {}
        for number in range(first, first + BATCH):
            at = now - timedelta(days=365) * (1 - number / STUDIES)
            for name, row in _study(number, at, chance):
                rows.setdefault(name, []).append(row)
        with ledger.transaction() as tx:
            for table in (association, study, series, instance, job, result, delivery, event):
                tx.connection.execute(table.insert(), rows[table.name])


def _study(
    number: int, at: datetime, chance: random.Random
) -> Iterator[tuple[str, dict[str, Any]]]:
    node = {"node_id": "bench"}
    uid = f"1.2.826.0.1.3680043.8.498.{number}"
    failed = chance.random() < 0.005
    yield "association", {**node, "id": number, "calling_ae": "CT1", "called_ae": "NODE",
                          "address": "10.0.0.1", "opened_at": at, "closed_at": at,
                          "outcome": "RELEASED", "instances": 30, "bytes": 10**7}  # fmt: skip
    yield "study", {**node, "id": number, "study_uid": uid, "patient_key": DIGEST,
                    "identity_digest": DIGEST, "state": "CLOSED", "first_at": at, "last_at": at,
                    "opened_at": at, "closed_at": at, "closed_by": "QUIET"}  # fmt: skip
    for index in range(SERIES):
        series_id = number * SERIES + index
        yield "series", {"id": series_id, "study_id": number, "series_uid": f"{uid}.{index}",
                         "modality": "CT", "series_number": index, "description": "thorax",
                         "generation": 1, "last_at": at, "choice": "rule",
                         "summary": None}  # fmt: skip
    for index in range(INSTANCES):
        series_id = number * SERIES + index % SERIES
        yield "instance", {**node, "series_id": series_id, "association_id": number,
                           "sop_instance_uid": f"{uid}.9.{index}", "sop_class_uid": "1.2",
                           "transfer_syntax_uid": "1.2", "digest": DIGEST, "pixel_digest": DIGEST,
                           "geometry_digest": DIGEST, "identity_digest": DIGEST, "size": 500000,
                           "path": f"instances/{uid}/{index}", "generation": 1,
                           "received_at": at}  # fmt: skip
    yield "job", {**node, "id": number, "study_id": number, "series_id": number * SERIES,
                  "model_id": "demo", "generation": 1, "destinations": ["archive"], "options": {},
                  "state": "REFUSED" if failed else "DONE", "reason": "NOT_HU" if failed else None,
                  "due_at": at, "created_at": at, "analysed_at": at,
                  "updated_at": at + timedelta(seconds=60)}  # fmt: skip
    for index, kind in enumerate(("seg", "preview", "sr")):
        row = number * 3 + index
        yield "result", {"id": row, "job_id": number, "kind": kind, "position": index,
                         "sop_class_uid": "1.2", "sop_instance_uid": f"{uid}.8.{index}",
                         "series_uid": f"{uid}.8", "transfer_syntax_uid": "1.2",
                         "path": f"results/{number}/{kind}.dcm", "digest": DIGEST, "size": 10**6,
                         "summary": {"segments": 30}, "refers_to": [],
                         "created_at": at}  # fmt: skip
        yield "delivery", {**node, "result_id": row, "job_id": number, "destination": "archive",
                           "position": index, "state": "DELIVERED", "due_at": at,
                           "created_at": at, "updated_at": at + timedelta(seconds=70)}  # fmt: skip
    for index in range(EVENTS):
        is_attention = failed and index == 0
        yield "event", {**node, "at": at, "level": "attention" if is_attention else "info",
                        "code": "JOB_REFUSED" if is_attention else "DELIVERED", "detail": "",
                        "study_id": number, "job_id": number}  # fmt: skip


@contextmanager
def page(folder: Path) -> Iterator[tuple[str, str]]:
    """Serve the page of a ledger; yield its address and a token."""
    port, state = free_port(), folder / "state"
    config = folder / "dicomnode.yaml"
    config.write_text(f"node: {{id: bench}}\nweb: {{port: {port}}}\nstorage: {{folder: state}}\n")
    users = Users(state / "users.json")
    users.add("bench", "operator", None)
    token = users.add_token("bench", 1)
    log = folder / "web.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicomnode", "web", str(config)],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        wait_until(lambda: "LISTENING" in log.read_text(), 60, "the page is there")
        yield f"http://127.0.0.1:{port}", token
    finally:
        end(process)


def main() -> int:
    """Measure; return 1 if an answer took too long."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir()
        (folder / "state" / "patient.key").write_bytes(KEY)
        path = folder / "state" / "ledger.sqlite"
        ledger = Ledger(f"sqlite:///{path}", "bench")
        upgrade(ledger)
        with ledger.transaction() as tx:
            nodes.register_node(tx, "NODE", sha256(KEY).hexdigest()[:16])
        begun = time.monotonic()
        fill(ledger)
        ledger.close()
        size = path.stat().st_size / 1e9
        print(f"{STUDIES} studies, {size:.1f} GB, made in {time.monotonic() - begun:.0f} s")
        with page(folder) as (address, token):
            return _measure(address, token)


def _measure(address: str, token: str) -> int:
    late = 0
    middle = int((datetime.now(UTC) - timedelta(days=180)).timestamp() * 1e6)
    uid = f"1.2.826.0.1.3680043.8.498.{STUDIES // 2}"
    for path in ("/", "/studies", f"/studies?after={middle}-{STUDIES // 2}",
                 "/studies?state=HELD", "/studies?state=CLOSED", "/studies?attention=1",
                 f"/studies?uid={uid[:-2]}", f"/studies/{uid}", "/api/overview", "/api/studies",
                 "/metrics"):  # fmt: skip
        taken = sorted(_ask(address + path, token) for _ in range(TIMES))
        is_late = taken[-2] > MOST_MS
        late += is_late
        print(
            f"{path:60} median {statistics.median(taken):6.0f} ms, slowest but one"
            f" {taken[-2]:6.0f} ms{'  TOO SLOW' if is_late else ''}"
        )
    return 1 if late else 0


def _ask(url: str, token: str) -> float:
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
    begun = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        answer.read()
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    sys.exit(main())
