"""deploy/envoy-gateway: references point to existing objects, and everything fails closed."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from bootstrap import Bootstrap
from manifests import (
    DEPLOY,
    VERSIONS,
    assert_restricted,
    authz_container,
    check_builtin,
    check_routes,
    documents,
    find,
    folder,
    patched_envoy_deployment,
)
from stage import Node, named

GATEWAY = DEPLOY / "envoy-gateway"


def test_checks_fail_closed_after_250_ms() -> None:
    checks = [item["spec"]["extAuth"] for item in folder("envoy-gateway")
             if item["kind"] == "SecurityPolicy" and "extAuth" in item["spec"]]
    assert len(checks) == 3
    for settings in checks:
        assert (settings["timeout"], settings["failOpen"], settings["statusOnError"]) == ("250ms", False, 503)
        shipped = Bootstrap().ext_authz("ingress_tcp")["allowed_headers"]["patterns"]
        assert settings["headersToExtAuth"] == [pattern["exact"] for pattern in shipped if "exact" in pattern]
        assert "bodyToExtAuth" not in settings
    first, *others = ({key: value for key, value in settings.items() if key not in ("contextExtensions", "grpc")}
                      for settings in checks)
    assert all(other == first for other in others), "the copies differ"


def test_retries_are_likely_to_reach_another_pod() -> None:
    """Envoy Gateway sets no `previous_hosts` for these retries (`buildNonRouteRetryPolicy`): any pod may be chosen."""
    checks = [
        item["spec"]["extAuth"]["grpc"]["backendSettings"]
        for item in folder("envoy-gateway")
        if item["kind"] == "SecurityPolicy" and "backendSettings" in item["spec"].get("extAuth", {}).get("grpc", {})
    ]
    assert len(checks) == 2, "the copies differ"
    assert checks[0] == checks[1], "the copies differ"
    assert checks[0]["retry"] == {
        "numRetries": 6, "perRetry": {"backOff": {"baseInterval": "1ms", "maxInterval": "120ms"}},
        "retryOn": {"triggers": ["connect-failure", "refused-stream", "reset", "unavailable"]}}
    assert checks[0]["loadBalancer"] == {"type": "RoundRobin"}, (
        "LeastRequest would prefer a dead pod, which has the fewest requests"
    )
    assert "maxParallelRetries" not in checks[0]["circuitBreaker"], "its default is 1024"


def test_references_point_to_existing_objects(production: list[Node]) -> None:
    objects = folder("envoy-gateway")
    grants = [item for item in objects if item["kind"] == "ReferenceGrant"]
    for policy in (item for item in objects if item["kind"] == "SecurityPolicy"):
        namespace = policy["metadata"]["namespace"]
        for target in policy["spec"]["targetRefs"]:
            find(objects, target["kind"], target["name"], namespace)
        for reference in policy["spec"].get("extAuth", {}).get("grpc", {}).get("backendRefs", []):
            where = reference.get("namespace", namespace)
            if reference.get("kind", "Service") == "Backend":
                find(objects, "Backend", reference["name"], where)
                continue
            service = find(production, "Service", reference["name"], where)
            assert reference["port"] in {port["port"] for port in service["spec"]["ports"]}
            asking = {"group": "gateway.envoyproxy.io", "kind": "SecurityPolicy", "namespace": namespace}
            wanted = {"group": "", "kind": "Service", "name": reference["name"]}
            granted = [grant for grant in grants if grant["metadata"]["namespace"] == where
                       and asking in grant["spec"]["from"] and wanted in grant["spec"]["to"]]
            assert granted or where == namespace, f"no ReferenceGrant lets {namespace} use the service"
    classes = {item["metadata"]["name"] for item in objects if item["kind"] == "GatewayClass"}
    for item in objects:
        assert item["kind"] != "Gateway" or item["spec"]["gatewayClassName"] in classes
        reference = item["spec"].get("parametersRef")
        if reference:
            find(objects, reference["kind"], reference["name"], reference["namespace"])
    check_routes(objects, production)
    [application] = documents(GATEWAY / "application.yaml")
    assert application["spec"]["ingress"][0]["ports"] == [{"port": 3000}], "the port that the routes use"
    # Every route is checked, except one.
    open_routes = [policy["spec"]["targetRefs"][0]["name"] for policy in objects
                   if policy["kind"] == "SecurityPolicy" and "extAuth" not in policy["spec"]]
    assert open_routes == ["account"]


def test_the_policy_of_a_route_exists_in_the_policy_file(production: list[Node]) -> None:
    policy_file = yaml.safe_load(find(production, "ConfigMap", "cognito-authz-policy")["data"]["policy.yaml"])
    extensions = [extension for item in documents(GATEWAY / "admin.yaml") if item["kind"] == "SecurityPolicy"
                  for extension in item["spec"]["extAuth"]["contextExtensions"]]
    assert extensions == [{"name": "policy", "type": "Value", "value": "admin"}]
    assert "admin" in policy_file["policies"]


def test_forged_headers_are_removed_at_the_gateway() -> None:
    [policy] = documents(GATEWAY / "client-traffic-policy.yaml")
    headers = policy["spec"]["headers"]
    assert headers["withUnderscoresAction"] == "RejectRequest"
    [matcher] = headers["earlyRequestHeaders"]["removeOnMatch"]
    assert matcher["type"] == "RegularExpression"
    for name in ("x-auth-sub", "x-auth-anything", "x.auth.sub", "x_auth_sub"):
        assert re.fullmatch(matcher["value"], name), name
    assert not re.fullmatch(matcher["value"], "authorization")
    assert policy["spec"]["path"] == {"escapedSlashesAction": "UnescapeAndRedirect", "disableMergeSlashes": False}


def test_the_patch_adds_sidecar_and_socket_to_envoys_pods(tmp_path: Path) -> None:
    deployment = patched_envoy_deployment(tmp_path)
    check_builtin([deployment], VERSIONS)
    pod = deployment["spec"]["template"]["spec"]
    assert_restricted(pod)
    [backend] = [item for item in documents(GATEWAY / "sidecar" / "security-policy.yaml") if item["kind"] == "Backend"]
    path = backend["spec"]["endpoints"][0]["unix"]["path"]
    assert f"--grpc-listen=unix:{path}" in authz_container(pod)["args"]
    envoy = named(pod["containers"], "envoy")
    for container in (authz_container(pod), envoy):
        mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "authz-socket")
        assert Path(path).parent == Path(mount["mountPath"])
    assert len(envoy["volumeMounts"]) == 2, "the patch must keep existing volumes"
    assert len(pod["volumes"]) == 2, "the patch must keep existing volumes"
    assert [container["name"] for container in pod["containers"]] == ["envoy", "shutdown-manager"]
    values = yaml.safe_load((GATEWAY / "sidecar" / "envoy-gateway.yaml").read_text())
    assert values == {"config": {"envoyGateway": {"extensionApis": {"enableBackend": True}}}}
