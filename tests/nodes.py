"""A node for a test: its configuration, its processes, and a look at its ledger and spool."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from peers import HOST, Orthanc, end, free_port, is_alive, tail, wait_until
from shapes import assert_said

from dicomnode import settings
from dicomnode.domain.quality import QualityPolicy
from dicomnode.ledger import Ledger, overview
from dicomnode.services.supervise import roles_of

HELD = [field.name for field in fields(QualityPolicy) if field.default == "hold"]
Status = dict[str, Any]
"""What `dicomnode status --json` says."""


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over` put over it, mapping by mapping."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, Mapping)
        result[key] = merged(old or {}, value) if both else value
    return result


class Node:
    """A node of its own: a configuration, a spool, a ledger and its processes.

    Args:
        folder: for the configuration `dicomnode.yaml`, the `state` folder and `node.log`.
        archive: an Orthanc, or a port, of the peer ARCHIVE and the destination `archive`.
        overrides: put over the configuration, key by key; `{"rules": []}` analyses nothing.

    The rules give every CT series of at least two instances to the demonstration model, and the
    results to `archive` if there is one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        archive: Orthanc | int | None = None,
        quiet_seconds: float = 1.0,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.spool = self.state / "spool"
        self.config = folder / "dicomnode.yaml"
        self.log = folder / "node.log"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._killed: set[int] = set()
        self._ledger: Ledger | None = None
        folder.mkdir(parents=True, exist_ok=True)
        to = archive.port if isinstance(archive, Orthanc) else archive
        aet = archive.ae_title if isinstance(archive, Orthanc) else "ARCHIVE"
        document: dict[str, Any] = {
            "node": {"ae_title": "DICOMNODE", "id": "node-1", "port": free_port()},
            "peers": {
                "MODALITY": {"ae_title": "MODALITY", "host": HOST, "accept": True},
                "ARCHIVE": {"ae_title": aet, "host": HOST, "accept": True},
            },
            "assembly": {
                "study_quiet_seconds": quiet_seconds,
                "series_quiet_seconds": quiet_seconds,
                "max_study_age_days": None,  # real and invented series are old
            },
            "rules": [
                {
                    "name": "CT",
                    "when": {"modality": ["CT"], "min_instances": 2},
                    "model": "demo",
                    "destinations": [] if to is None else ["archive"],
                }
            ],
            # The demonstration model errs with real patients, and models of tests with everybody:
            # who tests what is held says so.
            "quality": dict.fromkeys(HELD, "note"),
            "work": {"devices": "cpu", "threads": 2, "lease_seconds": 5.0},
            "send": {"retry": {"first_seconds": 0.5, "ceiling_seconds": 2.0}},
            "storage": {"folder": "state"},
            "limits": {"min_free_bytes": 0},
            "web": {"enabled": False, "port": free_port()},
        }
        if to is not None:
            document["peers"]["ARCHIVE"]["port"] = to
            document["destinations"] = {"archive": {"peer": "ARCHIVE"}}
        self.document = merged(document, overrides or {})
        self.write_config()

    def write_config(self, overrides: Mapping[str, Any] | None = None) -> None:
        """Write the configuration, changed by `overrides`; roles that run do not read it again."""
        self.document = merged(self.document, overrides or {})
        self.config.write_text(yaml.safe_dump(self.document, sort_keys=False))

    @property
    def settings(self) -> settings.Settings:
        """The configuration as the node reads it."""
        return settings.load(self.config)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.document["node"]["port"])

    @property
    def ae_title(self) -> str:
        return str(self.document["node"]["ae_title"])

    # Processes

    def start(self, *commands: str, timeout: float = 60.0, under: Sequence[str] = ()) -> Node:
        """Start commands (`run`, or single roles) and wait until every role says it is there.

        Args:
            commands: each a process.
            timeout: in seconds.
            under: a program that runs them, as strace does.
        """
        for command in commands or ("run",):
            mark = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                self._processes[command] = subprocess.Popen(
                    [*under, sys.executable, "-m", "dicomnode", command, str(self.config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env={**os.environ, "OMP_NUM_THREADS": "2"},
                    start_new_session=True,
                )
            for role in roles_of(self.settings) if command == "run" else (command,):
                self._await_role(command, role, mark, timeout)
        return self

    def _await_role(self, command: str, role: str, mark: int, timeout: float) -> None:
        sign = "LISTENING" if role in ("receive", "web") else "ROLE_STARTED"

        def is_there() -> bool:
            code = self._processes[command].poll()
            assert code is None, f"{command} ended with {code}:\n{tail(self.log)}"
            text = self.log.read_bytes()[mark:].decode(errors="replace")
            return f" {role} {sign} " in text

        wait_until(is_there, timeout, f"{role} {sign} in\n{tail(self.log)}")

    def pid(self, role: str) -> int:
        """Return the process id of a role, from the ledger's table of workers."""
        facts = next((row for row in self.status()["roles"] if row["role"] == role), None)
        assert facts is not None, f"no {role} runs:\n{tail(self.log)}"
        return int(facts["pid"])

    def kill(self, role: str) -> int:
        """SIGKILL the process of a role; `run` starts it again by itself. Returns its id."""
        pid = self.pid(role)
        assert is_alive(pid), f"{role} is not alive"
        os.kill(pid, signal.SIGKILL)
        self._killed.add(pid)
        started = self._processes.get(role)
        if started is not None:
            started.wait(10)
            del self._processes[role]
        else:
            wait_until(lambda: not is_alive(pid), 10, f"{role} is dead")
        return pid

    def kill_supervisor(self) -> None:
        """SIGKILL the process of `run`, and wait until its roles have ended with it."""
        pids = [row["pid"] for row in self.status()["roles"]]
        process = self._processes.pop("run")
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(is_alive, pids)), 30, "the roles have ended")

    @property
    def supervisor(self) -> int:
        """The process id of `run`."""
        return self._processes["run"].pid

    def kill_all(self, pids: Sequence[int]) -> None:
        """SIGKILL the process of `run` and those of its own that are named, as nearly at once."""
        process = self._processes.pop("run")
        process.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not any(map(is_alive, pids)), 30, "the processes have ended")

    def wait_for_role(self, role: str, *, other_than: int = 0, timeout: float = 30.0) -> int:
        """Wait until a role runs (again); return its process id."""

        def pids(status: Status) -> list[int]:
            return [
                row["pid"]
                for row in status["roles"]
                if row["role"] == role and row["pid"] != other_than and is_alive(row["pid"])
            ]

        return pids(self.wait_for(pids, timeout, f"{role} runs"))[0]

    def stop(self, timeout: float = 30.0) -> None:
        """End all with SIGTERM; every process must end by itself with exit code 0."""
        processes, self._processes = self._processes, {}
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
        codes: dict[str, int | None] = {}
        for command, process in processes.items():
            try:
                codes[command] = process.wait(timeout)
            except subprocess.TimeoutExpired:
                codes[command] = None
                process.kill()
                process.wait()
        wrong = {command: code for command, code in codes.items() if code != 0}
        assert not wrong, f"exit codes after SIGTERM {wrong} (None: did not end):\n{tail(self.log)}"

    def end_traced(self, role: str) -> None:
        """End a role that runs under strace, which keeps SIGTERM from it."""
        process = self._processes.pop(role)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert process.wait(60) == 0, tail(self.log)

    def close(self) -> None:
        """End whatever runs, without judging it, and leave the ledger."""
        for process in self._processes.values():
            end(process)
        self._processes = {}
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    # Facts

    @property
    def ledger(self) -> Ledger:
        """The node's ledger, for looking at it beside the roles."""
        if self._ledger is None:
            loaded = self.settings
            self._ledger = Ledger(loaded.ledger_url, loaded.node.id)
        return self._ledger

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `dicomnode` on this node's configuration, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "dicomnode", *arguments, "-c", str(self.config)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "COLUMNS": "250"},
        )

    def status(self) -> Status:
        """Return what `dicomnode status --json` says."""
        with self.ledger.transaction() as tx:
            said = overview.overview(tx, limit=500, rules=self.settings.association_rules)
        assert_said("status", said)
        return said

    def events(self, study_uid: str) -> list[Status]:
        """Return the events of a study, oldest first."""
        with self.ledger.transaction() as tx:
            return overview.events_of(tx, study_uid)

    def attention(self) -> list[str]:
        """Return the codes of what needs attention, newest first."""
        return [row["code"] for row in self.status()["attention"]]

    def wait_for(
        self, predicate: Callable[[Status], object], timeout: float = 60.0, what: str = ""
    ) -> Status:
        """Poll `status` until `predicate(status)` is true; return that status.

        Raises:
            AssertionError: not in time; with the status and the end of the log.
        """
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            if predicate(status):
                return status
            if time.monotonic() > deadline:
                shown = json.dumps(status, indent=1, default=str)
                raise AssertionError(
                    f"not within {timeout:g} s: {what or predicate}\n{shown}\n{tail(self.log, 80)}"
                )
            time.sleep(0.1)

    def files(self, folder: str = "instances") -> list[Path]:
        """Return the DICOM files that lie in a folder of the spool, ordered by path."""
        return sorted((self.spool / folder).rglob("*.dcm"))

    def quarantine(self) -> list[tuple[dict[str, Any], bytes]]:
        """Return (reason, bytes) of everything in quarantine."""
        return [
            (json.loads(path.with_suffix(".json").read_text()), path.read_bytes())
            for path in self.files("quarantine")
        ]


def are_delivered(count: int) -> Callable[[Status], bool]:
    """Return a predicate for `Node.wait_for`: so many deliveries are done, and none is open."""

    def predicate(status: Status) -> bool:
        deliveries = status["counts"]["deliveries"]
        assert not deliveries.get("REFUSED"), status["deliveries"]
        return bool(deliveries == {"DELIVERED": count})

    return predicate


def job_states(status: Status) -> list[str]:
    """Return the states of the jobs, oldest first."""
    return [row["state"] for row in reversed(status["jobs"])]
