"""The operator's page: where it listens, who may do what there, and what the configuration says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from dicomnode.domain.addresses import is_within, parse_network

UserRole = Literal["viewer", "operator"]
ROLES: tuple[UserRole, ...] = get_args(UserRole)
"""Of users, in order: each may do what those before it may."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def may(has: str, needs: str) -> bool:
    """Whether a user of one role may do what needs another."""
    return has in ROLES and ROLES.index(has) >= ROLES.index(needs)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPolicy:
    """The operator's page."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    enabled: bool = True
    """`dicomnode run` starts it, where the extra `web` is installed."""
    bind: str = "127.0.0.1"
    port: int = 8484
    certificate: Path | None = None
    """Serve HTTPS: the certificate and the chain above it (PEM)."""
    key: Path | None = None
    """Its private key (PEM), not encrypted."""
    public_url: str | None = None
    """As browsers call it, where a reverse proxy stands before it."""
    users_file: Path | None = None
    """Who may sign in; None: users.json in storage.folder."""
    session_hours: float = 8.0
    show_patient: bool = False
    """A study's page shows name and ID, read from its files."""
    proxy_header: str | None = None
    """Header in which a reverse proxy names the user that it has signed in."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks from which that header is believed, and from nowhere else."""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError("@.port: must be 1 to 65535")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("@.certificate: certificate and key go together")
        if not 0 < self.session_hours <= 168:
            raise ValueError("@.session_hours: must be more than 0 and at most 168")
        if self.public_url is not None and not re.fullmatch(
            r"https?://[A-Za-z0-9.:\[\]-]+", self.public_url
        ):
            raise ValueError("@.public_url: expected scheme and host, as in https://ct.hospital")
        for text in self.trusted_proxies:
            try:
                parse_network(text)
            except ValueError as error:
                raise ValueError(f"@.trusted_proxies: {error}") from error
        if bool(self.proxy_header) != bool(self.trusted_proxies):
            raise ValueError("@.proxy_header: goes together with trusted_proxies")
        if self.proxy_header and not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", self.proxy_header):
            raise ValueError("@.proxy_header: expected the name of a header")
        if self.bind not in LOOPBACK and not self.is_encrypted:
            raise ValueError(
                "@.bind: passwords would cross the network in the clear; set certificate and key,"
                " or public_url with https:// for a reverse proxy that encrypts"
            )

    @property
    def is_encrypted(self) -> bool:
        """Whether browsers come by HTTPS, to this node or to the proxy before it."""
        return self.certificate is not None or (self.public_url or "").startswith("https://")

    def is_trusted(self, address: str) -> bool:
        """Whether a reverse proxy at this address is believed."""
        return is_within(address, tuple(map(parse_network, self.trusted_proxies)))
