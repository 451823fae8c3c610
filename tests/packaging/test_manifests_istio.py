"""deploy/istio: what names something names what is there, and what Istio makes of it does what the README says.

Istio itself does not run here. Its part, turning policies into filters and applying patches to them, is written down
below; Envoy with the result is real.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import web
from bootstrap import EXT_AUTHZ, RBAC, Bootstrap, validate
from manifests import (
    DEPLOY,
    assert_restricted,
    check_routes,
    documents,
    find,
    folder,
    ours,
    pod_specs,
)
from stage import Envoy, Node, Program, Stage, named, tcp

ISTIO = DEPLOY / "istio"
SHOP, OTHER = "shop.example.com", "other.example.com"


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
    assert first["spec"].get("targetRefs") == second["spec"].get("targetRefs")
    assert first["spec"].get("selector") == second["spec"].get("selector")
    [asked], [refused] = first["spec"]["rules"], second["spec"]["rules"]
    assert asked.get("to") == refused.get("to")
    assert refused["when"] == [{"key": "experimental.envoy.filters.http.ext_authz[decision]", "notValues": ["allow"]}]


@pytest.mark.parametrize("file", ["authorization-policy.yaml", "sidecar/authorization-policy.yaml"])
def test_exceptions_in_istio_are_of_one_host_and_exact(file: str) -> None:
    for item in documents(ISTIO / file):
        operations = [to["operation"] for rule in item["spec"]["rules"] for to in rule.get("to", [])]
        excepted = [operation for operation in operations if "notPaths" in operation]
        assert all(operation.get("hosts") for operation in excepted), "an exception for every host"
        paths = [path for operation in excepted for path in operation["notPaths"]]
        assert not [path for path in paths if "*" in path or "{" in path], "a pattern also matches what others read otherwise"
        # A request is asked about unless its host is excepted; what is excepted is one host's exact paths.
        assert not operations or {"notHosts": excepted[0]["hosts"]} in operations


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
        assert operation == "MERGE", patch
        assert targets, patch
        for target in targets:
            if "typed_config" in value:
                assert target["typed_config"]["@type"] == value["typed_config"]["@type"], "only equal types are merged"
            merge(target, value)


def istio_rbac(name: str, policies: Node, action: str, shadow: bool = False) -> Node:
    rules = {"shadow_rules" if shadow else "rules": {"action": action, "policies": policies}}
    prefix = {"shadow_rules_stat_prefix": "istio_ext_authz_"} if shadow else {}
    return {"name": name, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", **rules, **prefix}}


def matcher(value: str) -> Node:
    """One of Istio's values: exact, `prefix*` or `*suffix`."""
    if value.endswith("*"):
        return {"prefix": value[:-1]}
    return {"suffix": value[1:]} if value.startswith("*") else {"exact": value}


def permissions(rule: Node) -> list[Node]:
    """Istio's part for `to` and `when` of a rule: operations are alternatives, members of one all have to match."""
    def any_of(field: str, values: list[str]) -> Node:
        matchers = [matcher(value) for value in values]
        rules = {
            # Without the query, after normalization; hosts without regard to case (Istio's `HostMatcher`).
            "paths": [{"url_path": {"path": one}} for one in matchers],
            "hosts": [{"header": {"name": ":authority", "string_match": {**one, "ignore_case": True}}} for one in matchers],
        }[field]
        return {"or_rules": {"rules": rules}}

    when: list[Node] = []
    for condition in rule.get("when", []):
        name, key = condition["key"].removeprefix("experimental.").removesuffix("]").split("[")
        values = [{"sourced_metadata": {"metadata_matcher": {
            "filter": name, "path": [{"key": key}], "value": {"string_match": {"exact": value}}}}}
            for value in condition["notValues"]]
        when.append({"not_rule": {"or_rules": {"rules": values}}})
    found = []
    for operation in (to["operation"] for to in rule.get("to", [{"operation": {}}])):
        conditions = [any_of(field, values) for field, values in operation.items() if not field.startswith("not")]
        conditions += [{"not_rule": any_of(field[3:].lower(), values)} for field, values in operation.items()
                       if field.startswith("not")]
        found.append({"and_rules": {"rules": conditions + when}} if conditions + when else {"any": True})
    return found


