"""`dicomnode users` and `web`, and the fetches that the page starts, as real processes."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import rows
from nodes import Node
from peers import wait_until
from typer.testing import CliRunner
from web_kit import PASSWORD, Web, act

from dicomnode import cli
from dicomnode.ledger import Ledger
from dicomnode.ledger.schema import upgrade
from dicomnode.ledger.tables import event, retrieval
from dicomnode.users import Users


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "dicomnode.yaml"
    path.write_text("storage: {folder: state}\n")
    return path


def users(config: Path, *arguments: str, says: str | None = None) -> Any:
    return CliRunner().invoke(cli.app, ["users", *arguments, "-c", str(config)], input=says)


def test_users_come_change_and_go(config: Path) -> None:
    add = ("add", "vera", "--role", "operator", "--password-stdin")
    assert users(config, *add, says=f"{PASSWORD}\n").exit_code == 0
    file = Users(config.parent / "state/users.json")
    assert file.signed_in("vera", PASSWORD)
    assert users(config, "passwd", "vera", "--password-stdin", says="another one\n").exit_code == 0
    assert file.signed_in("vera", PASSWORD) is None
    secret = users(config, "token", "vera", "--days", "2").stdout.strip()
    found = file.by_token(secret)
    assert found is not None
    assert found[0] == "vera"
    (shown,) = json.loads(users(config, "list", "--json").stdout)
    assert (shown["name"], shown["role"], shown["password"]) == ("vera", "operator", True)
    assert secret not in users(config, "list").stdout
    token = shown["tokens"][0]["id"]
    assert users(config, "token", "vera", "--revoke", token).exit_code == 0
    assert file.by_token(secret) is None
    assert users(config, "remove", "vera").exit_code == 0
    assert file.table() == {}


@pytest.mark.parametrize(
    "wrong",
    [("add", "vera", "--password-stdin"), ("remove", "nobody"), ("token", "nobody"),
     ("passwd", "nobody", "--password-stdin"), ("add", "a b", "--no-password")],
)  # fmt: skip
def test_what_cannot_be_done_is_said(config: Path, wrong: tuple[str, ...]) -> None:
    assert users(config, *wrong, says="short\n").exit_code != 0
    assert Users(config.parent / "state/users.json").table() == {}


def test_the_role_serves_the_page_and_ends_in_good_order(node: Callable[..., Node]) -> None:
    running = node("web", overrides={"web": {"enabled": True}})
    address = f"http://127.0.0.1:{running.document['web']['port']}"
    for path in ("/healthz", "/readyz", "/login"):
        with urllib.request.urlopen(address + path) as answer:
            assert answer.status == 200
    assert [row["role"] for row in running.status()["roles"]] == ["web"]
    running.stop()


def test_a_fetch_from_the_page_is_the_command_in_the_users_name(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite'}"
    (tmp_path / "state").mkdir()
    ledger = Ledger(url, "node-1")
    upgrade(ledger)
    web = Web(tmp_path, ledger)
    web.add_users()
    web.site.fetcher.start()
    try:
        act(web.browser("olga"), "fetch-study", study="1.2.3", peer="PACS")
        wait_until(lambda: "FETCH_FAILED" in [r.code for r in rows(ledger, event)], 60, "it ended")
    finally:
        web.site.fetcher.stop()
    (row,) = rows(ledger, retrieval)
    assert (row.study_uid, row.requested_by, row.state) == ("1.2.3", "olga", "FAILED")
    assert row.reason == "NO_CONNECTION"
    ledger.close()
