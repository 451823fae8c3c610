"""Notes of the chart cognito-authz: they warn about what is not switched on, in short lines, and only if it applies."""

from __future__ import annotations

import re
from typing import Any

import pytest

from helm_charts import NEEDED, merged, render
from stage import Node

GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "ingress"}
PROXIES = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]
TLS: Node = {"tls": {"existingSecret": "certificate"}}
# Everything that the notes mention is switched on.
QUIET: Node = merged(NEEDED, {
    "networkPolicy": {"grpcFrom": PROXIES, "metricsFrom": PROXIES}, "admin": {"tokenSecret": {"name": "operators"}},
    "metrics": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}, **TLS})
ISTIO: Node = {"istio": {
    "authorizationPolicy": {"enabled": True, "namespace": "ingress", "targetRefs": [GATEWAY]},
    "destinationRule": {"trafficPolicy": {"tls": {"mode": "SIMPLE"}}}}}
ENVOY_GATEWAY: Node = {"envoyGateway": {
    "securityPolicy": {"enabled": True, "namespace": "ingress", "targetRefs": [GATEWAY]},
    "backendTlsPolicy": {"enabled": True, "caConfigMap": "ca"}}}
ACCOUNT: Node = {
    "account": {"enabled": True, "trustedHops": 0, "httpRoute": {
        "enabled": True, "parentRefs": [{"name": "ingress"}], "hostnames": ["shop.example.com"]}},
    "revocation": {"url": "rediss://valkey", "existingSecret": {"name": "valkey"}}}
PUBLIC: Node = {"config": {"policies": {"members": {}, "open": {"public": True}}, "default": "members"}}


def public(**route: str) -> Node:
    return merged(PUBLIC, {"config": {"routes": [{"policy": "open", **route}]}})


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"podDisruptionBudget": {"enabled": False}}, "podDisruptionBudget.enabled is off"),
        ({"networkPolicy": {"enabled": False}}, "networkPolicy.enabled is off"),
        (merged(ACCOUNT, {"revocation": {"url": "", "existingSecret": {"name": ""}}}), "revocation.url is not set"),
        (merged(ISTIO, {"istio": {"secondLine": {"enabled": False}}}), "istio.secondLine.enabled is off"),
        (merged(ISTIO, {"istio": {"envoyFilter": {"enabled": False}}}), "istio.envoyFilter.enabled is off"),
        (merged(ISTIO, {"istio": {"destinationRule": {"enabled": False}}}), "but tls.grpc is tls"),
        (merged(ISTIO, ACCOUNT), "istio.authorizationPolicy.accountHosts is empty, and config has no public policy"),
        (merged(merged(ISTIO, ACCOUNT), merged(PUBLIC, {"account": {"cookies": {"enabled": True}}})),
         "a check removes session cookies"),
        (merged(ISTIO, public(path="/healthz")), "/healthz of EVERY host"),
        (merged(ENVOY_GATEWAY, public(path_prefix="/assets")), "/assets of EVERY host"),
        (merged(ENVOY_GATEWAY, {"envoyGateway": {"clientTrafficPolicy": {"enabled": False}}}),
         "envoyGateway.clientTrafficPolicy.enabled is off"),
        (merged(ENVOY_GATEWAY, {"envoyGateway": {"backendTlsPolicy": {"enabled": False}}}),
         "envoyGateway.backendTlsPolicy.enabled is off, but tls.grpc is tls"),
    ],
)
def test_each_missing_protection_causes_one_warning(extra: Node, said: str) -> None:
    [warning] = render(merged(QUIET, extra)).warnings()
    assert said in warning


@pytest.mark.parametrize(
    "extra",
    [
        {},
        ISTIO,
        ENVOY_GATEWAY,
        merged(merged(ISTIO, ACCOUNT), PUBLIC),
        merged(merged(ISTIO, ACCOUNT), {"istio": {"authorizationPolicy": {"accountHosts": ["shop.example.com"]}}}),
        merged(merged(ISTIO, ACCOUNT), {"existingConfigMap": {"name": "rules"}}),
        merged(ENVOY_GATEWAY, ACCOUNT),
        merged(ISTIO, public(path="/healthz", host="shop.example.com")),
        public(path="/healthz"),
        {"istio": {"secondLine": {"enabled": False}, "envoyFilter": {"enabled": False}}},
        {"envoyGateway": {"clientTrafficPolicy": {"enabled": False}}},
    ],
)
def test_what_does_not_apply_causes_no_line(extra: Node) -> None:
    rendered = render(merged(QUIET, extra))
    assert rendered.warnings() == []
    assert rendered.switched_off() == []
    assert "Not switched on" not in rendered.notes


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"admin": {"tokenSecret": {"name": ""}}}, "admin.tokenSecret"),
        ({"metrics": {"serviceMonitor": {"enabled": False}}}, "metrics.serviceMonitor, metrics.podMonitor"),
        ({"metrics": {"prometheusRule": {"enabled": False}}}, "metrics.prometheusRule"),
        ({"tls": {"existingSecret": ""}}, "tls"),
    ],
)
def test_what_is_not_switched_on_is_listed(extra: Node, said: str) -> None:
    [line] = render(merged(QUIET, extra)).switched_off()
    assert line.startswith(f"{said}: ")
    monitored = merged(extra, {"metrics": {"serviceMonitor": {"enabled": False}, "podMonitor": {"enabled": True}}})
    assert not [one for one in render(merged(QUIET, monitored)).switched_off() if "serviceMonitor" in one]


@pytest.mark.parametrize("extra", [{}, ISTIO, merged(TLS, ENVOY_GATEWAY), merged(ISTIO, ACCOUNT)])
def test_lines_are_short(extra: Node) -> None:
    rendered = render(merged(NEEDED, extra))
    lines = rendered.warnings() + rendered.switched_off()
    assert lines
    assert all(len(line) <= 250 for line in lines), lines
    assert not re.search(r"\n\n\n", rendered.notes)


@pytest.mark.parametrize(
    ("extra", "shown", "hidden"),
    [
        ({}, ["Envoy: add a cluster", "set envoyGateway.securityPolicy.enabled", "extensionProviders"], ["done, with"]),
        (ISTIO, ["extensionProviders"], ["Envoy: add a cluster", "envoyGateway", "and set istio"]),
        (ENVOY_GATEWAY, ["done, with SecurityPolicy ingress/rel-cognito-authz"], ["Envoy: add", "extensionProviders"]),
    ],
)
def test_the_next_steps_are_those_of_the_proxies_in_use(extra: Node, shown: list[str], hidden: list[str]) -> None:
    notes: Any = render(merged(QUIET, extra)).notes
    assert [text for text in shown if text not in notes] == []
    assert [text for text in hidden if text in notes] == []
