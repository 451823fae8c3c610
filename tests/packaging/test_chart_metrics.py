"""Alerts and dashboard: promtool accepts and tests them, and they use only metrics that the program and Envoy emit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import web
from commands import run
from helm_charts import CHART, NEEDED, Mounts, config_maps, envoy_config, merged, render, rendered_ci, start
from paths import ROOT, TOOLS
from stage import PATIENCE, Node, Stage, tcp

RULES = CHART / "files" / "rules.yaml"
DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
CASES = Path(__file__).parent / "chart" / "rules_test.yaml"
ALERTS: list[Node] = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
GITHUB = "https://github.com/cognito-authz/cognito-authz/blob/main/"


def promtool(*arguments: str | Path, cwd: Path = ROOT) -> str:
    done = run(TOOLS / "promtool", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    for file in (RULES, CASES):
        shutil.copy(file, tmp_path / file.name)
    promtool("test", "rules", CASES.name, cwd=tmp_path)
    fired = set(re.findall(r'labels: \'ALERTS\{alertname="(\w+)"', CASES.read_text()))
    assert fired == {rule["alert"] for rule in ALERTS}, "an alert has no case in which it fires"


def test_the_cases_fail_if_a_rule_changes(tmp_path: Path) -> None:
    shutil.copy(CASES, tmp_path / CASES.name)
    changed = RULES.read_text().replace("_keys) == 0", "_keys) == 1")
    assert changed != RULES.read_text()
    (tmp_path / RULES.name).write_text(changed)
    done = run(TOOLS / "promtool", "test", "rules", CASES.name, cwd=tmp_path)
    assert done.returncode != 0
    assert 'alertname="CognitoAuthzNoKeys"' in done.stdout + done.stderr


def test_each_alert_has_a_description_and_a_runbook() -> None:
    headings = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE))
    assert headings == {rule["alert"] for rule in ALERTS}
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"{GITHUB}docs/alerts.md#{rule['alert'].lower()}"


def test_the_prometheus_rule_is_the_file_with_the_overrides_of_the_values() -> None:
    plain = render(merged(NEEDED, {"metrics": {"prometheusRule": {"enabled": True}}})).one("PrometheusRule")
    assert plain["spec"] == yaml.safe_load(RULES.read_text()), "Helm must not evaluate the braces of Prometheus"
    changed = rendered_ci(CHART / "ci" / "service-monitor-values.yaml").one("PrometheusRule")["spec"]["groups"]
    rules = {rule["alert"]: rule for group in changed for rule in group["rules"]}
    assert set(rules) == {rule["alert"] for rule in ALERTS} - {"CognitoAuthzEnvoyFailsOpen"} | {"Ours"}
    assert (rules["CognitoAuthzSlow"]["for"], rules["CognitoAuthzSlow"]["labels"]) == ("30m", {"severity": "info"})
    assert "expr" in rules["CognitoAuthzSlow"]


# ------------------------------------------------------------------------------------------------ dashboard

def panels() -> list[Node]:
    """All panels, also those inside rows."""
    return [panel for top in DASHBOARD["panels"] for panel in [top, *top.get("panels", [])]]


def queries() -> list[tuple[str, str]]:
    """Title of the panel and expression of each query."""
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", [])]


def without_variables(expression: str) -> str:
    """Replaces the variables of Grafana, which promtool does not know."""
    for name, value in {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$\{?\w+\}?", "x", expression)


def test_promtool_accepts_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:query:{number}", "expr": without_variables(query)}
        for number, (_, query) in enumerate(queries())
    ]
    assert len(rules) > 30
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", tmp_path / "queries.yaml")


def test_the_dashboard_works_in_any_grafana() -> None:
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == "cognito-authz"
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["tags"]
    assert DASHBOARD["title"]
    assert DASHBOARD["description"]
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    for variable in variables.values():
        assert variable["type"] == "datasource" or variable["datasource"] == source
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__range", "__all"}
    assert used == set(variables), "a variable is undefined or unused"
    for panel in panels():
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["datasource"] == source
            assert panel["description"].strip()
            assert panel["targets"]
            assert all(target["datasource"] == source for target in panel["targets"])
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} overlaps {taken.get(cell)}"
            taken[cell] = panel["title"]


def test_the_config_map_contains_the_dashboard_unchanged() -> None:
    config_map = rendered_ci(CHART / "ci" / "service-monitor-values.yaml").one("ConfigMap", "-dashboard")
    assert json.loads(config_map["data"]["cognito-authz.json"]) == DASHBOARD
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config_map["metadata"]["annotations"]["grafana_folder"] == "Security"


# ------------------------------------------------------------------------------------------------ metrics in use

@pytest.fixture(scope="module")
def scraped(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Labels of the series of a running program and of its Envoy, by metric. The account API is on, and a policy is in
    shadow mode."""
    with Stage(binary, tmp_path_factory.mktemp("metrics")) as stage:
        values = merged(NEEDED, {
            "userPool": {"jwksUrl": stage.jwks_url}, "account": {"enabled": True},
            "config": {"policies": {"default": {"mode": "shadow"}, "strict": {}}},
        })
        rendered = render(values)
        pod = rendered.one("Deployment")["spec"]["template"]["spec"]
        mounts = Mounts(pod, rendered.container(), config_maps(rendered.objects), stage.directory / "root")
        authz = start(stage, rendered.container(), mounts)
        authz.child.wait_until("ready", lambda: web.is_ok(f"http://{authz.admin}/readyz"), PATIENCE)
        envoy = stage.envoy(envoy_config(tcp(authz.bound("grpc"))))
        assert web.get(envoy.urls["in"], stage.keys.bearer()).status == 200
        text = web.get(f"http://{authz.admin}/metrics").body.decode()
        text += web.get(f"{envoy.admin}/stats/prometheus").body.decode()
        series: dict[str, list[dict[str, str]]] = {}
        for line in text.splitlines():
            if match := re.match(r"(\w+)(?:\{(.*)\})? ", line):
                series.setdefault(match[1], []).append(dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")))
        yield series


FUNCTIONS = {
    "sum",
    "rate",
    "increase",
    "min",
    "max",
    "max_over_time",
    "count",
    "absent",
    "changes",
    "time",
    "timestamp",
    "histogram_quantile",
    "by",
    "on",
    "and",
    "unless",
    "offset",
}
# Labels of the target, which Prometheus adds.
TARGET = {"namespace", "job", "instance"}


def used(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Metrics in an expression, each with its matchers (label, operator, value)."""
    expression = without_variables(expression)
    grouped = re.sub(r"\b(by|on)\s*\([^)]*\)", "", expression)
    for name, matchers in re.findall(r"\b([a-z_]\w*)\b(?:\{([^}]*)\})?(?!\s*\()", re.sub(r"\[[^]]*\]", "", grouped)):
        if name.startswith(("cognito_authz_", "envoy_", "process_")):
            yield name, re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers)
        else:
            assert name in FUNCTIONS or re.fullmatch(r"\d*[smhd]|x", name), name


def test_every_metric_and_label_in_use_exists(scraped: dict[str, list[dict[str, str]]]) -> None:
    expressions = queries() + [(rule["alert"], rule["expr"]) for rule in ALERTS]
    metrics: set[str] = set()
    for where, expression in expressions:
        for name, matchers in used(expression):
            metrics.add(name)
            assert name in scraped, f"{where}: {name} is not emitted"
            for label, operator, value in matchers:
                if label in TARGET:
                    continue
                values = {one.get(label) for one in scraped[name]}
                assert None not in values, f"{where}: {name} has no label {label}"
                for each in value.split("|") if operator == "=~" else [value]:
                    assert each in values, f"{where}: {label} of {name} is never {each}"
        for labels in re.findall(r"\bby\s*\(([^)]*)\)", expression):
            have = {label for name, _ in used(expression) for one in scraped[name] for label in one}
            assert {label.strip() for label in labels.split(",")} <= have | TARGET, where
    assert len(metrics) > 25


def test_every_metric_of_the_program_is_on_the_dashboard(scraped: dict[str, list[dict[str, str]]]) -> None:
    own = {re.sub(r"_(bucket|sum|count)$", "", name) for name in scraped if name.startswith("cognito_authz_")}
    shown = {re.sub(r"_bucket$", "", name) for _, query in queries() for name, _ in used(query)}
    assert own - shown == set()


def test_every_query_selects_by_the_dashboard_variables() -> None:
    loose: list[Any] = []
    for title, query in queries():
        for name, matchers in used(query):
            wanted = {"namespace"} if name.startswith("envoy_") else TARGET
            if {label for label, _, _ in matchers} & TARGET != wanted:
                loose.append((title, name))
    assert loose == []
