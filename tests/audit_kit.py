"""Reading audit messages as others do: with lxml, against the schema of PS3.15 A.5.1."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path

from lxml import etree

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parent / "audit_message.rng"))
_STRICT = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)


def parsed(xml: bytes) -> etree._Element:
    """Parse one message; it has to be well formed and what the schema says."""
    assert b"\n" not in xml
    root = etree.fromstring(xml, _STRICT)
    SCHEMA.assertValid(root.getroottree())
    return root


def messages_in(folder: Path) -> list[etree._Element]:
    """Return all messages in a folder of the audit trail, oldest first, each validated."""
    files = [*sorted(folder.glob("audit-*.log")), *folder.glob("audit.log")]
    return [parsed(line) for path in files for line in path.read_bytes().splitlines()]


def event_of(message: etree._Element) -> str:
    """Return the meaning of a message's EventID."""
    return str(message.find("EventIdentification/EventID").get("originalText"))


def type_of(message: etree._Element) -> str:
    """Return the meaning of its EventTypeCode, if there is one."""
    found = message.find("EventIdentification/EventTypeCode")
    return "" if found is None else str(found.get("originalText"))


def counted(messages: list[etree._Element]) -> Counter[str]:
    """Count messages by their EventID."""
    return Counter(map(event_of, messages))


def objects(message: etree._Element, type_: str) -> list[etree._Element]:
    """Return the participant objects whose IDs are of a type."""
    return [
        one
        for one in message.findall("ParticipantObjectIdentification")
        if one.find("ParticipantObjectIDTypeCode").get("originalText") == type_
    ]


def patient_of(message: etree._Element) -> tuple[str, str] | None:
    """Return ID and name of the patient that a message names."""
    found = objects(message, "Patient Number")
    if not found:
        return None
    return found[0].get("ParticipantObjectID"), found[0].findtext("ParticipantObjectName")


def study_of(message: etree._Element) -> str | None:
    """Return the Study Instance UID that a message names."""
    found = objects(message, "Study Instance UID")
    return found[0].get("ParticipantObjectID") if found else None


def details(message: etree._Element) -> dict[str, str]:
    """Return what the objects of a message say beyond their IDs."""
    return {
        one.get("type"): base64.b64decode(one.get("value")).decode()
        for one in message.iter("ParticipantObjectDetail")
    }
