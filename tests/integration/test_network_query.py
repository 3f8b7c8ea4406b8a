"""The node asks archives what they hold: Orthanc, dcmqrscp, and peers that answer badly or not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from peers import HOST, Dcmqrscp, Dcmtk, Orthanc, free_port
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from small_ct import CT, encoded, instance

from dicomnode.domain.holdings import StudyCount, StudyRecord
from dicomnode.domain.outcomes import Done, Refuse, Retry
from dicomnode.echoes import query_peer
from dicomnode.errors import SettingsError
from dicomnode.instances import file_prefix
from dicomnode.network.query import (
    STUDY_ROOT_FIND,
    Bounds,
    count_instances,
    find_series,
    find_study,
)
from dicomnode.network.requesting import UNCOMPRESSED, Call, ConnectError, Proposal, called
from dicomnode.network.sockets import VERIFICATION
from dicomnode.settings import parse

STUDY = "1.2.826.0.1.3680043.8.498.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
TIMEOUT = 1.5


def to(port: int, called: str = "ARCHIVE", timeout: float = TIMEOUT) -> Call:
    return Call(
        calling_ae="DICOMNODE",
        called_ae=called,
        host=HOST,
        port=port,
        timeout_seconds=timeout,
        tls=None,
    )


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three CT instances and two secondary captures of one study, and one CT of another."""
    folder = tmp_path / "study"
    folder.mkdir()
    members = [(STUDY, 1, number, CT) for number in range(3)]
    members += [(STUDY, 2, number, SECONDARY_CAPTURE) for number in range(2)]
    members += [(STUDY + "9", 1, 0, CT)]
    for study_uid, series, number, sop_class in members:
        uid = f"{study_uid}.{series}.{number + 1}"
        dataset = instance(
            StudyInstanceUID=study_uid,
            SeriesInstanceUID=f"{study_uid}.{series}",
            SOPInstanceUID=uid,
            SOPClassUID=sop_class,
            Modality="CT" if sop_class == CT else "OT",
            SeriesNumber=series,
            StudyDate="20260102",
            StudyTime="030405",
            StudyID="S1",
            InstanceNumber=number + 1,
            IssuerOfPatientID="HOSPITAL",
        )
        prefix = file_prefix(sop_class, uid, ExplicitVRLittleEndian)
        (folder / f"{uid}.dcm").write_bytes(prefix + encoded(dataset))
    return folder


# Real archives


def test_orthanc_says_what_it_holds(orthanc: Orthanc, dcmtk: Dcmtk, study: Path) -> None:
    dcmtk.storescu(orthanc.port, study, called="ARCHIVE")
    stranger = count_instances(to(orthanc.port), STUDY)
    assert isinstance(stranger, Retry)
    assert (stranger.code, "know" in stranger.detail) == ("NO_RESPONSE", True)
    orthanc.add_modality("NODE", "DICOMNODE", free_port())
    check_archive(to(orthanc.port))


def test_dcmqrscp_says_what_it_holds(
    start_dcmqrscp: Callable[..., Dcmqrscp], dcmtk: Dcmtk, study: Path
) -> None:
    archive = start_dcmqrscp()
    dcmtk.storescu(archive.port, study, called="DCMQR")
    check_archive(to(archive.port, "DCMQR"))


def check_archive(call: Call) -> None:
    count = count_instances(call, STUDY)
    assert isinstance(count, StudyCount)
    assert count.by_series == {f"{STUDY}.1": 3, f"{STUDY}.2": 2}
    assert count.instances == 5
    assert count.stated in (5, None)
    assert [one.modality for one in count.series] == ["CT", "OT"]

    only = count_instances(call, STUDY, series_uid=f"{STUDY}.1", sop_classes=True)
    assert isinstance(only, StudyCount)
    assert only.by_series == {f"{STUDY}.1": 3}
    # dcmqrscp answers no SOP Class UIDs.
    assert [one.sop_class_uids for one in only.series] in ([(CT,)], [()])

    record = find_study(call, STUDY, identity=True)
    assert isinstance(record, StudyRecord)
    assert (record.study_uid, record.study_date) == (STUDY, "20260102")
    assert record.accession_number == "A1"
    assert record.identity is not None
    assert record.identity.patient_id == "4711"
    assert record.identity.issuer in ("HOSPITAL", "")  # dcmqrscp does not keep it
    assert record.identity.patient_name == "Müller^Jörg"
    assert record.identity.birth_date == "19500101"
    shown = repr(record)
    assert not any(value in shown for value in ("4711", "Jörg", "19500101", "A1"))

    without = find_study(call, STUDY)
    assert isinstance(without, StudyRecord)
    assert without.identity is None
    series = find_series(call, STUDY)
    assert not isinstance(series, Retry | Refuse)
    assert [one.series_number for one in series] == ["1", "2"]

    assert find_study(call, STUDY + "8") is None
    assert find_series(call, STUDY + "8") == ()
    unknown = count_instances(call, STUDY + "8")
    assert isinstance(unknown, StudyCount)
    assert (unknown.series, unknown.instances) == ((), 0)


