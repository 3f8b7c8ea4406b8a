"""`dicomnode demo`: the whole job on this machine, and the proof that it came out right.

A synthetic CT series goes by C-STORE into a node with the demonstration model; SEG, preview
and SR come back by C-STORE into an archive on loopback. The demonstration succeeds only if the
voxels of the SEG, as the archive has them, are those of the label map.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicomnode.demo.archive import FolderArchive
from dicomnode.demo.readback import read_segments
from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.plans import PREVIEW, SEG, SR
from dicomnode.errors import DicomnodeError
from dicomnode.ledger import Ledger, overview
from dicomnode.network.scu import associate
from dicomnode.offline import describe
from dicomnode.settings import Settings, load
from inference.phantom import Body

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
SHAPE = (256, 256, 110)
SPACING_MM = (1.6, 1.6, 5.0)
SEED = 20260
QUIET_SECONDS = 2.0
TIMEOUT_SECONDS = 600.0
KINDS = {"SEG": SEG, "OT": PREVIEW, "SR": SR}
"""What an object is, by its Modality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of the demonstration."""

    facts: dict[str, Any]
    """Of the ledger's overview."""
    events: list[dict[str, Any]]
    paths: dict[str, Path]
    """What lies in the archive, by kind."""


def demonstrate(output: Path, console: Console) -> int:
    """Run the demonstration into a folder; return 0 if everything came out right, else 1."""
    started = time.monotonic()
    output = output.resolve()
    run = output / time.strftime("%Y%m%d-%H%M%S")
    run.mkdir(parents=True)
    console.print("Making a synthetic CT series (a procedural body phantom) ...")
    # RAS+ millimetres; rows run to the patient's left and columns to the back, as scanners do.
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    affine[:3, 3] = [SPACING_MM[0] * SHAPE[0] / 2, SPACING_MM[1] * SHAPE[1] / 2 + 40, -250.0]
    hu, _ = Body(SEED).render(SHAPE, affine)
    files = write_series(hu, affine, SeriesOptions(seed=SEED))
    series = run / "ct"
    series.mkdir()
    paths = []
    for number, data in enumerate(files):
        paths.append(series / f"{number:04d}.dcm")
        paths[-1].write_bytes(data)
    console.print(f"  {len(files)} slices of {SHAPE[1]} x {SHAPE[0]} in {series}", soft_wrap=True)

    node_port, archive_port = _free_ports(2)
    config = _write_config(run, node_port, archive_port)
    settings = load(config)
    archive = FolderArchive(run / "archive", ae_title="ARCHIVE", sender=settings.node.ae_title)
    with archive.serving(archive_port), _node(config, run / "node.log"):
        console.print(f"Node on port {node_port}, archive on port {archive_port}.")
        _wait_for_port(node_port)
        _send(paths, settings, node_port, console)
        outcome = _wait(settings, archive, console)
    ok = _show(outcome, run, settings, console)
    console.print(f"{time.monotonic() - started:.0f} s in all.")
    return 0 if ok else 1


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()


def _write_config(run: Path, node_port: int, archive_port: int) -> Path:
    config = {
        "node": {"id": "demo", "port": node_port},
        "peers": {
            "MODALITY": {"ae_title": "MODALITY", "host": "127.0.0.1", "accept": True},
            "ARCHIVE": {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive_port},
        },
        "destinations": {"archive": {"peer": "ARCHIVE"}},
        "assembly": {
            "study_quiet_seconds": QUIET_SECONDS,
            "series_quiet_seconds": QUIET_SECONDS,
            "max_study_age_days": None,
        },
        "rules": [
            {
                "name": "every CT",
                "when": {"modality": ["CT"]},
                "model": "demo",
                "destinations": ["archive"],
            }
        ],
        "storage": {"folder": "state"},
        "limits": {"min_free_bytes": 100_000_000},
        "web": {"enabled": False},
    }
    path = run / "dicomnode.yaml"
    path.write_text(json.dumps(config, indent=2))  # JSON is YAML
    return path


@contextmanager
def _node(config: Path, log_path: Path) -> Iterator[None]:
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicomnode", "run", str(config)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ},
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise DicomnodeError("the node did not start to listen; see node.log")


def _send(paths: Sequence[Path], settings: Settings, port: int, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=console) as bar,
        associate(
            calling_ae="MODALITY",
            called_ae=settings.node.ae_title,
            host="127.0.0.1",
            port=port,
            contexts=[(CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN)],
            timeout_seconds=60.0,
        ) as association,
    ):
        for path in bar.track(paths, description="C-STORE to the node"):
            outcome, _ = association.store(path, CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN)
            if outcome.code != "DONE":
                raise DicomnodeError(f"the node did not store {path.name}: {outcome}")


