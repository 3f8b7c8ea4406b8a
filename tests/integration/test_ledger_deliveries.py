"""Deliveries: in the order of the result set, the same bytes again, for days, and then no more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from ledger_kit import analysed, deliver_all, events, header, rows, settle, states, take, taken

from dicomnode.domain.outcomes import Done, Refuse, Retry, classify_store_status
from dicomnode.ledger import Ledger, actions, deliveries, substitution
from dicomnode.ledger.tables import delivery, event

AWAY = Retry("NO_CONNECTION", "the peer cannot be reached")


def is_due(ledger: Ledger, destination: str = "archive") -> bool:
    with ledger.transaction() as tx:
        return deliveries.is_due(tx, destination)


def test_objects_go_in_the_order_of_their_result_set(ledger: Ledger, clock: Any) -> None:
    """The report refers to the segmentation: it is not sent before that has arrived."""
    job = analysed(ledger, clock)
    first = taken(ledger)
    assert (first.kind, first.attempt, first.job_id) == ("seg", 1, job.id)
    assert first.path == f"results/{job.id}/seg.dcm"
    assert (first.sop_class_uid, first.sop_instance_uid) == ("1.2.840.0", f"2.25.{job.id}.0")
    assert take(ledger) is None
    assert not is_due(ledger)
    settle(ledger, first)
    assert is_due(ledger)
    assert taken(ledger).kind == "sr"


def test_every_destination_has_its_own_state(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, to=("archive", "second"))
    settle(ledger, taken(ledger, "second"), Refuse("STATUS_C000", "no"), status=0xC000)
    assert take(ledger, "second") is None
    assert deliver_all(ledger) == 2
    assert sorted((row.destination, row.state) for row in rows(ledger, delivery)) == [
        ("archive", "DELIVERED"),
        ("archive", "DELIVERED"),
        ("second", "REFUSED"),
        ("second", "REFUSED"),
    ]
    assert take(ledger, "nobody") is None


def test_result_sets_do_not_wait_for_one_another(ledger: Ledger, clock: Any) -> None:
    first = analysed(ledger, clock, header("1.1"))
    second = analysed(ledger, clock, header("1.2", study="1.7"))
    settle(ledger, taken(ledger), AWAY, status=None, wait=1000)
    assert (taken(ledger).job_id, first.id != second.id) == (second.id, True)


def test_what_waits_is_proposed(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    with ledger.transaction() as tx:
        assert substitution.contexts(tx, "archive") == [
            ("1.2.840.0", "1.2.840.10008.1.2.1"),
            ("1.2.840.1", "1.2.840.10008.1.2.1"),
        ]
    deliver_all(ledger)
    with ledger.transaction() as tx:
        assert substitution.contexts(tx, "archive") == []


def test_a_retry_waits_and_sends_the_same_object(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    first = taken(ledger)
    settle(ledger, first, AWAY, status=None, wait=30)
    row = rows(ledger, delivery)[0]
    assert (row.state, row.reason, row.last_status) == ("PENDING", "NO_CONNECTION", None)
    assert row.due_at == clock.now + timedelta(seconds=30)
    assert events(ledger)[-1] == ("DELIVERY_RETRY", "warning")
    clock.forward(29.9)
    assert take(ledger) is None
    clock.forward(0.1)
    again = taken(ledger)
    assert (again.id, again.sop_instance_uid, again.path) == (
        first.id,
        first.sop_instance_uid,
        first.path,
    )
    assert again.attempt == 2


def test_after_days_it_gives_up(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    clock.forward(14 * 86400 - 1)
    settle(ledger, taken(ledger), AWAY, status=None, wait=1)
    assert states(ledger, delivery) == ["PENDING", "PENDING"]
    clock.forward(1)
    settle(ledger, taken(ledger), AWAY, status=None, wait=1)
    first, second = rows(ledger, delivery)
    assert (first.state, first.reason) == ("REFUSED", "GAVE_UP")
    assert "NO_CONNECTION" in first.detail
    assert (second.state, second.reason) == ("REFUSED", "REFERS_TO_REFUSED")
    assert events(ledger)[-1] == ("DELIVERY_REFUSED", "attention")


def test_what_succeeds_in_the_end_counts_however_late(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    clock.forward(30 * 86400)
    assert deliver_all(ledger) == 2
    assert states(ledger, delivery) == ["DELIVERED", "DELIVERED"]


def test_a_refused_segmentation_takes_its_report_with_it(ledger: Ledger, clock: Any) -> None:
    """No report is sent that refers to an object the destination does not have."""
    analysed(ledger, clock)
    settle(ledger, taken(ledger), classify_store_status(0xA900), status=0xA900)
    first, second = rows(ledger, delivery)
    assert (first.state, first.reason, first.last_status) == ("REFUSED", "STATUS_A900", 0xA900)
    assert (second.state, second.reason) == ("REFUSED", "REFERS_TO_REFUSED")
    assert take(ledger) is None
    assert [code for code, level in events(ledger) if level == "attention"] == ["DELIVERY_REFUSED"]


ALL = ("seg", "preview", "sr")


def test_a_refused_segmentation_leaves_the_preview(ledger: Ledger, clock: Any) -> None:
    """It refers to the source alone, and says more than nothing."""
    analysed(ledger, clock, kinds=ALL)
    settle(ledger, taken(ledger), Refuse("CONTEXT_REFUSED", "no"), status=None)
    second = taken(ledger)
    assert second.kind == "preview"
    settle(ledger, second)
    assert states(ledger, delivery) == ["REFUSED", "DELIVERED", "REFUSED"]
    assert not is_due(ledger)


NO_CLASS = Refuse("CONTEXT_REFUSED", "the destination does not accept this SOP class")


FORMS = ("labelmap", "seg", "preview", "sr:labelmap", "sr:seg", "sr:")
"""Two segmentations, the picture, and a report for each case."""
MODERN = {"archive": ("labelmap", "preview", "sr")}


def test_another_segmentation_goes_where_one_is_refused(ledger: Ledger, clock: Any) -> None:
    """Over the same association, with the report that names it; and all of it is said."""
    analysed(ledger, clock, to=MODERN, kinds=FORMS)
    with ledger.transaction() as tx:
        assert len(substitution.contexts(tx, "archive")) == 6, "those of all that may go"
    first = taken(ledger)
    assert first.kind == "labelmap"
    settle(ledger, first, NO_CLASS, status=None)
    labelmap, _, report, seg, new_report = rows(ledger, delivery)
    assert (labelmap.state, labelmap.reason) == ("SUBSTITUTED", "CONTEXT_REFUSED")
    assert labelmap.detail.endswith("; seg (1.2.840.1) goes in its place")
    assert (report.state, report.reason) == ("SUBSTITUTED", "REFERS_TO_REFUSED")
    assert report.detail.endswith("; sr (1.2.840.4, naming seg) goes in its place")
    assert (seg.state, seg.in_place_of) == ("PENDING", "labelmap")
    assert (new_report.state, new_report.in_place_of) == ("PENDING", "sr")
    sent = []
    while (one := take(ledger)) is not None:
        sent.append((one.kind, one.sop_class_uid))
        settle(ledger, one)
    assert sent == [("seg", "1.2.840.1"), ("preview", "1.2.840.2"), ("sr", "1.2.840.4")]
    assert ("SUBSTITUTED", "warning") in events(ledger)
    assert "DELIVERY_REFUSED" not in dict(events(ledger)), "nobody has to look"


def test_where_no_segmentation_is_taken_the_report_names_none(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, to=MODERN, kinds=FORMS)
    settle(ledger, taken(ledger), NO_CLASS, status=None)
    settle(ledger, taken(ledger), classify_store_status(0x0122), status=0x0122)
    assert events(ledger)[-1] == ("DELIVERY_REFUSED", "attention"), "no segmentation at all"
    sent = []
    while (one := take(ledger)) is not None:
        sent.append((one.kind, one.sop_class_uid))
        settle(ledger, one)
    assert sent == [("preview", "1.2.840.2"), ("sr", "1.2.840.5")]


def test_another_form_of_the_report_goes_where_one_is_refused(ledger: Ledger, clock: Any) -> None:
    kinds = ("seg", "sr:seg", "sr:seg")
    analysed(ledger, clock, to={"archive": ("seg", "sr")}, kinds=kinds)
    settle(ledger, taken(ledger))
    settle(ledger, taken(ledger), NO_CLASS, status=None)
    second = taken(ledger)
    assert (second.kind, second.sop_class_uid) == ("sr", "1.2.840.2")
    settle(ledger, second)
    assert states(ledger, delivery) == ["DELIVERED", "SUBSTITUTED", "DELIVERED"]


def test_nothing_goes_in_place_of_an_object_that_is_bad(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, to={"archive": ("labelmap",)}, kinds=FORMS)
    settle(ledger, taken(ledger), classify_store_status(0xC123), status=0xC123)
    assert states(ledger, delivery) == ["REFUSED"]


def test_a_substituted_object_can_be_sent_after_all(ledger: Ledger, clock: Any) -> None:
    """The archive has learned the class."""
    analysed(ledger, clock, to={"archive": ("labelmap",)}, kinds=FORMS)
    settle(ledger, first := taken(ledger), NO_CLASS, status=None)
    assert deliver_all(ledger) == 1
    with ledger.transaction() as tx:
        assert actions.requeue_delivery(tx, first.id, "me") == 1
    assert deliver_all(ledger) == 1
    assert states(ledger, delivery) == ["DELIVERED", "DELIVERED"]


def test_a_refused_preview_leaves_the_rest(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, kinds=ALL)
    settle(ledger, taken(ledger))
    settle(ledger, taken(ledger), Refuse("CONTEXT_REFUSED", "no"), status=None)
    assert deliver_all(ledger) == 1
    assert states(ledger, delivery) == ["DELIVERED", "REFUSED", "DELIVERED"]


def test_the_report_waits_for_all_that_comes_before_it(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, kinds=ALL)
    settle(ledger, taken(ledger))
    settle(ledger, taken(ledger), AWAY, status=None, wait=10)
    assert take(ledger) is None


def test_a_destination_gets_the_objects_of_its_profile(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, to={"archive": ALL, "old": ("preview",)}, kinds=ALL)
    assert taken(ledger, "old").kind == "preview"
    found = sorted((row.destination, row.position) for row in rows(ledger, delivery))
    assert found == [("archive", 0), ("archive", 1), ("archive", 2), ("old", 1)]


def test_that_a_destination_gets_nothing_is_said(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, to={"archive": ALL, "planning": ("rtstruct",)}, kinds=("preview", "sr"))
    assert {row.destination for row in rows(ledger, delivery)} == {"archive"}
    assert ("NOTHING_TO_DELIVER", "info") in events(ledger)


def test_a_refused_report_leaves_the_segmentation(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    settle(ledger, taken(ledger))
    settle(ledger, taken(ledger), Refuse("CONTEXT_REFUSED", "no"), status=None)
    assert states(ledger, delivery) == ["DELIVERED", "REFUSED"]


@pytest.mark.parametrize(
    ("status", "level", "reason"),
    [
        (0x0000, "info", None),
        (0xB000, "attention", "COERCED"),
        (0xB007, "warning", "STORED_WITH_WARNING"),
    ],
)
def test_a_warning_is_delivered_and_said(
    ledger: Ledger, clock: Any, status: int, level: str, reason: str | None
) -> None:
    analysed(ledger, clock)
    settle(ledger, taken(ledger), classify_store_status(status), status=status)
    row = rows(ledger, delivery)[0]
    assert (row.state, row.last_status, row.reason) == ("DELIVERED", status, reason)
    assert events(ledger)[-1] == ("DELIVERED", level)
    assert take(ledger) is not None


def test_what_was_under_way_when_the_sender_died_is_sent_again(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    lost = taken(ledger)
    with ledger.transaction() as tx:
        assert deliveries.take_back(tx) == 1
    again = taken(ledger)
    assert (again.id, again.attempt) == (lost.id, 2)
    settle(ledger, lost)
    assert states(ledger, delivery)[0] == "SENDING", "the first attempt no longer counts"
    settle(ledger, again)
    assert states(ledger, delivery)[0] == "DELIVERED"


def test_a_sender_takes_back_its_own_node_s_only(
    ledger: Ledger, ledger_url: str, clock: Any
) -> None:
    analysed(ledger, clock)
    taken(ledger)
    other = Ledger(ledger_url, "node-2", clock)
    with other.transaction() as tx:
        assert deliveries.take_back(tx) == 0
    other.close()
    assert states(ledger, delivery)[0] == "SENDING"


def test_a_cancelled_delivery_is_not_brought_back_by_a_late_answer(
    ledger: Ledger, clock: Any
) -> None:
    job = analysed(ledger, clock)
    sending = taken(ledger)
    with ledger.transaction() as tx:
        assert deliveries.cancel_job(tx, job.id, "SUPERSEDED") == 2
    settle(ledger, sending, AWAY, status=None)
    assert states(ledger, delivery) == ["CANCELLED", "CANCELLED"]
    settle(ledger, sending, Done())
    assert states(ledger, delivery) == ["CANCELLED", "CANCELLED"]
    assert events(ledger)[-1] == ("DELIVERED_AFTER_CANCEL", "attention")


def test_events_of_deliveries_say_what_and_where(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    settle(ledger, taken(ledger), AWAY, status=None)
    assert rows(ledger, event)[-1].detail == (
        "seg to archive: NO_CONNECTION: the peer cannot be reached"
    )
