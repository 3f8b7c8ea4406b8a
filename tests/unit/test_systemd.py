"""The units: systemd accepts them, each runs one role, and they stay locked up."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from dicomnode.services import receive, work
from dicomnode.services.common import BEAT_SECONDS
from dicomnode.services.supervise import ROLES
from dicomnode.settings import Send

FOLDER = Path(__file__).resolve().parents[2] / "systemd"
SERVICES = {role: FOLDER / f"dicomnode-{role}.service" for role in ROLES}
PROGRAM = "/opt/dicomnode/bin/dicomnode"
MOST_EXPOSED = {"receive": 1.5, "tick": 1.5, "work": 1.8, "send": 1.5, "web": 1.5}
"""Exposure of `systemd-analyze security`, 0 (nothing) to 10 (all); 9.6 without any hardening."""


def settings_of(unit: Path) -> dict[str, list[str]]:
    """Return the values of every key of a unit, in order."""
    found = defaultdict(list)
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found[key].append(value)
    return found


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that exists here in place of the installed one."""
    for unit in FOLDER.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, "/bin/true"))
    return tmp_path


def test_there_is_a_unit_for_every_role_and_no_other() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        "dicomnode.target",
        *(path.name for path in SERVICES.values()),
    }


@pytest.mark.peer("systemd-analyze")
def test_systemd_accepts_the_units(units: Path) -> None:
    paths = [str(path) for path in sorted(units.iterdir())]
    checked = subprocess.run(
        ["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False
    )
    ours = [line for line in checked.stderr.splitlines() if "dicomnode" in line]
    assert (checked.returncode, ours) == (0, [])


@pytest.mark.peer("systemd-analyze")
def test_systemd_finds_a_mistake(units: Path) -> None:
    # Says that the test above can fail.
    unit = units / "dicomnode-tick.service"
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHmoe=yes"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert "ProtectHmoe" in checked.stderr


@pytest.mark.peer("systemd-analyze")
@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_exposed_to_little(role: str, units: Path) -> None:
    unit = units / SERVICES[role].name
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in said.stderr:
        pytest.skip("this systemd-analyze has no offline security review (needs systemd 250)")
    found = re.search(r"Overall exposure level.*: ([\d.]+)", said.stdout)
    assert found, said.stdout + said.stderr
    assert float(found[1]) <= MOST_EXPOSED[role]


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_runs_its_role_for_its_user_and_restarts_it(role: str) -> None:
    unit = settings_of(SERVICES[role])
    assert unit["ExecStart"] == [f"{PROGRAM} {role} /etc/dicomnode/dicomnode.yaml"]
    assert unit["Type"] == ["notify"]
    assert float(unit["WatchdogSec"][0]) >= 10 * BEAT_SECONDS
    assert "AF_UNIX" in unit["RestrictAddressFamilies"][0], "where it tells that it is ready"
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert unit["User"] == ["dicomnode"]
    assert unit["StateDirectory"] == ["dicomnode"]
    assert unit["UMask"] == ["0077"]
    assert unit["PartOf"] == unit["WantedBy"] == ["dicomnode.target"]
    assert unit["Restart"] == ["on-failure"]
    assert unit["RestartPreventExitStatus"] == ["2"], "a wrong configuration does not mend itself"
    assert unit["StartLimitIntervalSec"] == ["0"], "systemd never gives a role up"


def test_only_the_analysis_may_write_machine_code() -> None:
    # torch's convolutions fail under MemoryDenyWriteExecute: "could not create a primitive".
    allowed = {
        role
        for role, path in SERVICES.items()
        if settings_of(path)["MemoryDenyWriteExecute"] != ["yes"]
    }
    assert allowed == {work.NAME}


def test_the_worker_survives_the_analysis_that_runs_out_of_memory() -> None:
    assert settings_of(SERVICES[work.NAME])["OOMPolicy"] == ["continue"]


def test_a_role_has_the_time_it_needs_to_end() -> None:
    def seconds(role: str) -> float:
        return float(settings_of(SERVICES[role])["TimeoutStopSec"][0])

    assert seconds(receive.NAME) > receive.GRACE_SECONDS
    assert seconds("send") > Send().timeout_seconds
