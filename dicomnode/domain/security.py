"""Where certificates and keys lie, on either side of TLS. Reading them is network/tls.py's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

ClientCertificates = Literal["required", "optional", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """The port with TLS, and who may connect to it."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    port: int
    certificate: Path
    """The node's certificate and the chain above it (PEM)."""
    key: Path
    """Its private key (PEM), not encrypted."""
    client_certificates: ClientCertificates = "required"
    client_ca: Path | None = None
    """Who may have signed the client certificates, or these themselves (PEM)."""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError("port must be 1 to 65535")
        if self.client_certificates != "none" and self.client_ca is None:
            raise ValueError(
                "client_ca is missing: without it no client certificate can be verified; set it,"
                " or client_certificates: none"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTls:
    """How the node connects to a peer with TLS."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    ca: Path | None = None
    """Who may have signed the peer's certificate, or this itself (PEM); None: the system's CAs."""
    server_name: str | None = None
    """Name or address that must stand in its certificate; None: the peer's host."""
    certificate: Path | None = None
    """The node's client certificate and the chain above it (PEM), where the peer wants one."""
    key: Path | None = None
    """Its private key (PEM), not encrypted."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")


def parse_fingerprint(text: str) -> str:
    """Return the SHA-256 of a certificate as 64 lower-case hexadecimal digits.

    Raises:
        ValueError: it is none; colons, as OpenSSL prints them, are left out.
    """
    digits = text.strip().removeprefix("sha256 Fingerprint=").replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("a SHA-256 fingerprint has 64 hexadecimal digits")
    return digits
