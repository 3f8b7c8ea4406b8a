"""Real peers on free loopback ports: Orthanc, PostgreSQL and DCMTK's tools.

Everything here is started as a process of its own and ended by its process id; nothing is a mock.
The fixtures of conftest.py hand these classes to the tests. The node itself is in nodes.py, an SCU
that sends bytes as they are in scu.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg
import pydicom
from viewer_site import HOST, OHIF

SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
"""Where DCMTK lies: an active environment's `storescu` is pynetdicom's script of that name."""
DCMTK_ENVIRONMENT = {"TCP_NODELAY": "1", "PATH": SYSTEM_PATH}
"""Without it DCMTK and Orthanc lose about 40 ms an object to Nagle's algorithm."""
DICOM_WEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
CORNERSTONE = Path(__file__).parent / "viewers/node_modules/@cornerstonejs/adapters"
"""`make test` puts it there where npm is."""

# What is there


def postgres_bin() -> Path | None:
    """Return the folder of the newest PostgreSQL server's programs."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def missing_peers(names: Iterable[str]) -> list[str]:
    """Return which of the named peers this machine lacks.

    `orthanc`, `orthanc-dicomweb` (its plugin), `postgres`, `dcmtk`, `cornerstone` (packages of
    npm, for Node 20 or newer), `ohif` and `rsyslog` (with TLS) are known by name; any other name
    is a program on the path.
    """
    programs = {
        "nginx": ["nginx"],
        "orthanc": ["Orthanc"],
        "dcmtk": ["storescu", "echoscu", "dsrdump", "dcmqrscp"],
    }
    missing = []
    for name in names:
        if name == "postgres":
            there = postgres_bin() is not None
        elif name == "orthanc-dicomweb":
            there = DICOM_WEB_PLUGIN.is_file()
        elif name == "ohif":
            there = OHIF.is_dir()
        elif name == "rsyslog":
            plugin = any(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so"))
            there = plugin and shutil.which("rsyslogd", path=SYSTEM_PATH) is not None
        elif name == "cornerstone":
            there = CORNERSTONE.is_dir() and _node_version() >= 20
        elif name in programs:
            there = all(shutil.which(program, path=SYSTEM_PATH) for program in programs[name])
        else:
            venv = str(Path(sys.executable).parent)
            there = shutil.which(name, path=f"{venv}:{os.environ['PATH']}") is not None
        if not there:
            missing.append(name)
    return missing


def _node_version() -> int:
    """Return Node's major version; 0 where there is none."""
    if shutil.which("node") is None:
        return 0
    done = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return int(done.stdout.removeprefix("v").split(".")[0])


# Waiting and processes


