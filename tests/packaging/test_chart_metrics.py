"""Alerts and dashboard: promtool accepts and tests them, and they use only metrics that the program and Envoy emit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import web
from commands import run
from dashboard import ALERTS, DASHBOARD, EVERY_RULE, RECORDS, RULES, TARGET, panels, queries, used, without_variables
from document_commands import TROUBLESHOOTING
from helm_charts import CHART, NEEDED, merged, render, rendered_ci
from monitoring import Town, series
from paths import ROOT, TOOLS
from stage import Stage

CASES = Path(__file__).parent / "chart" / "rules_test.yaml"
DAYS = CASES.with_name("rules_days_test.yaml")
Series = dict[str, list[dict[str, str]]]
GITHUB = "https://github.com/cognito-authz/cognito-authz/blob/main/"


def promtool(*arguments: str | Path, cwd: Path = ROOT) -> str:
    done = run(TOOLS / "promtool", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    assert f"{len(EVERY_RULE)} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    for file in (RULES, CASES, DAYS):
        shutil.copy(file, tmp_path / file.name)
    for cases in (CASES, DAYS):
        promtool("test", "rules", cases.name, cwd=tmp_path)
    fired = set(re.findall(r'labels: \'ALERTS\{alertname="(\w+)"', CASES.read_text() + DAYS.read_text()))
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
    headings = set(re.findall(r"^## (CognitoAuthz\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE))
    assert headings == {rule["alert"] for rule in ALERTS}
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"{GITHUB}docs/alerts.md#{rule['alert'].lower()}"


def test_the_prometheus_rule_is_the_file_with_the_overrides_of_the_values() -> None:
    plain = render(merged(NEEDED, {"metrics": {"prometheusRule": {"enabled": True}}})).one("PrometheusRule")
    assert plain["spec"] == yaml.safe_load(RULES.read_text()), "Helm must not evaluate the braces of Prometheus"
    changed = rendered_ci(CHART / "ci" / "service-monitor-values.yaml").one("PrometheusRule")["spec"]["groups"]
    rules = {rule.get("alert") or rule["record"]: rule for group in changed for rule in group["rules"]}
    names = {rule["alert"] for rule in ALERTS} | {rule["record"] for rule in RECORDS}
    assert set(rules) == names - {"CognitoAuthzEnvoyFailsOpen"} | {"Ours"}
    assert (rules["CognitoAuthzSlow"]["for"], rules["CognitoAuthzSlow"]["labels"]) == ("30m", {"severity": "info"})
    assert "expr" in rules["CognitoAuthzSlow"]


def test_the_values_change_the_objective_everywhere() -> None:
    slo = {"objective": 99.95, "seconds": "0.025"}
    values = merged(NEEDED, {"metrics": {"prometheusRule": {"enabled": True, "slo": slo}}})
    [group] = [one for one in render(values).one("PrometheusRule")["spec"]["groups"] if one["name"].endswith(".slo")]
    changed = [rule["expr"] for rule in group["rules"] if "record" in rule]
    assert changed == [
        rule["expr"].replace('le="0.1"', 'le="0.025"').replace("/ 0.001", "/ 0.0005") for rule in RECORDS
    ]
    assert len(changed) == 7
    text = "".join(changed)
    assert (text.count('le="0.025"'), text.count("/ 0.0005")) == (7, 7)
    others = [one for one in render(values).one("PrometheusRule")["spec"]["groups"] if one != group]
    assert others == yaml.safe_load(RULES.read_text())["groups"][1:]


def test_the_objective_can_have_each_bound_below_a_second(scraped: Series) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    slo = schema["properties"]["metrics"]["properties"]["prometheusRule"]["properties"]["slo"]["properties"]
    bounds = {one["le"] for one in scraped["cognito_authz_check_duration_seconds_bucket"]}
    assert set(slo["seconds"]["enum"]) == {bound for bound in bounds if 0.001 <= float(bound) < 1}


# ------------------------------------------------------------------------------------------------ dashboard

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
    named = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__range", "__all"}
    assert named == set(variables), "a variable is undefined or unused"
    for panel in panels():
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["datasource"] == source
            assert panel["description"].strip()
            assert panel["targets"]
            assert all(target["datasource"] == source for target in panel["targets"])
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_rows_and_panels_that_the_documents_name_exist() -> None:
    titles = {panel["title"] for panel in panels()}
    named: set[str] = set()
    for document in ["docs/alerts.md", *TROUBLESHOOTING]:
        text = " ".join((ROOT / document).read_text().split())
        named |= set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", text))
    assert named - titles == set(), "no panel or row has this title"
    assert {panel["title"] for panel in panels() if panel["type"] == "row"} <= named


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
def scraped(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Labels of the series of a running program with everything on, and of its Envoy, by metric."""
    with Stage(binary, tmp_path_factory.mktemp("metrics")) as stage:
        town = Town(stage)
        town.work()
        pages = [web.get(f"http://{address}{path}").body.decode() for address, path in town.targets.values()]
        return series("".join(pages))


def test_every_metric_and_label_in_use_exists(scraped: Series) -> None:
    records = {rule["record"] for rule in RECORDS}
    expressions = queries() + [(rule.get("alert") or rule["record"], rule["expr"]) for rule in EVERY_RULE]
    metrics: set[str] = set()
    for where, expression in expressions:
        for name, matchers in used(expression):
            metrics.add(name)
            if ":" in name:
                assert name in records, f"{where}: no rule records {name}"
                continue
            assert name in scraped, f"{where}: {name} is not emitted"
            for label, operator, value in matchers:
                # A variable of the dashboard has any value.
                if label in TARGET or value == "x":
                    continue
                values = {one.get(label) for one in scraped[name]}
                assert None not in values, f"{where}: {name} has no label {label}"
                for each in value.split("|") if operator == "=~" else [value]:
                    found = any(re.fullmatch(each, one or "") if operator == "=~" else each == one for one in values)
                    assert found, f"{where}: {label} of {name} is never {each}"
        for labels in re.findall(r"\bby\s*\(([^)]*)\)", expression):
            have = {label for name, _ in used(expression) for one in scraped.get(name, []) for label in one}
            assert {label.strip() for label in labels.split(",")} <= have | TARGET, where
    assert len(metrics) > 25


def test_every_metric_of_the_program_is_on_the_dashboard(scraped: Series) -> None:
    own = {re.sub(r"_(bucket|sum|count)$", "", name) for name in scraped if name.startswith("cognito_authz_")}
    shown = {re.sub(r"_bucket$", "", name) for _, query in queries() for name, _ in used(query)}
    assert own - shown == set()


def test_every_query_selects_by_the_dashboard_variables() -> None:
    loose: list[Any] = []
    for title, query in queries():
        for name, matchers in used(query):
            wanted = TARGET - {"instance"} if ":" in name else {"namespace"} if name.startswith("envoy_") else TARGET
            if {label for label, _, _ in matchers} & TARGET != wanted:
                loose.append((title, name))
    assert loose == []
