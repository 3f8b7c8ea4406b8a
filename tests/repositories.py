"""An audit record repository: rsyslog, which takes syslog over TLS and UDP and writes it down."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audit_kit import parsed
from certificates import Authority
from peers import HOST, SYSTEM_PATH, end, free_port, tail, wait_until

_CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="64k"
  defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="{ca}"
  defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1"
  StreamDriver.AuthMode="x509/certvalid")
module(load="imudp")
template(name="raw" type="string" string="%rawmsg%\\n")
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="audit")
input(type="imudp" port="{port}" address="127.0.0.1" ruleset="audit")
ruleset(name="audit") {{ action(type="omfile" file="{file}" template="raw") }}
"""


class Rsyslog:
    """An rsyslog on loopback that wants a client certificate; `stop` and `start` keep its file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.port = folder, free_port()
        self.file = folder / "messages"
        self.authority = Authority(folder / "authority")
        server = self.authority.sign("repository")
        self.client = self.authority.sign("node")
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"
        self._configuration = folder / "rsyslog.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(
                folder=folder,
                ca=self.authority.certificate,
                certificate=server.certificate,
                key=server.key,
                port=self.port,
                file=self.file,
            )
        )

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return what `audit.syslog` says to reach it by TLS."""
        tls = {
            "ca": str(self.authority.certificate),
            "certificate": str(self.client.certificate),
            "key": str(self.client.key),
        }
        return {"host": HOST, "port": self.port, "tls": tls, "timeout_seconds": 5.0, **changes}

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = ["rsyslogd", "-n", "-f", str(self._configuration)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*program, "-i", str(self.folder / "pid")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": SYSTEM_PATH},
            )
        wait_until(self._listens, 20, f"rsyslog listens: {tail(self._log)}")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"rsyslog ended: {tail(self._log)}"
        ports = Path("/proc/net/tcp").read_text()
        return f":{self.port:04X} 00000000:0000 0A" in ports

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

    def freeze(self) -> None:
        """Let it take connections and say nothing, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def lines(self) -> list[bytes]:
        """Return the syslog messages that it has written down, in order."""
        return self.file.read_bytes().splitlines() if self.file.exists() else []

    def messages(self) -> Sequence[Any]:
        """Return the audit messages in them, each validated against the schema."""
        return [
            parsed(line.partition(b" - ")[2].removeprefix(b"\xef\xbb\xbf")) for line in self.lines()
        ]
