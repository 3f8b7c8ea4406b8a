"""STOW-RS user agent (PS3.18 10.5): result files to a DICOMweb service, as their bytes are.

The library builds the service's URLs and holds the session. Its own way of storing decodes and
encodes each object anew; here the file is streamed: what is sent is what was recorded.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from urllib3.exceptions import HTTPError

from dicomnode.domain.holdings import StudyRecord
from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry
from dicomnode.domain.web import SECRET, Credentials, Web, classify_http
from dicomnode.network import qido
from dicomnode.network.progress import Pace

PIECE = 1 << 16
MAX_ANSWER_BYTES = 1 << 22
ACCEPT = "application/dicom+json"


class SecretError(Exception):
    """A secret is not where the configuration says; the text has no secret in it."""


def find_credentials(web: Web) -> Credentials:
    """Read the secrets of a service, anew for every batch: a renewed token is used at once.

    Raises:
        SecretError: one is not there.
    """
    return Credentials(
        token=_secret(web.token), user=_secret(web.user), password=_secret(web.password)
    )


def _secret(named: str | None) -> str | None:
    found = SECRET.fullmatch(named or "")
    if found is None:
        return None
    kind, where = found.groups()
    try:
        value = os.environ.get(where, "") if kind == "env" else Path(where).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"{named} cannot be read ({type(error).__name__})") from error
    if not value or not re.fullmatch(r"[\x21-\x7e]+", value):
        raise SecretError(f"{named} is empty, or has characters that no secret has")
    return value


class _Client(DICOMwebClient):
    """The library's client, for the URL of a study and its session."""

    def url_of(self, study_uid: str) -> str:
        """Return where instances of a study go."""
        return f"{self.base_url}/studies/{study_uid}"

    @property
    def session(self) -> requests.Session:
        session: requests.Session = self._session
        return session


class StowService:
    """A DICOMweb service, for one batch of objects.

    Args:
        web: the service.
        credentials: what it wants to see.
        timeout_seconds: for connecting.
        pace: of what is sent.
        is_stopping: whether the node is to stop; what is under way is then cut off.
    """

    def __init__(
        self,
        web: Web,
        credentials: Credentials,
        timeout_seconds: float,
        pace: Pace,
        is_stopping: Callable[[], bool],
    ) -> None:
        session = requests.Session()
        session.trust_env = False  # no proxy, and no credentials of another origin
        session.verify = web.ca or True
        if credentials.token:
            session.headers["Authorization"] = f"Bearer {credentials.token}"
        elif credentials.user and credentials.password:
            session.auth = (credentials.user, credentials.password)
        self._client = _Client(web.url.rstrip("/"), session=session)
        self._timeout = timeout_seconds
        self._pace = pace
        self._is_stopping = is_stopping

    def close(self) -> None:
        """Close its connections."""
        self._client.session.close()

    def store(
        self, path: Path, study_uid: str, sop_instance_uid: str, patience_seconds: float
    ) -> tuple[Outcome, int | None]:
        """Send a DICOM file as it is.

        Args:
            path: the file.
            study_uid: of the instance; the service is not to file it under another.
            sop_instance_uid: of the instance.
            patience_seconds: for how long nothing may move.

        Returns:
            What it came to, and the HTTP status of the answer if there was one.
        """
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        size = len(head) + path.stat().st_size + len(tail)
        body = _Body(self._pieces(path, head, tail), size)
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        try:
            with self._client.session.post(
                self._client.url_of(study_uid),
                data=body,
                headers={"Content-Type": kind, "Accept": ACCEPT},
                timeout=(self._timeout, patience_seconds),
                allow_redirects=False,
                stream=True,
            ) as response:
                failed, stored = _answer(response)
                return (
                    classify_http(response.status_code, failed, stored, sop_instance_uid),
                    response.status_code,
                )
        except requests.exceptions.SSLError:
            return Retry("TLS_FAILED", "no TLS with the service: its certificate, or its CA"), None
        except requests.exceptions.ConnectTimeout:
            return Retry("NO_CONNECTION", "the service cannot be reached"), None
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            # Before any byte of the object was asked for there was no connection.
            if body.is_untouched:
                return Retry("NO_CONNECTION", "the service cannot be reached"), None
            return Retry("NO_RESPONSE", f"no answer ({type(error).__name__})"), None
        except (requests.exceptions.RequestException, HTTPError, ValueError) as error:
            return Retry("NO_RESPONSE", f"no answer that is one ({type(error).__name__})"), None

    def _pieces(self, path: Path, head: bytes, tail: bytes) -> Iterator[bytes]:
        yield head
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                until = time.monotonic() + self._pace.delay(len(piece), time.monotonic())
                while time.monotonic() < until and not self._is_stopping():
                    time.sleep(min(0.05, max(until - time.monotonic(), 0.0)))
                if self._is_stopping():
                    raise requests.exceptions.ConnectionError("the node is to stop")
                yield piece
        yield tail

    def find_study(self, study_uid: str) -> StudyRecord | Retry | Refuse | None:
        """Ask the service whose a study is (QIDO-RS); None where it does not know it."""
        session, base_url = self._client.session, str(self._client.base_url)
        return qido.find_study(session, base_url, study_uid, self._timeout)

    def probe(self) -> Outcome:
        """Ask the service for one study, whichever it is (QIDO-RS, PS3.18 10.6)."""
        try:
            answer = self._client.session.get(
                f"{self._client.base_url}/studies",
                params={"limit": 1},
                headers={"Accept": ACCEPT},
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.exceptions.SSLError:
            return Retry("TLS_FAILED", "no TLS with the service: its certificate, or its CA")
        except requests.exceptions.RequestException as error:
            return Retry("NO_CONNECTION", f"the service cannot be reached ({type(error).__name__})")
        if answer.status_code in (200, 204):
            return Done()
        return Refuse(f"HTTP_{answer.status_code}", "the service did not answer a query")


class _Body:
    """A body of known length: without it, it would go in chunks, which some services refuse."""

    def __init__(self, pieces: Iterator[bytes], size: int) -> None:
        self._pieces = pieces
        self._size = size
        self.is_untouched = True

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.is_untouched = False
            yield piece


def _answer(response: requests.Response) -> tuple[dict[str, int], dict[str, int]]:
    """Return SOP Instance UID -> reason of what failed, and of what was stored (PS3.18 annex I).

    Raises:
        ValueError: it is not readable.
    """
    if "json" not in response.headers.get("Content-Type", ""):
        return {}, {}
    data = response.raw.read(MAX_ANSWER_BYTES + 1, decode_content=True)
    if len(data) > MAX_ANSWER_BYTES:
        raise ValueError("the answer is too long")
    try:
        dataset = Dataset.from_json(data.decode() or "{}")
        return (
            _reasons(dataset, "FailedSOPSequence", "FailureReason", 0x0110),
            _reasons(dataset, "ReferencedSOPSequence", "WarningReason", 0),
        )
    except Exception as error:  # whatever a service sends can raise anything in a parser
        raise ValueError(f"the answer is not readable ({type(error).__name__})") from error


def _reasons(dataset: Any, sequence: str, reason: str, without: int) -> dict[str, int]:
    return {
        str(item.ReferencedSOPInstanceUID): int(item.get(reason) or without)
        for item in dataset.get(sequence) or ()
    }
