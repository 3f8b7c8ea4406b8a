"""Whose the study is at a DICOMweb service, asked just before results go there (QIDO-RS)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ledger_kit import rows
from peers import DICOM_WEB_PLUGIN, HOST, Orthanc
from pydicom.uid import ExplicitVRLittleEndian
from sending_kit import Sending
from small_ct import CT, encoded, instance
from stow_kit import Service, stored

from dicomnode.instances import file_prefix
from dicomnode.ledger import actions
from dicomnode.ledger.tables import event

MakeSending = Callable[..., Sending]


@pytest.fixture
def sending(sending: Callable[..., Sending]) -> MakeSending:
    """Make a sender to a DICOMweb service."""

    def make(url: str, **destination: Any) -> Sending:
        destination = {"peer": None, "stow_url": url, **destination}
        return sending(1, destination=destination, send={"timeout_seconds": 1.0})

    return make


@pytest.fixture
def there() -> Iterator[Service]:
    """A service that stores everything."""
    service = Service(lambda uid: (200, stored(uid)))
    yield service
    service.close()


@pytest.mark.peer("orthanc", "orthanc-dicomweb")
def test_a_study_that_was_corrected_meanwhile_is_held_until_a_person_has_looked(
    start_orthanc: Callable[..., Orthanc], sending: MakeSending, caplog: Any
) -> None:
    """Orthanc has one study as it was sent, one with another patient, and one not at all."""
    orthanc = start_orthanc(
        options={
            "Plugins": [str(DICOM_WEB_PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
    )
    kit = sending(f"http://{HOST}:{orthanc.http_port}/dicom-web")
    corrected, same, unknown = kit.give(), kit.give(), kit.give()
    for job, changes in (
        (corrected, {"PatientID": "MERGED", "PatientBirthDate": "19500102"}),
        (same, {"AccessionNumber": None}),
    ):
        uid = f"1.2.3.4.{job}"
        scan = instance(StudyInstanceUID=f"1.2.{job}", SOPInstanceUID=uid, **changes)
        orthanc.post("/instances", file_prefix(CT, uid, ExplicitVRLittleEndian) + encoded(scan))
    kit.send()
    assert kit.states() == {
        f"2.25.{job}.{position}": "HELD" if job == corrected else "DELIVERED"
        for job in (corrected, same, unknown)
        for position in range(3)
    }
    (told,) = [row for row in rows(kit.ledger, event) if row.code == "IDENTITY_DIFFERS"]
    assert told.detail.endswith("the archive has another Patient ID and Patient's Birth Date")
    assert "MERGED" not in caplog.text + told.detail
    with kit.ledger.transaction() as tx:
        assert actions.release_study(tx, f"1.2.{corrected}", "me", "the archive is wrong")
    kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}


def study(**values: tuple[str, str]) -> dict[str, Any]:
    """Return an item of an answer: the study, its patient, and what is put over it."""
    tags = {"0020000D": ("UI", "1.2.1"), "00100020": ("LO", "4711"), **values}
    return {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in tags.items() if value}


LONG = {"00080050": ("SH", "A" * (1 << 20))}


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        ((204, None), "DELIVERED", None),
        ((200, []), "DELIVERED", None),
        ((200, [study()]), "DELIVERED", None),
        ((200, [study(**{"00100020": ("LO", "4712")})]), "HELD", "IDENTITY_DIFFERS"),
        ((200, [study(**{"00100020": ("LO", "")})]), "HELD", "IDENTITY_DIFFERS"),
        ((200, [study(**{"00080050": ("SH", "A2")})]), "HELD", "IDENTITY_DIFFERS"),
        ((200, [study(**{"0020000D": ("UI", "1.2.9")})]), "PENDING", "IDENTITY_NOT_COMPARED"),
        ((200, [study(), study()]), "PENDING", "IDENTITY_NOT_COMPARED"),
        ((200, [{"0020000D": {"vr": "UI", "Value": 7}}]), "PENDING", "IDENTITY_NOT_COMPARED"),
        ((200, [7]), "PENDING", "IDENTITY_NOT_COMPARED"),
        ((200, {}), "PENDING", "IDENTITY_NOT_COMPARED"),
        ((200, [study(**LONG)]), "PENDING", "IDENTITY_NOT_COMPARED"),
        ((400, None), "PENDING", "IDENTITY_NOT_COMPARED"),
        ((307, None), "PENDING", "IDENTITY_NOT_COMPARED"),
        ((401, None), "PENDING", "HTTP_401"),
        ((404, None), "PENDING", "HTTP_404"),
    ],
)  # fmt: skip
def test_every_answer_comes_to_its_outcome(
    there: Service,
    sending: MakeSending,
    caplog: Any,
    answer: tuple[int, Any],
    state: str,
    reason: str | None,
) -> None:
    there.whose = lambda: answer
    kit = sending(there.url)
    kit.give("preview", profile=("preview",))
    kit.send()
    (row,) = kit.deliveries()
    assert (row.state, row.reason) == (state, reason)
    assert there.paths == (["/dicom-web/studies/1.2.1"] if state == "DELIVERED" else [])
    (query,) = there.queries
    assert query.startswith("/dicom-web/studies?StudyInstanceUID=1.2.1&includefield=PatientID%2C")
    assert "4712" not in caplog.text + row.detail


def test_a_study_is_asked_for_once_a_batch(there: Service, sending: MakeSending) -> None:
    kit = sending(there.url)
    kit.give()
    kit.give()
    kit.send()
    assert len(there.queries) == 2
    assert len(there.paths) == 6


def test_who_must_not_be_asked_is_not(there: Service, sending: MakeSending) -> None:
    there.whose = lambda: (404, None)
    kit = sending(there.url, compare_identity=False)
    kit.give("preview", profile=("preview",))
    kit.send()
    assert (there.queries, set(kit.states().values())) == ([], {"DELIVERED"})
