"""The chart's objects for Envoy Gateway: values can create what deploy/envoy-gateway has. The tests only render."""

from __future__ import annotations

import copy
import re
from typing import Any

import helm_python as helm
import pytest
import yaml

from helm_charts import CHART, CI, NEEDED, Rendered, merged, nested, render, rendered_ci
from manifests import DEPLOY, documents, find
from stage import Node

EXAMPLE = DEPLOY / "envoy-gateway"
GROUP = "gateway.networking.k8s.io"
INGRESS = {"group": GROUP, "kind": "Gateway", "name": "ingress"}
ORIGINS = ["https://app.example.com"]
ON: Node = merged(NEEDED, {"envoyGateway": {"securityPolicy": {
    "enabled": True, "namespace": "ingress", "targetRefs": [INGRESS]}}})
ADMIN = {"namespace": "shop", "policy": "admin", "targetRefs": [{"group": GROUP, "kind": "HTTPRoute", "name": "admin"}]}
ROUTE = {"name": "health", "namespace": "shop", "hostnames": ["shop.example.com"], "paths": ["/healthz"],
         "backend": {"name": "application", "port": 3000}}
GATEWAYS = CHART / "ci" / "envoy-gateway-gateways-values.yaml"


def with_gateway(**values: Any) -> Node:
    return merged(ON, {"envoyGateway": values})


def checks(rendered: Rendered) -> list[Node]:
    return [one for one in rendered.of("SecurityPolicy") if "extAuth" in one["spec"]]


# ------------------------------------------------------------------------------------- the same as deploy/envoy-gateway

def test_the_security_policies_are_those_of_the_example() -> None:
    rendered = render(with_gateway(securityPolicy={"corsOrigins": ORIGINS, "additionalTargets": [ADMIN]}))
    examples = [find(documents(EXAMPLE / f"{file}.yaml"), "SecurityPolicy", name)
                for file, name in (("security-policy", "cognito-authz"), ("admin", "cognito-authz-admin"))]
    for ours, example in zip(checks(rendered), examples, strict=True):
        wanted = copy.deepcopy(example["spec"])
        [backend] = wanted["extAuth"]["grpc"]["backendRefs"]
        backend |= {"name": "rel-cognito-authz", "namespace": "ns"}
        assert ours["spec"] == wanted
        assert ours["metadata"]["namespace"] == example["metadata"]["namespace"]


def test_the_client_traffic_policy_is_that_of_the_example() -> None:
    [example] = documents(EXAMPLE / "client-traffic-policy.yaml")
    ours = render(ON).one("ClientTrafficPolicy")
    assert ours["spec"] == example["spec"]
    assert ours["metadata"]["namespace"] == example["metadata"]["namespace"]
    # Of the values that Envoy Gateway knows: with another one, the API server refuses the whole policy.
    assert ours["spec"]["path"]["escapedSlashesAction"] == "UnescapeAndRedirect"


def test_a_grant_names_every_namespace_in_a_version_that_old_gateway_apis_serve() -> None:
    grant = rendered_ci(GATEWAYS).one("ReferenceGrant")
    assert grant["apiVersion"] == f"{GROUP}/v1beta1"
    assert [one["namespace"] for one in grant["spec"]["from"]] == ["ingress", "partners", "shop"]
    assert grant["spec"]["to"] == [{"group": "", "kind": "Service", "name": "rel-cognito-authz"}]
    assert render(with_gateway(securityPolicy={"namespace": ""})).of("ReferenceGrant") == []


# ------------------------------------------------------------------------------------------------ forged headers

def test_protection_is_on_unless_it_is_switched_off() -> None:
    assert render(NEEDED).of("ClientTrafficPolicy") == []
    assert len(render(ON).of("ClientTrafficPolicy")) == 1
    off = render(with_gateway(clientTrafficPolicy={"enabled": False}))
    assert off.of("ClientTrafficPolicy") == []
    assert any("clientTrafficPolicy.enabled is off" in one for one in off.warnings())


def test_every_gateway_removes_identity_headers() -> None:
    rendered = rendered_ci(GATEWAYS)
    traffic = {one["metadata"]["namespace"]: one["spec"] for one in rendered.of("ClientTrafficPolicy")}
    assert {name: spec["targetRefs"] for name, spec in traffic.items()} == {
        "ingress": [INGRESS], "partners": [{**INGRESS, "name": "partners", "sectionName": "https"}]}
    for spec in traffic.values():
        assert spec["clientIPDetection"] == {"xForwardedFor": {"numTrustedHops": 1}}
        assert spec["headers"]["enableEnvoyHeaders"] is True
        assert spec["headers"]["withUnderscoresAction"] == "RejectRequest"
        matchers = spec["headers"]["earlyRequestHeaders"]["removeOnMatch"]
        assert {one["type"] for one in matchers} == {"RegularExpression"}

        def removed(name: str, patterns: tuple[str, ...] = tuple(one["value"] for one in matchers)) -> bool:
            return any(re.fullmatch(pattern, name) for pattern in patterns)

        for name in ("x-user-sub", "x_user.sub", "x-user-tier", "x-tenant", "x.tenant", "x_tenant"):
            assert removed(name), name
        for name in ("authorization", "x-auth-sub", "x-tenants", "my-x-tenant"):
            assert not removed(name), name
        assert len(matchers) == 2, "x-user-tier is below the prefix"


