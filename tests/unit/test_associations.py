"""Who may come in, and what is said to the others (PS3.8 section 9.3.4, table 9-21)."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.domain import addresses, associations
from dicomnode.domain.addresses import is_within, parse_address, parse_network
from dicomnode.domain.associations import (
    REASONS,
    Accepted,
    AssociationRequest,
    AssociationRules,
    KnownPeer,
    OpenAssociations,
    Rejected,
    decide,
)
from dicomnode.domain.remedies import remedy
from dicomnode.domain.security import parse_fingerprint

ONE, OTHER = "a1" * 32, "b2" * 32


def networks(*texts: str) -> tuple[addresses.Network, ...]:
    return tuple(map(parse_network, texts))


RULES = AssociationRules(
    ae_title="DICOMNODE",
    max_associations=10,
    peers=(
        KnownPeer(name="CT1", ae_title="CT1", accept=True),
        KnownPeer(
            name="CT2",
            ae_title="CT2",
            accept=True,
            addresses=networks("10.1.2.0/24", "fd00:1::/32"),
            max_associations=2,
        ),
        KnownPeer(name="CT3", ae_title="CT3", accept=True, certificates=frozenset({ONE})),
        KnownPeer(name="PACS", ae_title="PACS", accept=False),
        # Two of one title, as vendors deliver them: known apart by their addresses.
        KnownPeer(name="US1", ae_title="US", accept=True, addresses=networks("10.9.0.1")),
        KnownPeer(name="US2", ae_title="US", accept=True, addresses=networks("10.9.0.2")),
    ),
)


def request(calling: str = "CT1", **changes: Any) -> AssociationRequest:
    values = {"calling_ae": calling, "called_ae": "DICOMNODE", "address": "10.1.2.3"}
    return AssociationRequest(**(values | changes))


def code(asked: AssociationRequest, now: OpenAssociations | None = None) -> str:
    """The peer's name, or why not with the three numbers that are sent."""
    found = decide(asked, RULES, now or OpenAssociations())
    if isinstance(found, Accepted):
        return found.peer
    reason = found.reason
    return f"{reason.code} {reason.result}/{reason.source}/{reason.reason}"


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (request(), "CT1"),
        (request("CT1   "), "CT1"),
        (request("  CT1"), "CT1"),
        (request(called_ae="DICOMNODE "), "CT1"),
        (request("ct1"), "CALLING_AE_UNKNOWN 1/1/3"),
        (request("CT"), "CALLING_AE_UNKNOWN 1/1/3"),
        (request(""), "CALLING_AE_UNKNOWN 1/1/3"),
        (request("CT1\0"), "CALLING_AE_UNKNOWN 1/1/3"),
        (request("PACS"), "PEER_NOT_ACCEPTED 1/1/3"),
        (request(called_ae="dicomnode"), "CALLED_AE_UNKNOWN 1/1/7"),
        (request(called_ae=""), "CALLED_AE_UNKNOWN 1/1/7"),
        (request("NOBODY", called_ae="OTHER"), "CALLED_AE_UNKNOWN 1/1/7"),
        (request(application_context="1.2.3"), "APPLICATION_CONTEXT_UNKNOWN 1/1/2"),
        (request(application_context=""), "APPLICATION_CONTEXT_UNKNOWN 1/1/2"),
        (request(protocol_version=2), "PROTOCOL_VERSION_UNKNOWN 1/2/2"),
        (request(protocol_version=0), "PROTOCOL_VERSION_UNKNOWN 1/2/2"),
        (request(protocol_version=3), "CT1"),
        (request("CT2"), "CT2"),
        (request("CT2", address="10.1.3.3"), "ADDRESS_NOT_ALLOWED 1/1/3"),
        (request("CT2", address="::ffff:10.1.2.9"), "CT2"),
        (request("CT2", address="::ffff:10.1.3.9"), "ADDRESS_NOT_ALLOWED 1/1/3"),
        (request("CT2", address="fd00:1:2::3"), "CT2"),
        (request("CT2", address="fd00:2::3%eth0"), "ADDRESS_NOT_ALLOWED 1/1/3"),
        (request("CT2", address="not an address"), "ADDRESS_NOT_ALLOWED 1/1/3"),
        (request("CT1", address="not an address"), "CT1"),
        (request("CT3"), "CERTIFICATE_NOT_ALLOWED 1/1/3"),
        (request("CT3", certificate_sha256=OTHER), "CERTIFICATE_NOT_ALLOWED 1/1/3"),
        (request("CT3", certificate_sha256=ONE), "CT3"),
        (request("US", address="10.9.0.1"), "US1"),
        (request("US", address="10.9.0.2"), "US2"),
        (request("US", address="10.9.0.3"), "ADDRESS_NOT_ALLOWED 1/1/3"),
    ],
)
def test_who_may_come_in(asked: AssociationRequest, answer: str) -> None:
    assert code(asked) == answer


