"""Where the audit trail is kept, how long it waits, and RFC 5424 and 5425 around a message."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Literal

from dicomnode.domain.outcomes import Backoff
from dicomnode.domain.security import PeerTls

FILE, SYSLOG = "file", "syslog"
MSGID = "DICOM+RFC3881"
"""PS3.15 A.6."""
_STRICT = {"extra": "forbid"}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFile:
    """Files of our own, apart from the logs: a message a line."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    folder: Path | None = None
    """None: `audit` in storage.folder."""
    max_bytes: int = 50_000_000
    """Then another file begins."""
    max_days: float = 30.0
    """Likewise."""
    keep_days: float | None = None
    """Older files are removed, and that is audited; None: never."""

    def __post_init__(self) -> None:
        if self.max_bytes < 4096:
            raise ValueError("@.max_bytes: must be at least 4096")
        if self.max_days <= 0:
            raise ValueError("@.max_days: must be more than 0")
        if self.keep_days is not None and self.keep_days < self.max_days:
            raise ValueError("@.keep_days: must not be less than max_days")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSyslog:
    """An audit repository that takes syslog."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    host: str
    port: int = 6514
    transport: Literal["tls", "udp"] = "tls"
    """RFC 5425, or RFC 5426: without encryption, and nobody knows whether it arrives."""
    tls: PeerTls = field(default_factory=PeerTls)
    allow_unencrypted: bool = False
    timeout_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.host:
            raise ValueError("@.host: is empty")
        if not 1 <= self.port <= 65535:
            raise ValueError("@.port: must be 1 to 65535")
        if not 0 < self.timeout_seconds <= 300:
            raise ValueError("@.timeout_seconds: must be more than 0 and at most 300")
        if self.transport == "udp" and not self.allow_unencrypted:
            raise ValueError(
                "@.transport: by udp patients' names cross the network in the clear, and what is"
                " lost is lost; if that is meant, say allow_unencrypted: true"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRetry(Backoff):
    """How long a place that failed is left alone."""

    first_seconds: float = 2.0
    ceiling_seconds: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPolicy:
    """The audit trail (PS3.15 A.5); without file and syslog there is none."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    file: AuditFile | None = None
    syslog: AuditSyslog | None = None
    patients: bool = True
    """Messages name the patient, as the table of each message asks."""
    site: str = ""
    """Audit Enterprise Site ID."""
    max_waiting: int = 200_000
    """Records that wait at most; what comes beyond is counted, and told afterwards."""
    alarm_seconds: float = 300.0
    """A place that could not be written for so long needs a person."""
    retry: AuditRetry = field(default_factory=AuditRetry)

    def __post_init__(self) -> None:
        if self.max_waiting < 1000:
            raise ValueError("@.max_waiting: must be at least 1000")
        if not 0 < self.alarm_seconds <= 86400:
            raise ValueError("@.alarm_seconds: must be more than 0 and at most 86400")

    @property
    def sinks(self) -> tuple[str, ...]:
        """Where messages go."""
        places = ((FILE, self.file), (SYSLOG, self.syslog))
        return tuple(name for name, place in places if place is not None)

    @property
    def room(self) -> int:
        """How many records may wait; 0: none is made."""
        return self.max_waiting if self.sinks else 0


def syslog_message(xml: bytes, at: datetime, host: str, process: str, *, warns: bool) -> bytes:
    """Return a SYSLOG-MSG (RFC 5424 section 6): facility 10, severity 5, or 4 of a warning.

    Args:
        xml: the audit message, in UTF-8.
        at: when it happened.
        host: of the node.
        process: PROCID, the node's id.
        warns: it tells of a failure.
    """
    priority = 10 * 8 + (4 if warns else 5)
    stamp = at.isoformat(timespec="milliseconds")
    name = "".join(c for c in host if "!" <= c <= "~")[:255] or "-"
    header = f"<{priority}>1 {stamp} {name} dicomnode {process[:128]} {MSGID} - "
    return header.encode("ascii") + _BOM + xml


def frame(message: bytes) -> bytes:
    """Return a SYSLOG-FRAME: the octets are counted (RFC 5425 section 4.3)."""
    return b"%d %s" % (len(message), message)
