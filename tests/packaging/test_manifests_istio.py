"""deploy/istio: references point to existing objects, and Envoy with the result does what the README says.

Istio itself does not run here; istio.py does its part. Envoy and cognito-authz are real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import web
from bootstrap import EXT_AUTHZ, Bootstrap, validate
from istio import ISTIO, NORMALIZATIONS, OTHER, SHOP, istio_bootstrap, provider
from manifests import (
    assert_restricted,
    authz_container,
    check_routes,
    documents,
    find,
    folder,
    pod_specs,
)
from stage import Envoy, Node, Program, Stage, named, tcp


@pytest.mark.parametrize("name", ["cognito-authz", "cognito-authz-sidecar"])
def test_providers_fail_closed_after_250_ms(name: str) -> None:
    settings = provider(name)
    assert (settings["timeout"], settings["failOpen"], settings["statusOnError"]) == ("0.25s", False, "503")
    assert "includeRequestBodyInCheck" not in settings


def test_references_point_to_existing_objects(production: list[Node]) -> None:
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
            assert labels or spec["targetRefs"], "it would apply to the whole namespace"
        for target in spec.get("targetRefs", []):
            find(objects, target["kind"], target["name"], item["metadata"]["namespace"])
        if spec.get("action") == "CUSTOM":
            assert provider(spec["provider"]["name"])
    check_routes(objects, production)


@pytest.mark.parametrize("file", ["authorization-policy.yaml", "sidecar/authorization-policy.yaml"])
def test_the_custom_and_the_deny_policy_cover_the_same_paths(file: str) -> None:
    first, second = documents(ISTIO / file)
    assert [item["spec"]["action"] for item in (first, second)] == ["CUSTOM", "DENY"]
    assert first["spec"].get("targetRefs") == second["spec"].get("targetRefs")
    assert first["spec"].get("selector") == second["spec"].get("selector")
    [checked], [denied] = first["spec"]["rules"], second["spec"]["rules"]
    assert checked.get("to") == denied.get("to")
    assert denied["when"] == [{"key": "experimental.envoy.filters.http.ext_authz[decision]", "notValues": ["allow"]}]


@pytest.mark.parametrize("file", ["authorization-policy.yaml", "sidecar/authorization-policy.yaml"])
def test_exceptions_name_a_host_and_exact_paths(file: str) -> None:
    for item in documents(ISTIO / file):
        operations = [to["operation"] for rule in item["spec"]["rules"] for to in rule.get("to", [])]
        excepted = [operation for operation in operations if "notPaths" in operation]
        assert all(operation.get("hosts") for operation in excepted), "the exception would apply to every host"
        paths = [path for operation in excepted for path in operation["notPaths"]]
        assert not [path for path in paths if "*" in path or "{" in path], (
            "a pattern also matches paths that an application decodes differently"
        )
        # Requests for other hosts are checked, whatever their path.
        assert not operations or {"notHosts": excepted[0]["hosts"]} in operations


def test_only_the_admin_port_accepts_plaintext(production: list[Node]) -> None:
    for item in (item for item in folder("istio") if item["kind"] == "PeerAuthentication"):
        assert set(item["spec"]) == {"selector", "mtls", "portLevelMtls"}
        assert item["spec"]["mtls"] == {"mode": "STRICT"}
        assert item["spec"]["portLevelMtls"] == {9190: {"mode": "PERMISSIVE"}}
    for pod in pod_specs(production + folder("istio")):
        container = authz_container(pod)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {ports[container[probe]["httpGet"]["port"]] for probe in container if probe.endswith("Probe")} == {9190}


def test_the_socket_has_the_same_path_everywhere() -> None:
    objects = folder("istio")
    deployment = find(objects, "Deployment", "application")
    pod = deployment["spec"]["template"]["spec"]
    assert_restricted(pod)
    container = authz_container(pod)
    [endpoint] = find(objects, "ServiceEntry", "cognito-authz-sidecar")["spec"]["endpoints"]
    path = endpoint["address"].removeprefix("unix://")
    assert f"--grpc-listen=unix:{path}" in container["args"]
    [mount] = container["volumeMounts"]
    assert Path(path).parent == Path(mount["mountPath"])
    volume = named(pod["volumes"], mount["name"])
    annotation = deployment["spec"]["template"]["metadata"]["annotations"]["sidecar.istio.io/userVolumeMount"]
    assert json.loads(annotation) == {volume["name"]: {"mountPath": mount["mountPath"]}}
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"], (
        "Istio's proxy could not open the socket"
    )
    assert container["restartPolicy"] == "Always"


PROXIES = [(ISTIO, "GATEWAY", "cognito-authz"), (ISTIO / "sidecar", "SIDECAR_INBOUND", "cognito-authz-sidecar")]


@pytest.mark.parametrize(("directory", "context", "name"), PROXIES)
def test_envoy_accepts_the_patched_configuration_without_warnings(
    directory: Path, context: str, name: str, tmp_path: Path
) -> None:
    bootstrap = istio_bootstrap(directory, context, name)
    validate(bootstrap.write(tmp_path / "istio.json"))
    # The lists equal those of envoy.yaml, which gives the reasons.
    patched, shipped = bootstrap.ext_authz("ingress_tcp"), Bootstrap().ext_authz("ingress_tcp")
    assert patched["allowed_headers"] == shipped["allowed_headers"]
    for rule in ("disallow_all", "allow_expression"):
        assert patched["decoder_header_mutation_rules"][rule] == shipped["decoder_header_mutation_rules"][rule]
    assert bootstrap.manager("ingress_tcp")["early_header_mutation_extensions"] == (
        Bootstrap().manager("ingress_tcp")["early_header_mutation_extensions"])


def gateway(stage: Stage, authz: Program, bootstrap: Bootstrap) -> Envoy:
    """Envoy with a running service and an application behind it."""
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
    """The service with the policy file of the production overlay, and all operations of the account API."""
    policy = stage.directory / "policy.yaml"
    policy.write_text(find(production, "ConfigMap", "cognito-authz-policy")["data"]["policy.yaml"])
    return stage.authz("authz", "--account-listen", "127.0.0.1:0", "--config", policy,
                       "--account-cookies", "--hosted-ui-domain", "shop.auth.eu-west-1.amazoncognito.com",
                       "--oauth-redirect-uris", f"https://{SHOP}/auth/oauth/callback")


def test_a_gateway_with_the_patches(stage: Stage, authz: Program) -> None:
    origin = [("origin", "https://app.example.com")]
    host = ("host", SHOP)
    bootstrap = istio_bootstrap(*PROXIES[0])
    bootstrap.copy_listener("ingress_tcp", "without_custom")
    bootstrap.remove_filter("without_custom", EXT_AUTHZ)
    envoy = gateway(stage, authz, bootstrap)
    envoy.wait_for("cognito_authz_tcp", 1)
    url, unchecked = envoy.urls["ingress_tcp"], envoy.urls["without_custom"]

    answer = web.get(f"{url}/orders", [*stage.keys.bearer(), host, ("x-auth-sub", "root"), ("x-auth-forged", "root")])
    headers = dict(map(tuple, answer.json()["headers"]))
    assert (answer.status, headers["x-auth-sub"]) == (200, "ada")
    assert "x-auth-forged" not in headers
    refused = web.get(f"{url}/orders", [host, *origin])
    assert (refused.status, refused.json()["reason"]) == (401, "missing_credential")
    assert refused.header("access-control-allow-origin") == "https://app.example.com"
    assert web.get(f"{url}/orders", [host, ("x_auth_sub", "root")]).status == 400
    assert web.get(f"{url}/auth/openapi.json", [host]).status == 200
    # Without the CUSTOM policy, the DENY policy rejects.
    assert web.get(f"{unchecked}/orders", [*stage.keys.bearer(), host]).status == 403
    assert web.get(f"{unchecked}/auth/openapi.json", [host]).status == 200
    # An outage gives 503, not a denial.
    authz.child.stop(10)
    assert web.get(f"{url}/orders", [*stage.keys.bearer(), host]).status == 503


@pytest.mark.parametrize("patched", [True, False], ids=["patched", "patches-ignored"])
def test_policies_apply_with_and_without_the_patches(
    stage: Stage, authz: Program, patched: bool
) -> None:
    """Istio silently ignores a patch that matches nothing, so no policy may depend on the patches."""
    envoy = gateway(stage, authz, istio_bootstrap(*PROXIES[0], patched=patched))
    envoy.wait_for("cognito_authz_tcp", 1)
    admins = stage.keys.bearer(**{"cognito:groups": ["admins"]})
    for path in ("/admin", "/admin/users"):
        for host in (SHOP, OTHER):
            refused = web.get(envoy.urls["ingress_tcp"] + path, [*stage.keys.bearer(), ("host", host)])
            assert (refused.status, refused.json().get("reason")) == (403, "insufficient_group"), (path, host)
            assert web.get(envoy.urls["ingress_tcp"] + path, [*admins, ("host", host)]).status == 200


def test_no_path_bypasses_the_check(stage: Stage, authz: Program) -> None:
    """Requests without a token, for each path normalization of a mesh, with and without the account route."""
    bootstrap = istio_bootstrap(*PROXIES[0])
    for name, settings in NORMALIZATIONS.items():
        bootstrap.copy_listener("ingress_tcp", name)
        bootstrap.manager(name).update(settings)
        bootstrap.copy_listener(name, f"{name} without route")
        for site in bootstrap.manager(f"{name} without route")["route_config"]["virtual_hosts"]:
            site["routes"] = [route for route in site["routes"] if route["name"] != "account"]
    envoy = gateway(stage, authz, bootstrap)
    envoy.wait_for("cognito_authz_tcp", 1)
    around = [
        "/",
        "/orders",
        "/healthz",
        "/auth",
        "/auth/",
        "/auth/orders",
        "/auth/..%2forders",
        "/auth/..%2Forders",
        "/auth/..%5corders",
        "/auth/%2e%2e/orders",
        "/auth/%2e%2e%2forders",
        "/auth/..;/orders",
        "/auth/login/..%2f..%2forders",
        "/auth/login%2f..%2f..%2forders",
        "/auth/login/",
        "/auth/login;x",
        "/auth/login%00",
        "/auth/login%20",
        "/auth/login%3F",
        "/AUTH/login",
    ]
    for listener, url in envoy.urls.items():
        for path in around:
            for host in (SHOP, OTHER):
                assert web.get(url + path, [("host", host)]).status in (400, 401, 403), (listener, path, host)
        for path in ("/auth/login", "/auth/openapi.json"):
            assert web.get(url + path, [("host", OTHER)]).status == 401, (
                listener,
                path,
                "the exception applies to one host only",
            )


def test_every_path_of_the_account_api_is_excepted(authz: Program) -> None:
    paths = set(web.get(f"http://{authz.bound('account')}/auth/openapi.json").json()["paths"])
    assert {"/auth/oauth/token", "/auth/oauth/sign-in"} <= paths, "not all operations are on"
    for item in documents(ISTIO / "authorization-policy.yaml"):
        [excepted] = [operation for to in item["spec"]["rules"][0]["to"]
                      if "notPaths" in (operation := to["operation"])]
        assert set(excepted["notPaths"]) == paths
        assert excepted["hosts"] == [host for route in documents(ISTIO / "gateway.yaml")
                                     if route["metadata"]["name"] == "account" for host in route["spec"]["hostnames"]]
