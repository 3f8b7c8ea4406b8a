"""Audit messages: each kind is what its table in PS3.15 A.5.3 says, whatever the values are."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from audit_kit import details, event_of, objects, parsed, patient_of, study_of, type_of
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.sr._concepts_dict import concepts
from small_ct import encoded, instance

from dicomnode.domain import audit, audit_acts
from dicomnode.domain.audit import clean, encode
from dicomnode.domain.audit_acts import AUDITED, Act, Here, Other, Patient, message_of
from dicomnode.instances import file_prefix
from dicomnode.instances.fields import UnreadableError
from dicomnode.instances.subjects import read_patient

EXPLICIT = "1.2.840.10008.1.2.1"
AT = datetime(2026, 3, 1, 12, 30, 5, 250_000, tzinfo=UTC)
HERE = Here(node_id="node-1", ae_title="DICOMNODE", host="ct-node", site="Hospital")
CT = "1.2.840.10008.5.1.4.1.1.2"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
PATIENT = Patient(id="4711", issuer="HOSPITAL", name="Muster^Erika=無名")
FULL = Act(
    kind="",
    at=AT,
    by="operator",
    address="10.1.1.9",
    detail="a word about it",
    study_uid="1.2.3",
    patient=PATIENT,
    classes=((CT, 300, ()), (SEG, 1, ("1.2.3.4",))),
    other=Other(name="pacs", ae_title="PACS", address="10.1.1.10"),
    query=b"\x08\x00",
    requestors=(("EVIL", "10.6.6.6", 3),),
)


def made(kind: str, **changes: object) -> object:
    act = replace(FULL, kind=kind, **changes)  # type: ignore[arg-type]
    return parsed(encode(message_of(act, HERE)))


@pytest.mark.parametrize("kind", sorted(AUDITED))
def test_every_kind_is_valid_with_everything_and_with_nothing(kind: str) -> None:
    made(kind)
    parsed(encode(message_of(Act(kind=kind, at=AT, query=b""), HERE)))


def test_the_codes_are_those_of_the_standard() -> None:
    known = {
        code: meaning
        for entries in concepts["DCM"].values()
        for code, (meaning, _) in entries.items()
    }
    ours = [*audit.EVENTS.values(), *audit.TYPES.values(), *audit.ROLES.values()]
    ours += [audit.STUDY_UID, audit.SOP_CLASS_UID, audit.NODE_ID, audit.MEDIA_URI]
    assert {code.value: code.meaning for code in ours}.items() <= known.items()


# A.5.3.7, A.5.3.3, A.5.3.4


def roles(message: object) -> list[tuple[str, str, str]]:
    return [
        (
            one.get("UserID"),
            "/".join(role.get("originalText") for role in one.findall("RoleIDCode")),
            one.get("UserIsRequestor"),
        )
        for one in message.findall("ActiveParticipant")  # type: ignore[attr-defined]
    ]


def test_a_reception() -> None:
    act = Act(
        kind="RECEIVED",
        at=AT,
        study_uid="1.2.3",
        patient=PATIENT,
        classes=((CT, 300, ()),),
        other=Other(ae_title="CT1", address="10.1.1.20"),
    )
    message = parsed(encode(message_of(act, HERE)))
    assert event_of(message) == "DICOM Instances Transferred"
    event = message.find("EventIdentification")
    assert event.attrib == {
        "EventActionCode": "C",
        "EventDateTime": "2026-03-01T12:30:05.250+00:00",
        "EventOutcomeIndicator": "0",
    }
    assert roles(message) == [
        ("CT1", "Source Role ID", "true"),
        ("node-1:receive", "Destination Role ID", "false"),
    ]
    sender, receiver = message.findall("ActiveParticipant")
    assert sender.get("AlternativeUserID") == "AETITLES=CT1"
    assert (sender.get("NetworkAccessPointID"), sender.get("NetworkAccessPointTypeCode")) == (
        "10.1.1.20",
        "2",
    )
    assert receiver.get("NetworkAccessPointTypeCode") == "1"
    assert study_of(message) == "1.2.3"
    (of_class,) = message.iter("SOPClass")
    assert of_class.attrib == {"UID": CT, "NumberOfInstances": "300"}
    assert patient_of(message) == ("4711", "Muster^Erika=無名")
    assert details(message)["Issuer of Patient ID"] == "HOSPITAL"
    source = message.find("AuditSourceIdentification")
    assert source.attrib == {"AuditEnterpriseSiteID": "Hospital", "AuditSourceID": "node-1"}
    # What was here before was not created: A.5.3.7 has R for that.
    again = parsed(encode(message_of(replace(act, classes=()), HERE)))
    assert again.find("EventIdentification").get("EventActionCode") == "R"


def test_a_delivery() -> None:
    begins, ended = made("SENDING", by=""), made("DELIVERED", by="")
    assert event_of(begins) == "Begin Transferring DICOM Instances"
    assert begins.find("EventIdentification").get("EventActionCode") == "E"
    assert event_of(ended) == "DICOM Instances Transferred"
    assert ended.find("EventIdentification").get("EventActionCode") == "R"
    for message in (begins, ended):
        assert roles(message) == [
            ("node-1:send", "Source Role ID", "true"),
            ("pacs", "Destination Role ID", "false"),
        ]
    refused = made("DELIVERY_REFUSED", failed=True)
    event = refused.find("EventIdentification")
    assert event.get("EventOutcomeIndicator") == "8"
    assert event.findtext("EventOutcomeDescription") == "a word about it"


def test_a_delivery_into_a_folder_is_an_export() -> None:
    message = made("DELIVERED", other=Other(name="research", folder="/srv/research"))
    assert event_of(message) == "Export"
    assert roles(message)[1] == (
        "file:///srv/research",
        "Destination Role ID/Destination Media",
        "false",
    )
    assert message.find(".//MediaType").get("csd-code") == "110037"


# A.5.3.1, A.5.3.6, A.5.3.8, A.5.3.10, A.5.3.11, A.5.3.12


@pytest.mark.parametrize(
    ("kind", "event", "type_", "action", "outcome"),
    [
        ("ROLE_STARTED", "Application Activity", "Application Start", "E", "0"),
        ("ROLE_ENDED", "Application Activity", "Application Stop", "E", "0"),
        ("JOB_DONE", "DICOM Instances Accessed", "", "C", "0"),
        ("STUDY_VIEWED", "DICOM Instances Accessed", "", "R", "0"),
        ("STUDY_RELEASED", "DICOM Instances Accessed", "", "U", "0"),
        ("RESULTS_WITHDRAWN", "DICOM Instances Accessed", "", "D", "0"),
        ("REJECTED", "DICOM Instances Accessed", "", "D", "0"),
        ("RESULTS_PURGED", "DICOM Instances Accessed", "", "D", "0"),
        ("PURGED", "DICOM Study Deleted", "", "D", "0"),
        ("QUERIED", "Query", "", "E", "0"),
        ("JOB_CANCELLED", "Security Alert", "Use of Restricted Function", "E", "0"),
        ("CONFIG_RELOADED", "Security Alert", "Software Configuration", "E", "0"),
        ("USER_CHANGED", "Security Alert", "User Security Attributes Changed", "E", "0"),
        ("REQUESTORS_REFUSED", "Security Alert", "Node Authentication", "E", "4"),
        ("AUDIT_RECORDS_LOST", "Security Alert", "Audit Recording Stopped", "E", "12"),
        ("SIGNED_IN", "User Authentication", "Login", "E", "0"),
        ("SIGN_IN_REFUSED", "User Authentication", "Login", "E", "4"),
        ("SIGNED_OUT", "User Authentication", "Logout", "E", "0"),
    ],
)
def test_the_other_messages(kind: str, event: str, type_: str, action: str, outcome: str) -> None:
    message = made(kind)
    told = message.find("EventIdentification")
    assert (event_of(message), type_of(message)) == (event, type_)
    assert told.get("EventActionCode") == action
    assert told.get("EventOutcomeIndicator") == outcome
    requestors = [who for who, _, is_requestor in roles(message) if is_requestor == "true"]
    assert len(requestors) <= 1  # A.5.2: not more than one
    if event in ("DICOM Instances Accessed", "DICOM Study Deleted"):
        assert study_of(message) == "1.2.3"
        assert patient_of(message) is not None
    if event == "User Authentication":
        assert not message.findall("ParticipantObjectIdentification")
    if event in ("Security Alert", "Application Activity", "User Authentication", "Query"):
        assert patient_of(message) is None


def test_a_person_who_acts_is_named() -> None:
    alert = made("JOB_CANCELLED")
    # A.5.3.11: who performed it is never the requestor.
    assert ("operator", "", "false") in roles(alert)
    assert details(alert)["Alert Description"] == "JOB_CANCELLED: a word about it"
    assert study_of(alert) == "1.2.3"
    assert roles(made("STUDY_RELEASED"))[0] == ("operator", "", "true")
    assert roles(made("RESULTS_WITHDRAWN", by=""))[0] == ("node-1:node", "", "true")


def test_too_many_wrong_passwords_are_a_serious_failure() -> None:
    message = made("SIGN_IN_REFUSED", failed=True)
    assert message.find("EventIdentification").get("EventOutcomeIndicator") == "8"
    assert message.find("ActiveParticipant").get("NetworkAccessPointID") == "10.1.1.9"


def test_strangers_are_all_named() -> None:
    many = (("EVIL", "10.6.6.6", 3), ("", "10.6.6.7", 1))
    message = made("REQUESTORS_REFUSED", requestors=many, by="", study_uid=None)
    assert [who for who, _, _ in roles(message)] == ["node-1:node", "EVIL", "(no title)"]
    assert objects(message, "Node ID")[0].get("ParticipantObjectID") == "node-1"


def test_a_query_holds_its_identifier() -> None:
    message = made("QUERIED")
    assert message.findtext(".//ParticipantObjectQuery") == "CAA="
    assert details(message)["TransferSyntax"] == "1.2.840.10008.1.2"


def test_a_patient_that_nobody_knows_any_more_is_said_so() -> None:
    message = made("PURGED", patient=None, patient_is_lost=True)
    assert patient_of(message) is None
    assert "not known any more" in details(message)["Patient"]


def test_kinds_name_nobody_in_their_repr() -> None:
    assert "Muster" not in repr(FULL)
    assert "4711" not in repr(FULL)


# Whatever a peer or a file says

HOSTILE = st.text(st.characters(), max_size=80) | st.sampled_from(
    [
        "]]>",
        "<!--",
        "&amp;&#0;",
        "\x00",
        "\ud800",
        "\uffff",
        "\r\n",
        "a\x85b\u2028c",
        '"><x/>',
        "\x1b[31m",
    ]
)


@example("\ud800", "\x00", "\ud800", "\ud800", "RECEIVED")
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.sampled_from(sorted(AUDITED)))
def test_hostile_text_stays_text(
    name: str, patient: str, title: str, detail: str, kind: str
) -> None:
    act = replace(
        FULL,
        kind=kind,
        by=name,
        detail=detail,
        patient=Patient(id=patient, issuer=detail, name=name),
        other=Other(name=title, ae_title=title, address=title),
        requestors=((title, name, 1),),
        failed=True,
    )
    xml = encode(message_of(act, HERE))
    assert len(xml.splitlines()) == 1
    assert len(xml.decode().splitlines()) == 1
    message = parsed(xml)
    tags = {element.tag for element in message.iter()}
    assert "x" not in tags
    if patient_of(message) is not None:
        assert objects(message, "Patient Number")[0].findtext("ParticipantObjectName") == (
            clean(name) or "(none)"
        )


def test_long_values_are_cut() -> None:
    message = made("RECEIVED", patient=Patient(id="x" * 100_000, name="y" * 100_000))
    assert patient_of(message) == ("x" * 256, "y" * 256)


def test_what_is_audited_is_told_in_one_table() -> None:
    assert audit_acts.FAILED <= AUDITED
    with pytest.raises(KeyError):
        message_of(Act(kind="STUDY_BEGAN", at=AT), HERE)


# Whose a study is


def test_damaged_headers_are_read_or_refused(tmp_path: Path) -> None:
    path, draw = tmp_path / "a.dcm", random.Random(5)
    whole = file_prefix(CT, "1.2.3.4", EXPLICIT) + encoded(instance(IssuerOfPatientID="X"))
    found = whole.index(b"PN")
    path.write_bytes(whole[:found] + b"PQ" + whole[found + 2 :])
    with pytest.raises(UnreadableError, match="PatientName cannot be read"):
        read_patient(path)
    read = 0
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(132, whole.index(b"CHEST"))] = draw.randrange(256)
        path.write_bytes(data)
        with contextlib.suppress(UnreadableError):
            read_patient(path)
            read += 1
    assert 100 < read < 500
