"""What ready configurations in `config/` promise: `check` finds them good, Orthanc answers one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Authority
from peers import Orthanc, free_port
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.settings import load

CONFIG = Path(__file__).resolve().parents[2] / "config"
EXAMPLES = {
    "air-gapped",
    "dcm4chee",
    "one-gpu-one-pacs",
    "orthanc",
    "several-modalities",
    "tls",
    "two-destinations",
}


def test_they_are_all_there() -> None:
    assert {path.stem for path in CONFIG.glob("*.yaml")} >= EXAMPLES
    page = (CONFIG.parent / "docs" / "configuration.md").read_text()
    assert {name for name in EXAMPLES if f"](../config/{name}.yaml)" not in page} == set()


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_check_finds_it_good(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_DB_PASSWORD", "hunter2")
    text = (CONFIG / f"{name}.yaml").read_text()
    if name == "tls":  # with certificates as the example wants them
        node = Authority(tmp_path, "hospital-ca").sign("node")
        assert node.certificate == tmp_path / "node.pem"
        text = text.replace("/etc/dicomnode/tls/", f"{tmp_path}/")
    config = tmp_path / "dicomnode.yaml"
    config.write_text(text)
    done = CliRunner().invoke(cli.app, ["check", str(config)])
    assert (done.exit_code, done.output) == (0, f"{config}: good\n"), done.exception
    assert "hunter2" not in done.output


def test_what_they_show_is_in_them() -> None:
    two = load(CONFIG / "two-destinations.yaml")
    assert {one.takes for one in two.destinations.values()} == {
        ("preview", "sr"),
        ("labelmap", "preview", "sr"),
    }
    assert len(load(CONFIG / "several-modalities.yaml").rules) == 4
    assert load(CONFIG / "one-gpu-one-pacs.yaml").work.devices == ("cuda:0",)
    assert load(CONFIG / "tls.yaml").node.port is None


@pytest.mark.peer("orthanc")
def test_orthanc_answers_as_its_example_expects(
    start_orthanc: Callable[..., Orthanc], tmp_path: Path
) -> None:
    port = free_port()
    archive = start_orthanc(modalities={"dicomnode": ("DICOMNODE", port)})
    config = tmp_path / "dicomnode.yaml"
    text = (CONFIG / "orthanc.yaml").read_text()
    text = text.replace("ae_title: ORTHANC", f"ae_title: {archive.ae_title}")
    config.write_text(text.replace("port: 4242", f"port: {archive.port}"))
    probed = CliRunner().invoke(cli.app, ["probe", "orthanc", "--json", "-c", str(config)])
    assert probed.exit_code == 0, probed.output
    facts = json.loads(probed.stdout)
    assert [row["gets"] for row in facts["profile"]] == ["seg", "preview", "sr"]
    assert facts["commitment"] is True
    asked = CliRunner().invoke(cli.app, ["echo", "ORTHANC", "--query", "-c", str(config)])
    assert (asked.exit_code, asked.output.strip()) == (0, "ORTHANC: DONE")
