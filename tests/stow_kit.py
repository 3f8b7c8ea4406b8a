"""DICOMweb services with a script, for tests of what is sent by STOW-RS and asked by QIDO-RS."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from peers import HOST


class Service:
    """A service that answers what it is to store with what `answer` returns: status and body."""

    def __init__(self, answer: Callable[[str], tuple[int, Any]], wrap: Any = None) -> None:
        self.answer = answer
        self.whose: Callable[[], tuple[int, Any]] = lambda: (204, None)
        """What it answers to who asks for a study."""
        self.missing_bytes = 0
        """Of an answer to who stores: it says that there are more, and ends the connection."""
        self.queries: list[str] = []
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.bodies: list[bytes] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.queries.append(self.path)
                status, document = service.whose()
                data = b"" if document is None else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.paths.append(self.path)
                service.bodies.append(body)
                service.authorizations.append(self.headers.get("Authorization"))
                found = re.search(rb"2\.25\.\d+\.\d+", body)
                assert found is not None
                status, document = service.answer(found.group().decode())
                data = json.dumps(document).encode() if document is not None else b""
                self.send_response(status)
                if data:
                    self.send_header("Content-Type", "application/dicom+json")
                self.send_header("Content-Length", str(len(data) + service.missing_bytes))
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = self.close_connection or service.missing_bytes > 0

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        scheme = "http"
        if wrap is not None:
            self._server.socket = wrap(self._server.socket)
            scheme = "https"
        self.url = f"{scheme}://localhost:{self._server.server_address[1]}/dicom-web"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def stored(uid: str, warning: int | None = None) -> dict[str, Any]:
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if warning is not None:
        item["00081196"] = {"vr": "US", "Value": [warning]}
    return {"00081199": {"vr": "SQ", "Value": [item]}}


def failed(uid: str, reason: int) -> dict[str, Any]:
    item = {
        "00081155": {"vr": "UI", "Value": [uid]},
        "00081197": {"vr": "US", "Value": [reason]},
    }
    return {"00081198": {"vr": "SQ", "Value": [item]}}
