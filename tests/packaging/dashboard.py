"""Rules and dashboard of the chart as data, and the metrics that their expressions name. Start from `used`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import yaml

from helm_charts import CHART
from stage import Node

RULES = CHART / "files" / "rules.yaml"
DASHBOARD: Node = json.loads((CHART / "files" / "dashboard.json").read_text())
EVERY_RULE: list[Node] = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in EVERY_RULE if "alert" in rule]
RECORDS = [rule for rule in EVERY_RULE if "record" in rule]

FUNCTIONS = {
    "sum",
    "rate",
    "increase",
    "min",
    "max",
    "max_over_time",
    "count",
    "absent",
    "avg",
    "changes",
    "time",
    "timestamp",
    "histogram_quantile",
    "by",
    "on",
    "and",
    "or",
    "unless",
    "offset",
}
# Labels of the target, which Prometheus adds.
TARGET = {"namespace", "job", "instance"}


def panels() -> list[Node]:
    """All panels, also those inside rows."""
    return [panel for top in DASHBOARD["panels"] for panel in [top, *top.get("panels", [])]]


def queries() -> list[tuple[str, str]]:
    """Title of the panel and expression of each query."""
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", [])]


def without_variables(expression: str, interval: str = "5m", value: str = "x") -> str:
    """Replaces the variables of Grafana, which Prometheus does not know."""
    for name, text in {"$__rate_interval": interval, "$__interval": interval, "$__range": "1h"}.items():
        expression = expression.replace(name, text)
    return re.sub(r"\$\{?\w+\}?", value, expression)


def used(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Metrics in an expression, each with its matchers (label, operator, value)."""
    expression = without_variables(expression)
    grouped = re.sub(r"\b(by|on)\s*\([^)]*\)", "", expression)
    pattern = r"(?<![\w:])([a-z_][\w:]*)(?:\{([^}]*)\})?(?![\w:]*\s*\()"
    for name, matchers in re.findall(pattern, re.sub(r"\[[^]]*\]", "", grouped)):
        if name.startswith(("cognito_authz_", "cognito_authz:", "envoy_", "process_")):
            yield name, re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers)
        else:
            assert name in FUNCTIONS or re.fullmatch(r"\d*[smhd]|x", name), name