def test_whether_a_peer_answers_queries(orthanc: Orthanc, tmp_path: Path) -> None:
    peers = {
        name: {"ae_title": "ARCHIVE", "host": HOST, "port": orthanc.port, "query": name == "ABLE"}
        for name in ("ABLE", "SILENT")
    }
    settings = parse(yaml.safe_dump({"peers": peers}), tmp_path / "dicomnode.yaml")
    assert query_peer(settings, "ABLE").code == "NO_RESPONSE"
    orthanc.add_modality("NODE", "DICOMNODE", free_port())
    assert query_peer(settings, "ABLE") == Done()
    for name in ("SILENT", "NOBODY"):
        with pytest.raises(SettingsError, match=name):
            query_peer(settings, name)


def test_an_archive_that_rejects_the_node(orthanc: Orthanc) -> None:
    answer = count_instances(to(orthanc.port, called="WRONG"), STUDY)
    assert isinstance(answer, Retry)
    assert answer.code == "ASSOCIATION_REJECTED"


def test_one_that_rejects_and_is_gone_before_anyone_looks(orthanc: Orthanc) -> None:
    proposal = Proposal(abstract_syntax=VERIFICATION, transfer_syntaxes=UNCOMPRESSED)
    late = (evt.EVT_REQUESTED, lambda _event: time.sleep(0.5))
    with (
        pytest.raises(ConnectError, match="Called AE title not recogni") as caught,
        called(to(orthanc.port, called="WRONG"), [proposal], [late]),
    ):
        pass
    assert caught.value.code == "ASSOCIATION_REJECTED"


# Peers that answer badly

Find = Callable[[Any], Iterator[tuple[int, Dataset | None]]]


class Archive:
    """A peer that answers C-FIND as `find` does."""

    def __init__(self) -> None:
        self.find: Find = lambda _event: iter([(0x0000, None)])
        self.port = free_port()
        ae = AE(ae_title="ARCHIVE")
        ae.add_supported_context(STUDY_ROOT_FIND)
        handlers: list[Any] = [(evt.EVT_C_FIND, lambda event: self.find(event))]
        self.server: Any = ae.start_server((HOST, self.port), block=False, evt_handlers=handlers)


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    """It takes half a second to end, so that there is one for all."""
    peer = Archive()
    yield peer
    peer.server.shutdown()


def answer(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def test_a_peer_without_queries() -> None:
    port = free_port()
    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context("1.2.840.10008.1.1")
    server: Any = ae.start_server((HOST, port), block=False)
    answer_ = find_study(to(port), STUDY)
    server.shutdown()
    assert isinstance(answer_, Refuse)
    assert answer_.code == "CONTEXT_REFUSED"


def test_nobody_there() -> None:
    answer_ = find_study(to(free_port()), STUDY)
    assert isinstance(answer_, Retry)
    assert answer_.code == "NO_CONNECTION"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(0xA700, Retry), (0xFE00, Retry), (0x0110, Retry), (0xA900, Refuse), (0xC123, Refuse)],
)
def test_a_status_that_is_no_success(archive: Archive, status: int, kind: type) -> None:
    archive.find = lambda _event: iter([(status, None)])
    answer_ = find_study(to(archive.port), STUDY)
    assert isinstance(answer_, kind)
    assert answer_.code == f"STATUS_{status:04X}"


def test_counts_that_are_not_stated_are_counted(archive: Archive) -> None:
    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        level = event.identifier.QueryRetrieveLevel
        if level == "SERIES":
            for number, stated in ((1, None), (2, "7"), (3, "many")):
                uid = f"{STUDY}.{number}"
                found = answer(SeriesInstanceUID=uid)  # and no Study UID
                if stated is not None:
                    found.add_new("NumberOfSeriesRelatedInstances", "LO", stated)
                yield 0xFF00, found
            # A peer that does not mind what it was asked for.
            yield 0xFF01, answer(StudyInstanceUID=STUDY + "9", SeriesInstanceUID=f"{STUDY}9.1")
        elif level == "IMAGE":
            for number in (1, 2, 2):
                yield 0xFF00, answer(SOPInstanceUID=f"{STUDY}.1.{number}", SOPClassUID=CT)
        yield 0x0000, None

    archive.find = find
    count = count_instances(to(archive.port), STUDY)
    assert isinstance(count, StudyCount)
    assert count.by_series == {f"{STUDY}.1": 2, f"{STUDY}.2": 7, f"{STUDY}.3": 2}
    assert count.stated is None


