"""The alert rules and the dashboard ask for what the service counts."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from app import notices, twilio_api
from app.events import EndReason
from app.metrics import Metrics

MONITORING = Path(__file__).parent.parent / "docs" / "monitoring"
TEXT = {"type": "string", "minLength": 1}
DURATION = {"type": "string", "pattern": "^[0-9]+[smh]$"}


def an_object(**properties: object) -> dict[str, object]:
    known = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**known, "required": [name for name in properties if name != "for"]}


# The fields that we use, as Prometheus' page "Alerting rules" has them.
RULES = an_object(
    groups={
        "type": "array",
        "items": an_object(
            name=TEXT,
            rules={
                "type": "array",
                "minItems": 1,
                "items": an_object(
                    alert={"type": "string", "pattern": "^Bridge[A-Z][A-Za-z]+$"},
                    expr=TEXT,
                    **{"for": DURATION},
                    labels=an_object(severity={"enum": ["page", "ticket"]}),
                    annotations=an_object(summary=TEXT),
                ),
            },
        ),
    }
)
# Which labels have values that an expression may name.
VALUES: dict[tuple[str, str], type[StrEnum]] = {
    ("bridge_streams_total", "end_reason"): EndReason,
    ("bridge_twilio_requests_total", "outcome"): twilio_api.Outcome,
    ("bridge_usage_notices_total", "outcome"): notices.Outcome,
}


def series() -> dict[str, set[str]]:
    """Name every series that /metrics may have, with its labels."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics()).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            [family] = metric.describe()
            labels = set(metric._labelnames)
            if isinstance(metric, Counter):
                found[f"{family.name}_total"] = labels
            elif isinstance(metric, Gauge):
                found[family.name] = labels
            else:
                found |= {f"{family.name}_{part}": labels for part in ("count", "sum")}
                found[f"{family.name}_bucket"] = labels | {"le"}
    return found


def faults(expression: str) -> list[str]:
    """Say what an expression asks for that is never there."""
    known = series()
    found = []
    names = set(re.findall(r"\bbridge_\w+", expression))
    found += [f"{name} is not counted" for name in names - set(known)]
    labels = {"job", "instance"}.union(*(known.get(name, set()) for name in names))
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    matched = re.findall(r"(\w+)\{([^}]*)\}", expression)
    used = {one.strip() for text in grouped for one in text.split(",")}
    found += [f"{label} is no label" for label in used - labels]
    for name, matchers in matched:
        for label, value in re.findall(r'(\w+)[=!~]+"([^"]*)"', matchers):
            if label not in known.get(name, set()) | {"job", "instance"}:
                found.append(f"{name} has no label {label}")
            values = VALUES.get((name, label))
            if values and not set(value.split("|")) <= set(values):
                found.append(f"{label} is never {value}")
    return found


def rules() -> Any:
    return yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))


def alerts() -> dict[str, Any]:
    return {rule["alert"]: rule for group in rules()["groups"] for rule in group["rules"]}


def queries() -> Iterator[str]:
    dashboard = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_the_rules_are_of_the_form_that_prometheus_documents() -> None:
    assert list(jsonschema_rs.validator_for(RULES).iter_errors(rules())) == []
    assert len(alerts()) == sum(len(group["rules"]) for group in rules()["groups"])


@pytest.mark.parametrize("name", list(alerts()))
def test_an_alert_is_about_what_the_service_counts(name: str) -> None:
    rule = alerts()[name]
    assert faults(rule["expr"]) == []
    assert re.search(r"\b(bridge_|up\{)", rule["expr"])
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    grouped = re.search(r"\bby \(([^)]*)\)", rule["expr"])
    left = set(grouped[1].split(", ")) if grouped else {"job", "instance"}
    assert shown <= left, "its words name a label that the expression leaves out"


@pytest.mark.parametrize("expression", list(queries()))
def test_a_panel_shows_what_the_service_counts(expression: str) -> None:
    assert faults(expression) == []


def test_the_dashboard_shows_everything_that_the_service_counts() -> None:
    shown = set(re.findall(r"\bbridge_\w+", " ".join(queries())))
    unshown = set(series()) - shown - {f"bridge_publish_lag_seconds_{n}" for n in ("count", "sum")}
    assert unshown == set()


@pytest.mark.parametrize(
    "expression",
    [
        "bridge_calls",
        "rate(bridge_call_total[5m])",
        "sum by (reason) (bridge_streams_total)",
        'bridge_calls_total{reason="draining"}',
        'bridge_streams_total{end_reason=~"vanished|died"}',
        'bridge_usage_notices_total{outcome!="told"}',
    ],
)
def test_an_expression_that_would_never_be_true_is_caught(expression: str) -> None:
    assert faults(expression)


def test_the_dashboard_can_be_placed_and_told_apart() -> None:
    dashboard = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < 24


def test_prometheus_itself_takes_the_rules_and_they_fire_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: the package prometheus has it")
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(
            [promtool, *words], cwd=MONITORING, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
