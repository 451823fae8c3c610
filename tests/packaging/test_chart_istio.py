"""The chart's objects for Istio: values can create what deploy/istio has, and a real Envoy does what they say.

Istio itself does not run here; istio.py does its part.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

import web
from bootstrap import EXT_AUTHZ, validate
from helm_charts import CHART, NEEDED, Rendered, merged, nested, render, rendered_ci
from istio import ISTIO, OTHER, SHOP, generated_bootstrap, provider
from manifests import documents, find
from stage import Envoy, Node, Stage
from test_manifests_istio import gateway

TARGET = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "ingress"}
ON: Node = merged(NEEDED, {"istio": {"authorizationPolicy": {
    "enabled": True, "namespace": "ingress", "targetRefs": [TARGET]}}})
SELECTED: Node = merged(NEEDED, {"istio": {"authorizationPolicy": {
    "enabled": True, "namespace": "shop", "selector": {"matchLabels": {"app": "application"}}}}})
ACCOUNT: Node = {"account": {"enabled": True}, "istio": {"authorizationPolicy": {"accountHosts": [SHOP]}}}
GATEWAYS = CHART / "ci" / "istio-gateways-values.yaml"


def with_istio(**policy: Any) -> Node:
    return merged(ON, {"istio": {"authorizationPolicy": policy}})


def policies(rendered: Rendered) -> list[Node]:
    """The CUSTOM and the DENY policy of the first target."""
    found = [find(rendered.objects, "AuthorizationPolicy", name)
             for name in ("rel-cognito-authz", "rel-cognito-authz-second-line")]
    assert [one["spec"]["action"] for one in found] == ["CUSTOM", "DENY"]
    return found


def patches(filters: list[Node], context: str) -> list[Node]:
    """Patches for a context, without the context."""
    found = [copy.deepcopy(patch) for one in filters for patch in one["spec"]["configPatches"]
             if patch["match"]["context"] == context]
    for patch in found:
        del patch["match"]["context"]
    return found


# --------------------------------------------------------------------------------------------- the same as deploy/istio

def test_the_policies_are_those_of_the_example() -> None:
    ours = policies(render(merged(ON, ACCOUNT)))
    assert [one["spec"] for one in ours] == [one["spec"] for one in documents(ISTIO / "authorization-policy.yaml")]
    sidecar = policies(render(SELECTED))
    theirs = [one["spec"] for one in documents(ISTIO / "sidecar" / "authorization-policy.yaml")]
    theirs[0]["provider"] = {"name": "cognito-authz"}
    assert [one["spec"] for one in sidecar] == theirs


def test_the_patches_are_those_of_the_example() -> None:
    ours = render(merged(ON, {"istio": {"envoyFilter": {"corsOrigins": ["https://app.example.com"]}}})).of("EnvoyFilter")
    assert patches(ours, "GATEWAY") == patches(documents(ISTIO / "envoy-filter.yaml"), "GATEWAY")
    # In a pod, the example has only one socket to ask. The chart's service has several pods, so it retries.
    [sidecar] = documents(ISTIO / "sidecar" / "envoy-filter.yaml")
    found = patches(render(SELECTED).of("EnvoyFilter"), "SIDECAR_INBOUND")
    for patch in found:
        patch["patch"]["value"]["typed_config"].pop("grpc_service", None)
    assert found == patches([sidecar], "SIDECAR_INBOUND")


def test_the_service_is_reached_as_in_the_example() -> None:
    rendered = render(merged(ON, {"istio": {"mesh": {"enabled": True}}, "account": {"enabled": True}}))
    example = documents(ISTIO / "service.yaml")
    own = {"matchLabels": {"app.kubernetes.io/name": "cognito-authz", "app.kubernetes.io/instance": "rel"}}
    rule = copy.deepcopy(find(example, "DestinationRule", "cognito-authz")["spec"])
    rule["host"] = "rel-cognito-authz.ns.svc.cluster.local"
    assert rendered.one("DestinationRule")["spec"] == rule
    for kind, name, suffix in (("PeerAuthentication", "cognito-authz", ""),
                               ("AuthorizationPolicy", "cognito-authz-callers", "-callers")):
        wanted = find(example, kind, name)["spec"] | {"selector": own}
        assert rendered.one(kind, suffix)["spec"] == wanted
    [istiod] = find(example, "NetworkPolicy", "cognito-authz-istio")["spec"]["egress"]
    istiod["ports"][0]["protocol"] = "TCP"
    assert istiod in rendered.one("NetworkPolicy")["spec"]["egress"]
    assert istiod not in render(ON).one("NetworkPolicy")["spec"]["egress"]


# ------------------------------------------------------------------------------------------------ values

def test_protection_is_on_unless_it_is_switched_off() -> None:
    assert not {one["kind"] for one in render(NEEDED).objects} & {
        "AuthorizationPolicy", "EnvoyFilter", "DestinationRule", "PeerAuthentication"}
    rendered = render(ON)
    kinds = ("AuthorizationPolicy", "EnvoyFilter", "DestinationRule")
    assert [len(rendered.of(kind)) for kind in kinds] == [2, 1, 1]
    for switch, kind, rest in (("secondLine", "AuthorizationPolicy", 1), ("envoyFilter", "EnvoyFilter", 0),
                               ("destinationRule", "DestinationRule", 0)):
        assert len(render(merged(ON, {"istio": {switch: {"enabled": False}}})).of(kind)) == rest


def test_every_target_gets_all_objects() -> None:
    rendered = rendered_ci(GATEWAYS)
    values = yaml.safe_load(GATEWAYS.read_text())["istio"]["authorizationPolicy"]
    targets = [values, *values["additionalTargets"]]
    names: set[tuple[str, str, str]] = set()
    for number, target in enumerate(targets, start=1):
        suffix = "" if number == 1 else f"-{number}"
        custom, deny, patch = (find(rendered.objects, kind, f"rel-cognito-authz{suffix}{end}", target["namespace"])
                               for kind, end in (("AuthorizationPolicy", ""), ("AuthorizationPolicy", "-second-line"),
                                                 ("EnvoyFilter", "")))
        for policy in (custom, deny):
            assert policy["spec"].get("selector") == target.get("selector")
            assert policy["spec"].get("targetRefs") == target.get("targetRefs")
        assert patch["spec"].get("targetRefs") == target.get("targetRefs")
        labels = target.get("selector", {}).get("matchLabels")
        assert patch["spec"].get("workloadSelector") == (labels and {"labels": labels})
        [checked], [denied] = custom["spec"]["rules"], deny["spec"]["rules"]
        assert checked["to"] == denied["to"]
        names |= {(one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]) for one in (custom, deny, patch)}
    assert len(names) == 6
    callers = rendered.one("AuthorizationPolicy", "-callers")["spec"]["rules"][0]["from"][0]["source"]["notNamespaces"]
    assert callers == ["ingress", "jobs", "partners"]


def test_exceptions_are_for_their_hosts_only() -> None:
    [rule] = policies(rendered_ci(GATEWAYS))[0]["spec"]["rules"]
    operations = [to["operation"] for to in rule["to"]]
    assert operations[0] == {"notHosts": ["other.example.com", "shop.example.com"]}
    by_host = {operation["hosts"][0]: operation["notPaths"] for operation in operations[1:]}
    assert all(len(operation["hosts"]) == 1 for operation in operations[1:])
    assert by_host["other.example.com"] == ["/healthz", "/webhook"]
    assert set(by_host["shop.example.com"]) > {"/healthz", "/auth/login"}
    assert "/webhook" not in by_host["shop.example.com"]
    assert "/auth/login" not in by_host["other.example.com"]
    prefixed = render(merged(merged(ON, ACCOUNT), {"account": {"prefix": "/users/"}}))
    assert "/users/login" in policies(prefixed)[0]["spec"]["rules"][0]["to"][1]["operation"]["notPaths"]


def test_own_rules_get_the_condition_of_the_second_line() -> None:
    rules: list[Node] = [{"to": [{"operation": {"ports": ["3000"]}}]},
                         {"when": [{"key": "source.ip", "values": ["10.0.0.0/8"]}]}]
    first, second = policies(render(with_istio(rules=rules)))
    assert first["spec"]["rules"] == rules
    undecided = {"key": "experimental.envoy.filters.http.ext_authz[decision]", "notValues": ["allow"]}
    assert [one["when"] for one in second["spec"]["rules"]] == [[undecided], [*rules[1]["when"], undecided]]
    assert [one.get("to") for one in second["spec"]["rules"]] == [rules[0]["to"], None]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("istio.authorizationPolicy.exceptions", [{"hosts": [SHOP], "paths": ["/a"]}], "exclude rules"),
        ("istio.authorizationPolicy.accountHosts", [SHOP], "requires account.enabled"),
        ("istio.authorizationPolicy.targetRefs", [{"group": "", "kind": "Service", "name": "a"}], "waypoints"),
        ("istio.authorizationPolicy.selector", {"matchLabels": {"a": "b"}}, "exclude each other"),
    ],
)
def test_contradictions_are_rejected(path: str, value: Any, said: str) -> None:
    values = merged(ON, nested(path, value))
    if said == "exclude rules":
        values["istio"]["authorizationPolicy"]["rules"] = [{"to": [{"operation": {"paths": ["/b"]}}]}]
    with pytest.raises(helm.HelmRenderError) as refused:
        render(values)
    assert said in str(refused.value)


def test_settings_without_effect_are_rejected() -> None:
    for policy in ({"accountHosts": [SHOP]}, {"exceptions": [{"hosts": [SHOP], "paths": ["/a"]}]}):
        with pytest.raises(helm.HelmRenderError, match="have no effect"):
            render(merged(NEEDED, {"account": {"enabled": True}, "istio": {"authorizationPolicy": policy}}))
    with pytest.raises(helm.HelmRenderError, match=r"istio\.mesh\.callers"):
        render(merged(NEEDED, {"istio": {"mesh": {"enabled": True}}}))
    service = [{"group": "", "kind": "Service", "name": "a"}]
    off = merged(with_istio(targetRefs=service), {"istio": {"envoyFilter": {"enabled": False}}})
    assert render(off).of("EnvoyFilter") == []


# ------------------------------------------------------------------------------------------------ a real Envoy

@pytest.fixture
def stage(binary: Path, tmp_path: Path) -> Iterator[Stage]:
    with Stage(binary, tmp_path) as running:
        yield running


def test_envoy_accepts_what_every_example_renders(tmp_path: Path) -> None:
    for number, values in enumerate((yaml.safe_load(GATEWAYS.read_text()), ON, SELECTED)):
        rendered = render(values)
        for context in ("GATEWAY", "SIDECAR_INBOUND"):
            bootstrap = generated_bootstrap(
                policies(rendered), rendered.of("EnvoyFilter")[:1], context, provider("cognito-authz"))
            validate(bootstrap.write(tmp_path / f"{number}-{context}.json"))


def headers_at(envoy: Envoy, listener: str, path: str, host: str, *sent: tuple[str, str]) -> tuple[int, Node]:
    answer = web.get(envoy.urls[listener] + path, [("host", host), *sent])
    seen = dict(map(tuple, answer.json()["headers"])) if answer.status == 200 else {}
    return answer.status, seen


def test_forged_headers_stay_out_and_exceptions_open_one_host(stage: Stage) -> None:
    """An installation with an exception, a header outside the prefix, and a credential in a header of its own."""
    values = merged(yaml.safe_load(GATEWAYS.read_text()), {"istio": {"authorizationPolicy": {
        "exceptions": [{"hosts": [SHOP], "paths": ["/healthz"]}]}}})
    values["config"]["default"] = "tenants"
    rendered = render(values)
    policy_file = stage.directory / "policy.yaml"
    policy_file.write_text(rendered.one("ConfigMap")["data"]["policy.yaml"])
    authz = stage.authz("authz", "--account-listen", "127.0.0.1:0", "--config", policy_file, "--account-cookies")
    filters = [one for one in rendered.of("EnvoyFilter") if one["metadata"]["namespace"] == "ingress"]
    bootstrap = generated_bootstrap(policies(rendered), filters, "GATEWAY", provider("cognito-authz"))
    bootstrap.copy_listener("ingress_tcp", "no_custom")
    bootstrap.remove_filter("no_custom", EXT_AUTHZ)
    envoy = gateway(stage, authz, bootstrap)
    envoy.wait_for("cognito_authz_tcp", 1)
    forged = [("x-auth-sub", "root"), ("X-Tenant", "other"), ("x.tenant", "other"), ("x-tier", "9")]
    token = dict(stage.keys.bearer(**{"custom:tenant": "acme"}))["authorization"].removeprefix("Bearer ")

    # This path is excepted: Envoy does not ask cognito-authz.
    status, seen = headers_at(envoy, "ingress_tcp", "/healthz", SHOP, *forged)
    assert status == 200
    assert not {name for name in seen if name.startswith(("x-auth-", "x-t", "x."))}
    closed = (("/healthz", OTHER), ("/healthz/", SHOP), ("/webhook", SHOP), ("/auth/login", OTHER), ("/", SHOP))
    for path, host in closed:
        assert headers_at(envoy, "ingress_tcp", path, host)[0] == 401, (path, host)
    status, seen = headers_at(envoy, "ingress_tcp", "/orders", SHOP, ("x-token", token), *forged)
    assert (status, seen["x-auth-sub"], seen["x-tenant"], seen["x-tier"]) == (200, "ada", "acme", "1")
    # Without the first policy, the second one denies.
    assert headers_at(envoy, "no_custom", "/orders", SHOP, ("x-token", token))[0] == 403
    assert headers_at(envoy, "no_custom", "/healthz", SHOP)[0] == 200


def test_without_the_filter_forged_headers_reach_an_exception(stage: Stage) -> None:
    """The reason for the warning in the notes, and for the filter to be on."""
    rendered = render(merged(ON, {"istio": {"envoyFilter": {"enabled": False}, "authorizationPolicy": {
        "exceptions": [{"hosts": [SHOP], "paths": ["/healthz"]}]}}}))
    authz = stage.authz("authz", "--account-listen", "127.0.0.1:0")
    envoy = gateway(stage, authz, generated_bootstrap(policies(rendered), [], "GATEWAY", provider("cognito-authz")))
    envoy.wait_for("cognito_authz_tcp", 1)
    assert headers_at(envoy, "ingress_tcp", "/healthz", SHOP, ("x-auth-sub", "root"))[1]["x-auth-sub"] == "root"
    assert any("istio.envoyFilter.enabled is off" in one for one in rendered.warnings())


def test_every_exact_path_of_the_account_api_is_excepted(stage: Stage) -> None:
    authz = stage.authz("authz", "--account-listen", "127.0.0.1:0", "--account-cookies",
                        "--hosted-ui-domain", "shop.auth.eu-west-1.amazoncognito.com",
                        "--oauth-redirect-uris", f"https://{SHOP}/auth/oauth/callback")
    paths = set(web.get(f"http://{authz.bound('account')}/auth/openapi.json").json()["paths"])
    [rule] = policies(render(merged(ON, ACCOUNT)))[0]["spec"]["rules"]
    assert set(rule["to"][1]["operation"]["notPaths"]) == {path for path in paths if "{" not in path}
