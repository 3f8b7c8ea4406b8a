"""What a terminal shows of the ledger's facts."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from dicomnode.views import print_events, print_overview

AT = "2026-01-02T03:04:05.678901+00:00"
NOTHING: dict[str, Any] = {
    "strangers": [],
    "audit": None,
    "attention": [],
    "roles": [],
    "studies": [],
    "series": [],
    "jobs": [],
    "destinations": [],
    "deliveries": [],
    "fetches": [],
}
ROLE = {"role": "send", "node_id": "n", "doing": "3 destinations", "silent": False, "seen_at": AT}
STUDY = {
    "study_uid": "1.2",
    "state": "OPEN",
    "hold_reason": None,
    "instances": 7,
    "last_at": AT,
    "due_at": None,
    "closed_by": "KNOWN_COUNT",
}
SERIES = {
    "series_uid": "1.2.3",
    "modality": "CT",
    "series_number": 3,
    "description": "Thorax",
    "instances": 7,
    "generation": 1,
    "chosen_model": None,
    "choice_code": "NO_RULE",
    "choice": "there are no rules",
    "summary": {"orientation": "axial", "kernel": "Br40d", "thickness_mm": 1.5, "kev": None},
}
JOB = {
    "id": 5,
    "model_id": "demo",
    "state": "LEASED",
    "stage": "predict",
    "progress": 0.426,
    "attempt": 2,
    "reason": None,
    "detail": "",
    "coded": None,
    "updated_at": AT,
}
CODED = [
    {"code": "RIB_DOUBLED", "severity": "warning", "held": False},
    {"code": "SIDES_SWAPPED", "severity": "serious", "held": True},
    {"code": "CUT_AT_ENDS", "severity": "info", "held": False},
]
DELIVERY = {
    "id": 9,
    "job_id": 5,
    "kind": "preview",
    "in_place_of": "seg",
    "destination": "archive",
    "state": "PENDING",
    "attempt": 1,
    "reason": "NO_CONNECTION",
    "detail": "the peer cannot be reached",
    "withdraw_reason": None,
    "withdrawn_by": None,
    "updated_at": AT,
    "due_at": AT,
}
FETCH = {
    "study_uid": "1.2",
    "series_uid": None,
    "peer": "PACS",
    "method": "MOVE",
    "requested_by": "somebody",
    "state": "FETCHING",
    "silent": False,
    "expected": 7,
    "completed": 2,
    "warning": 1,
    "failed": 1,
    "reason": None,
    "detail": "",
    "requested_at": AT,
}
AWAY = {
    "name": "archive",
    "waiting": 12,
    "oldest": AT,
    "failures": 3,
    "failing_since": AT,
    "retry_at": AT,
    "reason": "STATUS_A700",
    "detail": "full",
    "seen_at": None,
}
EVENT = {
    "id": 11,
    "at": AT,
    "level": "attention",
    "code": "TWO_PATIENTS",
    "detail": "held",
    "study_uid": "1.2",
    "job_id": None,
}


def shown(**facts: Any) -> str:
    console = Console(file=StringIO(), width=200)
    print_overview(console, NOTHING | facts)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_nothing_is_said_as_nothing() -> None:
    text = shown()
    assert "Nothing needs attention." in text
    for title in ("Roles", "Studies", "Series", "Jobs", "Deliveries"):
        assert f"{title}: none" in text


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"roles": [ROLE]}, ["send", "3 destinations", "2026-01-02 03:04:05 UTC"]),
        ({"roles": [ROLE | {"silent": True}]}, ["send", "SILENT"]),
        ({"studies": [STUDY]}, ["1.2", "OPEN", "7", "KNOWN_COUNT"]),
        ({"studies": [STUDY | {"state": "HELD", "hold_reason": "WHY"}]}, ["HELD WHY"]),
        ({"series": [SERIES]}, ["1.2.3", "CT", "there are no rules"]),
        ({"jobs": [JOB]}, ["demo", "LEASED", "predict 43%"]),
        ({"jobs": [JOB | {"coded": CODED}]}, ["RIB_DOUBLED", "SIDES_SWAPPED (held)"]),
        (
            {"jobs": [JOB | {"state": "REFUSED", "reason": "GANTRY_TILT", "detail": "tilted"}]},
            ["REFUSED", "GANTRY_TILT: tilted"],
        ),
        (
            {"deliveries": [DELIVERY | {"withdraw_reason": "REJECTED_113001"}]},
            ["to be withdrawn (REJECTED_113001)"],
        ),
        (
            {"deliveries": [DELIVERY]},
            ["PREVIEW in place of SEG", "NO_CONNECTION: the peer cannot"],
        ),
        ({"destinations": [AWAY]}, ["archive", "12", "STATUS_A700: full", "last success"]),
        ({"fetches": [FETCH]}, ["PACS", "MOVE", "somebody", "FETCHING", "3 of 7, 1 failed"]),
        ({"fetches": [FETCH | {"silent": True, "expected": None}]}, ["SILENT", "3, 1 failed"]),
        ({"attention": [EVENT]}, ["1 things need attention", "TWO_PATIENTS  held  1.2"]),
    ],
)
def test_every_table_says_what_it_is_for(facts: dict[str, Any], words: list[str]) -> None:
    text = shown(**facts)
    for word in words:
        assert word in text


def test_a_stage_is_shown_of_what_runs_only() -> None:
    assert "predict" not in shown(jobs=[JOB | {"state": "QUEUED"}])


def test_mere_infos_are_not_in_the_table_of_jobs() -> None:
    assert "CUT_AT_ENDS" not in shown(jobs=[JOB | {"coded": CODED}])


def test_the_next_try_is_shown_of_what_waits_only() -> None:
    assert shown(deliveries=[DELIVERY]).count("03:04:05") == 2
    assert shown(deliveries=[DELIVERY | {"state": "DELIVERED"}]).count("03:04:05") == 1


@pytest.mark.parametrize("text", ["[/b]", "[bold red]x[/]", "[link=http://x]y", ":skull:"])
def test_what_a_peer_has_written_is_shown_as_it_is(text: str) -> None:
    """A Series Description stands in the reason of a choice, and no text may break the page."""
    assert text in shown(series=[SERIES | {"choice": text}])
    assert text in shown(attention=[EVENT | {"detail": text}])


def test_the_audit_trail_is_one_line_where_there_is_one() -> None:
    trail = {"level": "bad", "short": "Trouble", "says": "Not reached: syslog: [/b] away."}
    assert "Audit trail: trouble. Not reached: syslog: [/b] away." in shown(audit=trail)
    assert "Audit trail" not in shown()


def test_the_events_of_a_study() -> None:
    console = Console(file=StringIO(), width=200)
    print_events(console, {"study_uid": "1.2", "series": [SERIES], "events": [EVENT]})
    print_events(console, {"study_uid": "1.2[/b]", "series": [], "events": []})
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Study 1.2" in text
    assert "TWO_PATIENTS" in text
    assert "axial, Br40d, 1.5 mm" in text
    assert "NO_RULE" in text
    assert "nothing is known of study 1.2[/b]" in text
