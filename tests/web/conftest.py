"""The pages are tested on SQLite; their queries on both databases, in `tests/integration`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from web_kit import Web

from dicomnode.ledger import Ledger, nodes


@pytest.fixture
def ledger(_empty_sqlite: Path, tmp_path: Path, clock: Any) -> Iterator[Ledger]:
    """A ledger of node-1, with a clock that stands."""
    path = tmp_path / "ledger.sqlite"
    shutil.copy(_empty_sqlite, path)
    opened = Ledger(f"sqlite:///{path}", "node-1", clock)
    with opened.transaction() as tx:
        nodes.register_node(tx, "DICOMNODE", "key-1")
    yield opened
    opened.close()


@pytest.fixture
def web(tmp_path: Path, ledger: Ledger) -> Web:
    """The page, with a viewer (vera) and an operator (olga)."""
    made = Web(tmp_path, ledger)
    made.add_users()
    return made
