"""Storage commitment: archives that commit, partly, never, twice, late, wrongly, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from archives import CommittingArchive, Report
from ledger_kit import rows
from nodes import Node
from peers import Orthanc, wait_until
from sending_kit import Sending

from dicomnode.domain.commitment import CommitmentReport
from dicomnode.ledger import actions, commitments
from dicomnode.ledger.tables import commitment

REQUIRED = {"commitment": "required"}
MakeArchive = Callable[..., CommittingArchive]
MakeSending = Callable[..., Sending]
MakeNode = Callable[..., Node]


@pytest.fixture
def archive(start_archive: MakeArchive) -> MakeArchive:
    """Make archives that commit as their script says."""
    return partial(start_archive, CommittingArchive)


@pytest.fixture
def sending(sending: MakeSending, monkeypatch: pytest.MonkeyPatch) -> MakeSending:
    """Make a sender to a port, which waits for reports over its association for a moment only."""
    monkeypatch.setattr("dicomnode.services.asking.REPORT_WAIT_SECONDS", 0.5)
    return partial(sending, destination=REQUIRED)


def receiver(node: MakeNode, port: int) -> Node:
    """A node that receives, and whose destination is the archive."""
    return node("receive", archive=port, overrides={"destinations": {"archive": REQUIRED}})


def hear(kit: Sending, report: Report) -> int:
    """Take in a report, as the receiver does."""
    uid, committed, failed = report
    with kit.ledger.transaction() as tx:
        return commitments.answered(
            tx,
            {"archive"},
            CommitmentReport(
                transaction_uid=uid,
                committed=frozenset(instance for _, instance in committed),
                failed=tuple((instance, why) for _, instance, why in failed),
            ),
            kit.settings.send.retry,
        )


def states(kit: Sending) -> set[str]:
    return set(kit.states().values())


# One that commits


def test_what_is_committed_over_the_same_association(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive()
    kit = sending(there.port)
    kit.give()
    kit.send()
    assert states(kit) == {"COMMITTED"}
    assert (len(there.requests), there.answers, there.associations) == (1, [0x0000], 1)
    assert kit.events().count("COMMITTED") == 3


def test_without_commitment_nobody_is_asked(archive: MakeArchive, sending: MakeSending) -> None:
    there = archive()
    kit = sending(there.port, destination={"commitment": "off"})
    kit.give()
    kit.send()
    assert (states(kit), there.requests) == ({"DELIVERED"}, [])


def test_what_is_committed_over_an_association_of_the_archive_s(
    archive: MakeArchive, sending: MakeSending, node: MakeNode
) -> None:
    """The node's receiver is called; it takes a report from who was asked, and from nobody else."""
    there = archive(script=lambda _request: [])
    running = receiver(node, there.port)
    running.write_config({"peers": {"OTHER": {"ae_title": "OTHER", "host": "h", "accept": True}}})
    running.stop()
    running.start("receive")
    kit = sending(there.port, settings=running.settings)
    kit.give()
    kit.send()
    assert states(kit) == {"DELIVERED"}, "nothing has been reported yet"
    (request,) = there.requests
    assert there.call_and_report(running.port, request, ae_title="OTHER") == 0x0115
    assert states(kit) == {"DELIVERED"}
    assert there.call_and_report(running.port, request) == 0x0000
    assert states(kit) == {"COMMITTED"}
    assert there.call_and_report(running.port, request) == 0x0000, "twice"
    assert kit.events().count("COMMITTED") == 3
    assert kit.events().count("COMMITMENT_UNKNOWN") == 1


@pytest.mark.peer("orthanc")
def test_a_real_archive_commits(
    start_orthanc: Callable[..., Orthanc], sending: MakeSending, node: MakeNode, free_port: Any
) -> None:
    port = free_port()
    orthanc = start_orthanc(modalities={"node": ("DICOMNODE", port)})
    running = node(
        "receive",
        archive=orthanc,
        overrides={"node": {"port": port}, "destinations": {"archive": REQUIRED}},
    )
    kit = sending(orthanc.port, settings=running.settings)
    kit.give()
    kit.send()
    wait_until(lambda: states(kit) == {"COMMITTED"}, 20, "Orthanc has committed")
    assert [row.state for row in rows(kit.ledger, commitment)] == ["ANSWERED"]


