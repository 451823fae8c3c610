"""deploy/istio: what names something names what is there, and what Istio makes of it does what the README says.

Istio itself does not run here. Its part, turning policies into filters and applying patches to them, is written down
below; Envoy with the result is real.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml
from manifests import (  # `production` is a fixture
    DEPLOY, Node, assert_restricted, check_routes, documents, find, folder, ours, pod_specs, production,
)
from manifests_stage import EXT_AUTHZ, RBAC, Bootstrap, Stage, named, tcp, validate

import web

ISTIO = DEPLOY / "istio"


def provider(name: str) -> Node:
    config = yaml.safe_load((ISTIO / "mesh-config.yaml").read_text())["meshConfig"]
    assert config["pathNormalization"] == {"normalization": "DECODE_AND_MERGE_SLASHES"}
    found: Node = named(config["extensionProviders"], name)["envoyExtAuthzGrpc"]
    return found


@pytest.mark.parametrize("name", ["cognito-authz", "cognito-authz-sidecar"])
def test_istio_providers_fail_closed_and_soon(name: str) -> None:
    settings = provider(name)
    assert (settings["timeout"], settings["failOpen"], settings["statusOnError"]) == ("0.25s", False, "503")
    assert "includeRequestBodyInCheck" not in settings


def test_istio_names_what_is_there(production: list[Node]) -> None:
    objects = folder("istio")
    service, namespace, *_ = provider("cognito-authz")["service"].split(".")
    found = find(production, "Service", service, namespace)
    assert provider("cognito-authz")["port"] in {port["port"] for port in found["spec"]["ports"]}
    entry = find(objects, "ServiceEntry", "cognito-authz-sidecar")
    assert provider("cognito-authz-sidecar")["service"] in entry["spec"]["hosts"]
    assert provider("cognito-authz-sidecar")["port"] in {port["number"] for port in entry["spec"]["ports"]}
    hosts = {f"{service}.{namespace}.svc.cluster.local", *entry["spec"]["hosts"]}
    assert {item["spec"]["host"] for item in objects if item["kind"] == "DestinationRule"} == hosts

    pods = {item["metadata"]["namespace"]: item["spec"]["template"]["metadata"]["labels"]
            for item in production + objects if item["kind"] == "Deployment"}
    gateway = find(objects, "Gateway", "ingress")
    pods["ingress"] = {"gateway.networking.k8s.io/gateway-name": gateway["metadata"]["name"]}
    for item in objects:
        spec = item["spec"]
        selector = spec.get("selector") or spec.get("workloadSelector") or {}
        if item["kind"] in {"AuthorizationPolicy", "PeerAuthentication", "EnvoyFilter"}:
            labels = selector.get("matchLabels") or selector.get("labels") or {}
            assert labels.items() <= pods[item["metadata"]["namespace"]].items(), item["metadata"]["name"]
            assert labels or spec["targetRefs"], "it would be for everything in the namespace"
        for target in spec.get("targetRefs", []):
            find(objects, target["kind"], target["name"], item["metadata"]["namespace"])
        if spec.get("action") == "CUSTOM":
            assert provider(spec["provider"]["name"])
    check_routes(objects, production)


@pytest.mark.parametrize("file", ["authorization-policy.yaml", "sidecar/authorization-policy.yaml"])
def test_the_two_lines_in_istio_are_about_the_same_paths(file: str) -> None:
    first, second = documents(ISTIO / file)
    assert [item["spec"]["action"] for item in (first, second)] == ["CUSTOM", "DENY"]
    assert first["spec"]["rules"][0]["to"] == second["spec"]["rules"][0]["to"]
    assert [item["spec"].get("targetRefs") or item["spec"]["selector"] for item in (first, second)][0] == (
        second["spec"].get("targetRefs") or second["spec"]["selector"])
    assert second["spec"]["rules"][0]["when"] == [
        {"key": "experimental.envoy.filters.http.ext_authz[decision]", "notValues": ["allow"]}]


def test_istio_lets_probes_through_and_nothing_else(production: list[Node]) -> None:
    for item in (item for item in folder("istio") if item["kind"] == "PeerAuthentication"):
        assert set(item["spec"]) == {"selector", "mtls", "portLevelMtls"}
        assert item["spec"]["mtls"] == {"mode": "STRICT"}
        assert item["spec"]["portLevelMtls"] == {9190: {"mode": "PERMISSIVE"}}
    for pod in pod_specs(production + folder("istio")):
        container = ours(pod)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {ports[container[probe]["httpGet"]["port"]] for probe in container if probe.endswith("Probe")} == {9190}


def test_the_socket_is_where_the_sidecar_puts_it() -> None:
    objects = folder("istio")
    deployment = find(objects, "Deployment", "application")
    pod = deployment["spec"]["template"]["spec"]
    assert_restricted(pod)
    container = ours(pod)
    [endpoint] = find(objects, "ServiceEntry", "cognito-authz-sidecar")["spec"]["endpoints"]
    path = endpoint["address"].removeprefix("unix://")
    assert f"--grpc-listen=unix:{path}" in container["args"]
    [mount] = container["volumeMounts"]
    assert Path(path).parent == Path(mount["mountPath"])
    volume = named(pod["volumes"], mount["name"])
    annotation = deployment["spec"]["template"]["metadata"]["annotations"]["sidecar.istio.io/userVolumeMount"]
    assert json.loads(annotation) == {volume["name"]: {"mountPath": mount["mountPath"]}}
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"], "or Istio's proxy is locked out"
    assert container["restartPolicy"] == "Always"


def merge(into: Node, patch: Node) -> None:
    """Protobuf's merge, which is what MERGE of an EnvoyFilter is: messages are merged, lists grow."""
    for name, value in patch.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        elif isinstance(value, list) and name in into:
            into[name] = into[name] + value
        else:
            into[name] = copy.deepcopy(value)


