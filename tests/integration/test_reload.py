"""SIGHUP: the configuration changes under roles that run, and no association is lost by it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from nodes import Node
from peers import HOST, tail, wait_until
from scu import RejectedError, scu, store
from small_series import phantom_series

from dicomnode.domain.retention import RetentionPolicy
from dicomnode.settings import parse
from dicomnode.settings.models import Settings
from dicomnode.settings.reloading import RELOADED, reload

HERE = Path("/etc/dicomnode/node.yaml")


def hang_up(node: Node, sign: str, count: int) -> None:
    """Send SIGHUP to `run` and wait until so many roles have said something of it."""
    before = node.log.read_text().count(f" {sign} ")
    os.kill(node._processes["run"].pid, signal.SIGHUP)
    wait_until(
        lambda: node.log.read_text().count(f" {sign} ") == before + count,
        30,
        f"{sign} of {count} roles in\n{tail(node.log)}",
    )


def test_an_open_association_goes_on_under_another_configuration(tmp_path: Path) -> None:
    wires = phantom_series(1)[:3]
    node = Node(tmp_path / "node", quiet_seconds=300.0, overrides={"rules": []})
    try:
        node.start()
        with pytest.raises(RejectedError):
            store(node.port, calling="CT2")
        with scu(node.port, wires) as open_one:
            assert open_one.store(wires[0]) == 0x0000

            node.write_config(
                {
                    "peers": {
                        "CT2": {"ae_title": "CT2", "host": HOST, "accept": True},
                        "MODALITY": {"accept": False},
                        "ARCHIVE": {"port": 1},
                    },
                    "destinations": {"late": {"peer": "ARCHIVE"}},
                    "limits": {"max_instance_bytes": 12345678},
                }
            )
            roles = len(node.status()["roles"])
            assert roles >= 4
            hang_up(node, "CONFIG_RELOADED", roles)
            assert open_one.store(wires[1]) == 0x0000
            assert store(node.port, calling="CT2") == []
            with pytest.raises(RejectedError):
                store(node.port)

            def says_so(status: dict[str, list[dict[str, str]]]) -> bool:
                doing = {row["role"]: row["doing"] for row in status["roles"]}
                waits = "waits for a restart: limits.max_instance_bytes"
                return doing["send"].startswith("1 destinations") and all(
                    text.endswith(waits) for text in doing.values()
                )

            node.wait_for(says_so, 20, "all roles say that a key waits")

            good = node.config.read_text()
            node.config.write_text(good.replace("ae_title: CT2", "ae_titel: CT3"))
            hang_up(node, "CONFIG_REJECTED", roles)
            assert "did you mean 'ae_title'?" in node.log.read_text()
            assert store(node.port, calling="CT2") == []
            assert open_one.store(wires[2]) == 0x0000
            node.config.write_text(good)

        assert len(node.files()) == 3
        assert "ROLE_DIED" not in node.log.read_text()
        node.stop()
    finally:
        node.close()


# What applies at once is a table


def settings_of(text: str) -> Settings:
    return parse(text, HERE)


def test_sections_apply_whole_or_wait() -> None:
    old = settings_of("limits: {max_associations: 5}\nassembly: {study_quiet_seconds: 5}")
    new = settings_of("node: {port: 104, id: b}\nretention: {events_days: 10}")
    found = reload(old, new)
    assert found.changed == ("assembly", "retention")
    assert found.settings.assembly.study_quiet_seconds == 60.0
    assert found.settings.retention == RetentionPolicy(events_days=10)
    assert found.settings.node == old.node
    assert found.settings.limits.max_associations == 5
    assert set(found.waiting) == {"node.port", "node.id", "limits.max_associations"}


def test_nothing_changes_where_nothing_did() -> None:
    settings = settings_of("")
    found = reload(settings, settings_of(""))
    assert (found.settings, found.changed) == (settings, ())
    assert set(found.waiting) <= {"node.id"}


def test_what_goes_only_with_what_waits_waits_too() -> None:
    peer = "peers: {P: {ae_title: P, host: h, certificate_sha256: %s}}\n" % ("a1" * 32)
    tls = "node: {tls: {port: 2762, certificate: c, key: k, client_ca: a}}\n"
    found = reload(settings_of(""), settings_of(peer + tls))
    assert found.settings.peers == {}
    assert {"peers", "node.tls"} <= set(found.waiting)


def test_every_section_is_decided_on() -> None:
    waits = {"node", "receive", "work", "storage", "limits", "web", "log"}
    assert set(RELOADED) | waits == set(Settings.model_fields), "decide whether it can be reloaded"
