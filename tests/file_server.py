"""A small HTTP server on the loopback for downloads: ranges, cuts, and answers that go wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class FileServer:
    """What it serves, how it goes wrong, and what it was asked for."""

    folder: Path
    address: str = ""
    cut_after: list[int] = field(default_factory=list)
    """For each request to come: bytes of the body after which the connection is closed."""
    answers: list[int] = field(default_factory=list)
    """For each request to come: a status instead of the file (0: the file)."""
    redirect: str = ""
    say_length: int | None = None
    etag: str = '"one"'
    ranges: list[str | None] = field(default_factory=list)
    """The Range of every request."""


@contextmanager
def serve(folder: Path) -> Iterator[FileServer]:
    """Serve the files of a folder while the block runs."""
    state = FileServer(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

        def do_GET(self) -> None:
            state.ranges.append(self.headers.get("Range"))
            answer = state.answers.pop(0) if state.answers else 0
            path = state.folder / self.path.rsplit("/", 1)[1]
            if state.redirect and not answer:
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self._end(b"")
                return
            if answer or not path.is_file():
                self.send_response(answer or 404)
                self._end(b"")
                return
            data, start = path.read_bytes(), 0
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if asked and self.headers.get("If-Range") == state.etag:
                start = int(asked[1])
                if start >= len(data):
                    self.send_response(416)
                    self._end(b"")
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("ETag", state.etag)
            self._end(data[start:])

        def _end(self, body: bytes) -> None:
            length = len(body) if state.say_length is None else state.say_length
            self.send_header("Content-Length", str(length))
            self.end_headers()
            cut = state.cut_after.pop(0) if state.cut_after and body else None
            self.wfile.write(body[:cut])
            if cut is not None or state.say_length is not None:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}/release"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