def apply_envoy_filters(manager: Node, filters: list[Node], context: str) -> None:
    """Istio's part for the kinds of patch in envoy-filter.yaml; a patch that matches nothing fails here."""
    for patch in (patch for item in filters for patch in item["spec"]["configPatches"]):
        operation, value, match = patch["patch"]["operation"], patch["patch"]["value"], patch["match"]
        assert match["context"] == context
        hosts = manager["route_config"]["virtual_hosts"]
        inner = match.get("listener", {}).get("filterChain", {}).get("filter", {}).get("subFilter", {}).get("name")
        targets: list[Node] = {
            "NETWORK_FILTER": [{"typed_config": manager}],
            "HTTP_FILTER": [entry for entry in manager["http_filters"] if entry["name"] == inner],
            "VIRTUAL_HOST": hosts,
            "HTTP_ROUTE": [route for host in hosts for route in host["routes"] if route["name"] == match.get(
                "routeConfiguration", {}).get("vhost", {}).get("route", {}).get("name")],
        }[patch["applyTo"]]
        if operation == "INSERT_FIRST":
            manager["http_filters"].insert(0, copy.deepcopy(value))
            continue
        assert operation == "MERGE" and targets, patch
        for target in targets:
            if "typed_config" in value:
                assert target["typed_config"]["@type"] == value["typed_config"]["@type"], "only equal types are merged"
            merge(target, value)


def istio_rbac(name: str, policies: Node, action: str, shadow: bool = False) -> Node:
    rules = {"shadow_rules" if shadow else "rules": {"action": action, "policies": policies}}
    prefix = {"shadow_rules_stat_prefix": "istio_ext_authz_"} if shadow else {}
    return {"name": name, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", **rules, **prefix}}


def as_istio_does(first: Node, second: Node, settings: Node) -> list[Node]:
    """The HTTP filters that Istio generates for a CUSTOM and a DENY policy (pilot/pkg/security/authz): a shadow rule
    marks the requests that are to be asked about, ext_authz asks about those, and the DENY follows."""
    def permissions(rule: Node) -> list[Node]:
        paths = rule["to"][0]["operation"]["notPaths"]
        matchers = [{"url_path": {"path": {"prefix": path[:-1]} if path.endswith("*") else {"exact": path}}}
                    for path in paths]
        conditions: list[Node] = [{"not_rule": {"or_rules": {"rules": matchers}}}]
        for condition in rule.get("when", []):
            name, key = condition["key"].removeprefix("experimental.").removesuffix("]").split("[")
            values = [{"sourced_metadata": {"metadata_matcher": {
                "filter": name, "path": [{"key": key}], "value": {"string_match": {"exact": value}}}}}
                for value in condition["notValues"]]
            conditions.append({"not_rule": {"or_rules": {"rules": values}}})
        return [{"and_rules": {"rules": conditions}}]

    def policy(item: Node) -> Node:
        return {"permissions": permissions(item["spec"]["rules"][0]), "principals": [{"any": True}]}

    return [
        istio_rbac(RBAC, {"istio-ext-authz-ingress": policy(first)}, "DENY", shadow=True),
        {"name": EXT_AUTHZ, "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "cognito_authz_tcp", "authority": "outbound_.9191_._.x"},
                             "timeout": settings["timeout"]},
            "failure_mode_allow": settings["failOpen"],
            "status_on_error": {"code": int(settings["statusOnError"])},
            "filter_enabled_metadata": {
                "filter": RBAC, "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
                "value": {"string_match": {"prefix": "istio-ext-authz"}}}}},
        istio_rbac(f"{RBAC}.deny", {"second-line": policy(second)}, "DENY"),
        {"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}},
    ]