@pytest.mark.peer("orthanc")
def test_a_real_archive_does_not_commit_to_what_it_has_lost(
    start_orthanc: Callable[..., Orthanc],
    sending: MakeSending,
    node: MakeNode,
    free_port: Any,
    clock: Any,
) -> None:
    """The report names the lost object as failed; it is sent again, and then committed."""
    port = free_port()
    orthanc = start_orthanc(modalities={"node": ("DICOMNODE", port)})
    running = node(
        "receive",
        archive=orthanc,
        overrides={"node": {"port": port}, "destinations": {"archive": REQUIRED}},
    )
    kit = sending(orthanc.port, settings=running.settings)
    kit.give()
    asker = kit.sender._asker
    assert asker is not None
    ask = asker.ask_over

    def lose_one(association: Any) -> None:
        orthanc.delete(f"/instances/{orthanc.instances()['2.25.1.1']}")
        ask(association)

    asker.ask_over = lose_one  # type: ignore[method-assign]
    kit.send()
    wait_until(lambda: "COMMITTED" in states(kit), 20, "Orthanc has reported")
    assert kit.states() == {
        "2.25.1.0": "COMMITTED",
        "2.25.1.1": "PENDING",
        "2.25.1.2": "COMMITTED",
    }
    asker.ask_over = ask  # type: ignore[method-assign]
    clock.forward(10 * 86400)  # the receiver has set the time of the next attempt by its own clock
    clock.now = max(clock.now, *(row.due_at for row in kit.deliveries()))
    kit.send()
    wait_until(lambda: states(kit) == {"COMMITTED"}, 20, "Orthanc has committed to the rest")
    first, second = rows(kit.ledger, commitment)
    assert first.transaction_uid != second.transaction_uid


# Those that do not


