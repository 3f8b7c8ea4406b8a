"""Which objects of which study an archive gets, and which it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from archives import COMPREHENSIVE_3D, PICTURE, SEGMENTATION, ScriptedArchive
from ledger_kit import rows
from peers import Orthanc
from pydicom.uid import ExplicitVRLittleEndian
from sending_kit import Sending
from small_ct import CT, encoded, instance

from dicomnode.instances import file_prefix
from dicomnode.ledger import actions
from dicomnode.ledger.tables import event

MakeArchive = Callable[..., ScriptedArchive]
MakeSending = Callable[..., Sending]


# What, and to whom


def test_the_next_form_goes_where_a_class_is_refused(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive(classes=(SEGMENTATION, PICTURE))
    kit = sending(there.port)
    names = ("labelmap", "seg", "preview", "sr", "sr-alone")
    kit.give(*names, profile=("labelmap", "preview", "sr"))
    kit.send()
    assert there.kept == ["2.25.1.1", "2.25.1.2"], "over the same association"
    assert there.associations == 1
    states = kit.states()
    assert states["2.25.1.0"] == "SUBSTITUTED"
    assert (states["2.25.1.4"], states["2.25.1.3"]) == ("SUBSTITUTED", "REFUSED")


def test_a_class_that_is_refused_by_its_status_falls_back_too(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive(
        lambda event: 0x0122 if event.request.AffectedSOPClassUID == COMPREHENSIVE_3D else 0
    )
    kit = sending(there.port)
    kit.give("seg", "sr", "sr-2", profile=("seg", "sr"))
    kit.send()
    assert there.kept == ["2.25.1.0", "2.25.1.2"]
    assert kit.states() == {
        "2.25.1.0": "DELIVERED",
        "2.25.1.1": "SUBSTITUTED",
        "2.25.1.2": "DELIVERED",
    }


def test_a_segmentation_is_deflated_where_that_is_accepted(
    archive: MakeArchive, sending: MakeSending
) -> None:
    sizes = []

    def measure(event: Any) -> int:
        sizes.append((event.context.transfer_syntax, len(event.request.DataSet.getvalue())))
        return 0x0000

    there = archive(measure, syntaxes=("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1"))
    kit = sending(there.port)
    kit.give("seg", "preview", profile=("seg", "preview"), size=100_000)
    kit.send()
    assert [syntax for syntax, _ in sizes] == ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1"]
    assert sizes[0][1] < 2000 < 100_000 < sizes[1][1]
    assert list(kit.spool.tmp.iterdir()) == []


# Whose


QUERIED = {"query": True}


@pytest.mark.peer("orthanc")
def test_a_study_that_was_corrected_meanwhile_is_held_until_a_person_has_looked(
    start_orthanc: Callable[..., Orthanc], sending: MakeSending, caplog: Any
) -> None:
    """Orthanc has the study with another Patient ID and birth date: a merge, while results wait."""
    orthanc = start_orthanc(modalities={"node": ("DICOMNODE", 1)})
    kit = sending(orthanc.port, peer=QUERIED)
    corrected = instance(StudyInstanceUID="1.2.1", PatientID="MERGED", PatientBirthDate="19500102")
    prefix = file_prefix(CT, "1.2.3.4", ExplicitVRLittleEndian)
    orthanc.post("/instances", prefix + encoded(corrected))
    kit.give()
    other = kit.give()  # a study that the archive does not know
    kit.send()
    assert kit.states() == {
        **{f"2.25.1.{position}": "HELD" for position in range(3)},
        **{f"2.25.{other}.{position}": "DELIVERED" for position in range(3)},
    }
    assert {row.reason for row in kit.deliveries()[:3]} == {"IDENTITY_DIFFERS"}
    (told,) = [row for row in rows(kit.ledger, event) if row.code == "IDENTITY_DIFFERS"]
    assert told.detail.endswith("the archive has another Patient ID and Patient's Birth Date")
    assert "MERGED" not in caplog.text + told.detail
    kit.send()
    assert kit.events().count("IDENTITY_DIFFERS") == 1
    with kit.ledger.transaction() as tx:
        assert actions.release_study(tx, "1.2.1", "me", "the archive is wrong")
    kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}
    with kit.ledger.transaction() as tx:
        assert actions.acknowledge(tx, (), "me") == 0


@pytest.mark.peer("orthanc")
def test_the_same_identity_goes(
    start_orthanc: Callable[..., Orthanc], sending: MakeSending
) -> None:
    orthanc = start_orthanc(modalities={"node": ("DICOMNODE", 1)})
    kit = sending(orthanc.port, peer=QUERIED)
    prefix = file_prefix(CT, "1.2.3.4", ExplicitVRLittleEndian)
    orthanc.post("/instances", prefix + encoded(instance(StudyInstanceUID="1.2.1")))
    kit.give()
    kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}


def test_an_archive_that_does_not_say_whose_it_is_gets_it_later(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive()  # which answers no queries
    kit = sending(there.port, peer=QUERIED)
    kit.give("seg", profile=("seg",))
    kit.send()
    (row,) = kit.deliveries()
    assert (row.state, row.reason, there.came) == ("PENDING", "IDENTITY_NOT_COMPARED", [])
    assert "CONTEXT_REFUSED" in row.detail


@pytest.mark.parametrize(
    ("kind", "patient", "code"),
    [
        ("clinical", {}, None),
        ("clinical", {"PatientIdentityRemoved": "NO"}, None),
        ("clinical", {"PatientIdentityRemoved": "YES"}, "DEIDENTIFIED_TO_CLINICAL"),
        ("research", {"PatientIdentityRemoved": "YES"}, None),
        ("research", {"PatientIdentityRemoved": "NO"}, "IDENTIFIED_TO_RESEARCH"),
        ("research", {}, "IDENTIFIED_TO_RESEARCH"),
    ],
)
def test_identified_and_deidentified_do_not_mix(
    archive: MakeArchive,
    sending: MakeSending,
    kind: str,
    patient: dict[str, str],
    code: str | None,
) -> None:
    there = archive()
    kit = sending(there.port, destination={"kind": kind})
    kit.give(patient=patient)
    kit.send()
    if code is None:
        assert len(there.kept) == 3
        return
    assert there.came == []
    rows = kit.deliveries()
    assert {row.state for row in rows} == {"REFUSED"}
    assert rows[0].reason == code
    assert "DELIVERY_REFUSED" in kit.events("attention")


def test_what_a_late_slice_has_outdated_is_cancelled_before_the_next_association(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive()
    kit = sending(there.port)
    kit.give("seg", profile=("seg",))
    with kit.ledger.transaction() as tx:  # as if whoever raised it had forgotten its deliveries
        tx.connection.exec_driver_sql("UPDATE series SET generation = 2")
    kit.send()
    assert there.came == []
    assert [(row.state, row.reason) for row in kit.deliveries()] == [("CANCELLED", "SUPERSEDED")]
