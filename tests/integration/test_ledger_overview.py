"""What `status` shows, and that it can always be shown."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from ledger_kit import QUIET_SECONDS, analysed, claimed, close, fail, header, receive, settle, taken
from rich.console import Console

from dicomnode.domain.identifiers import PatientKey
from dicomnode.domain.outcomes import Refuse
from dicomnode.ledger import Ledger, overview, presence
from dicomnode.ledger.tables import metadata
from dicomnode.views import print_events, print_overview

EMPTY = {"studies": {}, "jobs": {}, "deliveries": {}, "instances": 0}


def facts(ledger: Ledger, limit: int = 20) -> dict[str, Any]:
    with ledger.transaction() as tx:
        return overview.overview(tx, limit=limit)


def test_an_empty_ledger_can_be_shown(ledger: Ledger) -> None:
    found = facts(ledger)
    assert json.loads(json.dumps(found))["counts"] == EMPTY
    assert found["attention"] == []


def test_everything_that_happened_is_plain_data(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, header("1.1"), header("1.2"))
    settle(ledger, taken(ledger), Refuse("STATUS_C000", "no"), status=0xC000)
    receive(ledger, header("1.3", study="1.7"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    fail(ledger, claimed(ledger), Refuse("GANTRY_TILT", "tilted"))
    receive(ledger, header("1.4", study="1.8"))
    receive(ledger, header("1.5", study="1.8", patient_key=PatientKey("somebody else")))
    with ledger.transaction() as tx:
        presence.start(tx, "work", 4711)
    found = facts(ledger)
    assert json.loads(json.dumps(found)) == found
    assert found["counts"] == {
        "studies": {"CLOSED": 2, "HELD": 1},
        "jobs": {"DONE": 1, "REFUSED": 1},
        "deliveries": {"REFUSED": 2},
        "instances": 5,
    }
    assert [row["code"] for row in found["attention"]] == [
        "TWO_PATIENTS",
        "JOB_REFUSED",
        "DELIVERY_REFUSED",
    ]
    assert found["attention"][1]["study_uid"] == "1.7"
    assert {row["study_uid"]: row["instances"] for row in found["studies"]} == {
        "1.2": 2,
        "1.7": 1,
        "1.8": 2,
    }
    job = found["jobs"][0]
    assert (job["state"], job["reason"], job["detail"]) == ("REFUSED", "GANTRY_TILT", "tilted")
    assert found["deliveries"][-1]["last_status"] == 0xC000
    assert found["roles"][0]["pid"] == 4711


def test_no_list_is_longer_than_asked(ledger: Ledger, clock: Any) -> None:
    for number in range(4):
        analysed(ledger, clock, header(f"1.{number}", study=f"1.2.{number}"))
    found = facts(ledger, limit=2)
    for name in ("studies", "series", "jobs", "deliveries"):
        assert len(found[name]) == 2, name
    assert found["studies"][0]["study_uid"] == "1.2.3", "the newest first"
    assert found["counts"]["studies"] == {"CLOSED": 4}


def test_a_role_that_gives_no_sign_is_silent(ledger: Ledger, clock: Any) -> None:
    with ledger.transaction() as tx:
        presence.start(tx, "send", 1)
    clock.forward(30)
    assert [row["silent"] for row in facts(ledger)["roles"]] == [False]
    clock.forward(1)
    assert [row["silent"] for row in facts(ledger)["roles"]] == [True]
    with ledger.transaction() as tx:
        presence.beat(tx, "send", 2, "3 destinations")
    (row,) = facts(ledger)["roles"]
    assert (row["silent"], row["pid"], row["doing"]) == (False, 2, "3 destinations")
    with ledger.transaction() as tx:
        presence.leave(tx, "send")
    assert facts(ledger)["roles"] == []


def test_the_events_of_one_study(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    receive(ledger, header("1.9", study="1.7"))
    with ledger.transaction() as tx:
        found = overview.events_of(tx, "1.2")
        assert overview.events_of(tx, "1.2.3.4") == []
    assert [row["code"] for row in found] == [
        "STUDY_BEGAN",
        "STUDY_CLOSED",
        "JOB_CLAIMED",
        "JOB_DONE",
    ]


def test_the_tables_of_a_terminal_show_it_all(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    receive(ledger, header("1.4", study="1.8"), header("1.4", study="1.8", identity_digest="new"))
    console = Console(file=StringIO(), width=200)
    print_overview(console, facts(ledger))
    with ledger.transaction() as tx:
        events, series = overview.events_of(tx, "1.2"), overview.series_of(tx, "1.2")
    assert [(row["choice_code"], row["choice"]) for row in series] == [("CHOSEN_ALL", "rule 'all'")]
    print_events(console, {"study_uid": "1.2", "series": series, "events": events})
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("1 things need attention", "IDENTITY_CHANGED", "HELD", "SEG", "PENDING", "demo"):
        assert text in shown, text


def test_no_table_has_room_for_a_patient(ledger: Ledger) -> None:
    """Patients stand in the ledger as keyed hashes only."""
    names = {column.name for table in metadata.tables.values() for column in table.columns}
    about_patients = {name for name in names if "patient" in name or "birth" in name}
    assert about_patients == {"patient_key", "patient_key_id"}
