"""What is audited, and which message of PS3.15 A.5.3 each act becomes: one table.

Most acts are events of the ledger and keep their code; the others have codes of their own. Why
each became the message it did: docs/adr/0013.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from dicomnode.domain.audit import (
    EVENTS,
    MEDIA_URI,
    NODE_ID,
    PATIENT_NUMBER,
    ROLES,
    SOP_CLASS_UID,
    STUDY_UID,
    TYPES,
    URI,
    Action,
    AuditMessage,
    Code,
    Outcome,
    Participant,
    Thing,
)

MOST_OCTETS = 1024
"""Of a detail; it is written in base64, and so may be anything."""
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
SOURCE, DESTINATION = ROLES["Source Role ID"], ROLES["Destination Role ID"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """Whose the study is, read from a file of it; not shown by `repr`."""

    id: str = field(repr=False)
    issuer: str = field(default="", repr=False)
    name: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """Another system: an Application Entity, a DICOMweb service or a folder."""

    name: str = ""
    """In the configuration."""
    ae_title: str = ""
    address: str = ""
    folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What was recorded, with what is known of it when the message is made."""

    kind: str
    at: datetime
    by: str = ""
    """The person who did it; empty: the node did it by itself."""
    address: str = ""
    """Where the person did it from."""
    detail: str = ""
    count: int = 1
    study_uid: str | None = None
    patient: Patient | None = None
    patient_is_lost: bool = False
    """It should be told, and no file says it any more."""
    classes: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    """As of `Thing`."""
    other: Other = Other()
    failed: bool = False
    role: str = ""
    """Of the node, that did it."""
    query: bytes = b""
    subject: str = ""
    """What a security alert is about, where it is no study."""
    requestors: tuple[tuple[str, str, int], ...] = ()
    """Who was refused: calling AE title, address, how often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """The system that reports."""

    node_id: str
    ae_title: str
    host: str
    site: str = ""


def message_of(act: Act, here: Here) -> AuditMessage:
    """Return the audit message of an act.

    Raises:
        KeyError: nothing of this kind is audited.
    """
    return _MESSAGES[act.kind](act, here)


# Participants and objects


def _octets(text: str) -> bytes:
    return text[:MOST_OCTETS].encode("utf-8", "replace")


def _process(
    act: Act, here: Here, *roles: Code, is_requestor: bool = False, role: str = ""
) -> Participant:
    return Participant(
        user_id=f"{here.node_id}:{act.role or role or 'node'}",
        is_requestor=is_requestor,
        roles=roles,
        ae_titles=(here.ae_title,),
        address=here.host,
    )


def _other(other: Other, *roles: Code, is_requestor: bool = False) -> Participant:
    return Participant(
        user_id=other.name or other.ae_title or "unknown",
        is_requestor=is_requestor,
        roles=roles,
        ae_titles=(other.ae_title,) if other.ae_title else (),
        address=other.address,
    )


def _person(act: Act, *, is_requestor: bool) -> tuple[Participant, ...]:
    if not act.by:
        return ()
    return (Participant(user_id=act.by, is_requestor=is_requestor, address=act.address),)


def _study(act: Act, life_cycle: str | None = None) -> tuple[Thing, ...]:
    if act.study_uid is None:
        return ()
    details = [("Description", _octets(act.detail))] if act.detail else []
    if act.patient_is_lost:
        details.append(("Patient", b"not known any more: no file of the study is left"))
    return (
        Thing(
            id=act.study_uid,
            id_type=STUDY_UID,
            role="3",
            life_cycle=life_cycle,
            details=tuple(details),
            classes=act.classes,
        ),
    )


def _patient(act: Act) -> tuple[Thing, ...]:
    if act.patient is None:
        return ()
    issuer = act.patient.issuer
    return (
        Thing(
            id=act.patient.id or "(none)",
            id_type=PATIENT_NUMBER,
            name=act.patient.name or "(none)",
            type_code="1",
            role="1",
            details=(("Issuer of Patient ID", _octets(issuer)),) if issuer else (),
        ),
    )


def _message(
    act: Act,
    here: Here,
    event: str,
    action: Action,
    participants: tuple[Participant, ...],
    things: tuple[Thing, ...] = (),
    *,
    types: tuple[Code, ...] = (),
    outcome: Outcome | None = None,
) -> AuditMessage:
    return AuditMessage(
        event=EVENTS[event],
        action=action,
        at=act.at,
        participants=participants,
        source_id=here.node_id,
        site=here.site,
        types=types,
        outcome=outcome if outcome is not None else 8 if act.failed else 0,
        says=act.detail if act.failed or outcome else "",
        things=things,
    )


# The messages


def _activity(type_: str) -> Callable[[Act, Here], AuditMessage]:
    """A.5.3.1"""

    def make(act: Act, here: Here) -> AuditMessage:
        who = _process(act, here, ROLES["Application"])
        return _message(act, here, "Application Activity", "E", (who,), types=(TYPES[type_],))

    return make


def _received(act: Act, here: Here) -> AuditMessage:
    """A.5.3.7, told by the receiver: C where it had none of them, R where it had them all."""
    return _message(
        act,
        here,
        "DICOM Instances Transferred",
        "C" if act.classes else "R",
        (
            _other(act.other, SOURCE, is_requestor=not act.by),
            _process(act, here, DESTINATION, role="receive"),
            *_person(act, is_requestor=True),
        ),
        (*_study(act, "2"), *_patient(act)),
    )


def _sending(event: str, action: Action) -> Callable[[Act, Here], AuditMessage]:
    """A.5.3.3 and A.5.3.7, told by the sender; to a folder A.5.3.4."""

    def make(act: Act, here: Here) -> AuditMessage:
        things = (*_study(act, "10"), *_patient(act))
        if act.other.folder:
            ours = _process(act, here, SOURCE, ROLES["Application"], is_requestor=True, role="send")
            medium = Participant(
                user_id=f"file://{act.other.folder}",
                roles=(DESTINATION, ROLES["Destination Media"]),
                media=MEDIA_URI,
            )
            return _message(act, here, "Export", "R", (ours, medium), things)
        ours = _process(act, here, SOURCE, is_requestor=True, role="send")
        return _message(act, here, event, action, (ours, _other(act.other, DESTINATION)), things)

    return make


def _accessed(action: Action, life_cycle: str, role: str) -> Callable[[Act, Here], AuditMessage]:
    """A.5.3.6"""

    def make(act: Act, here: Here) -> AuditMessage:
        who = (
            *_person(act, is_requestor=True),
            _process(act, here, is_requestor=not act.by, role=role),
        )
        things = (*_study(act, life_cycle), *_patient(act))
        return _message(act, here, "DICOM Instances Accessed", action, who, things)

    return make


def _deleted(act: Act, here: Here) -> AuditMessage:
    """A.5.3.8"""
    who = (_process(act, here, is_requestor=True, role="tick"),)
    things = (*_study(act, "15"), *_patient(act))
    return _message(act, here, "DICOM Study Deleted", "D", who, things)


def _query(act: Act, here: Here) -> AuditMessage:
    """A.5.3.10"""
    what = Thing(
        id=STUDY_ROOT_FIND,
        id_type=SOP_CLASS_UID,
        role="3",
        query=act.query,
        details=(("TransferSyntax", b"1.2.840.10008.1.2"),),
    )
    who = (
        _process(act, here, SOURCE, is_requestor=not act.by, role="fetch"),
        _other(act.other, DESTINATION),
        *_person(act, is_requestor=True),
    )
    return _message(act, here, "Query", "E", who, (what,))


def _alert(type_: str, outcome: Outcome = 0) -> Callable[[Act, Here], AuditMessage]:
    """A.5.3.11: the process reports, the person, if any, performed it."""

    def make(act: Act, here: Here) -> AuditMessage:
        says = f"{act.kind}: {act.detail}" if act.detail else act.kind
        says += f" ({act.count} times)" if act.count > 1 else ""
        about = act.study_uid or act.subject or here.node_id
        code = STUDY_UID if act.study_uid else URI if about.startswith("file:") else NODE_ID
        subject = Thing(
            id=about,
            id_type=code,
            role="13" if code is not STUDY_UID else "3",
            details=(("Alert Description", _octets(says)),),
        )
        refused = tuple(
            Participant(user_id=title or "(no title)", ae_titles=(title,), address=address)
            for title, address, _ in act.requestors
        )
        who = (_process(act, here), *_person(act, is_requestor=False), *refused)
        return _message(
            act, here, "Security Alert", "E", who, (subject,), types=(TYPES[type_],),
            outcome=outcome,
        )  # fmt: skip

    return make


def _authentication(type_: str) -> Callable[[Act, Here], AuditMessage]:
    """A.5.3.12: no object; 4 is a wrong password, 8 one too many."""

    def make(act: Act, here: Here) -> AuditMessage:
        outcome: Outcome = 8 if act.failed else 4 if act.kind == "SIGN_IN_REFUSED" else 0
        person = Participant(
            user_id=act.by or "(no name)", is_requestor=True, address=act.address or "unknown"
        )
        who = (person, _process(act, here, role="web"))
        return _message(
            act, here, "User Authentication", "E", who, types=(TYPES[type_],), outcome=outcome
        )

    return make


_RESTRICTED = _alert("Use of Restricted Function")
_TRANSFERRED = _sending("DICOM Instances Transferred", "R")

_MESSAGES: Mapping[str, Callable[[Act, Here], AuditMessage]] = MappingProxyType(
    {
        "ROLE_STARTED": _activity("Application Start"),
        "ROLE_ENDED": _activity("Application Stop"),
        # Transfers
        "RECEIVED": _received,
        "SENDING": _sending("Begin Transferring DICOM Instances", "E"),
        "DELIVERED": _TRANSFERRED,
        "DELIVERED_AFTER_CANCEL": _TRANSFERRED,
        "DELIVERY_REFUSED": _TRANSFERRED,
        "SUBSTITUTED": _TRANSFERRED,
        "QUERIED": _query,
        # Instances
        "JOB_DONE": _accessed("C", "1", "work"),
        "STUDY_VIEWED": _accessed("R", "6", "web"),
        "STUDY_RELEASED": _accessed("U", "4", "node"),
        "RESULTS_WITHDRAWN": _accessed("D", "14", "node"),
        "RESULT_REJECTED": _accessed("D", "14", "receive"),
        "REJECTED": _accessed("D", "14", "receive"),
        "RESULTS_PURGED": _accessed("D", "15", "tick"),
        "PURGED": _deleted,
        # Administration
        "JOB_REQUEUED": _RESTRICTED,
        "JOB_CANCELLED": _RESTRICTED,
        "DELIVERY_REQUEUED": _RESTRICTED,
        "DELIVERY_CANCELLED": _RESTRICTED,
        "ANALYSIS_ASKED_FOR": _RESTRICTED,
        "ACKNOWLEDGED": _RESTRICTED,
        "DESTINATION_PAUSED": _RESTRICTED,
        "DESTINATION_RESUMED": _RESTRICTED,
        "PROMISE_RELEASED": _RESTRICTED,
        "PEER_TESTED": _RESTRICTED,
        "FETCH_REQUESTED": _RESTRICTED,
        "QUARANTINE_PURGED": _RESTRICTED,
        "QUARANTINE_DISCARDED": _RESTRICTED,
        "QUARANTINE_RELEASED": _RESTRICTED,
        "QUARANTINE_STAYS": _RESTRICTED,
        "CONFIG_RELOADED": _alert("Software Configuration"),
        "USER_CHANGED": _alert("User Security Attributes Changed"),
        "AUDIT_FILE_REMOVED": _alert("Object Security Attributes Changed"),
        "AUDIT_RECORDS_LOST": _alert("Audit Recording Stopped", 12),
        # Who may not
        "REQUESTORS_REFUSED": _alert("Node Authentication", 4),
        "HANDSHAKES_FAILED": _alert("Node Authentication", 4),
        "SIGNED_IN": _authentication("Login"),
        "SIGN_IN_REFUSED": _authentication("Login"),
        "SIGNED_OUT": _authentication("Logout"),
    }
)

AUDITED: frozenset[str] = frozenset(_MESSAGES)
"""Kinds of acts: codes of the ledger's events, and some beside them."""
LOST = "AUDIT_RECORDS_LOST"
FAILED = frozenset({"DELIVERY_REFUSED", "SUBSTITUTED"})
"""Kinds that tell of a failure."""