def _wait(settings: Settings, archive: FolderArchive, console: Console) -> Outcome:
    ledger = Ledger(settings.ledger_url, settings.node.id)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("waiting until the study is quiet", total=1.0)
            while time.monotonic() < deadline:
                with ledger.transaction() as tx:
                    facts = overview.overview(tx)
                jobs, deliveries = facts["jobs"], facts["deliveries"]
                if facts["attention"]:
                    raise DicomnodeError(
                        "; ".join(f"{e['code']}: {e['detail']}" for e in facts["attention"])
                    )
                if jobs:
                    stage = f"{jobs[0]['state'].lower()}: {jobs[0]['stage'] or ''}"
                    bar.update(task, description=stage, completed=jobs[0]["progress"] or 0.0)
                if deliveries and all(row["state"] == "DELIVERED" for row in deliveries):
                    bar.update(task, description="stored in the archive", completed=1.0)
                    with ledger.transaction() as tx:
                        events = overview.events_of(tx, facts["studies"][0]["study_uid"])
                    return Outcome(facts=facts, events=events, paths=_by_kind(archive.paths))
                time.sleep(0.25)
    finally:
        ledger.close()
    raise DicomnodeError(f"nothing came back within {TIMEOUT_SECONDS:.0f} s; see node.log")


def _by_kind(paths: Sequence[Path]) -> dict[str, Path]:
    return {
        KINDS[pydicom.dcmread(path, specific_tags=["Modality"]).Modality]: path for path in paths
    }


def _show(outcome: Outcome, run: Path, settings: Settings, console: Console) -> bool:
    missing = [kind for kind in KINDS.values() if kind not in outcome.paths]
    if missing:
        console.print(f"not in the archive: {', '.join(missing)}", style="red")
        return False
    job = outcome.facts["jobs"][0]
    results = settings.spool_folder / "results" / str(job["id"])
    with np.load(results / "labels.npz") as stored:
        labels, uids = stored["labels"], [str(uid) for uid in stored["sop_instance_uids"]]
    same = bool((read_segments(outcome.paths["seg"], uids, labels.shape) == labels).all())
    _print_results(outcome, console)
    _print_times(outcome, console)
    picture = run / "preview.png"
    shutil.copyfile(results / "preview.png", picture)
    console.print(f"The preview as a picture: {picture}", soft_wrap=True)
    if same:
        console.print(
            "The SEG in the archive equals the label map, voxel for voxel.", style="bold green"
        )
    else:
        console.print("The SEG in the archive DIFFERS from the label map.", style="bold red")
    console.print("The model is for demonstration only. Not for diagnosis.", style="bold")
    return same


def _print_results(outcome: Outcome, console: Console) -> None:
    table = Table(title="What came back", title_justify="left")
    for name in ("object", "content", "size", "SOP Instance UID"):
        table.add_column(name, overflow="fold")
    for row in reversed(outcome.facts["deliveries"]):
        content = describe(row["summary"])
        size = f"{outcome.paths[row['kind']].stat().st_size / 1e6:.1f} MB"
        table.add_row(row["kind"].upper(), content, size, row["sop_instance_uid"])
    console.print(table)


def _print_times(outcome: Outcome, console: Console) -> None:
    study = outcome.facts["studies"][0]
    job = outcome.facts["jobs"][0]
    at = {event["code"]: datetime.fromisoformat(event["at"]) for event in outcome.events}
    last = datetime.fromisoformat(study["last_at"])
    stored = max(
        datetime.fromisoformat(e["at"]) for e in outcome.events if e["code"] == "DELIVERED"
    )
    steps = [
        ("study quiet and closed", last, at["STUDY_CLOSED"]),
        ("job taken up", at["STUDY_CLOSED"], at["JOB_CLAIMED"]),
        ("analysed and encoded", at["JOB_CLAIMED"], at["JOB_DONE"]),
        ("stored in the archive", at["JOB_DONE"], stored),
        ("last slice to stored", last, stored),
    ]
    table = Table(title="Time of each step", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for name, begin, end in steps:
        table.add_row(name, f"{(end - begin).total_seconds():.2f}")
        if name.startswith("analysed"):
            for stage, seconds in (job["timings"] or {}).items():
                table.add_row(f"  {stage}", f"{seconds:.2f}")
    console.print(table)
