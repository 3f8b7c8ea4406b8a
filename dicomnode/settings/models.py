"""What a configuration may say, and what it means where it says nothing."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from dicomnode.domain.addresses import parse_network
from dicomnode.domain.assembly import AssemblyPolicy
from dicomnode.domain.associations import AssociationRules, KnownPeer
from dicomnode.domain.audit_policy import AuditPolicy
from dicomnode.domain.choosing import ChoosingPolicy
from dicomnode.domain.content import ContentPolicy
from dicomnode.domain.destinations import Destination
from dicomnode.domain.outcomes import Backoff
from dicomnode.domain.page import WebPolicy
from dicomnode.domain.quality import QualityPolicy
from dicomnode.domain.retention import RetentionPolicy
from dicomnode.domain.retrieval import FetchPolicy
from dicomnode.domain.routing import Rule
from dicomnode.domain.security import PeerTls, ServerTls, parse_fingerprint
from dicomnode.domain.web import host_of

WEIGHTS_ENVIRONMENT = "DICOMNODE_WEIGHTS"

Port = Annotated[int, Field(ge=1, le=65535)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda:\d+)$")]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


def _ae_title(text: str) -> str:
    """PS3.5 6.2, value representation AE: 1 to 16 characters, no backslash, no control."""
    title = text.strip(" ")
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", title):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return title


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Node(_Section):
    """This Application Entity."""

    ae_title: str = "DICOMNODE"
    id: Name = Field(default_factory=lambda: re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname()))
    bind: str = "127.0.0.1"
    port: Port | None = 11112
    """Without TLS; null: there is none."""
    tls: ServerTls | None = None
    """The port with TLS."""

    check_ae_title = field_validator("ae_title")(_ae_title)

    @model_validator(mode="after")
    def _listens(self) -> Self:
        if self.tls is None and self.port is None:
            raise ValueError("@node.port: there is no port at all; set it, or tls")
        if self.tls is not None and self.tls.port == self.port:
            raise ValueError("@node.tls.port: the same as node.port, which is without TLS")
        return self


class Peer(_Section):
    """Another Application Entity."""

    ae_title: str
    host: str
    port: Port | None = None
    accept: bool = False
    """It may send to this node."""
    query: bool = False
    """It may be asked what it holds, by C-FIND."""
    retrieve: Literal["auto", "move", "get"] = "auto"
    """How studies are fetched from it."""
    authority: bool = False
    """What it says of instances counts: its rejection notes are honoured."""
    commit_here: bool = False
    """It may ask this node for storage commitment; what it was promised is never purged."""
    study_quiet_seconds: Seconds | None = None
    """Instead of assembly.study_quiet_seconds, for what comes from it."""
    series_quiet_seconds: Seconds | None = None
    addresses: tuple[str, ...] = ()
    """Addresses and networks that it may come from; none: from anywhere."""
    max_associations: Annotated[int, Field(ge=1, le=500)] | None = None
    certificate_sha256: tuple[str, ...] = ()
    """Client certificates it may come with; none: any that TLS let pass, or no TLS."""
    tls: PeerTls | None = None
    """Connect to it with TLS."""

    check_ae_title = field_validator("ae_title")(_ae_title)

    @field_validator("addresses", "certificate_sha256", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("addresses")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(parse_network(text)) for text in value)

    @field_validator("certificate_sha256")
    @classmethod
    def _fingerprints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(parse_fingerprint(text) for text in value)


class Work(_Section):
    """The analysis."""

    devices: tuple[Device, ...] = ("auto",)
    """A worker each; auto: every GPU of this machine, else the CPU."""
    threads: Annotated[int, Field(ge=1, le=512)] | None = None
    lease_seconds: Annotated[float, Field(ge=2, le=3600)] = 60.0
    timeout_seconds: Annotated[float, Field(ge=1)] = 7200.0
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    jobs_per_process: Annotated[int, Field(ge=1)] = 50
    smaller_models: dict[str, str] = {}
    """Model -> the one that is taken after attempts that ran out of memory or time."""
    model_folders: tuple[Path, ...] = ()
    weights_folder: Path | None = None
    """Where installed weights are; default: $DICOMNODE_WEIGHTS, else `weights` in the storage."""

    @field_validator("devices", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if value in ([], ()):
            raise ValueError("expected at least one device")
        return (value,) if isinstance(value, str) else value


class Send(_Section):
    """The deliveries."""

    retry: Backoff = Backoff()
    give_up_after_days: Annotated[float, Field(gt=0, le=3650)] = 14.0
    timeout_seconds: Annotated[float, Field(ge=1, le=86400)] = 60.0
    commitment_seconds: Annotated[float, Field(ge=1, le=864000)] = 3600.0
    """How long a report on storage commitment is waited for."""


class Storage(_Section):
    """Where bytes and facts are kept."""

    folder: Path | None = None
    ledger: SecretStr | None = None
    """A SQLAlchemy URL; it may hold a password."""
    patient_key_file: Path | None = None


class Limits(_Section):
    """What the receiver takes at most."""

    max_associations: Annotated[int, Field(ge=1, le=500)] = 50
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1048576)] = 131072
    association_timeout_seconds: Annotated[float, Field(ge=1, le=86400)] = 60.0
    pdu_timeout_seconds: Annotated[float, Field(ge=1, le=3600)] = 30.0
    artim_seconds: Annotated[float, Field(ge=1, le=3600)] = 30.0
    max_instance_bytes: Annotated[int, Field(ge=1)] = 1 << 32
    min_free_bytes: Annotated[int, Field(ge=0)] = 2_000_000_000


class Receive(_Section):
    """What the receiver makes of what it gets."""

    unknown_sop_classes: Literal["keep", "refuse"] = "keep"
    """Storage classes beyond those that surround CT, MR and PET studies, private ones too."""
    acceptors: Annotated[int, Field(ge=1, le=64)] | None = None
    """Processes that speak with the peers; not set: one a CPU core, at most 4."""


class Log(_Section):
    """What the roles write to standard error."""

    format: Literal["text", "json"] = "text"
    """json: an object a line, for programs that collect logs."""


class Settings(_Section):
    """All that the configuration says."""

    node: Node = Node()
    peers: dict[Name, Peer] = {}
    destinations: dict[Name, Destination] = {}
    receive: Receive = Receive()
    assembly: AssemblyPolicy = AssemblyPolicy()
    rules: tuple[Rule, ...] = ()
    content: ContentPolicy = ContentPolicy()
    quality: QualityPolicy = QualityPolicy()
    choosing: ChoosingPolicy = ChoosingPolicy()
    work: Work = Work()
    send: Send = Send()
    storage: Storage = Storage()
    fetch: FetchPolicy = FetchPolicy()
    web: WebPolicy = WebPolicy()
    limits: Limits = Limits()
    log: Log = Log()
    retention: RetentionPolicy = RetentionPolicy()
    audit: AuditPolicy = AuditPolicy()

    @model_validator(mode="after")
    def _peers_can_be_reached(self) -> Self:
        for name, peer in self.peers.items():
            if peer.query and peer.port is None:
                raise ValueError(f"@peers.{name}: needs a port, because it has query: true")
            if peer.commit_here and (peer.port is None or not peer.accept):
                raise ValueError(
                    f"@peers.{name}.commit_here: it needs accept: true to ask, and a port to be"
                    " told"
                )
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, destination in self.destinations.items():
            if destination.peer is None:
                continue
            peer = self.peers.get(destination.peer)
            if peer is None:
                raise ValueError(
                    f"@destinations.{name}.peer: no peer is named {destination.peer!r}"
                    f" (peers: {', '.join(self.peers) or 'none'})"
                )
            if peer.port is None:
                raise ValueError(
                    f"@peers.{destination.peer}: needs a port, because destination {name!r} uses it"
                )
        for index, rule in enumerate(self.rules):
            for position, wanted in enumerate(rule.destinations):
                if wanted not in self.destinations:
                    raise ValueError(
                        f"@rules.{index}.destinations.{position}: no destination is named"
                        f" {wanted!r} (destinations: {', '.join(self.destinations) or 'none'})"
                    )
        return self

    @model_validator(mode="after")
    def _certificates_can_be_seen(self) -> Self:
        asked = self.node.tls is not None and self.node.tls.client_certificates != "none"
        for name, peer in self.peers.items():
            if peer.certificate_sha256 and not asked:
                raise ValueError(
                    f"@peers.{name}.certificate_sha256: needs node.tls with client certificates,"
                    " required or optional"
                )
        return self

    @property
    def association_rules(self) -> AssociationRules:
        """Who may open an association, and how many."""
        return AssociationRules(
            ae_title=self.node.ae_title,
            max_associations=self.limits.max_associations,
            peers=tuple(
                KnownPeer(
                    name=name,
                    ae_title=peer.ae_title,
                    accept=peer.accept,
                    addresses=tuple(map(parse_network, peer.addresses)),
                    max_associations=peer.max_associations,
                    certificates=frozenset(peer.certificate_sha256),
                )
                for name, peer in self.peers.items()
            ),
        )

    @property
    def folder(self) -> Path:
        """Where everything is kept that the configuration gives no other place."""
        if self.storage.folder is not None:
            return self.storage.folder
        state = os.environ.get("STATE_DIRECTORY")
        return Path(state) if state else Path.home() / ".local" / "state" / "dicomnode"

    @property
    def weights_folder(self) -> Path:
        """Where weights are installed, and what is recorded of them."""
        named = os.environ.get(WEIGHTS_ENVIRONMENT)
        given = self.work.weights_folder or (Path(named) if named else None)
        return (given or self.folder / "weights").absolute()

    @property
    def spool_folder(self) -> Path:
        return self.folder / "spool"

    @property
    def ledger_url(self) -> str:
        if self.storage.ledger is not None:
            return self.storage.ledger.get_secret_value()
        return f"sqlite:///{self.folder / 'ledger.sqlite'}"

    @property
    def patient_key_file(self) -> Path:
        return self.storage.patient_key_file or self.folder / "patient.key"

    @property
    def users_file(self) -> Path:
        """Who may sign in at the operator's page."""
        return self.web.users_file or self.folder / "users.json"

    @property
    def audit_folder(self) -> Path:
        """Where the files of the audit trail lie."""
        named = self.audit.file.folder if self.audit.file is not None else None
        return named or self.folder / "audit"

    def assembly_of(self, name: str | None) -> AssemblyPolicy:
        """Return how long to wait for what comes from a peer."""
        peer = self.peers.get(name or "")
        own = {
            key: value
            for key in ("study_quiet_seconds", "series_quiet_seconds")
            if peer is not None and (value := getattr(peer, key)) is not None
        }
        return replace(self.assembly, **own)

    def is_authority(self, name: str | None) -> bool:
        """Whether what a peer says of instances counts."""
        peer = self.peers.get(name or "")
        return peer is not None and peer.authority

    @property
    def by_note(self) -> frozenset[str]:
        """Destinations at which results are withdrawn by a rejection note."""
        return frozenset(name for name, where in self.destinations.items() if where.iocm)

    def destinations_of(self, calling_ae: str) -> frozenset[str]:
        """Return the names of the destinations that have this AE title."""
        title = calling_ae.strip(" ")
        return frozenset(
            name
            for name in self.destinations
            if (peer := self.peer_of(name)) is not None and peer.ae_title == title
        )

    @property
    def must_commit(self) -> frozenset[str]:
        """Destinations that have to take responsibility before anything is purged."""
        return frozenset(
            name
            for name, destination in self.destinations.items()
            if destination.commitment == "required"
        )

    def peer_of(self, destination: str) -> Peer | None:
        """Return the peer behind a destination; a DICOMweb service need have none, a
        folder has none."""
        name = self.destinations[destination].peer
        return None if name is None else self.peers[name]

    def host_of(self, destination: str) -> str:
        """Return the host that results for a destination go to; a folder is on this machine."""
        where = self.destinations[destination]
        if where.folder is not None:
            return "localhost"
        if where.stow_url is not None:
            return host_of(where.stow_url)
        return "" if where.peer is None else self.peers[where.peer].host