@pytest.mark.parametrize("uid", ["", "../../etc", "1.2" * 40, None])
def test_answers_that_name_nothing_are_refused(archive: Archive, uid: str | None) -> None:
    found = answer(Modality="CT")
    if uid is not None:
        found.add_new("SeriesInstanceUID", "LT", uid)
    archive.find = lambda _event: iter([(0xFF00, found), (0x0000, None)])
    answer_ = find_series(to(archive.port), STUDY)
    assert isinstance(answer_, Refuse)
    assert answer_.code == "UNUSABLE_ANSWER"


def test_more_answers_than_wanted_are_stopped(archive: Archive) -> None:
    def find(_event: Any) -> Iterator[tuple[int, Dataset | None]]:
        for number in range(1000):
            yield 0xFF00, answer(SeriesInstanceUID=f"{STUDY}.{number}")

    archive.find = find
    answer_ = find_series(to(archive.port), STUDY, bounds=Bounds(answers=20))
    assert isinstance(answer_, Refuse)
    assert answer_.code == "TOO_MANY_ANSWERS"


def slow(_event: Any) -> Iterator[tuple[int, Dataset | None]]:
    """Answer for ever, each time just before it is too late."""
    for number in range(100):
        time.sleep(0.2)
        yield 0xFF00, answer(SeriesInstanceUID=f"{STUDY}.{number}")


def test_the_whole_has_its_time(archive: Archive) -> None:
    started = time.monotonic()
    archive.find = slow
    answer_ = find_series(to(archive.port), STUDY, bounds=Bounds(seconds=0.7))
    assert isinstance(answer_, Retry)
    assert answer_.code == "QUERY_TIMEOUT"
    assert time.monotonic() - started < 4


def test_a_query_can_be_given_up(archive: Archive) -> None:
    asked = threading.Event()

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked.set()
        yield from slow(event)

    archive.find = find
    answer_ = find_series(to(archive.port), STUDY, bounds=Bounds(cancelled=asked.is_set))
    assert isinstance(answer_, Retry)
    assert answer_.code == "CANCELLED"


# Peers that are none


@contextmanager
def mute(says: bytes, associated_by: int | None = None) -> Iterator[int]:
    """Somebody who takes a connection, says something and then nothing more.

    Args:
        associated_by: port of a real peer whose answer to the association request is passed on.
    """
    over = threading.Event()
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            near, _ = server.accept()
            with near, contextlib.ExitStack() as stack:
                if associated_by is not None:
                    far = stack.enter_context(socket.create_connection((HOST, associated_by)))
                    far.sendall(near.recv(65536))
                    near.sendall(far.recv(65536))
                    near.recv(65536)
                near.sendall(says)
                over.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        over.set()
        thread.join()


@pytest.mark.parametrize(
    "says",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x02\x00\x00\x00\x40\x00half an answer"],
    ids=["nothing", "http", "half"],
)
def test_somebody_who_speaks_no_dicom(says: bytes) -> None:
    with mute(says) as port:
        started = time.monotonic()
        answer_ = find_study(to(port, timeout=0.7), STUDY)
        took = time.monotonic() - started
    assert isinstance(answer_, Retry)
    assert answer_.code == "ABORTED"
    assert took < 5


DATA_PDU = bytes.fromhex("04 00 00 00 01 00")
"""Type and length of a P-DATA-TF PDU (PS3.8 9.3.5) whose 256 bytes do not come."""


@pytest.mark.parametrize(
    "says",
    [b"", DATA_PDU[:3], DATA_PDU + b"\0" * 30, b"\xff" * 300, DATA_PDU + b"\xff" * 256],
    ids=["no byte", "half a header", "half a PDU", "garbage", "garbage in a PDU"],
)
def test_an_answer_that_never_comes_or_not_whole(orthanc: Orthanc, says: bytes) -> None:
    """The association is there and the request was taken, and then..."""
    with mute(says, associated_by=orthanc.port) as port:
        started = time.monotonic()
        answer_ = find_series(to(port, timeout=0.7), STUDY, bounds=Bounds(seconds=3))
        took = time.monotonic() - started
    assert isinstance(answer_, Retry)
    assert answer_.code == "NO_RESPONSE"
    assert took < 5