def free_port() -> int:
    """Return a loopback port that nobody listens on.

    It lies below the range from which the kernel takes the ports of outgoing connections: there,
    a peer that is down for a moment could find its port taken, even by who tries to reach it.
    """
    for _ in range(1000):
        port = random.randint(15000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise AssertionError("no free port on loopback")


def wait_until(
    condition: Callable[[], object], timeout: float, what: str, *, every: float = 0.05
) -> None:
    """Wait until `condition()` is true, and fail with `what` if it is not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(every)


def tail(path: Path, lines: int = 40) -> str:
    """Return the last lines of a log file."""
    if not path.is_file():
        return "(none)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def end(process: subprocess.Popen[bytes], timeout: float = 20.0) -> int:
    """Ask a process to end, insist after a while; return its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


# Orthanc


class Orthanc:
    """An Orthanc that stores in its own folder; `stop` and `start` keep what it has.

    Args:
        folder: for its configuration, its log and its storage.
        ae_title: its called AE title, which it checks.
        modalities: DicomModalities: name -> (AE title, port); further ones with `add_modality`.
        options: more keys of its configuration, which replace those here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ARCHIVE",
        modalities: Mapping[str, tuple[str, int]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.port = free_port()
        self.http_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "orthanc.json"
        self._log = folder / "orthanc.log"
        document = {
            "Name": ae_title,
            "DicomAet": ae_title,
            "DicomPort": self.port,
            "DicomCheckCalledAet": True,
            "DicomModalities": {
                name: [aet, HOST, port] for name, (aet, port) in (modalities or {}).items()
            },
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [],
            "StableAge": 1,
            "HttpThreadsCount": 4,
            "LimitFindResults": 0,
        }
        self._config.write_text(json.dumps(document | dict(options or {}), indent=1))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until its REST interface answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **DCMTK_ENVIRONMENT},
            )
        wait_until(self._answers, 20, f"Orthanc is up: {self._log}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Orthanc ended: {tail(self._log)}"
        try:
            self.get("/system")
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            end(self._process)
            self._process = None

    def kill(self) -> None:
        """End it as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _request(self, method: str, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(
            f"http://{HOST}:{self.http_port}{path}", data=data, method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()!r}") from error

    def get(self, path: str) -> Any:
        """GET JSON from its REST interface."""
        return json.loads(self._request("GET", path))

    def post(self, path: str, body: Any = None) -> Any:
        """POST to its REST interface; bytes go as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads(self._request("POST", path, data) or b"null")

    def put(self, path: str, body: Any) -> None:
        """PUT JSON to its REST interface."""
        self._request("PUT", path, json.dumps(body).encode())

    def delete(self, path: str) -> None:
        """DELETE on its REST interface."""
        self._request("DELETE", path)

    def add_modality(self, name: str, ae_title: str, port: int) -> None:
        """Make a peer known to it, as for sending to it."""
        self.put(f"/modalities/{name}", {"AET": ae_title, "Host": HOST, "Port": port})

    def store_scu(self, modality: str, resources: Sequence[str]) -> Any:
        """Have it send resources (its own ids) to a modality, and wait until it has."""
        return self.post(
            f"/modalities/{modality}/store", {"Resources": list(resources), "Synchronous": True}
        )

    def instances(self, study_uid: str | None = None) -> dict[str, str]:
        """Return SOP Instance UID -> Orthanc's id of what it holds, of one study or of all."""
        query = {} if study_uid is None else {"StudyInstanceUID": study_uid}
        found = self.post("/tools/find", {"Level": "Instance", "Query": query, "Expand": True})
        return {item["MainDicomTags"]["SOPInstanceUID"]: item["ID"] for item in found}

    def file(self, orthanc_id: str) -> bytes:
        """Return the DICOM file of an instance, as stored."""
        return self._request("GET", f"/instances/{orthanc_id}/file")

    def datasets(self, study_uid: str | None = None) -> list[pydicom.Dataset]:
        """Return every instance it holds as a data set, ordered by SOP Instance UID."""
        return [
            pydicom.dcmread(BytesIO(self.file(orthanc_id)))
            for _, orthanc_id in sorted(self.instances(study_uid).items())
        ]

    def results(self, study_uid: str | None = None) -> dict[str, pydicom.Dataset]:
        """Return Modality -> data set of the results it holds; fails if there are two of one."""
        found: dict[str, pydicom.Dataset] = {}
        for dataset in self.datasets(study_uid):
            if dataset.Modality in ("SEG", "OT", "SR"):
                assert dataset.Modality not in found, f"more than one {dataset.Modality}"
                found[dataset.Modality] = dataset
        return found


# DCMTK's archive


class Dcmqrscp:
    """DCMTK's dcmqrscp: stores, answers C-FIND, C-MOVE and C-GET.

    Args:
        folder: for its configuration, its log and its storage.
        moves_to: AE title -> port of those to whom it moves.
        options: of its command line, as `-xw`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "DCMQR",
        moves_to: Mapping[str, int] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.ae_title = ae_title
        self.port = free_port()
        self.log = folder / "dcmqrscp.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._options = options
        self._config = folder / "dcmqrscp.cfg"
        storage = folder / "storage"
        storage.mkdir(parents=True)
        hosts = [f"{aet} = ({aet}, localhost, {port})" for aet, port in (moves_to or {}).items()]
        self._config.write_text(
            f"NetworkTCPPort = {self.port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
            "HostTable BEGIN\n" + "\n".join(hosts) + "\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{ae_title} {storage} RW (500, 1024mb) ANY\nAETable END\n"
        )

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/bin/dcmqrscp", "-v", "-c", str(self._config), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **DCMTK_ENVIRONMENT},
                start_new_session=True,
            )
        wait_until(self._listens, 20, f"dcmqrscp listens: {self.log}")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"dcmqrscp ended: {tail(self.log)}"
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """End it and the processes that it forked for its associations."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


# nginx


class Nginx:
    """An nginx that serves what a `server` block says; its requests come from `source`.

    Args:
        folder: for its configuration, its logs and what it buffers.
        server: the block, or several.
        source: the address that it calls others from.
    """

    def __init__(self, folder: Path, server: str, source: str = HOST) -> None:
        folder.mkdir(parents=True)
        self.log = folder / "error.log"
        self._config = folder / "nginx.conf"
        self._process: subprocess.Popen[bytes] | None = None
        user = "user root;\n" if os.geteuid() == 0 else ""  # pytest's folders are their owner's
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "\n".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
        self._config.write_text(
            f"{user}daemon off;\nmaster_process on;\npid {folder / 'pid'};\nerror_log {self.log};\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{temporary}\nproxy_bind {source};\n"
            f"{server}\n}}\n"
        )

    def start(self, port: int) -> None:
        """Start it and wait until it listens on a port."""
        with self.log.open("ab") as log:
            program = shutil.which("nginx", path=SYSTEM_PATH)
            assert program is not None
            self._process = subprocess.Popen(
                [program, "-c", str(self._config), "-e", str(self.log)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self._listens(port), 20, f"nginx listens: {self.log}")

    def _listens(self, port: int) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"nginx ended: {tail(self.log)}"
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return True
        return False

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            end(self._process)
            self._process = None


# Prometheus


class Prometheus:
    """A Prometheus on loopback with a configuration file; what it stores is in the folder."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.port = free_port()
        self.log = folder / "prometheus.log"
        self._folder = folder
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._config}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={HOST}:{self.port}",
                    "--log.level=warn",
                ],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_ready, 30, f"Prometheus is ready: {self.log}")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Prometheus ended: {tail(self.log)}"
        with contextlib.suppress(OSError):
            return b"eady" in self._ask("/-/ready")
        return False

    def _ask(self, path: str) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{HOST}:{self.port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def get(self, path: str, **query: str) -> Any:
        """Return the data of an answer of its API."""
        found = json.loads(self._ask(f"/api/v1/{path}?{urllib.parse.urlencode(query)}"))
        assert found["status"] == "success", found
        return found["data"]

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            end(self._process)
            self._process = None


# PostgreSQL


class Postgres:
    """A PostgreSQL server on a socket and a loopback port, without fsync, gone at the end."""

    def __init__(self) -> None:
        programs = postgres_bin()
        assert programs is not None
        self._programs = programs
        # Not in pytest's folder: the server's own user has to reach it.
        self._folder = Path(tempfile.mkdtemp(prefix="dicomnode-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        self.port = free_port()
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if _has_user(name))
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._count = 0

    def start(self) -> None:
        """Start the server, with an empty cluster the first time."""
        common: dict[str, Any] = {"cwd": "/", "env": {"PATH": SYSTEM_PATH, "LC_ALL": "C"}}
        common |= {"stdin": subprocess.DEVNULL, **self._as}
        if not (self._folder / "data").exists():
            subprocess.run(
                self._command("initdb", "-U", "node", "-A", "trust", "--no-sync", "-E", "UTF8"),
                check=True,
                capture_output=True,
                **common,
            )
        quick = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        quick |= {"listen_addresses": HOST, "shared_buffers": "16MB", "max_connections": "60"}
        options = [part for key, value in quick.items() for part in ("-c", f"{key}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-k", str(self._folder), "-p", str(self.port), *options),
                stdout=log,
                stderr=log,
                **common,
            )
        wait_until(self._answers, 30, f"PostgreSQL is up: {self._folder / 'log'}")

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [str(self._programs / program), "-D", str(self._folder / "data"), *arguments]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"PostgreSQL ended: {tail(self._folder / 'log')}"
        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        with psycopg.connect(
            f"host={HOST} port={self.port} user=node dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(statement)

    def url(self, database: str) -> str:
        """Return SQLAlchemy's URL of a database."""
        return f"postgresql+psycopg://node@{HOST}:{self.port}/{database}"

    def fresh_database(self, template: str = "template1") -> str:
        """Make a database that nobody has used and return its URL."""
        self._count += 1
        name = f"ledger_{self._count}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database and whoever is connected to it."""
        self._execute(f"DROP DATABASE {url.rsplit('/', 1)[1]} WITH (FORCE)")

    def kill(self) -> None:
        """End the server at once, whoever is connected; `start` brings it back."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
            self._process = None

    def stop(self) -> None:
        """End the server and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


# DCMTK


@dataclass(frozen=True, slots=True)
class Dcmtk:
    """DCMTK's tools as a modality uses them."""

    calling_ae: str = "MODALITY"

    def run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run one of its programs; the caller looks at the exit code and the output."""
        path = shutil.which(program, path=SYSTEM_PATH)
        assert path is not None, f"{program} is missing"
        return subprocess.run(
            [path, *map(str, arguments)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=300,
            check=False,
            env={**os.environ, **DCMTK_ENVIRONMENT},
        )

    def storescu(
        self,
        port: int,
        *paths: Path,
        called: str = "DICOMNODE",
        calling: str | None = None,
        options: Sequence[str] = (),
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Send files and folders by C-STORE over one association.

        Folders are searched for files. Transfer syntaxes other than uncompressed ones have to be
        proposed by `options` (`-xs` JPEG lossless, `-xw` JPEG 2000, ...).
        """
        done = self.run(
            "storescu", "-v", "-aet", calling or self.calling_ae, "-aec", called, *options,
            "+sd", "+r", HOST, port, *paths,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def echoscu(
        self, port: int, *, called: str = "DICOMNODE", calling: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Ask for Verification."""
        return self.run(
            "echoscu", "-v", "-aet", calling or self.calling_ae, "-aec", called, HOST, port
        )
