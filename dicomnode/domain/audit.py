"""An audit message: its parts, the standard's codes, and its XML (PS3.15 A.5.1 and A.5.2).

What happened is told in `audit_acts`, which turns records into messages. Whatever a peer or a file
has put into a value, the XML is well formed and one line.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from types import MappingProxyType
from typing import Literal
from xml.etree import ElementTree as ET

Action = Literal["C", "R", "U", "D", "E"]
"""Create, read, update, delete, execute."""
Outcome = Literal[0, 4, 8, 12]
"""Success, minor, serious and major failure."""

MOST_CHARACTERS = 256
"""Of one value; what is longer is cut."""
_BAD = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
"""Not allowed in XML 1.0, or the end of a line to somebody."""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value: `originalText` of the schema is the code's meaning."""

    value: str
    meaning: str
    system: str = "DCM"


def _dcm(codes: Mapping[str, str]) -> dict[str, Code]:
    return {meaning: Code(value, meaning) for value, meaning in codes.items()}


EVENTS = MappingProxyType(
    _dcm(
        {
            "110100": "Application Activity",
            "110102": "Begin Transferring DICOM Instances",
            "110103": "DICOM Instances Accessed",
            "110104": "DICOM Instances Transferred",
            "110105": "DICOM Study Deleted",
            "110106": "Export",
            "110112": "Query",
            "110113": "Security Alert",
            "110114": "User Authentication",
        }
    )
)
"""PS3.16 CID 400."""
TYPES = MappingProxyType(
    _dcm(
        {
            "110120": "Application Start",
            "110121": "Application Stop",
            "110122": "Login",
            "110123": "Logout",
            "110126": "Node Authentication",
            "110131": "Software Configuration",
            "110132": "Use of Restricted Function",
            "110133": "Audit Recording Stopped",
            "110135": "Object Security Attributes Changed",
            "110137": "User Security Attributes Changed",
        }
    )
)
"""PS3.16 CID 401 and 403."""
ROLES = MappingProxyType(
    _dcm(
        {
            "110150": "Application",
            "110152": "Destination Role ID",
            "110153": "Source Role ID",
            "110154": "Destination Media",
        }
    )
)
"""PS3.16 CID 402."""
STUDY_UID = Code("110180", "Study Instance UID")
SOP_CLASS_UID = Code("110181", "SOP Class UID")
NODE_ID = Code("110182", "Node ID")
MEDIA_URI = Code("110037", "URI")
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
URI = Code("12", "URI", "RFC-3881")


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Who took part: a person, a process or a medium."""

    user_id: str
    is_requestor: bool = False
    roles: tuple[Code, ...] = ()
    ae_titles: tuple[str, ...] = ()
    address: str = ""
    """Host name or IP address."""
    media: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """What it was done to: a Participant Object."""

    id: str
    id_type: Code
    name: str = ""
    type_code: str = "2"
    """1 person, 2 system object."""
    role: str | None = None
    """1 patient, 3 report, 13 security resource (A.5.1.2.2)."""
    life_cycle: str | None = None
    query: bytes | None = None
    """In place of a name."""
    details: tuple[tuple[str, bytes], ...] = ()
    classes: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    """SOP Class UID, number of instances, SOP Instance UIDs where they are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditMessage:
    """One audited event."""

    event: Code
    action: Action
    at: datetime
    participants: tuple[Participant, ...]
    source_id: str
    """Of the system that saw it."""
    site: str = ""
    """Of the enterprise."""
    types: tuple[Code, ...] = ()
    outcome: Outcome = 0
    says: str = ""
    """Description of the outcome."""
    things: tuple[Thing, ...] = ()


def clean(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return text as one line that XML can hold; what it cannot becomes U+FFFD."""
    return _BAD.sub("\N{REPLACEMENT CHARACTER}", text[:most])


def encode(message: AuditMessage) -> bytes:
    """Return a message as XML in UTF-8, without declaration, in one line (schema of A.5.1)."""
    root = ET.Element("AuditMessage")
    event = _add(
        root,
        "EventIdentification",
        EventActionCode=message.action,
        EventDateTime=message.at.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(message.outcome),
    )
    _code(event, "EventID", message.event)
    for one in message.types:
        _code(event, "EventTypeCode", one)
    if message.says:
        _add(event, "EventOutcomeDescription").text = clean(message.says)
    for participant in message.participants:
        _participant(root, participant)
    site = {"AuditEnterpriseSiteID": message.site} if message.site else {}
    source = _add(root, "AuditSourceIdentification", **site, AuditSourceID=message.source_id)
    _add(source, "AuditSourceTypeCode", **{"csd-code": "4"})  # an application server's process
    for thing in message.things:
        _thing(root, thing)
    xml: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=False)
    return xml


def _add(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, tag, {key: clean(value) for key, value in attributes.items()})


def _code(parent: ET.Element, tag: str, code: Code) -> None:
    attributes = {
        "csd-code": code.value,
        "codeSystemName": code.system,
        "originalText": code.meaning,
    }
    _add(parent, tag, **attributes)


def _participant(root: ET.Element, one: Participant) -> None:
    attributes = {"UserID": one.user_id}
    if one.ae_titles:
        attributes["AlternativeUserID"] = "AETITLES=" + ";".join(one.ae_titles)  # A.5.2.2
    attributes["UserIsRequestor"] = "true" if one.is_requestor else "false"
    if one.address:
        attributes["NetworkAccessPointID"] = one.address
        attributes["NetworkAccessPointTypeCode"] = "2" if _is_ip(one.address) else "1"
    element = _add(root, "ActiveParticipant", **attributes)
    for role in one.roles:
        _code(element, "RoleIDCode", role)
    if one.media is not None:
        _code(_add(element, "MediaIdentifier"), "MediaType", one.media)


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _thing(root: ET.Element, thing: Thing) -> None:
    attributes = {"ParticipantObjectID": thing.id, "ParticipantObjectTypeCode": thing.type_code}
    if thing.role is not None:
        attributes["ParticipantObjectTypeCodeRole"] = thing.role
    if thing.life_cycle is not None:
        attributes["ParticipantObjectDataLifeCycle"] = thing.life_cycle
    element = _add(root, "ParticipantObjectIdentification", **attributes)
    _code(element, "ParticipantObjectIDTypeCode", thing.id_type)
    if thing.query is not None:
        _add(element, "ParticipantObjectQuery").text = _base64(thing.query)
    else:
        _add(element, "ParticipantObjectName").text = clean(thing.name or thing.id)
    for kind, value in thing.details:
        _add(element, "ParticipantObjectDetail", type=kind, value=_base64(value))
    if thing.classes:
        description = _add(element, "ParticipantObjectDescription")
        for sop_class, count, instances in thing.classes:
            known = {"UID": sop_class, "NumberOfInstances": str(count)}
            of_class = _add(description, "SOPClass", **known)
            for uid in instances:
                _add(of_class, "Instance", UID=uid)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
