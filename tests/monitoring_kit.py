"""What config/monitoring asks of the metrics."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

MONITORING = Path(__file__).parents[1] / "config/monitoring"


def expressions() -> list[str]:
    """Return every query of the alert rules and the dashboard."""
    alerts = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    board = json.loads((MONITORING / "grafana.json").read_text())
    found = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    found += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    found += [item["query"] for item in board["templating"]["list"] if item["type"] == "query"]
    return found
