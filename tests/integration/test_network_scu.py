"""The node as the requestor: what every way in which a peer may answer, or not, comes to."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from peers import Orthanc, free_port, wait_until
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless
from pynetdicom import AE, evt
from small_ct import CT, encoded, instance

from dicomnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry
from dicomnode.instances import file_prefix
from dicomnode.network.progress import Pace
from dicomnode.network.scu import ConnectError, StorageAssociation, associate

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A DICOM file as it lies in the spool."""
    path = tmp_path / "one.dcm"
    prefix = file_prefix(CT, "1.2.3.4", ExplicitVRLittleEndian)
    path.write_bytes(prefix + encoded(instance()))
    return path


@contextmanager
def to(
    port: int,
    *contexts: tuple[str, str],
    called: str = "ARCHIVE",
    timeout: float = 5.0,
    pace: Pace | None = None,
) -> Iterator[StorageAssociation]:
    with associate(
        calling_ae="DICOMNODE",
        called_ae=called,
        host="127.0.0.1",
        port=port,
        contexts=contexts or ((CT, ExplicitVRLittleEndian),),
        timeout_seconds=timeout,
        pace=pace,
    ) as association:
        yield association


@contextmanager
def scp(answer: Callable[[Any], int], syntax: str = ExplicitVRLittleEndian) -> Iterator[int]:
    """A Storage SCP that answers every C-STORE as it is told; yields its port."""
    port = free_port()
    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context(CT, syntax)
    ae.add_supported_context("1.2.840.10008.1.1")
    server: Any = ae.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)]
    )
    try:
        yield port
    finally:
        server.shutdown()


def test_the_node_says_which_implementation_it_is(file: Path) -> None:
    heard: list[tuple[str, str]] = []

    def answer(event: Any) -> int:
        peer = event.assoc.requestor
        heard.append((peer.implementation_class_uid, peer.implementation_version_name))
        return 0x0000

    with scp(answer) as port, to(port) as association:
        association.store(file, CT, ExplicitVRLittleEndian)
    assert heard == [(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)]


# A real archive


@pytest.mark.peer("orthanc")
def test_a_file_arrives_as_it_is(orthanc: Orthanc, file: Path) -> None:
    with to(orthanc.port) as association:
        assert association.echo() == Done()
        assert association.takes(CT, ExplicitVRLittleEndian)
        assert association.store(file, CT, ExplicitVRLittleEndian) == (Done(), 0x0000)
        assert association.is_alive
    (stored,) = orthanc.datasets()
    assert stored.PixelData == instance().PixelData
    assert stored.PatientName == instance().PatientName


@pytest.mark.peer("orthanc")
def test_contexts_are_taken_one_by_one(orthanc: Orthanc, file: Path) -> None:
    """Debian's Orthanc does not know Label Map Segmentation; the rest arrives all the same."""
    wanted = (
        (CT, ExplicitVRLittleEndian),
        (LABEL_MAP, RLELossless),
        (SEGMENTATION, DeflatedExplicitVRLittleEndian),
    )
    with to(orthanc.port, *wanted) as association:
        assert [association.takes(*pair) for pair in wanted] == [True, False, True]
        outcome, status = association.store(file, LABEL_MAP, RLELossless)
        assert isinstance(outcome, Refuse)
        assert (outcome.code, status) == ("CONTEXT_REFUSED", None)
        assert association.store(file, CT, ExplicitVRLittleEndian)[0] == Done()
    with to(orthanc.port, (LABEL_MAP, RLELossless)) as association:
        assert association.echo() == Done(), "an association comes about even so"


@pytest.mark.peer("orthanc")
def test_a_rejection_is_told_with_its_reason(orthanc: Orthanc) -> None:
    with pytest.raises(ConnectError) as error, to(orthanc.port, called="WRONG"):
        pass
    assert error.value.code == "ASSOCIATION_REJECTED"
    assert "Called AE title not recognised" in error.value.detail


@pytest.mark.peer("orthanc")
def test_an_archive_that_dies_in_between_is_a_retry(orthanc: Orthanc, file: Path) -> None:
    with to(orthanc.port) as association:
        orthanc.kill()
        outcome, status = association.store(file, CT, ExplicitVRLittleEndian)
        assert isinstance(outcome, Retry)
        assert (outcome.code in ("NO_RESPONSE", "ABORTED"), status) == (True, None)
        wait_until(lambda: not association.is_alive, 5, "the end of the association is noticed")
        again, _ = association.store(file, CT, ExplicitVRLittleEndian)
        assert isinstance(again, Retry), "and it stays one"


# Statuses


