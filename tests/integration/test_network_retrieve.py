"""Retrieves that do not go well: archives that fail, stop in the midst, or do not listen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peers import HOST, free_port
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from small_ct import CT, instance

from dicomnode.domain.identifiers import StudyUID
from dicomnode.domain.outcomes import Done, Refuse, Retry
from dicomnode.domain.retrieval import Retrieved, SubOperations, Wanted, judge
from dicomnode.network import retrieve
from dicomnode.network.requesting import Call
from dicomnode.network.retrieve import STUDY_ROOT_GET, STUDY_ROOT_MOVE, Arrival, Terms, get, move

WANTED = Wanted(study_uid=StudyUID("1.2"))
Answers = Callable[[Any], Iterator[Any]]


class Archive:
    """A C-GET and C-MOVE SCP that answers as `answers` does."""

    def __init__(self) -> None:
        self.answers: Answers = lambda _event: iter(())
        self.port = free_port()
        ae = AE(ae_title="ARCHIVE")
        ae.add_supported_context(STUDY_ROOT_GET)
        ae.add_supported_context(STUDY_ROOT_MOVE)
        ae.add_supported_context(CT, scu_role=True, scp_role=True)
        handlers: list[Any] = [
            (evt.EVT_C_GET, lambda event: self.answers(event)),
            (evt.EVT_C_MOVE, lambda event: self.answers(event)),
        ]
        self.server: Any = ae.start_server((HOST, self.port), block=False, evt_handlers=handlers)

    @property
    def call(self) -> Call:
        return Call(
            calling_ae="DICOMNODE",
            called_ae="ARCHIVE",
            host=HOST,
            port=self.port,
            timeout_seconds=5.0,
            tls=None,
        )


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    peer = Archive()
    yield peer
    peer.server.shutdown()


def terms(
    silence: float = 5.0, seconds: float = 30.0, cancelled: threading.Event | None = None
) -> Terms:
    return Terms(
        silence_seconds=silence,
        seconds=seconds,
        cancelled=(cancelled or threading.Event()).is_set,
    )


def with_meta(number: int) -> Dataset:
    dataset = instance(SOPInstanceUID=f"1.2.3.{number}")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def some(count: int, pause: float = 0.0) -> Answers:
    """Give so many instances, one after the other, until the requestor has enough."""

    def answers(event: Any) -> Iterator[Any]:
        yield count
        for number in range(count):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            time.sleep(pause)
            yield 0xFF00, with_meta(number)

    return answers


class Shelf:
    """Takes what comes, and refuses what it is told to."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.taken: list[str] = []
        self.stages: list[SubOperations] = []

    def store(self, arrival: Arrival) -> int:
        assert arrival.sop_class_uid == CT
        assert len(arrival.data) > 100
        if arrival.sop_instance_uid in self.refused:
            return 0xC001
        self.taken.append(arrival.sop_instance_uid)
        return 0x0000


def fetch(archive: Archive, shelf: Shelf, given: Terms | None = None) -> Retrieved | Retry | Refuse:
    return get(
        archive.call,
        WANTED,
        sop_classes=[CT],
        terms=given or terms(),
        progress=shelf.stages.append,
        store=shelf.store,
    )


def test_all_goes_well(archive: Archive) -> None:
    archive.answers, shelf = some(3), Shelf()
    answer = fetch(archive, shelf)
    assert isinstance(answer, Retrieved)
    assert judge(answer) == Done()
    assert shelf.taken == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    assert [(one.remaining, one.completed) for one in shelf.stages][:3] == [(2, 1), (1, 2), (0, 3)]


def test_what_is_refused_here_is_named(archive: Archive) -> None:
    archive.answers, shelf = some(3), Shelf("1.2.3.1")
    answer = fetch(archive, shelf)
    assert isinstance(answer, Retrieved)
    assert answer.failed_uids == ("1.2.3.1",)
    assert (answer.operations.completed, answer.operations.failed) == (2, 1)
    assert judge(answer).code == "PARTLY_FETCHED"
    assert shelf.taken == ["1.2.3.0", "1.2.3.2"]


def test_a_fault_of_our_own_is_no_success(archive: Archive) -> None:
    def store(_arrival: Arrival) -> int:
        raise OSError("the disk is gone")

    archive.answers, shelf = some(2), Shelf()
    shelf.store = store  # type: ignore[method-assign]
    answer = fetch(archive, shelf)
    assert isinstance(answer, Retrieved)
    assert answer.operations.failed == 2
    assert judge(answer).code == "PARTLY_FETCHED"


def test_a_fetch_that_is_given_up_tells_the_archive(archive: Archive) -> None:
    archive.answers, shelf, enough = some(200, 0.02), Shelf(), threading.Event()
    threading.Timer(0.3, enough.set).start()
    answer = fetch(archive, shelf, terms(cancelled=enough))
    assert isinstance(answer, Retrieved)
    assert judge(answer).code == "CANCELLED"
    assert 0 < len(shelf.taken) < 200


def test_a_fetch_has_its_time(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """And who does not listen to a C-CANCEL is cut off."""

    def deaf(event: Any) -> Iterator[Any]:
        yield 200
        for number in range(200):
            time.sleep(0.02)
            yield 0xFF00, with_meta(number)

    monkeypatch.setattr(retrieve, "CANCEL_GRACE_SECONDS", 0.3)
    archive.answers, shelf = deaf, Shelf()
    started = time.monotonic()
    answer = fetch(archive, shelf, terms(seconds=0.3))
    assert isinstance(answer, Retry)
    assert answer.code == "FETCH_TIMEOUT"
    assert time.monotonic() - started < 4


def test_an_archive_that_falls_silent(archive: Archive) -> None:
    def silent(event: Any) -> Iterator[Any]:
        yield 2
        time.sleep(2)

    archive.answers, shelf = silent, Shelf()
    started = time.monotonic()
    answer = fetch(archive, shelf, terms(silence=0.4))
    assert isinstance(answer, Retry)
    assert answer.code == "NO_RESPONSE"
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("status", [0xA801, 0xA701, 0xC000])
def test_a_refusal_is_the_last_word(archive: Archive, status: int) -> None:
    def refuse(_event: Any) -> Iterator[Any]:
        yield (HOST, 104, {})  # what pynetdicom wants to know first of a destination
        yield 1
        yield status, None

    archive.answers, stages = refuse, list[SubOperations]()
    answer = move(
        archive.call, WANTED, destination_ae="DICOMNODE", terms=terms(), progress=stages.append
    )
    assert isinstance(answer, Retrieved)
    assert not isinstance(judge(answer), Done)


def test_an_archive_that_offers_no_such_retrieve() -> None:
    port = free_port()
    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context("1.2.840.10008.1.1")
    server: Any = ae.start_server((HOST, port), block=False)
    call = Call(
        calling_ae="A", called_ae="ARCHIVE", host=HOST, port=port, timeout_seconds=3.0, tls=None
    )
    answer = move(call, WANTED, destination_ae="A", terms=terms(), progress=lambda _stage: None)
    server.shutdown()
    assert answer == Refuse("CONTEXT_REFUSED", "the archive does not offer C-MOVE")


def test_nobody_there() -> None:
    call = Call(
        calling_ae="A",
        called_ae="ARCHIVE",
        host=HOST,
        port=free_port(),
        timeout_seconds=1.0,
        tls=None,
    )
    answer = move(call, WANTED, destination_ae="A", terms=terms(), progress=lambda _stage: None)
    assert isinstance(answer, Retry)
    assert answer.code == "NO_CONNECTION"
