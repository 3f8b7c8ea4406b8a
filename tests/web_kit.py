"""A page for a test: the application over a ledger, and browsers that are signed in."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from nodes import merged
from starlette.testclient import TestClient

from dicomnode import settings
from dicomnode.ledger import Ledger
from dicomnode.spool import Spool
from dicomnode.users import Users
from dicomnode.web.app import create
from dicomnode.web.serving import site_of
from dicomnode.web.site import Site

PASSWORD = "correct horse battery"
URL = "http://node.test"
DOCUMENT = {
    "node": {"id": "node-1"},
    "peers": {
        "CT1": {"ae_title": "CT1", "host": "127.0.0.1", "accept": True},
        "PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": 11199, "query": True},
    },
    "destinations": {"archive": {"peer": "PACS"}},
    "storage": {"folder": "state"},
}


@cache
def _users() -> str:
    """Return the file of users; made once and at a low cost, because hashing takes its time."""
    with tempfile.TemporaryDirectory() as folder, patch("dicomnode.users.N", 16):
        users = Users(Path(folder) / "users.json")
        users.add("vera", "viewer", PASSWORD)
        users.add("olga", "operator", PASSWORD)
        return (Path(folder) / "users.json").read_text()


class Web:
    """The application over a ledger.

    Args:
        folder: for configuration and spool.
        ledger: whose facts it shows.
        overrides: put over the configuration.
        address: from which requests come.
    """

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        overrides: Mapping[str, Any] | None = None,
        address: str = "10.9.9.9",
    ) -> None:
        config = folder / "dicomnode.yaml"
        config.write_text(yaml.safe_dump(merged(DOCUMENT, overrides or {})))
        self.settings = settings.load(config)
        self.spool = Spool(self.settings.spool_folder, "web")
        self.spool.create()
        self.site: Site = site_of(self.settings, ledger, self.spool, config)
        self.app = create(self.site)
        self.address = address

    def add_users(self) -> None:
        """Add a viewer and an operator."""
        path = self.settings.users_file
        path.write_text(_users())
        path.chmod(0o600)

    def browser(self, name: str | None = None) -> TestClient:
        """Return a browser, in which somebody has signed in if a name is given."""
        client = TestClient(
            self.app,
            base_url=URL,
            follow_redirects=False,
            client=(self.address, 4711),
            raise_server_exceptions=False,
        )
        if name is not None:
            answer = self.sign_in(client, name, PASSWORD)
            assert answer.status_code == 303, answer.text
        return client

    def sign_in(self, client: TestClient, name: str, password: str) -> Any:
        """Fill in the form; return the answer."""
        form = {"name": name, "password": password, "form_token": token_on(client.get("/login"))}
        return client.post("/login", data=form)

    def program(self, name: str) -> TestClient:
        """Return a client with a token of a user."""
        client = self.browser()
        client.headers["authorization"] = f"Bearer {self.site.users.add_token(name, 1)}"
        return client


def token_on(answer: Any) -> str:
    """Return the token of the first form of a page."""
    found = re.search(r'name="form_token" value="([^"]+)"', answer.text)
    assert found, answer.text
    return found[1]


def act(client: TestClient, name: str, **values: Any) -> Any:
    """Ask for an act, say yes, and return the answer."""
    reason = values.pop("reason", None)
    asked = client.get(f"/act/{name}", params=values)
    assert asked.status_code == 200, asked.text
    form = {**values, "confirm": "yes", "form_token": token_on(asked)}
    return client.post(f"/act/{name}", data=form if reason is None else {**form, "reason": reason})
