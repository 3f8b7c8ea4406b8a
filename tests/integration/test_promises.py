"""Storage commitment by this node: for whom it may, of what it has whole, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from archives import PUSH_MODEL, PUSH_MODEL_INSTANCE
from ledger_kit import rows
from nodes import Node
from peers import HOST, Orthanc, free_port, wait_until
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from scu import opened
from small_ct import CT, encoded, instance

from dicomnode.domain.retention import RetentionPolicy
from dicomnode.instances import file_prefix, reports
from dicomnode.ledger import promises, retention
from dicomnode.ledger.tables import instance as instances
from dicomnode.ledger.tables import promise, study
from dicomnode.services.common import Context
from dicomnode.services.promising import Promiser
from dicomnode.spool import Spool

MakeNode = Callable[..., Node]
UIDS = ("1.2.3.1", "1.2.3.2")
MR = "1.2.840.10008.5.1.4.1.1.4"


class Modality:
    """Stores, asks for commitment, and is told over an association that the node opens."""

    def __init__(self) -> None:
        self.port = free_port()
        self.told: list[tuple[str, set[str], dict[str, int]]] = []
        self.answer = 0x0000
        self._server: Any = None

    def start(self) -> None:
        ae = AE(ae_title="MODALITY")
        ae.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
        self._server = ae.make_server(
            (HOST, self.port), evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._hear)]
        )
        ae._servers.append(self._server)  # as `start_server` does, for its end
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _hear(self, event: Any) -> tuple[int, None]:
        found = reports.read(event.event_information)
        self.told.append((found.transaction_uid, set(found.committed), dict(found.failed)))
        assert event.event_type == (2 if found.failed else 1)
        return self.answer, None

    def call(self, node: Node, *datasets: Any, ask: tuple[str, list[tuple[str, str]]]) -> int:
        """Store data sets and ask for commitment; return the status of the answer to that."""
        ae = AE(ae_title="MODALITY")
        ae.add_requested_context(CT, ExplicitVRLittleEndian)
        ae.add_requested_context(PUSH_MODEL)
        association = ae.associate(
            HOST, node.port, ae_title="DICOMNODE", evt_handlers=[(evt.EVT_CONN_OPEN, opened)]
        )
        assert association.is_established
        for dataset in datasets:
            dataset.file_meta.MediaStorageSOPClassUID = CT
            assert association.send_c_store(dataset).Status == 0x0000
        status, _ = association.send_n_action(
            reports.request(*ask), 1, PUSH_MODEL, PUSH_MODEL_INSTANCE
        )
        association.release()
        return int(status.Status)


def datasets() -> list[Any]:
    made = []
    for number, uid in enumerate(UIDS):
        dataset = instance(SOPInstanceUID=uid, ImagePositionPatient=[0, 0, number])
        encoded(dataset)  # which gives it its transfer syntax
        made.append(dataset)
    return made


@pytest.fixture
def modality() -> Iterator[Modality]:
    made = Modality()
    made.start()
    yield made
    made.stop()


def receiver(node: MakeNode, modality: Modality, **peer: Any) -> Node:
    own = {"port": modality.port, "commit_here": True, **peer}
    return node("receive", overrides={"peers": {"MODALITY": own}, "rules": []})


def promiser(node: Node) -> Promiser:
    """What the send role runs, in the test's own process."""
    settings = node.settings
    return Promiser(
        Context(
            settings=settings,
            spool=Spool(settings.spool_folder, "send"),
            ledger=node.ledger,
            patient_key=settings.patient_key_file.read_bytes(),
            stop=threading.Event(),
        )
    )


def promised(node: Node) -> set[str]:
    return {row.sop_instance_uid for row in rows(node.ledger, instances) if row.promised_at}


def why_kept(node: Node) -> str | None:
    """Say why retention keeps the study, however old it is."""
    with node.ledger.transaction() as tx:
        tx.connection.execute(
            study.update().values(state="CLOSED", last_at=tx.now - timedelta(days=100))
        )
        (row,) = tx.connection.execute(study.select()).all()
        return retention.purge_study(tx, row.id, RetentionPolicy(), ())