def istio_bootstrap(directory: Path, context: str, name: str) -> Bootstrap:
    """What Istio would give a proxy, with our patches: in the frame of our own file, whose filters are replaced."""
    bootstrap = Bootstrap()
    listeners = bootstrap.config["static_resources"]["listeners"]
    listeners[:] = [named(listeners, "ingress_tcp")]
    manager = bootstrap.manager("ingress_tcp")
    for ours_only in ("early_header_mutation_extensions", "common_http_protocol_options"):
        del manager[ours_only]
    manager["path_with_escaped_slashes_action"] = "UNESCAPE_AND_FORWARD"  # DECODE_AND_MERGE_SLASHES
    routes = [
        {"name": "account", "match": {"path_separated_prefix": "/auth"}, "route": {"cluster": "account"}},
        {"name": "admin", "match": {"path_separated_prefix": "/admin"}, "route": {"cluster": "app"}},
        {"name": "application", "match": {"prefix": "/"}, "route": {"cluster": "app"}}]
    manager["route_config"] = {"name": "http.80", "virtual_hosts": [
        {"name": "shop.example.com:80", "domains": ["*"], "routes": routes}]}
    first, second = documents(directory / "authorization-policy.yaml")
    manager["http_filters"] = as_istio_does(first, second, provider(name))
    apply_envoy_filters(manager, documents(directory / "envoy-filter.yaml"), context)
    return bootstrap


PROXIES = [(ISTIO, "GATEWAY", "cognito-authz"), (ISTIO / "sidecar", "SIDECAR_INBOUND", "cognito-authz-sidecar")]


@pytest.mark.parametrize(("directory", "context", "name"), PROXIES)
def test_envoy_takes_the_patches_without_a_warning(directory: Path, context: str, name: str, tmp_path: Path) -> None:
    bootstrap = istio_bootstrap(directory, context, name)
    validate(bootstrap.write(tmp_path / "istio.json"))
    # The lists are the ones of our own file, which says why.
    patched, shipped = bootstrap.ext_authz("ingress_tcp"), Bootstrap().ext_authz("ingress_tcp")
    assert patched["allowed_headers"] == shipped["allowed_headers"]
    for rule in ("disallow_all", "allow_expression"):
        assert patched["decoder_header_mutation_rules"][rule] == shipped["decoder_header_mutation_rules"][rule]
    assert bootstrap.manager("ingress_tcp")["early_header_mutation_extensions"] == (
        Bootstrap().manager("ingress_tcp")["early_header_mutation_extensions"])


def test_a_gateway_with_the_patches_does_what_the_readme_says(binary: Path, tmp_path: Path) -> None:
    origin = [("origin", "https://app.example.com")]
    with Stage(binary, tmp_path) as stage:
        authz = stage.authz("authz", "--account-listen", "127.0.0.1:0")
        bootstrap = istio_bootstrap(*PROXIES[0])
        for cluster, listener in (("cognito_authz_tcp", "grpc"), ("account", "account")):
            host, _, port = authz.bound(listener).rpartition(":")
            bootstrap.point(cluster, tcp(host, int(port)))
        bootstrap.point("app", tcp("127.0.0.1", stage.application()))
        # Our own file's numbers are for two cores that do nothing else.
        grpc = bootstrap.ext_authz("ingress_tcp")["grpc_service"]
        grpc["timeout"], grpc["retry_policy"]["retry_back_off"]["max_interval"] = "15s", "7s"
        bootstrap.copy_listener("ingress_tcp", "without_custom")
        bootstrap.remove_filter("without_custom", EXT_AUTHZ)
        for route in bootstrap.manager("without_custom")["route_config"]["virtual_hosts"][0]["routes"]:
            route.pop("typed_per_filter_config", None)
        envoy = stage.envoy(bootstrap)
        envoy.wait_for("cognito_authz_tcp", 1)
        url, unasked = envoy.urls["ingress_tcp"], envoy.urls["without_custom"]

        answer = web.get(f"{url}/orders", stage.keys.bearer() + [("x-auth-sub", "root"), ("x-auth-forged", "root")])
        headers = dict(map(tuple, answer.json()["headers"]))
        assert (answer.status, headers["x-auth-sub"]) == (200, "ada")
        assert "x-auth-forged" not in headers
        refused = web.get(f"{url}/orders", origin)
        assert (refused.status, refused.json()["reason"]) == (401, "missing_credential")
        assert refused.header("access-control-allow-origin") == "https://app.example.com"
        assert web.get(f"{url}/orders", [("x_auth_sub", "root")]).status == 400
        # The route's policy, by the name of its rule; this service has no policy file.
        refused = web.get(f"{url}/admin", stage.keys.bearer())
        assert (refused.status, refused.json()["reason"]) == (403, "unknown_policy")
        assert web.get(f"{url}/auth/openapi.json").status == 200
        # Forged headers are removed where nobody is asked, too.
        unnamed = web.get(f"{url}/healthz", [("x-auth-sub", "root")])
        assert unnamed.status == 200 and "x-auth-sub" not in dict(map(tuple, unnamed.json()["headers"]))
        # Second line: the CUSTOM policy is gone.
        assert web.get(f"{unasked}/orders", stage.keys.bearer()).status == 403
        assert web.get(f"{unasked}/healthz").status == 200
        # An outage is a 503 and not a refusal.
        authz.child.stop(10)
        assert web.get(f"{url}/orders", stage.keys.bearer()).status == 503
