"""Reception, side by side in one run: this node with durable answers, storescp and Orthanc.

300 CT of 512x512 (int16) on loopback, sent by DCMTK's storescu and dcmsend with TCP_NODELAY=1, over
one association and over four. Each receiver has taken one instance before: none is measured while
it loads what it needs for the first. storescp and Orthanc synchronise nothing; this node answers
only when the file is synchronised, so what the disk allows is printed beside. Those that are
compared take their turns one after the other, and a ratio is the median of the rounds': a virtual
machine changes its speed within minutes. Nothing is deleted before the end (16 GB), only dropped
from the page cache: without a journal ext4 looks at each inode that was freed in the last minutes
whenever it makes a file, and 15 microseconds become 260.

Ends with 1 if the node is slower than 0.8 of storescp's default on one association, slower than
twice Orthanc on four, or slowed down by more than a fifth by an analysis. What an analysis costs is
judged in memory: a virtual disk works on the processors that the analysis has, and what it loses is
printed beside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nodes import Node
from peers import DCMTK_ENVIRONMENT, HOST, Orthanc, end, free_port, wait_until

from benchmarks.stages import stages
from dicomnode.demo.series import SeriesOptions, write_series

INSTANCES = 300
FIRST = 0
"""Associations: none that counts."""
RUNS = 5
"""The median counts: each receiver takes its turn in each."""
OF_STORESCP, OF_ORTHANC, OF_UNDISTURBED = 0.8, 2.0, 0.8
BUSY = (
    "import os; from dicomnode.engines.local import give_way; give_way()\n"
    "import numpy as np; a = np.ones((900, 900))\n"
    "while os.getppid() != 1: a @ a"
)
BUSY_NODE = "dicomnode, beside an analysis a core"
MEMORY = Path("/dev/shm")
Rates = dict[str, list[float]]


def main() -> int:
    """Print the table and say whether the ratios are kept."""
    with tempfile.TemporaryDirectory(prefix="bench", dir=_place()) as name:
        folder = Path(name)
        _write_instances(folder)
        rates: Rates = {}
        costs: Rates = {}
        for _ in range(RUNS):
            _measure(folder, rates, costs)
        table, spent = _medians(rates), _medians(costs)
        _print(table, spent)
        stages(sorted((folder / "all").iterdir()), folder / "stages")
        return _judge(rates)


def _place() -> str | None:
    """Where the files lie, theirs and ours: not in memory, which synchronises nothing."""
    return os.environ.get("DICOMNODE_BENCH") or "/var/tmp"


def _write_instances(folder: Path) -> None:
    random = np.random.default_rng(0)
    hu = random.integers(-1000, 1000, (512, 512, INSTANCES), dtype=np.int16)
    (folder / "all").mkdir()
    for name in ("first", *(f"part{part}" for part in range(4))):
        (folder / name).mkdir()
    one = write_series(hu[..., :1], np.diag([0.7, 0.7, 1.0, 1.0]), SeriesOptions(seed=1))
    (folder / "first" / "0.dcm").write_bytes(one[0])
    for number, data in enumerate(write_series(hu, np.diag([0.7, 0.7, 1.0, 1.0]))):
        path = folder / "all" / f"{number}.dcm"
        path.write_bytes(data)
        os.link(path, folder / f"part{number % 4}" / path.name)


def _measure(folder: Path, rates: Rates, costs: Rates) -> None:
    rates.setdefault("disk: write and fsync, one after the other", []).append(_ceiling(folder, 1))
    rates.setdefault("disk: four at a time", []).append(_ceiling(folder, 4))
    with _busy():
        what = "disk: one after the other, beside an analysis a core"
        rates.setdefault(what, []).append(_ceiling(folder, 1))
    receivers: dict[str, Callable[[Path], object]] = {
        "storescp": _storescp,
        "dicomnode": _node,
        "Orthanc": _orthanc,
        "a bare receiver": _bare,
        BUSY_NODE: _busy_node,
        "dicomnode in memory": _memory_node,
        "dicomnode in memory, beside an analysis a core": _busy_memory_node,
    }
    for program in ("storescu", "dcmsend"):
        for count in (1, 4):
            for receiver, start in receivers.items():
                with start(folder) as running:  # type: ignore[attr-defined]
                    _send(folder, "storescu", FIRST, running.port, running.title)
                    before = _processor_ms(running.pid)
                    rate = _send(folder, program, count, running.port, running.title)
                    spent = _processor_ms(running.pid) - before
                _forget(folder)
                rates.setdefault(f"{receiver}, {program}, {count}", []).append(rate)
                costs.setdefault(f"{receiver}, {program}, {count}", []).append(spent / INSTANCES)


def _ceiling(folder: Path, threads: int) -> float:
    data = [path.read_bytes() for path in (folder / "all").iterdir()]
    target = _new(folder)

    def write(numbers: range) -> None:
        for number in numbers:
            with (target / str(number)).open("xb", buffering=0) as file:
                file.write(data[number])
                os.fsync(file.fileno())

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, [range(n, len(data), threads) for n in range(threads)]))
    seconds = time.perf_counter() - started
    return len(data) / seconds


def _send(folder: Path, program: str, count: int, port: int, title: str) -> float:
    names = {FIRST: ["first"], 1: ["all"], 4: [f"part{n}" for n in range(4)]}[count]
    parts = [folder / name for name in names]
    os.sync()  # what was written before is not paid for here
    started = time.perf_counter()
    senders = [
        subprocess.Popen(
            [
                f"/usr/bin/{program}",
                "-aet",
                "MODALITY",
                "-aec",
                title,
                "+sd",
                HOST,
                str(port),
                part,
            ],
            env={**os.environ, **DCMTK_ENVIRONMENT},
            stdout=subprocess.DEVNULL,
        )
        for part in parts
    ]
    codes = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - started
    if any(codes):
        raise RuntimeError(f"{program} to {title}: {codes}")
    return INSTANCES / seconds


@dataclass(frozen=True, slots=True)
class Running:
    """A receiver that runs; what its process and that one's children spend is counted."""

    port: int
    title: str
    pid: int


