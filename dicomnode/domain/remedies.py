"""What would let a requestor in that was refused: the YAML to merge into the configuration."""

from __future__ import annotations

import json
import re

from dicomnode.domain.addresses import parse_address
from dicomnode.domain.associations import AssociationRequest, AssociationRules, Rejected


def remedy(request: AssociationRequest, rejected: Rejected, rules: AssociationRules) -> str:
    """Return the configuration that would let the request in: YAML, or a sentence.

    The YAML is what is to be merged into the configuration; where the sentence is the peer's
    to follow, it says so.
    """
    code, title = rejected.reason.code, request.calling_ae.strip(" ")
    if code == "CALLED_AE_UNKNOWN":
        return f"# at the peer: set the called AE title to {rules.ae_title}"
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", title):
        return "# at the peer: set a calling AE title of 1 to 16 printable ASCII characters"
    address = _shown_address(request.address)
    if code == "CALLING_AE_UNKNOWN":
        name = _free_name(title, {peer.name for peer in rules.peers})
        values = f"ae_title: {_scalar(title)}, host: {_scalar(address)}, accept: true"
        return f"peers:\n  {name}: {{{values}}}"
    peer = next((peer for peer in rules.peers if peer.name == rejected.peer), None)
    if peer is None:
        return ""
    key = {
        "PEER_NOT_ACCEPTED": "accept: true",
        "ADDRESS_NOT_ALLOWED": "addresses: "
        + _list([*(str(network) for network in peer.addresses), address]),
        "CERTIFICATE_NOT_ALLOWED": "certificate_sha256: "
        + _list([*sorted(peer.certificates), request.certificate_sha256 or ""]),
    }[code]
    if code == "CERTIFICATE_NOT_ALLOWED" and request.certificate_sha256 is None:
        return "# at the peer: connect to the TLS port, with its client certificate"
    return f"peers:\n  {peer.name}:\n    {key}"


def _shown_address(text: str) -> str:
    try:
        return str(parse_address(text))
    except ValueError:
        return text


_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""What YAML 1.1 does not read as text."""


def _free_name(title: str, taken: set[str]) -> str:
    """Return a name of the configuration for a peer of this title that no peer has yet."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", title).strip("-") or "Peer"
    if not stem[0].isalpha() or stem.lower() in _YAML_WORDS:
        stem = f"Peer-{stem}"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


def _scalar(text: str) -> str:
    """Return a text as YAML, in quotes wherever it could mean something else without."""
    plain = re.fullmatch(r"[A-Z_][A-Z0-9_]+|\d+\.\d+\.\d+\.\d+", text)
    return text if plain and text.lower() not in _YAML_WORDS else json.dumps(text)


def _list(texts: list[str]) -> str:
    return f"[{', '.join(map(_scalar, texts))}]"
