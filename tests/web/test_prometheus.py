"""What config/monitoring has, taken to Prometheus itself: the rules, and a node that is scraped."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring_kit import MONITORING, expressions
from nodes import Node
from peers import HOST, Prometheus, wait_until

from dicomnode.users import Users

pytestmark = pytest.mark.peer("prometheus", "promtool")
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        ["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_rules_and_say_what_they_should() -> None:
    assert "10 rules found" in promtool("check", "rules", "alerts.yaml")
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yaml")
    promtool("check", "config", "--syntax-only", "prometheus.yaml")
    tested = yaml.safe_load((MONITORING / "alerts.test.yaml").read_text())["tests"]
    fired = {
        case["alertname"]
        for one in tested
        for case in one["alert_rule_test"]
        if case.get("exp_alerts")
    }
    (group,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    assert fired == {rule["alert"] for rule in group["rules"]}, "each is seen to fire"


@pytest.mark.skipif(
    os.environ.get("DICOMNODE_BROWSER") != "1", reason="make test-web runs Prometheus"
)
def test_prometheus_scrapes_a_node_as_shipped(node: Callable[..., Node], tmp_path: Path) -> None:
    running = node("web", overrides={"web": {"enabled": True}})
    users = Users(running.settings.users_file)
    users.add("prometheus", "viewer", None)
    (tmp_path / "token").write_text(users.add_token("prometheus", 1))
    (tmp_path / "wrong").write_text("nonsense")
    with running.ledger.transaction() as tx:
        tx.event("DISK_FULL", level="attention")
    prometheus = Prometheus(tmp_path, config(tmp_path, running.document["web"]["port"]))
    prometheus.start()
    try:
        look_at(prometheus)
    finally:
        prometheus.stop()


def config(folder: Path, port: int) -> Path:
    """Return the shipped configuration for this node, in a hurry; and a wrong token beside."""
    shipped = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    (job,) = shipped["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8484"]}]
    job["static_configs"] = [{"targets": [f"{HOST}:{port}"]}]
    job["scrape_interval"] = "1s"
    job["authorization"]["credentials_file"] = str(folder / "token")
    wrong = {**job, "job_name": "wrong"}
    wrong["authorization"] = {"credentials_file": str(folder / "wrong")}
    shipped["scrape_configs"].append(wrong)
    shipped["global"] = {"evaluation_interval": "1s"}
    shutil.copy(MONITORING / "alerts.yaml", folder)
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(shipped))
    return path


def look_at(prometheus: Prometheus) -> None:
    def health() -> dict[str, str]:
        targets = prometheus.get("targets")["activeTargets"]
        return {one["labels"]["job"]: one["health"] for one in targets}

    wait_until(lambda: health() == {"dicomnode": "up", "wrong": "down"}, 30, "one is scraped")
    (attention,) = value(prometheus, "dicomnode_attention")
    assert attention["metric"]["code"] == "DISK_FULL"
    assert attention["value"][1] == "1"

    known = {one["metric"] for one in prometheus.get("targets/metadata")}
    assert {"dicomnode_step_seconds", "dicomnode_received_bytes_total"} <= known
    for expression in expressions():
        if expression.startswith("label_values("):  # Grafana's own word
            metric, _, label = expression[13:-1].partition(", ")
            assert label in value(prometheus, metric)[0]["metric"]
            continue
        value(prometheus, expression.replace("$instance", ".*"))  # it can be evaluated
        names = {SUFFIXES.sub("", name) for name in re.findall(r"dicomnode_\w+", expression)}
        assert names <= known, expression

    # Only the page's role runs: the rules are evaluated, and one of them is about to say so.
    def states() -> dict[str, str]:
        (group,) = prometheus.get("rules")["groups"]
        assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}, group
        return {rule["name"]: rule["state"] for rule in group["rules"]}

    wait_until(lambda: states()["DicomnodeRoleMissing"] == "pending", 30, "a rule says so")
    assert states()["DicomnodeNeedsAPerson"] == "pending"
    assert states()["DicomnodeAway"] == "inactive"


def value(prometheus: Prometheus, expression: str) -> list[Any]:
    found = prometheus.get("query", query=expression)
    assert found["resultType"] == "vector", expression
    return list(found["result"])
