"""What the service manager hears of a role, over a socket as systemd's."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from nodes import Node
from scu import scu


def test_a_role_is_ready_when_it_listens_lives_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    node = Node(tmp_path / "node", overrides={"rules": []})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        try:
            node.start("receive")
            assert manager.recv(1024) == b"READY=1"
            with scu(node.port) as requestor:
                assert requestor.echo() == 0x0000
            assert manager.recv(1024) == b"WATCHDOG=1"
            alive = ["WATCHDOG=1"]
            while len(alive) == 1:
                alive = manager.recv(1024).decode().splitlines()
            assert alive[0] == "WATCHDOG=1"
            assert alive[1].startswith("STATUS=")
            assert alive[1].endswith(" associations")
            node.stop()
            heard = [manager.recv(1024)]
            while heard[-1] != b"STOPPING=1":
                heard.append(manager.recv(1024))
        finally:
            node.close()


def test_where_nobody_listens_a_role_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    node = Node(tmp_path / "node", overrides={"rules": []})
    try:
        node.start("tick")
        node.stop()
    finally:
        node.close()
