"""A real Prometheus scrapes a running program and its Envoy, evaluates the shipped rules, and fills the dashboard."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dashboard import ALERTS, EVERY_RULE, queries, without_variables
from helm_charts import NEEDED, merged, render
from monitoring import Prometheus, Town
from stage import POOL, Node, Stage, eventually

# Alerts of trouble that the last test makes. Those that wait (`for`) are `pending` meanwhile.
TROUBLE = {
    "CognitoAuthzBudgetBurnsFast",
    "CognitoAuthzBudgetBurnsSlowly",
    "CognitoAuthzEnvoyErrors",
    "CognitoAuthzEnvoyFailsOpen",
    "CognitoAuthzErrors",
    "CognitoAuthzKeyFetchesFail",
    "CognitoAuthzNoKeys",
    "CognitoAuthzPolicyNotReloaded",
    "CognitoAuthzRevocationStoreLost",
    "CognitoAuthzRevocationsNotWritten",
    "CognitoAuthzShadowDenials",
}
# A rule that cannot be evaluated: both sides have several series of each job.
BROKEN = {"record": "broken", "expr": "cognito_authz_checks_total * on (job) cognito_authz_checks_total"}


@pytest.fixture(scope="module")
def town(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Stage(binary, tmp_path_factory.mktemp("prometheus")) as stage:
        yield Town(stage)


@pytest.fixture(scope="module")
def prometheus(town: Town) -> Prometheus:
    """Prometheus with the rules that the chart renders, after a first scrape of all targets.

    A busy machine can need more than the default 0.1 s for a check, so the objective has another bound.
    """
    values: Node = {"metrics": {"prometheusRule": {"enabled": True, "slo": {"seconds": "0.5"}}}}
    groups = render(merged(NEEDED, values)).one("PrometheusRule")["spec"]["groups"]
    running = Prometheus(town.stage, town.targets, [*groups, {"name": "broken", "rules": [BROKEN]}])
    eventually("scraped", lambda: set(running.targets().values()) == {"up"})
    return running


def test_all_targets_are_up(town: Town, prometheus: Prometheus) -> None:
    eventually("up", lambda: prometheus.targets() == dict.fromkeys(town.targets, "up"))
    eventually("recorded", lambda: prometheus.query("up") == [1, 1])


def test_a_normal_day_raises_no_alert_but_that_of_the_shadow_mode(town: Town, prometheus: Prometheus) -> None:
    town.work()
    [before] = prometheus.query("sum(cognito_authz_checks_total)")
    town.work()
    eventually("scraped", lambda: prometheus.query("sum(cognito_authz_checks_total)")[0] >= before + 10)
    eventually("recorded", lambda: prometheus.query("cognito_authz:budget_burn:rate3d") == [0])
    eventually("evaluated", lambda: prometheus.alerts() == {"CognitoAuthzShadowDenials": "pending"})


def test_every_query_of_the_dashboard_returns_data(town: Town, prometheus: Prometheus) -> None:
    def new_pool(policy: Node) -> None:
        """A pool whose keys cannot be fetched: its URL answers 404."""
        missing = town.stage.jwks_url.replace("jwks.json", "missing")
        policy["pools"]["third"] = {"user_pool_id": "eu-west-1_Third0001", "client_ids": "any", "jwks_url": missing}

    town.reload(new_pool)
    guess = {"email": "grace@example.com", "password": "Wrong-battery-1-staple"}
    assert 429 in [town.account("login", **guess) for _ in range(20)]
    wanted = [(title, without_variables(query, interval="1m", value=".*")) for title, query in queries()]

    def without_data() -> list[tuple[str, str]]:
        return [(title, query) for title, query in wanted if all(map(math.isnan, prometheus.query(query)))]

    # Envoy has a series of an application from its first refusal on, so only the second one is an increase.
    town.work()
    eventually("scraped", lambda: prometheus.query("envoy_cluster_ext_authz_denied"))
    town.work()
    with suppress(AssertionError):
        eventually("full", lambda: not without_data())
    assert without_data() == []


def test_trouble_is_noticed(town: Town, prometheus: Prometheus) -> None:
    issuer = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Third0001"
    for _ in range(30):
        assert town.get("/", town.stage.keys.token(iss=issuer)) == 503, "the third pool has no keys"
    for _ in range(5):
        assert town.get("/", listener="fails_open") == 403, "nothing checked it, so RBAC refuses it"
    town.reload(lambda policy: policy.update(polices={}))
    assert town.store.child.stop(1) in (0, -9)
    assert town.account("logout", town.sign_in()) == 503
    eventually("noticed", lambda: prometheus.alerts().keys() >= TROUBLE)
    assert prometheus.alerts()["CognitoAuthzEnvoyFailsOpen"] == "firing"
    # What the trouble does not touch stays silent.
    assert prometheus.alerts().keys() <= TROUBLE | {"CognitoAuthzDenialsJumped"}


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    eventually("evaluated", lambda: "unknown" not in {rule["health"] for rule in prometheus.rules()})
    health = {rule["name"]: (rule["health"], bool(rule.get("lastError"))) for rule in prometheus.rules()}
    assert health.pop("broken") == ("err", True), "a rule that fails would not be noticed"
    assert health == {rule.get("alert") or rule["record"]: ("ok", False) for rule in EVERY_RULE}
    assert len(health) > len(ALERTS)


def test_a_query_without_data_would_be_noticed(prometheus: Prometheus) -> None:
    assert prometheus.query("cognito_authz_checks_totals") == []
    assert prometheus.query(f'cognito_authz_jwks_keys{{pool="{POOL}"}}') == [], "pools have names, not ids"
