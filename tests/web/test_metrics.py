"""The metrics say what happened, once; dashboard and alerts name only what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ledger_kit import analysed, deliver_all, header, receive, settle, taken
from monitoring_kit import MONITORING, expressions
from prometheus_client.parser import text_string_to_metric_families
from web_kit import Web

from dicomnode.domain.outcomes import Refuse
from dicomnode.ledger import Ledger, associations, presence, steering
from dicomnode.web.metrics import Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(web: Web) -> Samples:
    """Read the metrics as Prometheus does, with a parser that is not the writer's."""
    answer = web.program("vera").get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def one(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"dicomnode_{name}", tuple(sorted(labels.items()))]


def come(ledger: Ledger, instances: int, size: int, outcome: str = "RELEASED") -> None:
    with ledger.transaction() as tx:
        row = associations.open_association(
            tx, calling_ae="CT1", called_ae="NODE", address="10.0.0.1"
        )
        associations.close_association(tx, row, outcome=outcome, instances=instances, size=size)


def test_what_ends_is_counted_once(web: Web, ledger: Ledger, clock: Any) -> None:
    come(ledger, 7, 700)
    clock.forward(3600)
    read(web)  # counts from now on
    come(ledger, 300, 5000)
    come(ledger, 1, 10, "ABORTED")
    for _ in range(3):
        samples = read(web)
        clock.forward(200)
    assert one(samples, "instances_received_total") == 301
    assert one(samples, "received_bytes_total") == 5010
    assert one(samples, "associations_total", outcome="RELEASED") == 1
    assert one(samples, "associations_total", outcome="ABORTED") == 1
    clock.forward(4000)
    come(ledger, 2, 2)
    clock.forward(4000)  # nobody looked for longer than a look goes back
    assert one(read(web), "instances_received_total") == 303


def test_each_step_is_timed(web: Web, ledger: Ledger, clock: Any) -> None:
    read(web)
    analysed(ledger, clock)
    clock.forward(40)
    assert deliver_all(ledger) == 2
    samples = read(web)
    for step, count, seconds in (
        ("closing", 1, 60), ("analysis", 1, 0), ("delivery", 2, 80), ("total", 2, 200),
    ):  # fmt: skip
        assert one(samples, "step_seconds_count", step=step) == count
        assert one(samples, "step_seconds_sum", step=step) == seconds
    assert one(samples, "step_seconds_bucket", step="delivery", le="60.0") == 2
    assert one(samples, "step_seconds_bucket", step="delivery", le="30.0") == 0


def test_gauges_say_what_is_and_forget_what_was(web: Web, ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock)
    with ledger.transaction() as tx:
        presence.start(tx, "work", 1)
        steering.pause(tx, "archive", "olga")
    settle(ledger, taken(ledger), Refuse("NOT_AUTHORIZED", "no"))
    clock.forward(10)
    samples = read(web)
    assert one(samples, "rows", of="jobs", state="DONE") == 1
    assert one(samples, "attention", code="DELIVERY_REFUSED") == 1
    assert one(samples, "role_silent_seconds", role="work") == 10
    assert one(samples, "destination_paused", destination="archive") == 1
    assert one(samples, "disk_bytes", which="free") > 0
    with ledger.transaction() as tx:
        steering.cancel_deliveries(tx, 1, "archive", "olga")
        presence.leave(tx, "work")
    names = {name for name, _ in read(web)}
    assert "dicomnode_attention" not in names
    assert "dicomnode_role_silent_seconds" not in names


def test_no_label_says_who_the_patient_is(web: Web, ledger: Ledger) -> None:
    receive(ledger, header(series_description="Doe Jane"))
    text = web.program("vera").get("/metrics").text
    assert "Doe" not in text
    assert "1.2.3" not in text


def test_dashboard_and_alerts_name_metrics_and_labels_that_exist(
    web: Web, ledger: Ledger, clock: Any
) -> None:
    read(web)
    analysed(ledger, clock)
    deliver_all(ledger)
    come(ledger, 1, 1)
    with ledger.transaction() as tx:
        presence.start(tx, "work", 1)
        tx.event("DISK_FULL", level="attention")
    names = Metrics().names()
    labels: dict[str, set[str]] = {}
    for name, pairs in read(web):
        labels.setdefault(name, set()).update(key for key, _ in pairs)
    labels["dicomnode_gpu_memory_bytes"] = {"gpu", "which"}  # as test_gpus.py has them
    assert len(expressions()) > 20
    for expression in expressions():
        used = set(re.findall(r"dicomnode_\w+", expression)) - {"dicomnode"}
        assert used <= names, expression
        for name, inner in re.findall(r"(dicomnode_\w+)\{([^}]*)\}", expression):
            asked = set(re.findall(r"(\w+)=~?\"", inner)) - {"instance"}
            assert asked <= labels[name], expression
    for name in names:
        said = (Path(__file__).parents[2] / "docs/web.md").read_text()
        assert re.sub(r"_(bucket|sum|count)$", "", name) in said, name


def test_a_wrong_name_would_be_found() -> None:
    assert "dicomnode_nothing" not in Metrics().names()
    assert "dicomnode_step_seconds_bucket" in Metrics().names()


@pytest.mark.parametrize("name", ["alerts.yaml", "alerts.test.yaml", "prometheus.yaml"])
def test_the_files_are_yaml(name: str) -> None:
    assert isinstance(yaml.safe_load((MONITORING / name).read_text()), dict)