def test_every_status_comes_to_its_outcome(file: Path) -> None:
    """One after the other over one association: none of them ends it."""
    expected: list[tuple[int, type[Outcome], str]] = [
        (0x0000, Done, "DONE"),
        (0xB000, Done, "COERCED"),
        (0xB007, Done, "STORED_WITH_WARNING"),
        (0xA700, Retry, "STATUS_A700"),
        (0x0110, Retry, "STATUS_0110"),
        (0xA900, Refuse, "STATUS_A900"),
        (0xC123, Refuse, "STATUS_C123"),
        (0x0122, Refuse, "SOP_CLASS_NOT_SUPPORTED"),
        (0x0124, Refuse, "NOT_AUTHORIZED"),
    ]
    answers = iter([status for status, _, _ in expected])
    found = []
    with scp(lambda _event: next(answers)) as port, to(port) as association:
        for _ in expected:
            outcome, status = association.store(file, CT, ExplicitVRLittleEndian)
            found.append((status, type(outcome), outcome.code))
    assert found == expected


def test_the_bytes_sent_are_those_of_the_file(tmp_path: Path) -> None:
    """Never read, re-encoded or padded on the way: the digest in the ledger is what arrives."""
    received: list[bytes] = []

    def keep(event: Any) -> int:
        received.append(event.request.DataSet.getvalue())
        return 0x0000

    sent = [
        encoded(instance(PixelData=None, Rows=None)) + bytes(range(251)) * (size // 251 + 1)
        for size in (1, 16_383, 3_000_001)
    ]
    path = tmp_path / "one.dcm"
    with scp(keep) as port, to(port) as association:
        for data in sent:
            path.write_bytes(file_prefix(CT, "1.2.3.4", ExplicitVRLittleEndian) + data)
            assert association.store(path, CT, ExplicitVRLittleEndian)[0] == Done()
    assert [hashlib.sha256(data).digest() for data in received] == [
        hashlib.sha256(data).digest() for data in sent
    ]


def test_another_transfer_syntax_is_not_made_up(file: Path) -> None:
    with (
        scp(lambda _event: 0x0000, DeflatedExplicitVRLittleEndian) as port,
        to(port) as association,
    ):
        outcome, _ = association.store(file, CT, ExplicitVRLittleEndian)
    assert isinstance(outcome, Refuse)
    assert outcome.code == "CONTEXT_REFUSED"


def test_an_abort_instead_of_an_answer_is_a_retry(file: Path) -> None:
    def abort(event: Any) -> int:
        event.assoc.abort()
        return 0x0000

    with scp(abort) as port, to(port) as association:
        outcome, status = association.store(file, CT, ExplicitVRLittleEndian)
    assert isinstance(outcome, Retry)
    assert status is None


def test_an_answer_that_does_not_come_in_time_is_a_retry(file: Path) -> None:
    """The outcome is unknown: the same bytes will be sent again."""
    slow = threading.Event()

    def wait(_event: Any) -> int:
        slow.wait(10)
        return 0x0000

    with scp(wait) as port:
        started = time.monotonic()
        with to(port, timeout=1.0) as association:
            outcome, status = association.store(file, CT, ExplicitVRLittleEndian)
        assert time.monotonic() - started < 5
        slow.set()
    assert isinstance(outcome, Retry)
    assert (outcome.code, status) == ("NO_RESPONSE", None)


@pytest.mark.parametrize("size", [32, 20_000_000])
def test_an_association_whose_thread_has_died_is_a_retry(tmp_path: Path, size: int) -> None:
    """Whether the object waits for its answer or for room: what sends and hears is no more."""
    path = tmp_path / "one.dcm"
    whole = encoded(instance(PixelData=bytes(size)))
    path.write_bytes(file_prefix(CT, "1.2.3.4", ExplicitVRLittleEndian) + whole)
    never = threading.Event()

    def wait(_event: Any) -> int:
        never.wait(20)
        return 0x0000

    with scp(wait) as port:
        started = time.monotonic()
        with to(port, timeout=15.0, pace=Pace(8.0)) as association:
            dul = association._association.dul
            death = threading.Timer(0.5, setattr, [dul, "_kill_thread", True])
            death.start()
            outcome, status = association.store(path, CT, ExplicitVRLittleEndian)
            assert isinstance(outcome, Retry)
            assert status is None
            assert not association.is_alive
            again, _ = association.store(path, CT, ExplicitVRLittleEndian)
            assert isinstance(again, Retry)
        assert time.monotonic() - started < 5
        never.set()


# No association


def test_nobody_there() -> None:
    with pytest.raises(ConnectError) as error, to(free_port()):
        pass
    assert error.value.code == "NO_CONNECTION"


def test_a_name_that_is_not_known() -> None:
    with (
        pytest.raises(ConnectError) as error,
        associate(
            calling_ae="A",
            called_ae="B",
            host="nowhere.invalid",
            port=104,
            contexts=(),
            timeout_seconds=2,
        ),
    ):
        pass
    assert error.value.code == "NO_CONNECTION"


@pytest.mark.parametrize(
    "says",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100],
    ids=["nothing", "http", "noise"],
)
def test_somebody_who_speaks_no_dicom(says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(says)
                time.sleep(0 if says else 2)

        thread = threading.Thread(target=serve)
        thread.start()
        started = time.monotonic()
        with (
            pytest.raises(ConnectError) as error,
            to(server.getsockname()[1], timeout=1.0),
        ):
            pass
        thread.join()
    assert error.value.code == "ABORTED"
    assert time.monotonic() - started < 8
