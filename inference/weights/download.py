"""Fetch one large file over HTTP: resumed where it was cut, tried again, whole or not there.

What came so far stays in `<name>.part`, with what the server called it in `<name>.part.json`, so
that a later attempt goes on from there if it still is the same file.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from inference.card import WeightsError
from inference.record import sync_folder, write_whole

Report = Callable[[str, int, int], None]
"""Called with what is done, how much of it is, and of how much (0: unknown)."""

ATTEMPTS = 5
FIRST_WAIT_SECONDS = 1.0
TIMEOUT_SECONDS = 60.0
MAX_BYTES = 8 * 2**30
SPARE_BYTES = 200 * 2**20
"""Left free on the disk, whatever is fetched."""
CHUNK = 2**18
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Response(Protocol):
    status: int
    headers: Message

    def read(self, amount: int) -> bytes: ...


class NoSpaceError(WeightsError):
    """The disk is too full; nothing else is wrong."""


class _CutError(Exception):
    """The transfer failed in a way that may pass."""


def fetch(
    address: str,
    target: Path,
    report: Report,
    *,
    sleep: Callable[[float], None] = time.sleep,
    attempts: int = ATTEMPTS,
) -> None:
    """Download `address` to `target`, which appears only when it is complete.

    Raises:
        WeightsError: the address is wrong, the server refuses, the network fails `attempts` times
            in a row without progress, the disk is full, or more or less came than was announced.
    """
    if urlsplit(address).scheme not in ("http", "https"):
        raise WeightsError(f"{address}: expected an address with http:// or https://")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    failures, wait = 0, FIRST_WAIT_SECONDS
    while True:
        before = _size(part)
        try:
            _go_on(address, part, report)
            break
        except _CutError as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= attempts:
                raise WeightsError(
                    f"{address}: {error}; tried {attempts} times. What came so far is kept: the "
                    "same command goes on from there. Without internet, `dicomnode models import "
                    "PATH` takes the archive from a disk."
                ) from error
            wait = FIRST_WAIT_SECONDS if failures == 1 else min(2 * wait, 60.0)
            sleep(wait)
        except OSError as error:
            raise WeightsError(f"{part}: cannot be written: {error.strerror}") from error
    part.replace(target)
    _notes(part).unlink(missing_ok=True)
    sync_folder(target.parent)


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise NoSpaceError if the disk of `folder` has no room for `needed` bytes and a spare."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise NoSpaceError(
            f"{folder}: no space for {what}: it needs {_mb(needed + SPARE_BYTES)}, "
            f"{_mb(free)} are free"
        )


def _go_on(address: str, part: Path, report: Report) -> None:
    """Fetch what is missing of `part`; raise _CutError where another attempt may do better."""
    headers = {"User-Agent": "dicomnode", "Accept-Encoding": "identity"}
    have, known = _size(part), _read_notes(part)
    if have and known.get("tag") and known.get("address") == address:
        headers |= {"Range": f"bytes={have}-", "If-Range": known["tag"]}
    else:
        have = 0
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - scheme checked above
    try:
        with _opener().open(request, timeout=TIMEOUT_SECONDS) as response:
            _store(address, part, report, response, have)
    except urllib.error.HTTPError as error:
        _refuse(address, part, error)
    except urllib.error.URLError as error:
        host = urlsplit(address).hostname
        raise _CutError(f"no network, or {host} does not answer ({error.reason})") from error
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _CutError(f"the connection broke ({error!r})") from error


def _store(address: str, part: Path, report: Report, response: _Response, have: int) -> None:
    total = _total(response)
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        if _start(response) != have:
            part.unlink(missing_ok=True)
            raise _CutError("the server sent another part than was asked for")
    else:
        have = 0
        headers = response.headers
        tag = headers.get("ETag") or headers.get("Last-Modified") or ""
        # If-Range takes strong validators only (RFC 9110, 13.1.5).
        note = {"address": address, "tag": "" if tag.startswith("W/") else tag}
        write_whole(_notes(part), json.dumps(note).encode())
    if total > MAX_BYTES:
        raise WeightsError(f"{address}: {_mb(total)}; expected at most {_mb(MAX_BYTES)}")
    check_space(part.parent, max(0, total - have), address.rsplit("/", 1)[1])
    name = address.rsplit("/", 1)[1]
    with part.open("ab" if have else "wb") as file:
        while chunk := _read(response):
            have += len(chunk)
            if have > (total or MAX_BYTES):
                raise WeightsError(f"{address}: longer than the server said")
            file.write(chunk)
            report(name, have, total)
    if have < total:
        raise _CutError(f"half a download: {have} of {total} bytes came")


def _read(response: _Response) -> bytes:
    try:
        return response.read(CHUNK)
    except http.client.IncompleteRead as error:
        return error.partial
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(f"the connection broke ({error!r})") from error


def _refuse(address: str, part: Path, error: urllib.error.HTTPError) -> None:
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.unlink(missing_ok=True)
        raise _CutError("the file has become shorter") from error
    if error.code in TRY_AGAIN:
        raise _CutError(f"the server answered {error.code} {error.reason}") from error
    hint = "; it is not there any more" if error.code in (404, 410) else ""
    raise WeightsError(
        f"{address}: the server answered {error.code} {error.reason}{hint}"
    ) from error


def _total(response: _Response) -> int:
    """Return the length of the whole file, 0 if the server does not say."""
    within = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range") or "")
    if within:
        return int(within[1])
    length = response.headers.get("Content-Length") or ""
    return int(length) if length.isdecimal() else 0


def _start(response: _Response) -> int:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    return int(found[1]) if found else -1


class _SafeRedirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, never from https to http."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request to follow with; raise HTTPError where it must not be followed."""
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and scheme != urlsplit(req.full_url).scheme:
            raise urllib.error.HTTPError(req.full_url, code, "unsafe redirect", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_SafeRedirect)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_notes(part: Path) -> dict[str, str]:
    try:
        notes = json.loads(_notes(part).read_bytes())
    except (OSError, ValueError):
        return {}  # nothing is known of the part, so it is fetched from the start
    return notes if isinstance(notes, dict) else {}


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