Receiver = Iterator[Running]


def _processor_ms(pid: int) -> float:
    """Return what a process and its children have spent so far."""
    ticks = 0
    for one in (pid, *map(int, _children(pid))):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def _new(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix="run", dir=folder))


def _forget(folder: Path) -> None:
    """Take what the last run has written out of memory."""
    os.sync()
    last = max(folder.glob("run*"), key=lambda path: path.stat().st_ctime)
    for path in last.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def _storescp(folder: Path) -> Receiver:
    target, port = _new(folder), free_port()
    command = ["/usr/bin/storescp", "-od", str(target), "-aet", "STORESCP", str(port)]
    environment = {**os.environ, **DCMTK_ENVIRONMENT}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield Running(port, "STORESCP", process.pid)
    finally:
        end(process)


@contextmanager
def _bare(folder: Path) -> Receiver:
    target, port = _new(folder), free_port()
    command = [sys.executable, "-m", "benchmarks.bare_receiver", str(port), str(target)]
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: _children(process.pid), 20, "the bare receiver runs")
        time.sleep(0.5)
        yield Running(port, "BARE", process.pid)
    finally:
        end(process)


@contextmanager
def _orthanc(folder: Path) -> Receiver:
    orthanc = Orthanc(_new(folder))
    orthanc.start()
    try:
        yield Running(orthanc.port, "ARCHIVE", orthanc.pid)
    finally:
        orthanc.kill()


@contextmanager
def _node(folder: Path) -> Receiver:
    node = Node(_new(folder), overrides={"rules": []})
    try:
        node.start("receive")
        wait_until(lambda: _children(node.pid("receive")), 20, "the acceptors run")
        time.sleep(1.5)  # until they have loaded what they need
        yield Running(node.port, "DICOMNODE", node.pid("receive"))
        found = node.status()["counts"]["instances"]
        if found != INSTANCES + 1:
            raise RuntimeError(f"{found} instances in the ledger")
    finally:
        node.close()


@contextmanager
def _busy_node(folder: Path) -> Receiver:
    with _busy(), _node(folder) as receiver:
        yield receiver


@contextmanager
def _memory_node(_folder: Path) -> Receiver:
    """On a file system in memory, which synchronises nothing: the processors' share alone."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, _node(Path(name)) as receiver:
        yield receiver


@contextmanager
def _busy_memory_node(folder: Path) -> Receiver:
    with _busy(), _memory_node(folder) as receiver:
        yield receiver


@contextmanager
def _busy() -> Iterator[None]:
    """Compute on every core, as an analysis does and in its scheduling class."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            end(process)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _medians(found: Rates) -> dict[str, float]:
    return {what: _median(values) for what, values in found.items()}


def _median(values: Iterable[float]) -> float:
    found = sorted(values)
    return found[len(found) // 2]


def _print(table: dict[str, float], spent: dict[str, float]) -> None:
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"{cores} cores, load {load:.1f}; median of {RUNS} runs; {INSTANCES} CT of 512x512")
    print(
        "\n| receiver, sender, associations | instances/s | its processor ms each |\n|---|---|---|"
    )
    for what, rate in table.items():
        cost = f"{spent[what]:.2f}" if what in spent else ""
        print(f"| {what} | {rate:.0f} | {cost} |")


def _judge(rates: Rates) -> int:
    print("\n| ratio | least | storescu | dcmsend |\n|---|---|---|---|")
    kept = True
    for what, least, ours, theirs in (
        ("of storescp, 1 association", OF_STORESCP, "dicomnode, {}, 1", "storescp, {}, 1"),
        ("of Orthanc, 4 associations", OF_ORTHANC, "dicomnode, {}, 4", "Orthanc, {}, 4"),
        (
            "of itself undisturbed, in memory, 4 associations",
            OF_UNDISTURBED,
            "dicomnode in memory, beside an analysis a core, {}, 4",
            "dicomnode in memory, {}, 4",
        ),
    ):
        found = [
            _median(
                mine / other
                for mine, other in zip(
                    rates[ours.format(program)], rates[theirs.format(program)], strict=True
                )
            )
            for program in ("storescu", "dcmsend")
        ]
        kept = kept and min(found) >= least
        print(f"| {what} | {least} | {found[0]:.2f} | {found[1]:.2f} |")
    print("\nkept" if kept else "\nNOT KEPT")
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
