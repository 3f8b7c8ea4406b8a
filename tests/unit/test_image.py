"""The image and the composition: what can be held of them without a container engine."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from typer.testing import CliRunner
from viewer_site import CONFIG as OHIF_CONFIG

from dicomnode import cli
from dicomnode.ledger import Ledger, nodes, presence
from dicomnode.ledger.schema import upgrade
from dicomnode.services.supervise import ROLES
from dicomnode.settings import Settings, load

ROOT = Path(__file__).resolve().parents[2]
COMPOSITIONS = ("compose.yaml", "compose.cuda.yaml")
COMPOSE = ROOT / "config/compose"


def document(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


# The image


@pytest.mark.peer("hadolint")
def test_the_linter_of_dockerfiles_has_nothing_to_say() -> None:
    done = subprocess.run(
        ["hadolint", "--no-color", str(ROOT / "Dockerfile")],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_image_is_built_from_is_there_and_not_ignored() -> None:
    kept = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()[:-1]]
    assert len(sources) > 5
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), source


def instruction(name: str) -> str:
    """Return an instruction of the Dockerfile with its lines joined."""
    joined = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    (found,) = re.findall(rf"^{name} (.+)$", joined, re.MULTILINE)
    return str(found)


def test_the_image_runs_the_node_as_its_own_user() -> None:
    assert json.loads(instruction("ENTRYPOINT")) == ["dicomnode"]
    assert json.loads(instruction("CMD"))[0] == "run"
    assert instruction("USER") == "10001:10001"
    assert instruction("EXPOSE") == str(Settings().node.port)
    assert f'DICOMNODE_ROLES="{" ".join(ROLES)}"' in (ROOT / "Dockerfile").read_text()


def health(folder: Path, roles: str) -> subprocess.CompletedProcess[str]:
    programs = Path(sys.executable).parent
    return subprocess.run(
        json.loads(instruction("HEALTHCHECK").split(" CMD ")[1]),
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "DICOMNODE_CONFIG": str(folder / "dicomnode.yaml"),
            "DICOMNODE_ROLES": roles,
        },
    )


def test_the_image_is_healthy_while_its_roles_give_signs_of_life(tmp_path: Path) -> None:
    config = tmp_path / "dicomnode.yaml"
    config.write_text("node: {id: here}\nstorage: {folder: state}\n")
    now = datetime.now(UTC)
    url = f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite'}"
    # receive lives, send was last heard of a minute ago, tick lives on another node.
    for node, role, ago in (("here", "receive", 0), ("here", "send", 60), ("there", "tick", 0)):
        at = now - timedelta(seconds=ago)
        ledger = Ledger(url, node, lambda at=at: at)
        upgrade(ledger)
        with ledger.transaction() as tx:
            nodes.register_node(tx, "DICOMNODE", "key-1")
            presence.start(tx, role, 1)
        ledger.close()

    assert health(tmp_path, "receive").returncode == 0
    unwell = health(tmp_path, "receive tick work send")
    assert (unwell.returncode, unwell.stdout.strip()) == (1, "no sign of life: tick work send")
    config.write_text("node: 1\n")
    assert health(tmp_path, "receive").returncode != 0


# The composition


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_the_composition_is_of_the_specification(name: str) -> None:
    text = (ROOT / name).read_text()
    composed = PyCompose.from_yaml(text)
    composed.validate()
    assert "node" in composed.service_names()
    with pytest.raises(Exception, match="deploi"):
        PyCompose.from_yaml(text.replace("    image:", "    deploi: {}\n    image:", 1))


def test_what_the_composition_mounts_and_names_is_there() -> None:
    services = document("compose.yaml")["services"]
    volumes = document("compose.yaml")["volumes"]
    assert set(services) == {"node", "orthanc", "ohif", "gateway", "prometheus", "grafana"}
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and not source.endswith(".token"):
                assert (ROOT / source).exists(), source
            elif not source.startswith("./"):
                assert source in volumes, source
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "it is for this machine alone"
    for name in services:
        assert ":latest" not in services[name]["image"]
    assert set(document("compose.cuda.yaml")["services"]) == {"node"}


def test_the_nodes_container_may_nothing() -> None:
    node = document("compose.yaml")["services"]["node"]
    assert (node["read_only"], node["cap_drop"]) == (True, ["ALL"])
    assert node["security_opt"] == ["no-new-privileges:true"]


def test_the_parts_fit_each_other() -> None:
    config = COMPOSE / "dicomnode.yaml"
    done = CliRunner().invoke(cli.app, ["check", str(config)])
    assert done.exit_code == 0, done.exception
    settings = load(config)
    orthanc = json.loads((COMPOSE / "orthanc.json").read_text())
    peer = settings.peers["ORTHANC"]
    assert (orthanc["DicomAet"], orthanc["DicomPort"]) == (peer.ae_title, peer.port)
    assert orthanc["DicomModalities"]["dicomnode"] == [
        settings.node.ae_title, "127.0.0.1", settings.node.port,
    ]  # fmt: skip
    gateway = (COMPOSE / "gateway.conf").read_text()
    assert f"http://127.0.0.1:{settings.web.port};" in gateway
    assert f"http://127.0.0.1:{orthanc['HttpPort']};" in gateway
    viewer = (COMPOSE / "ohif.js").read_text().split("window.config = ")[1].rstrip(";\n")
    assert json.loads(viewer) == OHIF_CONFIG
    source = document("config/compose/grafana/datasources/prometheus.yaml")["datasources"][0]
    assert (source["type"], source["url"]) == ("prometheus", "http://node:9090")
