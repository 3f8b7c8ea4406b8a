"""QIDO-RS user agent (PS3.18 10.6): whose a study is, at the service that results go to."""

from __future__ import annotations

import json
import time

import requests
from pydicom.dataset import Dataset

from dicomnode.domain.holdings import StudyRecord
from dicomnode.domain.identifiers import parse_uid
from dicomnode.domain.outcomes import Refuse, Retry
from dicomnode.network.answers import IDENTITY, FailedError, only_study, study_record

ACCEPT = "application/dicom+json"
MAX_BYTES = 1 << 20
PIECE = 1 << 14


def find_study(
    session: requests.Session, base_url: str, study_uid: str, seconds: float
) -> StudyRecord | Retry | Refuse | None:
    """Ask a service whose a study is; None where it does not know it.

    Args:
        session: with the credentials that the service wants to see.
        base_url: of the service, without `/studies`.
        study_uid: Study Instance UID.
        seconds: for connecting, for each piece of the answer, and for twice that in all.
    """
    parameters = {
        "StudyInstanceUID": parse_uid(study_uid),
        "includefield": ",".join((*IDENTITY, "AccessionNumber")),
        "limit": "2",
    }
    try:
        with session.get(
            f"{base_url}/studies",
            params=parameters,
            headers={"Accept": ACCEPT},
            timeout=seconds,
            allow_redirects=False,
            stream=True,
        ) as answer:
            return _read(answer, study_uid, time.monotonic() + 2 * seconds)
    except FailedError as failed:
        return failed.outcome
    except requests.exceptions.SSLError:
        return Retry("TLS_FAILED", "no TLS with the service: its certificate, or its CA")
    except requests.exceptions.ConnectionError:
        return Retry("NO_CONNECTION", "the service cannot be reached")
    except (requests.exceptions.RequestException, ValueError) as error:
        return Retry("NO_RESPONSE", f"no answer that is one ({type(error).__name__})")


def _read(answer: requests.Response, study_uid: str, deadline: float) -> StudyRecord | None:
    if answer.status_code == requests.codes.no_content:
        return None
    if answer.status_code != requests.codes.ok:
        detail = "the service answers no queries (QIDO-RS)"
        raise FailedError(Retry(f"HTTP_{answer.status_code}", detail))
    data = bytearray()
    for piece in answer.iter_content(PIECE):
        data += piece
        if len(data) > MAX_BYTES:
            raise FailedError(Refuse("UNUSABLE_ANSWER", "the answer is too long"))
        if time.monotonic() > deadline:
            raise FailedError(Retry("QUERY_TIMEOUT", "the answer was not complete in time"))
    items = json.loads(data.decode())
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise FailedError(Refuse("UNUSABLE_ANSWER", "the answer is no list of studies"))
    found = only_study([study_record(_dataset(item), identity=True) for item in items], study_uid)
    if items and found is None:
        # Whoever overlooks the key may have the study and not show it.
        raise FailedError(Refuse("UNUSABLE_ANSWER", "the service answered with other studies"))
    return found


def _dataset(item: dict[str, object]) -> Dataset:
    try:
        return Dataset.from_json(item)
    except Exception as error:  # whatever a service sends can raise anything in a parser
        detail = f"the answer is not readable ({type(error).__name__})"
        raise FailedError(Refuse("UNUSABLE_ANSWER", detail)) from error
