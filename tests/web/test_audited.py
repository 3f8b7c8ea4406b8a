"""What people do at the page stands in the audit trail; how the trail fares stands on the page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from ledger_kit import analysed, header, receive, rows
from prometheus_client.parser import text_string_to_metric_families
from web_kit import PASSWORD, Web, act

from dicomnode.domain.outcomes import Backoff
from dicomnode.ledger import Ledger, audit_sinks
from dicomnode.ledger.tables import audit
from dicomnode.web.viewing import SECONDS, Viewings


@pytest.fixture(autouse=True)
def _is_on(ledger: Ledger) -> None:
    ledger.audit_room = 1000


def records(ledger: Ledger) -> list[tuple[str, str, dict[str, Any]]]:
    return [(row.kind, row.by, row.facts or {}) for row in rows(ledger, audit)]


def test_signing_in_and_out(web: Web, ledger: Ledger) -> None:
    browser = web.browser()
    assert web.sign_in(browser, "vera", "wrong").status_code == 401
    assert web.sign_in(browser, "vera", PASSWORD).status_code == 303
    token = web.site.sessions.form_token(
        web.site.sessions.read(browser.cookies["dicomnode_session"]).id  # type: ignore[union-attr]
    )
    assert browser.post("/logout", data={"form_token": token}).status_code == 303
    found = records(ledger)
    assert [(kind, by) for kind, by, _ in found] == [
        ("SIGN_IN_REFUSED", "vera"),
        ("SIGNED_IN", "vera"),
        ("SIGNED_OUT", "vera"),
    ]
    assert {facts["address"] for _, _, facts in found} == {"10.9.9.9"}
    assert not found[0][2]["failed"]


def test_the_try_that_locks_is_a_serious_failure(web: Web, ledger: Ledger) -> None:
    browser = web.browser()
    for _ in range(6):
        web.sign_in(browser, "vera\x00\n", "wrong")
    found = records(ledger)
    assert [facts["failed"] for _, _, facts in found] == [False] * 4 + [True]
    assert found[0][1] == "vera\ufffd\ufffd"


def test_who_looks_at_a_study_is_recorded_once_in_a_while(web: Web, ledger: Ledger) -> None:
    receive(ledger, header())
    browser = web.browser("olga")
    for _ in range(3):
        assert browser.get("/studies/1.2").status_code == 200
    assert browser.get("/studies/1.3").status_code == 404
    assert web.program("vera").get("/api/studies/1.2").status_code == 200
    looked = [(row.by, row.study_id) for row in rows(ledger, audit) if row.kind == "STUDY_VIEWED"]
    assert looked == [("olga", 1), ("vera", 1)]


def test_looking_on_is_not_looking_again() -> None:
    now = [0.0]
    viewings = Viewings(lambda: now[0])
    assert viewings.begins("olga", "1.2")
    assert not viewings.begins("olga", "1.2")
    assert viewings.begins("olga", "1.3")
    assert viewings.begins("vera", "1.2")
    now[0] = SECONDS
    assert viewings.begins("olga", "1.2")


def test_an_act_names_who_did_it(web: Web, ledger: Ledger) -> None:
    browser = web.browser("olga")
    act(browser, "pause-destination", destination="archive", reason="maintenance")
    assert ("DESTINATION_PAUSED", "olga", {}) in records(ledger)


def test_the_page_and_the_metrics_say_how_the_trail_fares(
    web: Web, ledger: Ledger, clock: Any
) -> None:
    browser = web.browser("vera")
    clock.forward(90)
    with ledger.transaction() as tx:
        hour = timedelta(hours=1)
        audit_sinks.failed(tx, "syslog", "Connection refused", Backoff(), 0.0, hour)
    page = browser.get("/").text
    assert "Audit trail" in page
    assert "Not reached: syslog: Connection refused." in page
    answers = web.program("vera").get("/api/overview").json()["answers"]
    assert answers[-1]["question"] == "Audit trail"
    assert answers[-1]["level"] == "bad"
    text = web.program("vera").get("/metrics").text
    samples = {
        (sample.name, sample.labels.get("place")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["dicomnode_audit_waiting", None] == len(rows(ledger, audit)) > 0
    assert samples["dicomnode_audit_oldest_seconds", None] == 90
    assert samples["dicomnode_audit_failures", "syslog"] == 1


def test_without_a_trail_the_page_does_not_speak_of_it(
    web: Web, ledger: Ledger, clock: Any
) -> None:
    ledger.audit_room = 0
    analysed(ledger, clock)
    assert "Audit trail" not in web.browser("vera").get("/").text
    assert rows(ledger, audit) == []