def test_what_is_not_committed_is_sent_again_and_asked_anew(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    def all_but_the_first(request: Report) -> list[Report]:
        uid, references, _ = request
        if len(there.requests) > 1:
            return [request]
        return [(uid, references[1:], [(*references[0], 0x0112)])]

    there = archive(script=all_but_the_first)
    kit = sending(there.port)
    kit.give()
    kit.send()
    assert kit.states() == {
        "2.25.1.0": "PENDING",
        "2.25.1.1": "COMMITTED",
        "2.25.1.2": "COMMITTED",
    }
    assert kit.deliveries()[0].reason == "NOT_COMMITTED"
    clock.forward(60)
    kit.send()
    assert states(kit) == {"COMMITTED"}
    assert there.came.count("2.25.1.0") == 2
    (first, _, _), (second, again, _) = there.requests
    assert first != second, "another Transaction UID"
    assert [uid for _, uid in again] == ["2.25.1.0"]


def test_what_a_report_does_not_name_is_not_committed(
    archive: MakeArchive, sending: MakeSending
) -> None:
    there = archive(script=lambda request: [(request[0], request[1][1:], [])])
    kit = sending(there.port)
    kit.give()
    kit.send()
    assert kit.states()["2.25.1.0"] == "PENDING"


def test_one_that_never_commits_to_an_object_calls_a_person_in_the_end(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    there = archive(script=lambda request: [(request[0], [], [(*request[1][0], 0x0110)])])
    kit = sending(there.port)
    kit.give("preview", profile=("preview",))
    for _ in range(10):
        kit.send()
        clock.forward(600)
    assert there.came.count("2.25.1.0") == 5
    (row,) = kit.deliveries()
    assert (row.state, row.reason) == ("DELIVERED", "COMMITMENT_REFUSED")
    assert kit.events("attention") == ["COMMITMENT_REFUSED"]


@pytest.mark.parametrize("reason", [0x0119, 0x0122])
def test_what_another_try_would_not_mend_calls_a_person_at_once(
    archive: MakeArchive, sending: MakeSending, clock: Any, reason: int
) -> None:
    there = archive(script=lambda request: [(request[0], [], [(*request[1][0], reason)])])
    kit = sending(there.port)
    kit.give("preview", profile=("preview",))
    for _ in range(3):
        kit.send()
        clock.forward(600)
    assert len(there.requests) == 1
    assert kit.events("attention") == ["COMMITMENT_REFUSED"]


def test_one_that_never_reports_is_asked_again_with_another_uid(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    there = archive(script=lambda _request: [])
    kit = sending(there.port)
    kit.give("preview", profile=("preview",))
    for _ in range(5):
        kit.send()
        clock.forward(3700)  # a report is waited for an hour
    assert len(there.requests) == 3
    assert len({uid for uid, _, _ in there.requests}) == len(there.requests)
    assert states(kit) == {"DELIVERED"}, "it is there, as far as it says; and not committed"
    assert there.came == ["2.25.1.0"], "nobody has said that it is lost"
    assert "COMMITMENT_SILENT" in kit.events("warning")
    for _ in range(4):
        kit.send()
        clock.forward(3700)
    assert kit.events("attention") == ["COMMITMENT_SILENT"], "once"


def test_a_report_that_comes_too_late_still_counts(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    there = archive(script=lambda _request: [])
    kit = sending(there.port)
    kit.give()
    kit.send()
    clock.forward(4000)
    kit.send()
    clock.forward(60)
    kit.send()
    assert len(there.requests) == 2
    assert hear(kit, there.requests[0]) == 0x0000
    assert states(kit) == {"COMMITTED"}


def test_a_failure_that_comes_too_late_does_not(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    """By now the archive may have what it lacked then; the newer transaction will tell."""
    there = archive(script=lambda _request: [])
    kit = sending(there.port)
    kit.give("preview", profile=("preview",))
    kit.send()
    clock.forward(4000)
    kit.send()
    clock.forward(60)
    kit.send()
    uid, references, _ = there.requests[0]
    assert hear(kit, (uid, [], [(*references[0], 0x0112)])) == 0x0000
    assert states(kit) == {"DELIVERED"}


def test_a_report_on_another_transaction_commits_nothing(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    there = archive(script=lambda request: [("1.2.3.4.5", request[1], [])])
    kit = sending(there.port)
    kit.give()
    kit.send()
    assert there.answers == [0x0115]
    assert states(kit) == {"DELIVERED"}
    assert "COMMITMENT_UNKNOWN" in kit.events("warning")
    there.script = lambda request: [request]
    clock.forward(4000)
    kit.send()
    clock.forward(60)
    kit.send()
    assert states(kit) == {"COMMITTED"}


def test_two_reports_commit_once(archive: MakeArchive, sending: MakeSending, clock: Any) -> None:
    there = archive(script=lambda request: [request, request])
    kit = sending(there.port)
    kit.give()
    kit.send()
    # The second may come when the association of the first has been released.
    wait_until(lambda: there.answers, 5, "one is answered")
    assert there.answers[0] == 0x0000
    assert states(kit) == {"COMMITTED"}
    assert kit.events().count("COMMITTED") == 3


@pytest.mark.parametrize(
    ("kind", "level", "asked"), [("required", "attention", 2), ("wanted", "warning", 1)]
)
def test_one_that_refuses_the_request(
    archive: MakeArchive, sending: MakeSending, clock: Any, kind: str, level: str, asked: int
) -> None:
    there = archive(status=0x0124)
    kit = sending(there.port, destination={"commitment": kind})
    kit.give("preview", profile=("preview",))
    for _ in range(2):
        kit.send()
        clock.forward(60)
    assert len(there.requests) == asked
    assert states(kit) == {"DELIVERED"}
    assert kit.events(level).count("COMMITMENT_NOT_OFFERED") == 1


def test_one_that_offers_none_still_gets_its_objects(
    archive: MakeArchive, sending: MakeSending, clock: Any
) -> None:
    there = archive(offers=False)
    kit = sending(there.port)
    kit.give()
    for _ in range(2):
        kit.send()
        clock.forward(60)
    assert states(kit) == {"DELIVERED"}
    assert {row.reason for row in kit.deliveries()} == {"CONTEXT_REFUSED"}
    assert kit.events("attention") == ["COMMITMENT_NOT_OFFERED"]


def test_what_was_committed_can_be_sent_again(archive: MakeArchive, sending: MakeSending) -> None:
    there = archive()
    kit = sending(there.port)
    kit.give("preview", profile=("preview",))
    kit.send()
    (row,) = kit.deliveries()
    with kit.ledger.transaction() as tx:
        assert actions.requeue_delivery(tx, row.id, "me") == 1
    kit.send()
    assert states(kit) == {"COMMITTED"}
    assert (there.came.count("2.25.1.0"), len(there.requests)) == (2, 2)