@pytest.mark.parametrize(
    ("asked", "now", "answer"),
    [
        (request(), OpenAssociations(in_all=9), "CT1"),
        (request(), OpenAssociations(in_all=10), "TOO_MANY_ASSOCIATIONS 2/3/2"),
        (request(), OpenAssociations(in_all=1, of_peer={"CT1": 9}), "CT1"),
        (request("CT2"), OpenAssociations(in_all=3, of_peer={"CT2": 1}), "CT2"),
        (request("CT2"), OpenAssociations(of_peer={"CT2": 2}), "TOO_MANY_OF_PEER 2/3/2"),
        (request(), OpenAssociations(is_stopping=True), "NODE_STOPPING 2/3/1"),
        # Who is a stranger hears so for good, however full the node is.
        (request("WHO"), OpenAssociations(in_all=99), "CALLING_AE_UNKNOWN 1/1/3"),
        (request("WHO"), OpenAssociations(is_stopping=True), "CALLING_AE_UNKNOWN 1/1/3"),
    ],
)
def test_how_many_may(asked: AssociationRequest, now: OpenAssociations, answer: str) -> None:
    assert code(asked, now) == answer


def test_each_reason_is_one_of_the_standard() -> None:
    """PS3.8 table 9-21: what each source may give as a reason."""
    of_source = {1: {1, 2, 3, 7}, 2: {1, 2}, 3: {1, 2}}
    for key, reason in REASONS.items():
        assert key == reason.code
        assert reason.result in (1, 2)
        assert reason.reason in of_source[reason.source]
    transient = {key for key, reason in REASONS.items() if reason.result == 2}
    assert transient == {"NODE_STOPPING", "TOO_MANY_ASSOCIATIONS", "TOO_MANY_OF_PEER"}
    assert transient.isdisjoint(associations.ABOUT_WHO)


@given(
    st.text(max_size=20),
    st.text(max_size=20),
    st.text(max_size=50),
    st.integers(0, 20),
    st.dictionaries(st.sampled_from(["CT1", "CT2", "US1"]), st.integers(0, 5)),
)
def test_nobody_comes_in_who_is_not_known(
    calling: str, called: str, address: str, in_all: int, of_peer: dict[str, int]
) -> None:
    asked = request(calling, called_ae=called, address=address)
    found = decide(asked, RULES, OpenAssociations(in_all=in_all, of_peer=of_peer))
    if isinstance(found, Accepted):
        peer = next(peer for peer in RULES.peers if peer.name == found.peer)
        assert (peer.accept, peer.ae_title, called.strip(" ")) == (
            True,
            calling.strip(" "),
            "DICOMNODE",
        )
        assert in_all < 10


# Addresses


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_an_address_means_the_same_in_either_family(address: Any, prefix: int) -> None:
    network = parse_network(str(ipaddress.ip_network((address, prefix), strict=False)))
    mapped = f"::ffff:{address}"
    assert is_within(str(address), (network,))
    assert is_within(mapped, (network,))
    assert parse_address(mapped) == address
    six = ipaddress.ip_network((mapped, 96 + prefix), strict=False)
    assert parse_network(str(six)) == network