def test_what_is_here_whole_is_promised_and_kept_until_it_is_released(
    node: MakeNode, modality: Modality
) -> None:
    running = receiver(node, modality)
    asked = [(CT, UIDS[0]), (MR, UIDS[1]), (CT, "1.2.3.99")]
    assert modality.call(running, *datasets(), ask=("1.7.1", asked)) == 0x0000
    assert modality.call(running, ask=("1.7.1", asked)) == 0x0000, "the same again is the same"
    answering = promiser(running)
    assert answering.answer_next()
    assert not answering.answer_next()
    assert modality.told == [("1.7.1", {UIDS[0]}, {UIDS[1]: 0x0119, "1.2.3.99": 0x0112})]
    assert promised(running) == {UIDS[0]}
    assert why_kept(running) == "this node has committed to keeping it"
    with running.ledger.transaction() as tx:
        assert promises.release(tx, "1.2", "me", "it is in the archive") == 1
        assert promises.release(tx, "1.2", "me", "again") == 0
    assert why_kept(running) is None


def test_nobody_is_told_before_it_is_kept(node: MakeNode, modality: Modality) -> None:
    """And one who could not be told is told later."""
    running = receiver(node, modality)
    asked = [(CT, uid) for uid in UIDS]
    assert modality.call(running, *datasets(), ask=("1.7.1", asked)) == 0x0000
    modality.stop()
    answering = promiser(running)
    assert answering.answer_next()
    assert promised(running) == set(UIDS)
    (row,) = rows(running.ledger, promise)
    assert (row.state, row.attempt) == ("ASKED", 1)
    assert "NO_CONNECTION" in row.detail
    modality.start()
    with running.ledger.transaction() as tx:
        tx.connection.execute(promise.update().values(due_at=tx.now))
    assert answering.answer_next()
    assert modality.told == [("1.7.1", set(UIDS), {})]
    assert [row.state for row in rows(running.ledger, promise)] == ["ANSWERED"]


def test_what_is_not_whole_is_not_promised(node: MakeNode, modality: Modality) -> None:
    running = receiver(node, modality)
    third = "1.2.3.3"
    more = instance(SOPInstanceUID=third, ImagePositionPatient=[0, 0, 2])
    encoded(more)
    assert modality.call(running, *datasets(), more, ask=("1.7.1", [(CT, UIDS[0])])) == 0x0000
    damaged, lost, _ = running.files()
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(bytes(data))
    lost.unlink()
    answering = promiser(running)
    assert answering.answer_next()
    assert modality.call(running, ask=("1.7.2", [(CT, UIDS[1])])) == 0x0000
    assert answering.answer_next()
    with running.ledger.transaction() as tx:
        tx.connection.execute(study.update().values(state="HELD"))
    assert modality.call(running, ask=("1.7.3", [(CT, third)])) == 0x0000
    assert answering.answer_next()
    assert modality.told == [
        ("1.7.1", set(), {UIDS[0]: 0x0110}),
        ("1.7.2", set(), {UIDS[1]: 0x0110}),
        ("1.7.3", set(), {third: 0x0112}),
    ]
    assert promised(running) == set()


def test_by_default_nothing_is_promised(node: MakeNode, modality: Modality) -> None:
    running = receiver(node, modality, commit_here=False)
    asked = [(CT, uid) for uid in UIDS]
    assert modality.call(running, *datasets(), ask=("1.7.1", asked)) == 0x0122
    assert rows(running.ledger, promise) == []


@pytest.mark.peer("orthanc")
def test_a_real_archive_is_told(start_orthanc: Callable[..., Orthanc], node: MakeNode) -> None:
    """Orthanc sends, asks and hears; the roles do the rest."""
    port = free_port()
    orthanc = start_orthanc(modalities={"node": ("DICOMNODE", port)})
    running = node(
        "receive",
        "send",
        archive=orthanc,
        overrides={"node": {"port": port}, "peers": {"ARCHIVE": {"commit_here": True}}},
    )
    for dataset in datasets():
        prefix = file_prefix(CT, dataset.SOPInstanceUID, ExplicitVRLittleEndian)
        orthanc.post("/instances", prefix + encoded(dataset))
    orthanc.store_scu("node", list(orthanc.instances().values()))
    asked = [[CT, uid] for uid in (*UIDS, "1.2.3.99")]
    answer = orthanc.post("/modalities/node/storage-commitment", {"DicomInstances": asked})

    def heard() -> Any:
        return orthanc.get(answer["Path"])

    wait_until(lambda: heard()["Status"] != "Pending", 20, "Orthanc has heard")
    found = heard()
    assert found["Status"] == "Failure", "of the third it was told so"
    assert {one["SOPInstanceUID"] for one in found["Success"]} == set(UIDS)
    assert {one["SOPInstanceUID"] for one in found["Failures"]} == {"1.2.3.99"}
    assert promised(running) == set(UIDS)
