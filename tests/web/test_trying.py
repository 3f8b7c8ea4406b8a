"""The form that tries the rules, on a stored study and on a series that somebody describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import header, receive, rows
from typer.testing import CliRunner
from web_kit import Web

from dicomnode import cli
from dicomnode.domain.trying import Invented, facts_of
from dicomnode.ledger import Ledger, nodes
from dicomnode.ledger.schema import upgrade
from dicomnode.ledger.tables import audit, event, job, series

CT = "1.2.840.10008.5.1.4.1.1.2"
RULES = {
    "rules": [
        {"name": "heads", "when": {"body_part": ["HEAD"]}, "model": None},
        {"name": "rest", "model": "demo", "destinations": ["archive"]},
    ]
}


@pytest.fixture
def web(tmp_path: Path, ledger: Ledger) -> Web:
    made = Web(tmp_path, ledger, RULES)
    made.add_users()
    return made


def stored(ledger: Ledger) -> None:
    """Let an axial chest of 40 slices come, and one scout beside it."""
    image = facts_of(Invented(description="Thorax <1>", body_part="CHEST")).image
    for number in range(40):
        receive(
            ledger,
            header(
                f"1.2.3.{number + 1}", image=image, place_mm=5.0 * number, series_number=2,
                sop_class_uid=CT, body_part="CHEST",
            ),
        )  # fmt: skip
    scout = facts_of(Invented(image_type="ORIGINAL/PRIMARY/LOCALIZER", description="Scout")).image
    receive(
        ledger,
        header("1.2.9.1", series="1.2.9", image=scout, place_mm=0.0, series_number=1,
               sop_class_uid=CT),
    )  # fmt: skip


@pytest.mark.parametrize("uid", ["1.2", "1.2.3"])
def test_a_stored_study_is_tried_by_its_uid_or_that_of_a_series(
    web: Web, ledger: Ledger, uid: str
) -> None:
    stored(ledger)
    before = rows(ledger, series), rows(ledger, job), rows(ledger, event)
    found = web.program("vera").get("/api/try", params={"uid": uid}).json()
    assert found["study_uid"] == "1.2"
    scout, chest = found["series"]
    assert (scout["choice_code"], scout["chosen_model"], scout["rules"]) == (
        "NOT_A_VOLUME",
        None,
        [],
    )
    assert (chest["choice_code"], chest["chosen_model"]) == ("CHOSEN", "demo")
    assert chest["destinations"] == ["archive"]
    assert [(one["rule"], one["matches"]) for one in chest["rules"]] == [
        ("heads", False), ("rest", True),
    ]  # fmt: skip
    assert (rows(ledger, series), rows(ledger, job), rows(ledger, event)) == before
    text = web.browser("vera").get("/try", params={"uid": uid}).text
    assert "body_part CHEST is not HEAD" in text
    assert "Thorax &lt;1&gt;" in text
    assert 'href="/try?uid=1.2"' in web.browser("vera").get("/studies/1.2").text


def test_a_study_that_was_too_old_is_said_to_be(web: Web, ledger: Ledger, clock: Any) -> None:
    image = facts_of(Invented()).image
    old = clock().replace(year=clock().year - 3)
    for number in range(20):
        uid = f"1.2.3.{number + 1}"
        receive(
            ledger, header(uid, image=image, place_mm=3.0 * number, sop_class_uid=CT, study_at=old)
        )
    (one,) = web.program("vera").get("/api/try?uid=1.2").json()["series"]
    assert one["choice_code"] == "RULE_SAYS_NO"
    assert "days old" in one["choice"]


def test_a_series_that_has_not_come_is_described(web: Web) -> None:
    client = web.browser("vera")
    asked = client.get("/try", params={"body_part": "HEAD", "slices": "150"})
    assert asked.status_code == 200
    assert "heads" in asked.text
    assert "not analysed" in asked.text
    assert 'value="150"' in asked.text, "the form keeps what was typed"
    (one,) = client.get("/api/try", params={"body_part": "CHEST"}).json()["series"]
    assert one["chosen_model"] == "demo"
    assert one["says"].startswith("It is analysed")


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("uid=9.9.9", 404, "known here"),
        ("uid=x", 422, "uid: expected"),
        ("slices=many", 422, "slices: expected a number"),
        ("slices=1.5", 422, "slices: expected a number"),
        ("kvp=nan", 422, "kvp: expected 1 to 1000"),
        ("modality=US", 422, "modality: expected one of"),
    ],
)
def test_what_cannot_be_is_said(web: Web, query: str, status: int, says: str) -> None:
    page, answer = (
        web.browser("vera").get(f"/try?{query}"),
        web.program("vera").get(f"/api/try?{query}"),
    )
    assert page.status_code == answer.status_code == status
    assert says in page.text
    assert says in answer.json()["error"]


def test_the_command_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    ledger = Ledger(f"sqlite:///{tmp_path / 'state/ledger.sqlite'}", "node-1")
    upgrade(ledger)
    with ledger.transaction() as tx:
        nodes.register_node(tx, "DICOMNODE", "key-1")
    web = Web(tmp_path, ledger, RULES)
    web.add_users()
    stored(ledger)
    config = str(tmp_path / "dicomnode.yaml")
    done = CliRunner().invoke(cli.app, ["rules", "--study", "1.2", "-c", config, "--json"])
    (found,) = json.loads(done.stdout)
    page = web.program("vera").get("/api/try?uid=1.2").json()
    for one in page["series"]:
        del one["says"]
    assert found == page
    assert CliRunner().invoke(cli.app, ["rules", "-c", config]).exception is not None
    ledger.close()


def test_who_tries_a_study_has_looked_at_it(web: Web, ledger: Ledger) -> None:
    ledger.audit_room = 1000
    receive(ledger, header())
    web.program("vera").get("/api/try?uid=1.2.3")
    web.browser("olga").get("/try?uid=1.2")
    web.browser("olga").get("/try?body_part=HEAD")
    looked = [(row.by, row.study_id) for row in rows(ledger, audit) if row.kind == "STUDY_VIEWED"]
    assert looked == [("vera", 1), ("olga", 1)]