@given(st.ip_addresses(v=6), st.integers(1, 128), st.ip_addresses(v=6))
def test_a_network_of_ipv6_holds_what_begins_as_it_does(
    address: Any, prefix: int, other: Any
) -> None:
    network = parse_network(str(ipaddress.ip_network((address, prefix), strict=False)))
    if network.version == 4 or other.ipv4_mapped is not None:
        return
    same = int(address) >> (128 - prefix) == int(other) >> (128 - prefix)
    assert is_within(str(other), (network,)) == same


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.1.2.3/24", "the network is 10.1.2.0/24"),
        ("fd00::1/64", "the network is fd00::/64"),
        ("ct1.hospital.example", "no IP address"),
        ("10.1.2", "no IP address"),
        ("10.1.2.0/33", "no IP address"),
        ("", "no IP address"),
        ("10.1.2.3 ", "no IP address"),
    ],
)
def test_what_is_no_network_is_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_network(text)


def test_a_fingerprint_is_read_as_openssl_prints_it() -> None:
    printed = "sha256 Fingerprint=" + ":".join(["A1"] * 32)
    assert parse_fingerprint(printed) == parse_fingerprint(ONE) == ONE
    for text in ("", "a1" * 31, "a1" * 33, "xy" * 32, "a1" * 20):
        with pytest.raises(ValueError, match="64 hexadecimal"):
            parse_fingerprint(text)


# What a person can do about it

titles = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=16)


@given(titles, st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str))
def test_the_yaml_for_an_unknown_peer_lets_it_in(title: str, address: str) -> None:
    asked = request(title, address=address)
    rejected = decide(asked, RULES)
    if not isinstance(rejected, Rejected) or rejected.reason.code != "CALLING_AE_UNKNOWN":
        return
    text = remedy(asked, rejected, RULES)
    if "\\" in title or not title.strip(" "):
        assert text.startswith("# at the peer: set a calling AE title")
        return
    ((name, peer),) = yaml.safe_load(text)["peers"].items()
    assert isinstance(name, str)
    assert name not in {known.name for known in RULES.peers}
    assert peer == {"ae_title": title.strip(" "), "host": peer["host"], "accept": True}
    assert parse_address(peer["host"]) == parse_address(address)
    from dicomnode.settings import parse  # the configuration itself takes it

    settings = parse(text, Path("dicomnode.yaml"))
    assert settings.peers[name].ae_title == title.strip(" ")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            request("CT7", address="::ffff:10.1.1.7"),
            "peers:\n  CT7: {ae_title: CT7, host: 10.1.1.7, accept: true}",
        ),
        (
            request("NO", address="fe80::1%eth0"),
            'peers:\n  Peer-NO: {ae_title: "NO", host: "fe80::1", accept: true}',
        ),
        (request("PACS"), "peers:\n  PACS:\n    accept: true"),
        (
            request("US", address="10.9.0.7"),
            'peers:\n  US1:\n    addresses: ["10.9.0.1/32", 10.9.0.7]',
        ),
        (
            request("CT3", certificate_sha256=OTHER),
            f'peers:\n  CT3:\n    certificate_sha256: ["{ONE}", "{OTHER}"]',
        ),
        (
            request("CT3"),
            "# at the peer: connect to the TLS port, with its client certificate",
        ),
        (
            request(called_ae="ANY-SCP"),
            "# at the peer: set the called AE title to DICOMNODE",
        ),
    ],
)
def test_what_would_let_it_in(asked: AssociationRequest, text: str) -> None:
    rejected = decide(asked, RULES)
    assert isinstance(rejected, Rejected)
    assert remedy(asked, rejected, RULES) == text
    yaml.safe_load(text)
