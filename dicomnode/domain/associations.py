"""May this association come about? Who may come in, from where, and how many at a time.

A table and a pure function: no socket, no clock. The answer to a request that is turned away is
the standard's own result, source and reason (PS3.8 section 9.3.4, table 9-21).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from dicomnode.domain.addresses import Network, is_within

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""DICOM Application Context Name (PS3.7 A.2.1)."""

PERMANENT, TRANSIENT = 1, 2
"""Result of an A-ASSOCIATE-RJ."""
SERVICE_USER, ACSE, PRESENTATION = 1, 2, 3
"""Source of an A-ASSOCIATE-RJ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why an association is rejected: what the peer hears, and what stands in the log."""

    code: str
    result: int
    source: int
    reason: int
    meaning: str


def _table(*reasons: Reason) -> Mapping[str, Reason]:
    return MappingProxyType({reason.code: reason for reason in reasons})


def _permanent(code: str, source: int, reason: int, meaning: str) -> Reason:
    return Reason(code=code, result=PERMANENT, source=source, reason=reason, meaning=meaning)


def _transient(code: str, reason: int, meaning: str) -> Reason:
    return Reason(code=code, result=TRANSIENT, source=PRESENTATION, reason=reason, meaning=meaning)


# Who has the right title but comes from a wrong address or with a wrong certificate hears the same
# as who has a wrong title: the standard has no reason of its own for it, and a stranger does not
# learn by trying which titles are known here.
REASONS = _table(
    _permanent("PROTOCOL_VERSION_UNKNOWN", ACSE, 2, "it speaks no version of the protocol we know"),
    _permanent("APPLICATION_CONTEXT_UNKNOWN", SERVICE_USER, 2, "its application is not DICOM"),
    _permanent("CALLED_AE_UNKNOWN", SERVICE_USER, 7, "it calls another AE title than ours"),
    _permanent("CALLING_AE_UNKNOWN", SERVICE_USER, 3, "no peer has this AE title"),
    _permanent("PEER_NOT_ACCEPTED", SERVICE_USER, 3, "the peer may not send to this node"),
    _permanent("ADDRESS_NOT_ALLOWED", SERVICE_USER, 3, "the peer may not come from this address"),
    _permanent("CERTIFICATE_NOT_ALLOWED", SERVICE_USER, 3, "it lacks the peer's certificate"),
    _transient("NODE_STOPPING", 1, "the node is about to stop"),
    _transient("TOO_MANY_ASSOCIATIONS", 2, "as many associations as may be are open"),
    _transient("TOO_MANY_OF_PEER", 2, "the peer has as many associations open as it may"),
)
ABOUT_WHO = frozenset(
    {
        "CALLED_AE_UNKNOWN",
        "CALLING_AE_UNKNOWN",
        "PEER_NOT_ACCEPTED",
        "ADDRESS_NOT_ALLOWED",
        "CERTIFICATE_NOT_ALLOWED",
    }
)
"""Reasons that a person can remove by a line of configuration, here or at the peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRequest:
    """What an A-ASSOCIATE-RQ and its connection say of who asks."""

    calling_ae: str
    called_ae: str
    address: str
    """The peer's IP address, as the socket has it."""
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    """Bit field; version 1 is bit 0, and only that is looked at (PS3.8 table 9-11)."""
    certificate_sha256: str | None = None
    """SHA-256 of the client certificate (DER), hexadecimal; None without TLS or certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPeer:
    """What the configuration says of a peer, as far as associations go."""

    name: str
    ae_title: str
    accept: bool
    addresses: tuple[Network, ...] = ()
    """Where it may come from; none: from anywhere."""
    max_associations: int | None = None
    certificates: frozenset[str] = frozenset()
    """SHA-256 of the client certificates it may have; none: any that TLS let pass, or no TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRules:
    """Who may come in, and how many."""

    ae_title: str
    peers: tuple[KnownPeer, ...]
    max_associations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAssociations:
    """How many are open now, without the one that asks."""

    in_all: int = 0
    of_peer: Mapping[str, int] = field(default_factory=dict)
    """By the peer's name."""
    is_stopping: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """It may come in."""

    peer: str
    """The peer's name in the configuration."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """It may not."""

    reason: Reason
    peer: str | None = None
    """The peer whose rule said so, where it is known."""


NOTHING_OPEN = OpenAssociations()


def decide(
    request: AssociationRequest,
    rules: AssociationRules,
    now_open: OpenAssociations = NOTHING_OPEN,
) -> Accepted | Rejected:
    """Say whether an association may come about.

    Who asks is looked at before how many there are: a stranger is told so for good even while the
    node is full. Where several peers share an AE title, the first whom the request fits is it.
    """
    if not request.protocol_version & 1:
        return _because("PROTOCOL_VERSION_UNKNOWN")
    if request.application_context != APPLICATION_CONTEXT:
        return _because("APPLICATION_CONTEXT_UNKNOWN")
    # Leading and trailing spaces of an AE title mean nothing (PS3.5 6.2).
    if request.called_ae.strip(" ") != rules.ae_title:
        return _because("CALLED_AE_UNKNOWN")
    who = _who(request, rules)
    if isinstance(who, Rejected):
        return who
    if now_open.is_stopping:
        return _because("NODE_STOPPING", who.name)
    if now_open.in_all >= rules.max_associations:
        return _because("TOO_MANY_ASSOCIATIONS", who.name)
    of_peer = now_open.of_peer.get(who.name, 0)
    if who.max_associations is not None and of_peer >= who.max_associations:
        return _because("TOO_MANY_OF_PEER", who.name)
    return Accepted(who.name)


def _because(code: str, peer: str | None = None) -> Rejected:
    return Rejected(REASONS[code], peer)


_FURTHER = ("PEER_NOT_ACCEPTED", "ADDRESS_NOT_ALLOWED", "CERTIFICATE_NOT_ALLOWED")
"""Of several peers of one title, the reason of the one that came nearest is told."""


def _who(request: AssociationRequest, rules: AssociationRules) -> KnownPeer | Rejected:
    title = request.calling_ae.strip(" ")
    nearest: Rejected | None = None
    for peer in rules.peers:
        if peer.ae_title != title:
            continue
        code = _against(request, peer)
        if code is None:
            return peer
        if nearest is None or _FURTHER.index(code) > _FURTHER.index(nearest.reason.code):
            nearest = _because(code, peer.name)
    return nearest or _because("CALLING_AE_UNKNOWN")


def _against(request: AssociationRequest, peer: KnownPeer) -> str | None:
    if not peer.accept:
        return "PEER_NOT_ACCEPTED"
    if peer.addresses and not is_within(request.address, peer.addresses):
        return "ADDRESS_NOT_ALLOWED"
    if peer.certificates and request.certificate_sha256 not in peer.certificates:
        return "CERTIFICATE_NOT_ALLOWED"
    return None
