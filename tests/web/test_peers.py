"""Whoever of the configuration has a port is tested: one that answers, and one that is away."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledger_kit import rows
from nodes import Node
from peers import free_port
from typer.testing import CliRunner
from web_kit import Web, act

from dicomnode import cli
from dicomnode.ledger import Ledger
from dicomnode.ledger.tables import event


@pytest.fixture
def receiver(tmp_path: Path) -> Node:
    """A peer: another node's receive role. It lets in who calls itself MODALITY."""
    node = Node(tmp_path / "peer")
    node.start("receive")
    yield node  # type: ignore[misc]
    node.stop()
    node.close()


def test_peers_are_tested_whether_or_not_they_are_destinations(
    receiver: Node, tmp_path: Path, ledger: Ledger
) -> None:
    there = {"ae_title": "DICOMNODE", "host": "127.0.0.1", "port": receiver.port}
    away = {"ae_title": "GONE", "host": "127.0.0.1", "port": free_port()}
    web = Web(
        tmp_path,
        ledger,
        {"node": {"ae_title": "MODALITY"}, "peers": {"OTHER": there, "AWAY": away}},
    )
    web.add_users()
    client = web.browser("olga")
    text = client.get("/peers").text
    for name, is_tested in (("OTHER", True), ("AWAY", True), ("PACS", True), ("CT1", False)):
        assert name in text
        assert (f"/act/test-peer?peer={name}&" in text) == is_tested, "only who has a port"
    assert "/act/" not in web.browser("vera").get("/peers").text
    assert "OTHER answers C-ECHO." in act(client, "test-peer", peer="OTHER").text
    answer = web.program("olga").post("/api/act/test-peer", data={"peer": "AWAY", "confirm": "yes"})
    assert answer.json()["done"] == 0
    assert "does not answer C-ECHO: NO_CONNECTION" in answer.json()["says"]
    assert "NO_PORT" in act(client, "test-peer", peer="CT1").text
    said = [row.detail for row in rows(ledger, event) if row.code == "PEER_TESTED"]
    assert said[0] == "OTHER by olga: DONE"
    assert len(said) == 3
    found = {one["name"]: one for one in web.program("vera").get("/api/peers").json()["peers"]}
    assert found["PACS"]["destinations"] == ["archive"]
    assert found["CT1"]["may"] == ["send to this node"]
    assert found["CT1"]["port"] is None

    def echo(name: str) -> int:
        config = str(tmp_path / "dicomnode.yaml")
        return CliRunner().invoke(cli.app, ["echo", name, "-c", config]).exit_code

    assert (echo("OTHER"), echo("AWAY")) == (0, 1)
