"""The audit of the dependencies: what is found fails, what cannot be asked is said."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import audit_dependencies
import pytest
from audit_dependencies import read
from peers import HOST, free_port

FAULTY = "requests"
"""What the service of these tests has something against."""


class Osv:
    """A service that answers as api.osv.dev does (https://google.github.io/osv.dev/api/)."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        osv = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name = query["package"]["name"]
                osv.asked.append(name)
                data = json.dumps({"vulns": [fault(name)]} if name == FAULTY else {}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_address[1]}/v1/query"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def fault(name: str) -> dict[str, Any]:
    span = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}
    package = {"name": name, "ecosystem": "PyPI"}
    return {
        "id": "PYSEC-0000-1",
        "details": "made up",
        "affected": [{"package": package, "ranges": [span], "versions": ["2.31.0"]}],
    }


@pytest.fixture
def osv() -> Iterator[Osv]:
    service = Osv()
    yield service
    service.close()


def pinned(folder: Path, *lines: str) -> list[str]:
    file = folder / "requirements.txt"
    file.write_text("\n".join(lines))
    return ["--disable-pip", "--no-deps", "-r", str(file)]


def test_a_vulnerable_package_fails_and_is_named(osv: Osv, tmp_path: Path, capsys: Any) -> None:
    target = pinned(tmp_path, "requests==2.31.0", "idna==3.10")
    assert audit_dependencies.main([("osv", "--osv-url", osv.url)], target) == 1
    assert sorted(osv.asked) == ["idna", "requests"]
    said = capsys.readouterr().out
    assert "requests 2.31.0: PYSEC-0000-1 (mended in 99.1)" in said
    assert "idna" not in said


def test_packages_without_a_known_fault_pass(osv: Osv, tmp_path: Path, capsys: Any) -> None:
    target = pinned(tmp_path, "idna==3.10")
    assert audit_dependencies.main([("osv", "--osv-url", osv.url)], target) == 0
    assert "1 packages audited by osv" in capsys.readouterr().out


def test_a_service_that_is_away_fails_nothing_and_the_next_is_asked(
    osv: Osv, tmp_path: Path, capsys: Any
) -> None:
    target = pinned(tmp_path, "requests==2.31.0")
    away = ("osv", "--osv-url", f"http://{HOST}:{free_port()}/v1/query")
    assert audit_dependencies.main([away], target) == 0
    assert capsys.readouterr().out.startswith("SKIPPED, nothing was audited")
    assert audit_dependencies.main([away, ("osv", "--osv-url", osv.url)], target) == 1


def test_a_mirror_without_such_data_audits_nothing() -> None:
    said = {"dependencies": [{"name": "idna", "skip_reason": "not found on PyPI"}], "fixes": []}
    answer = read(0, json.dumps(said), "No known vulnerabilities found")
    assert (answer.audited, answer.unknown) == (0, ("idna",))


@pytest.mark.parametrize(("code", "stderr"), [(2, "usage: ..."), (1, "KeyError: 'x'"), (0, "")])
def test_a_broken_audit_is_no_audit(code: int, stderr: str) -> None:
    with pytest.raises(RuntimeError, match="pip-audit ended with"):
        read(code, "", stderr)