def test_additional_settings_do_not_replace_the_protection() -> None:
    extra = {"headers": {"withUnderscoresAction": "Allow", "earlyRequestHeaders": {"remove": ["x-a"]}},
             "path": {"escapedSlashesAction": "KeepUnchanged"}, "http2": {"maxConcurrentStreams": 7}}
    spec = render(with_gateway(clientTrafficPolicy={"extraSpec": extra})).one("ClientTrafficPolicy")["spec"]
    assert spec["http2"] == {"maxConcurrentStreams": 7}
    assert spec["headers"]["withUnderscoresAction"] == "RejectRequest"
    assert spec["headers"]["earlyRequestHeaders"]["remove"] == ["x-a"]
    assert len(spec["headers"]["earlyRequestHeaders"]["removeOnMatch"]) == 1
    assert spec["path"]["escapedSlashesAction"] == "UnescapeAndRedirect"


def test_a_credential_in_another_header_is_sent() -> None:
    config = {"policies": {"a": {"from": {"header": "X-Token"}}, "b": {"from": {"websocket_protocol": "bearer"}}},
              "default": "a"}
    [policy] = checks(render(merged(ON, {"config": config})))
    assert policy["spec"]["extAuth"]["headersToExtAuth"][-2:] == ["sec-websocket-protocol", "x-token"]


# ------------------------------------------------------------------------------------------------ exceptions

@pytest.mark.parametrize("path", CI, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_a_route_without_a_check_names_its_hosts(path: Any) -> None:
    """Without hosts, or with a pattern, an exception for one host would open another."""
    rendered = rendered_ci(path)
    for policy in (one for one in rendered.of("SecurityPolicy") if "extAuth" not in one["spec"]):
        assert policy["spec"]["authorization"] == {"defaultAction": "Allow"}
        [target] = policy["spec"]["targetRefs"]
        route = find(rendered.objects, target["kind"], target["name"], policy["metadata"]["namespace"])
        assert route["spec"]["hostnames"]
        assert not [host for host in route["spec"]["hostnames"] if "*" in host]


def test_a_public_route_is_for_its_hosts_and_exact_paths() -> None:
    rendered = render(with_gateway(publicRoutes=[ROUTE]))
    route = rendered.one("HTTPRoute", "-public-health")
    assert route["metadata"]["namespace"] == "shop"
    assert route["spec"] == {
        "parentRefs": [{"name": "ingress", "namespace": "ingress"}], "hostnames": ["shop.example.com"],
        "rules": [{"matches": [{"path": {"type": "Exact", "value": "/healthz"}}],
                   "backendRefs": [{"name": "application", "port": 3000}]}]}
    policy = rendered.one("SecurityPolicy", "-public-health")
    assert policy["metadata"]["namespace"] == "shop"
    assert policy["spec"]["targetRefs"] == [{"group": GROUP, "kind": "HTTPRoute", "name": route["metadata"]["name"]}]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"account": {"enabled": True, "httpRoute": {"enabled": True, "parentRefs": [{"name": "ingress"}]}}},
         "account.httpRoute.hostnames: required"),
        (nested("envoyGateway.securityPolicy.targetRefs", ADMIN["targetRefs"]), "clientTrafficPolicy.gateways: name"),
        ({"envoyGateway": {"securityPolicy": {"targetRefs": ADMIN["targetRefs"]}, "publicRoutes": [ROUTE],
                           "clientTrafficPolicy": {"enabled": False}}}, "clientTrafficPolicy.gateways: name"),
        (nested("envoyGateway.securityPolicy.targetRefs", []), "securityPolicy.targetRefs: name the Gateway"),
        ({"envoyGateway": {"securityPolicy": {"enabled": False}, "publicRoutes": [ROUTE]}}, "have no effect"),
        ({"envoyGateway": {"securityPolicy": {"enabled": False, "additionalTargets": [ADMIN]}}}, "have no effect"),
    ],
)
def test_contradictions_are_rejected(values: Node, said: str) -> None:
    with pytest.raises(helm.HelmRenderError) as refused:
        render(merged(ON, values))
    assert said in str(refused.value)


def test_the_account_api_may_be_for_every_host_if_that_is_said() -> None:
    route = {"enabled": True, "parentRefs": [{"name": "ingress"}], "anyHost": True}
    rendered = render(merged(ON, {"account": {"enabled": True, "httpRoute": route}}))
    assert "hostnames" not in rendered.one("HTTPRoute")["spec"]
    assert rendered.one("SecurityPolicy", "-account")


def test_settings_of_the_check_reach_the_policy() -> None:
    path = CHART / "ci" / "envoy-gateway-own-values.yaml"
    given = yaml.safe_load(path.read_text())["envoyGateway"]["securityPolicy"]
    [policy] = checks(rendered_ci(path))
    spec = policy["spec"]["extAuth"]
    for name in ("timeout", "statusOnError", "headersToExtAuth"):
        assert spec[name] == given[name]
    assert spec["grpc"]["backendSettings"]["retry"]["numRetries"] == 2
    assert spec["grpc"]["backendSettings"]["loadBalancer"] == {"type": "RoundRobin"}, "other settings stay"
