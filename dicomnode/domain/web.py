"""DICOMweb destinations: where, with which credentials, and what an answer means (PS3.18 10.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry, classify_store_status

SECRET = re.compile(r"(env|file):(.+)")
"""How a secret is named in the configuration; it never stands there itself."""
OF_THE_DESTINATION = frozenset({"NO_CONNECTION", "TLS_FAILED", "NO_SECRET"}) | {
    f"HTTP_{status}" for status in (401, 403, 404, 405, 407, 429, 502, 503, 504)
}
"""Codes of outcomes that say something of the service and nothing of the object."""
AGAIN = (408, 425, 500, 507)
"""Statuses that may pass and that may be the object's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """A DICOMweb service that takes results by STOW-RS."""

    url: str
    """Without `/studies`."""
    token: str | None = None
    """Where the bearer token is found: env:NAME or file:PATH. Likewise the next two."""
    user: str | None = None
    password: str | None = None
    ca: str | None = None
    """Certificates that sign the service's; None: those of the system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a service wants to see; never shown."""

    token: str | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def check_web(web: Web) -> None:
    """Look whether a service can be spoken to as it is described.

    Raises:
        ValueError: `stow_KEY: what is wrong`.
    """
    try:
        parts = urlsplit(web.url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"stow_url: no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("stow_url: expected http:// or https:// and a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("stow_url: has credentials, a query or a fragment, which do not belong")
    for key in ("token", "user", "password"):
        value = getattr(web, key)
        if value is not None and not SECRET.fullmatch(value):
            raise ValueError(f"stow_{key}: expected env:NAME or file:PATH, not the secret itself")
    if (web.user is None) != (web.password is None):
        raise ValueError("stow_user: user and password go together")
    if web.token is not None and web.user is not None:
        raise ValueError("stow_token: either a token, or user and password")
    secret = web.token is not None or web.user is not None
    if secret and parts.scheme == "http" and not _is_loopback(host):
        raise ValueError("stow_url: credentials go to https:// or to this machine only")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_of(url: str) -> str:
    """Return the host that a URL names."""
    return urlsplit(url).hostname or ""


def classify_http(
    status: int, failed: Mapping[str, int], stored: Mapping[str, int], sop_instance_uid: str
) -> Outcome:
    """Say what the answer to a STOW-RS request means for the object that it carried.

    Args:
        status: of HTTP.
        failed: SOP Instance UID -> Failure Reason (0008,1197) of what was not stored.
        stored: SOP Instance UID -> Warning Reason (0008,1196), or 0, of what was.
        sop_instance_uid: of the object.
    """
    if sop_instance_uid in failed:
        outcome = classify_store_status(failed[sop_instance_uid])
        # A reason for a failure is never a success, whatever its number.
        if isinstance(outcome, Done):
            return Refuse(f"STATUS_{failed[sop_instance_uid]:04X}", "the archive did not store it")
        return outcome
    if status in (200, 202):
        if sop_instance_uid in stored:
            return classify_store_status(stored[sop_instance_uid])
        return Retry("NO_RESPONSE", "the service does not say whether the object is stored")
    code = f"HTTP_{status}"
    if code in OF_THE_DESTINATION or status in AGAIN:
        return Retry(code, "the service did not take the object now")
    return Refuse(code, "the service refused the object")