def as_istio_does(first: Node, second: Node, settings: Node) -> list[Node]:
    """The HTTP filters that Istio generates for a CUSTOM and a DENY policy (pilot/pkg/security/authz): a shadow rule
    marks the requests that are to be asked about, ext_authz asks about those, and the DENY follows."""
    def policies(item: Node, name: str) -> Node:
        return {f"{name}-{number}": {"permissions": permissions(rule), "principals": [{"any": True}]}
                for number, rule in enumerate(item["spec"]["rules"])}

    return [
        istio_rbac(RBAC, policies(first, "istio-ext-authz"), "DENY", shadow=True),
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
        istio_rbac(f"{RBAC}.deny", policies(second, "second-line"), "DENY"),
        {"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}},
    ]


def virtual_hosts(context: str) -> list[Node]:
    """The routes that a proxy gets: at the gateway those of gateway.yaml, and a site that knows nothing of this."""
    everything: Node = {"name": "application", "match": {"prefix": "/"}, "route": {"cluster": "app"}}
    if context == "SIDECAR_INBOUND":
        return [{"name": "inbound|http|3000", "domains": ["*"], "routes": [everything]}]
    sites: dict[str, list[tuple[str, Node]]] = {OTHER: [("/", everything)]}
    for item in (item for item in documents(ISTIO / "gateway.yaml") if item["kind"] == "HTTPRoute"):
        for host, rule in itertools.product(item["spec"]["hostnames"], item["spec"]["rules"]):
            [match], [backend] = rule["matches"], rule["backendRefs"]
            assert match["path"]["type"] == "PathPrefix"
            prefix = match["path"]["value"]
            cluster = "account" if backend["name"] == "cognito-authz-account" else "app"
            route = {"name": rule["name"], "route": {"cluster": cluster},
                     "match": {"prefix": "/"} if prefix == "/" else {"path_separated_prefix": prefix}}
            sites.setdefault(host, []).append((prefix, route))
    # Longer prefixes take precedence (Gateway API).
    return [{"name": f"{host}:80", "domains": [host, f"{host}:*"],
             "routes": [route for _, route in sorted(routes, key=lambda one: -len(one[0]))]} for host, routes in sites.items()]


# meshConfig.pathNormalization, as Istio translates it (pilot/pkg/networking/core, `connectionManager`).
NORMALIZATIONS: dict[str, Node] = {
    "BASE": {"normalize_path": True, "merge_slashes": False, "path_with_escaped_slashes_action": "KEEP_UNCHANGED"},
    "MERGE_SLASHES": {"normalize_path": True, "merge_slashes": True, "path_with_escaped_slashes_action": "KEEP_UNCHANGED"},
    "DECODE_AND_MERGE_SLASHES": {
        "normalize_path": True, "merge_slashes": True, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"},
}


def istio_bootstrap(directory: Path, context: str, name: str, *, patched: bool = True) -> Bootstrap:
    """What Istio would give a proxy, with our patches: in the frame of our own file, whose filters are replaced."""
    bootstrap = Bootstrap()
    listeners = bootstrap.config["static_resources"]["listeners"]
    listeners[:] = [named(listeners, "ingress_tcp")]
    manager = bootstrap.manager("ingress_tcp")
    for ours_only in ("early_header_mutation_extensions", "common_http_protocol_options"):
        del manager[ours_only]
    manager.update(NORMALIZATIONS["DECODE_AND_MERGE_SLASHES"])
    manager["route_config"] = {"name": "http.80", "virtual_hosts": virtual_hosts(context)}
    first, second = documents(directory / "authorization-policy.yaml")
    manager["http_filters"] = as_istio_does(first, second, provider(name))
    if patched:
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


def gateway(stage: Stage, authz: Program, bootstrap: Bootstrap) -> Envoy:
    """A gateway before a running service and an application."""
    for cluster, listener in (("cognito_authz_tcp", "grpc"), ("account", "account")):
        bootstrap.point(cluster, tcp(authz.bound(listener)))
    bootstrap.point("app", tcp(stage.application()))
    bootstrap.relax("ingress_tcp")  # these filters have the limits of the files in deploy/istio
    return stage.envoy(bootstrap.config)


@pytest.fixture
def stage(binary: Path, tmp_path: Path) -> Iterator[Stage]:
    with Stage(binary, tmp_path) as running:
        yield running


@pytest.fixture
def authz(stage: Stage, production: list[Node]) -> Program:
    """The service with the policy file that is shipped beside these manifests, and all of the account API."""
    policy = stage.directory / "policy.yaml"
    policy.write_text(find(production, "ConfigMap", "cognito-authz-policy")["data"]["policy.yaml"])
    return stage.authz("authz", "--account-listen", "127.0.0.1:0", "--config", policy,
                       "--hosted-ui-domain", "shop.auth.eu-west-1.amazoncognito.com",
                       "--oauth-redirect-uris", f"https://{SHOP}/callback")


def test_a_gateway_with_the_patches_does_what_the_readme_says(stage: Stage, authz: Program) -> None:
    origin = [("origin", "https://app.example.com")]
    host = ("host", SHOP)
    bootstrap = istio_bootstrap(*PROXIES[0])
    bootstrap.copy_listener("ingress_tcp", "without_custom")
    bootstrap.remove_filter("without_custom", EXT_AUTHZ)
    envoy = gateway(stage, authz, bootstrap)
    envoy.wait_for("cognito_authz_tcp", 1)
    url, unasked = envoy.urls["ingress_tcp"], envoy.urls["without_custom"]

    answer = web.get(f"{url}/orders", [*stage.keys.bearer(), host, ("x-auth-sub", "root"), ("x-auth-forged", "root")])
    headers = dict(map(tuple, answer.json()["headers"]))
    assert (answer.status, headers["x-auth-sub"]) == (200, "ada")
    assert "x-auth-forged" not in headers
    refused = web.get(f"{url}/orders", [host, *origin])
    assert (refused.status, refused.json()["reason"]) == (401, "missing_credential")
    assert refused.header("access-control-allow-origin") == "https://app.example.com"
    assert web.get(f"{url}/orders", [host, ("x_auth_sub", "root")]).status == 400
    assert web.get(f"{url}/auth/openapi.json", [host]).status == 200
    # Second line: the CUSTOM policy is gone.
    assert web.get(f"{unasked}/orders", [*stage.keys.bearer(), host]).status == 403
    assert web.get(f"{unasked}/auth/openapi.json", [host]).status == 200
    # An outage is a 503 and not a refusal.
    authz.child.stop(10)
    assert web.get(f"{url}/orders", [*stage.keys.bearer(), host]).status == 503


@pytest.mark.parametrize("patched", [True, False], ids=["patched", "patches-ignored"])
def test_a_strict_policy_holds_whether_istio_takes_the_patches_or_not(stage: Stage, authz: Program, patched: bool) -> None:
    """Istio ignores a patch that matches nothing, without a word."""
    envoy = gateway(stage, authz, istio_bootstrap(*PROXIES[0], patched=patched))
    envoy.wait_for("cognito_authz_tcp", 1)
    admins = stage.keys.bearer(**{"cognito:groups": ["admins"]})
    for path in ("/admin", "/admin/users"):
        for host in (SHOP, OTHER):
            refused = web.get(envoy.urls["ingress_tcp"] + path, [*stage.keys.bearer(), ("host", host)])
            assert (refused.status, refused.json().get("reason")) == (403, "insufficient_group"), (path, host)
            assert web.get(envoy.urls["ingress_tcp"] + path, [*admins, ("host", host)]).status == 200


def test_no_path_leads_past_the_check(stage: Stage, authz: Program) -> None:
    """Without a token, under each normalization that a mesh can have, and also where the account API's route is gone."""
    bootstrap = istio_bootstrap(*PROXIES[0])
    for name, settings in NORMALIZATIONS.items():
        bootstrap.copy_listener("ingress_tcp", name)
        bootstrap.manager(name).update(settings)
        bootstrap.copy_listener(name, f"{name} without route")
        for site in bootstrap.manager(f"{name} without route")["route_config"]["virtual_hosts"]:
            site["routes"] = [route for route in site["routes"] if route["name"] != "account"]
    envoy = gateway(stage, authz, bootstrap)
    envoy.wait_for("cognito_authz_tcp", 1)
    around = ["/", "/orders", "/healthz", "/auth", "/auth/", "/auth/orders", "/auth/..%2forders", "/auth/..%2Forders", "/auth/..%5corders",
              "/auth/%2e%2e/orders", "/auth/%2e%2e%2forders", "/auth/..;/orders", "/auth/login/..%2f..%2forders", "/auth/login%2f..%2f..%2forders",
              "/auth/login/", "/auth/login;x", "/auth/login%00", "/auth/login%20", "/auth/login%3F", "/AUTH/login"]
    for listener, url in envoy.urls.items():
        for path in around:
            for host in (SHOP, OTHER):
                assert web.get(url + path, [("host", host)]).status in (400, 401, 403), (listener, path, host)
        for path in ("/auth/login", "/auth/openapi.json"):
            assert web.get(url + path, [("host", OTHER)]).status == 401, (listener, path, "the exception is of one host")


def test_the_whole_account_api_is_excepted(authz: Program) -> None:
    paths = set(web.get(f"http://{authz.bound('account')}/auth/openapi.json").json()["paths"])
    assert "/auth/oauth/token" in paths, "all of it is on"
    for item in documents(ISTIO / "authorization-policy.yaml"):
        [excepted] = [operation for to in item["spec"]["rules"][0]["to"]
                      if "notPaths" in (operation := to["operation"])]
        assert set(excepted["notPaths"]) == paths
        assert excepted["hosts"] == [host for route in documents(ISTIO / "gateway.yaml")
                                     if route["metadata"]["name"] == "account" for host in route["spec"]["hostnames"]]
