"""Who was refused: counted, bounded, listed with its remedy, and gone once it is known."""

from __future__ import annotations

import json
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from nodes import Node
from rich.console import Console
from sqlalchemy import func, select
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.domain.associations import (
    AssociationRequest,
    AssociationRules,
    KnownPeer,
    Rejected,
    decide,
)
from dicomnode.ledger import Ledger, nodes, overview, strangers
from dicomnode.ledger.strangers import MAX_STRANGERS, Stranger
from dicomnode.ledger.tables import stranger
from dicomnode.services import strangers as service
from dicomnode.settings import parse
from dicomnode.views import print_overview

RULES = AssociationRules(
    ae_title="DICOMNODE",
    max_associations=10,
    peers=(KnownPeer(name="CT1", ae_title="CT1", accept=True),),
)


def request(calling: str, **changes: Any) -> AssociationRequest:
    values = {"calling_ae": calling, "called_ae": "DICOMNODE", "address": "10.1.1.7"}
    return AssociationRequest(**(values | changes))


def refuse(ledger: Ledger, asked: AssociationRequest, times: int = 1) -> None:
    found = decide(asked, RULES)
    assert isinstance(found, Rejected)
    with ledger.transaction() as tx:
        strangers.record(tx, Stranger.of(asked), found.reason.code, times)


def listed(ledger: Ledger, rules: AssociationRules = RULES) -> list[dict[str, Any]]:
    with ledger.transaction() as tx:
        return overview.overview(tx, rules=rules)["strangers"]


def test_a_stranger_is_counted_and_shown_with_its_remedy(ledger: Ledger, clock: Any) -> None:
    refuse(ledger, request("CT7"))
    clock.forward(60)
    refuse(ledger, request("CT7 "), times=2)
    clock.forward(60)
    refuse(ledger, request("CT1", called_ae="ANY-SCP"))
    wrong, new = listed(ledger)
    assert (new["calling_ae"], new["address"], new["count"]) == ("CT7", "10.1.1.7", 3)
    assert (new["first_at"], new["last_at"]) == (
        "2026-01-02T03:04:05+00:00",
        "2026-01-02T03:05:05+00:00",
    )
    assert new["remedy"] == "peers:\n  CT7: {ae_title: CT7, host: 10.1.1.7, accept: true}"
    assert (wrong["code"], wrong["called_ae"]) == ("CALLED_AE_UNKNOWN", "ANY-SCP")
    assert json.loads(json.dumps([wrong, new])) == [wrong, new]


def test_it_goes_once_the_configuration_lets_it_in(ledger: Ledger) -> None:
    refuse(ledger, request("CT7"))
    (row,) = listed(ledger)
    rules = parse(row["remedy"], Path("dicomnode.yaml")).association_rules
    assert listed(ledger, rules) == []
    assert len(listed(ledger)) == 1, "it is the configuration that counts, not the looking"


def test_it_goes_when_it_is_acknowledged_but_not_from_elsewhere(ledger: Ledger) -> None:
    for calling in ("SCAN", "CT7"):
        refuse(ledger, request(calling))
    with ledger.transaction() as tx:
        assert strangers.acknowledge(tx, "SCAN", "anna") == 1
        assert strangers.acknowledge(tx, "SCAN", "anna") == 0
    refuse(ledger, request("SCAN"))
    assert [row["calling_ae"] for row in listed(ledger)] == ["CT7"]
    refuse(ledger, request("SCAN", address="10.9.9.9"))
    assert [row["address"] for row in listed(ledger)] == ["10.9.9.9", "10.1.1.7"]
    with ledger.transaction() as tx:
        assert strangers.acknowledge(tx, None, "anna") == 2
    assert listed(ledger) == []


@pytest.mark.parametrize("calling", ["\0\0\0", "\x1b[31mRED", "Ä" * 40, "", "[bold]", "a\\b"])
def test_a_hostile_title_is_recorded_as_something_that_can_be_shown(
    ledger: Ledger, calling: str
) -> None:
    refuse(ledger, request(calling, called_ae=calling or "X", address="1" * 200))
    (row,) = listed(ledger)
    assert row["calling_ae"].isprintable()
    assert len(row["calling_ae"]) <= 16
    output = StringIO()
    with ledger.transaction() as tx:
        print_overview(Console(file=output, width=80), overview.overview(tx, rules=RULES))
    assert "1 requestors were turned away" in output.getvalue()
    assert "\x1b[31m" not in output.getvalue()


def test_a_scanner_does_not_push_out_who_calls_often(ledger: Ledger, clock: Any) -> None:
    refuse(ledger, request("CT7"), times=3)
    with ledger.transaction() as tx:
        for number in range(MAX_STRANGERS + 20):
            who = Stranger(f"SCAN{number}", "DICOMNODE", "10.6.6.6", "")
            strangers.record(tx, who, "CALLING_AE_UNKNOWN")
        count = tx.connection.execute(select(func.count()).select_from(stranger)).scalar_one()
        assert count == MAX_STRANGERS
        kept = [row["calling_ae"] for row in strangers.listing(tx, RULES, 500)]
    assert "CT7" in kept
    assert f"SCAN{MAX_STRANGERS + 19}" in kept
    assert len(listed(ledger)) == 20, "the view shows the newest"


def test_refusals_are_written_together(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "EVERY_SECONDS", 0.1)
    noting = service.Strangers(ledger)
    for number in range(500):
        asked = request("CT7" if number % 2 else f"SCAN{number}")
        found = decide(asked, RULES)
        assert isinstance(found, Rejected)
        noting.note(asked, found)
    deadline = time.monotonic() + 10
    while len(listed(ledger)) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with ledger.transaction() as tx:
        rows = {row["calling_ae"]: row["count"] for row in strangers.listing(tx, RULES, 500)}
    assert rows["CT7"] == 250
    assert len(rows) <= MAX_STRANGERS


def test_status_shows_the_yaml_and_acknowledge_takes_it_off(tmp_path: Path) -> None:
    node = Node(tmp_path)
    ledger = node.ledger
    from dicomnode.ledger.schema import upgrade

    upgrade(ledger)
    with ledger.transaction() as tx:
        nodes.register_node(tx, "DICOMNODE", "key-1")
    refuse(ledger, request("CT7"), times=4)
    refuse(ledger, request("OTHER"))

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli.app, [*arguments], env={"COLUMNS": "80"})
        assert done.exit_code == 0, done.output
        return done.output

    shown = run("status", str(node.config))
    assert "4 times, last 20" in shown
    assert "CT7 calling DICOMNODE from 10.1.1.7: CALLING_AE_UNKNOWN" in shown
    assert "      CT7: {ae_title: CT7, host: 10.1.1.7, accept: true}\n" in shown
    found = json.loads(run("status", "--json", str(node.config)))["strangers"]
    assert [(row["calling_ae"], row["count"]) for row in found] == [("OTHER", 1), ("CT7", 4)]
    run("acknowledge", "--ae", "OTHER", "-c", str(node.config))
    assert "OTHER" not in run("status", str(node.config))
    node.write_config(yaml.safe_load(found[1]["remedy"]))
    assert "turned away" not in run("status", str(node.config))
    node.close()
