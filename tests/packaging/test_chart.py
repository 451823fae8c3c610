"""Objects that the chart cognito-authz renders: valid for every Kubernetes from 1.29, restricted, consistent.

Other files test the values (test_chart_values.py), the running program (test_chart_running.py), alerts and the
dashboard (test_chart_metrics.py), and the library chart (test_chart_sidecar.py).
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate.utils as schemas
import pytest
import yaml

from helm_charts import CHART, CI, NEEDED, Rendered, merged, pods, render, rendered_ci
from kubernetes_rules import VERSIONS, complaints, restricted
from manifests import WITHOUT_SCHEMA, validate_crds

CUSTOM = {
    "AuthorizationPolicy",
    "BackendTLSPolicy",
    "Certificate",
    "ClientTrafficPolicy",
    "DestinationRule",
    "EnvoyFilter",
    "HTTPRoute",
    "PeerAuthentication",
    "PodMonitor",
    "PrometheusRule",
    "ReferenceGrant",
    "SecurityPolicy",
    "ServiceMonitor",
}
BY_FILE = pytest.mark.parametrize("path", CI, ids=lambda path: path.name.removesuffix("-values.yaml"))


# ------------------------------------------------------------------------------------------------ schemas

@BY_FILE
def test_helm_lint_passes(path: Path) -> None:
    report = helm.lint(str(CHART), yaml.safe_load(path.read_text()), strict=True, kube_version="v1.29.0")
    assert not report["errors"], report
    assert [one for one in report["messages"] if one["severity"] > 1] == []


def first_version(path: Path) -> str:
    """The oldest Kubernetes for a file of values: the one that its comment names, otherwise 1.29."""
    named = re.search(r"^# .*Needs Kubernetes (\d+\.\d+)", path.read_text(), re.MULTILINE)
    return f"{named[1]}.0" if named else "1.29.0"


@BY_FILE
def test_objects_are_valid_in_every_kubernetes_version(path: Path) -> None:
    for version in VERSIONS:
        if schemas.Version(version) < schemas.Version(first_version(path)):
            continue
        for one in rendered_ci(path).objects:
            if one["kind"] not in CUSTOM:
                assert complaints(version, json.dumps(one)) == [], version


def test_the_schemas_reject_wrong_objects() -> None:
    deployment = copy.deepcopy(render(NEEDED).one("Deployment"))
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    assert complaints("1.29.0", json.dumps(deployment))
    traffic = rendered_ci(CHART / "ci" / "service-values.yaml").of("Service")[0]
    assert complaints("1.29.0", json.dumps(traffic)), (
        "trafficDistribution needs a newer version, which the file names"
    )
    assert VERSIONS[0] == "1.29.0"
    assert len(VERSIONS) >= 9


def test_custom_resources_are_valid(crd_validator: Path, tmp_path: Path) -> None:
    manifests = []
    for path in CI:
        manifests.append(tmp_path / path.name)
        # Of these there is no schema. test_chart_tls.py checks the fields of a Certificate.
        kinds = CUSTOM - WITHOUT_SCHEMA - {"Certificate"}
        custom = [one for one in rendered_ci(path).objects if one["kind"] in kinds]
        manifests[-1].write_text(yaml.safe_dump_all(custom))
    validate_crds(crd_validator, *manifests)


def test_the_examples_cover_every_custom_resource() -> None:
    assert {one["kind"] for path in CI for one in rendered_ci(path).objects} >= CUSTOM | {
        "Ingress",
        "HorizontalPodAutoscaler",
    }


# ------------------------------------------------------------------------------------------------ security

@BY_FILE
def test_pods_are_restricted(path: Path) -> None:
    everything = pods(rendered_ci(path).objects)
    assert everything
    for name, pod in everything:
        assert restricted(pod) == [], name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("securityContext", {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}),
        ("podSecurityContext", {"runAsNonRoot": False, "runAsUser": 0}),
        ("securityContext", {"allowPrivilegeEscalation": None}),
        ("podSecurityContext", {"seccompProfile": None}),
        ("securityContext", {"readOnlyRootFilesystem": False, "privileged": True}),
        ("extraVolumes", [{"name": "host", "hostPath": {"path": "/"}}]),
        ("extraContainers", [{"name": "loose", "image": "x"}]),
    ],
)
def test_the_check_finds_pods_that_are_not_restricted(where: str, value: Any) -> None:
    values = merged(NEEDED, {where: value})
    if where == "podSecurityContext":
        values["securityContext"] = {"runAsNonRoot": None}
    assert restricted(pods(render(values).objects)[0][1])


@BY_FILE
def test_manifests_contain_no_secrets(path: Path) -> None:
    rendered = rendered_ci(path)
    assert rendered.of("Secret") == []
    for name, pod in pods(rendered.objects):
        for container in pod["containers"]:
            for argument in container.get("args", []):
                assert "secret" not in argument or argument.startswith(
                    (
                        "--client-secret-file=/run/secrets/",
                        "--oauth-state-key-file=/run/secrets/",
                        "--admin-token-file=/run/secrets/",
                        "--revocation-password-file=/run/secrets/",
                        "--tls-cert-file=/run/secrets/",
                        "--tls-key-file=/run/secrets/",
                        "--tls-client-ca-file=/run/secrets/",
                        "--admin-ca-file=/run/secrets/",
                    )
                ), name
            for variable in container.get("env", []):
                assert "SECRET" not in variable["name"] or "valueFrom" in variable, name


def test_secrets_are_mounted_only_for_the_account_api() -> None:
    rendered = rendered_ci(CHART / "ci" / "account-values.yaml")
    volumes = rendered.one("Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {volume["secret"]["secretName"] for volume in volumes if "secret" in volume} == {
        "cognito-client",
        "oauth-state",
    }
    assert all(volume["secret"]["defaultMode"] == 0o440 for volume in volumes if "secret" in volume)
    off = render(merged(NEEDED, {"account": {"existingSecret": {"name": "cognito-client"}}}))
    assert "volumes" not in off.one("Deployment")["spec"]["template"]["spec"], "only the account API needs it"


def test_the_operators_token_is_a_mounted_secret() -> None:
    rendered = rendered_ci(CHART / "ci" / "user-pool-values.yaml")
    [(_, pod)] = pods(rendered.of("Deployment"))
    [volume] = [volume for volume in pod["volumes"] if "secret" in volume]
    assert volume["secret"] == {"secretName": "operators", "defaultMode": 0o440,
                                "items": [{"key": "token", "path": "admin-token"}]}
    [container] = pod["containers"]
    assert "--admin-token-file=/run/secrets/cognito-authz/admin/admin-token" in container["args"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
    assert mount["mountPath"] == "/run/secrets/cognito-authz/admin"
    assert "subPath" not in mount


def test_the_store_of_revocations_is_reachable_and_its_password_is_a_file() -> None:
    rendered = rendered_ci(CHART / "ci" / "revocation-values.yaml")
    args = rendered.container()["args"]
    assert "--revocation-url=rediss://authz@valkey.valkey.svc:6380/2" in args
    assert {"--revocation-required=true", "--revocation-capacity=2000000", "--max-token-life=1h"} <= set(args)
    volumes = {one["name"]: one for one in rendered.one("Deployment")["spec"]["template"]["spec"]["volumes"]}
    mounts = {one["name"]: one["mountPath"] for one in rendered.container()["volumeMounts"]}
    for name, option, secret, key in [
        ("revocation-password", "--revocation-password-file=", "valkey-authz", "authz-password"),
        ("revocation-ca", "--revocation-ca-file=", "valkey-ca", "ca.crt"),
    ]:
        [item] = volumes[name]["secret"]["items"]
        assert (volumes[name]["secret"]["secretName"], item["key"]) == (secret, key)
        assert f"{option}{mounts[name]}/{item['path']}" in args
    [rule] = [one for one in rendered.one("NetworkPolicy")["spec"]["egress"] if "to" in one]
    values = yaml.safe_load((CHART / "ci" / "revocation-values.yaml").read_text())
    assert rule == {"ports": [{"protocol": "TCP", "port": 6380}], "to": values["networkPolicy"]["revocationTo"]}
    ca = render(merged(values, {"revocation": {"caSecret": {"name": ""}, "caConfigMap": {"name": "trusted"}}}))
    [volume] = [one for one in ca.one("Deployment")["spec"]["template"]["spec"]["volumes"] if "configMap" in one]
    assert volume["configMap"] == {"name": "trusted", "items": [{"key": "ca.crt", "path": "ca.crt"}]}


@pytest.mark.parametrize(
    ("url", "own", "ports"),
    [
        ("redis://valkey", [], [6379]),
        ("redis://valkey:7000/3", [], [7000]),
        ("rediss://10.0.0.1:7000", [], [7000]),
        ("redis://[fd00::1]:7000", [], [7000]),
        ("redis://[fd00::1]", [], [6379]),
        ("redis-sentinel://a,b:26380/primary", [], [26379, 26380, 6379]),
        ("rediss-cluster://a:7000,b:7001,c:7001", [], [7000, 7001]),
        ("redis-cluster://a:7000", [7000, 7001, 7002], [7000, 7001, 7002]),
    ],
)
def test_egress_to_the_store_uses_its_ports(url: str, own: list[int], ports: list[int]) -> None:
    policy = render(merged(NEEDED, {"revocation": {"url": url}, "networkPolicy": {"revocationPorts": own}}))
    rules = policy.one("NetworkPolicy")["spec"]["egress"]
    assert rules[2:] == [{"ports": [{"protocol": "TCP", "port": port} for port in ports]}]
    assert len(render(NEEDED).one("NetworkPolicy")["spec"]["egress"]) == 2


def test_traces_are_exported_to_the_collector() -> None:
    rendered = rendered_ci(CHART / "ci" / "tracing-values.yaml")
    container = rendered.container()
    assert {"--trace-ratio=0.01", "--trace-trust-headers=true"} <= set(container["args"])
    assert container["env"] == [
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector.tracing:4317"},
        {"name": "OTEL_EXPORTER_OTLP_PROTOCOL", "value": "grpc"},
        {"name": "OTEL_SERVICE_NAME", "value": "rel"},
    ]
    values = yaml.safe_load((CHART / "ci" / "tracing-values.yaml").read_text())
    [rule] = [one for one in rendered.one("NetworkPolicy")["spec"]["egress"] if "to" in one]
    assert rule == {"ports": [{"protocol": "TCP", "port": 4317}], "to": values["networkPolicy"]["tracingTo"]}
    for endpoint, port in [("http://c", 80), ("https://c/base", 443), ("https://[fd00::1]:4318", 4318)]:
        policy = render(merged(NEEDED, {"tracing": {"endpoint": endpoint}})).one("NetworkPolicy")
        assert policy["spec"]["egress"][2:] == [{"ports": [{"protocol": "TCP", "port": port}]}]
    off = render(NEEDED)
    assert "env" not in off.container()
    assert not any(argument.startswith("--trace") for argument in off.container()["args"])


def test_the_example_with_valkey_gives_its_user_the_stream_only(tmp_path: Path) -> None:
    """The example as it is. Its dependency on Valkey's chart is a comment, because that chart is not ours."""
    shutil.copytree(CHART, tmp_path / "cognito-authz")
    chart = tmp_path / "cognito-authz" / "examples" / "with-valkey"
    helm.dependency_update(str(chart))
    values = yaml.safe_load((chart / "values.yaml").read_text())
    rendered = render({}, chart, name="cognito-authz", namespace="cognito-authz")
    valkey = values["valkey"]
    url = next(one.split("=", 1)[1] for one in rendered.container()["args"] if one.startswith("--revocation-url="))
    user, host = re.fullmatch(r"rediss://(\w+)@([\w.-]+):6379", url).groups()  # type: ignore[union-attr]
    assert host == f"{valkey['fullnameOverride']}.cognito-authz.svc"
    assert valkey["auth"]["aclUsers"][user]["permissions"] == (
        "resetkeys ~{cognito-authz}:revocations -@all +xadd +xread +xrange"
    )
    volumes = rendered.one("Deployment")["spec"]["template"]["spec"]["volumes"]
    assert [(one["secret"]["secretName"], one["secret"]["items"][0]["key"]) for one in volumes] == [
        (valkey["auth"]["usersExistingSecret"], user),
        (valkey["tls"]["existingSecret"], "ca.crt"),
    ]
    assert [one for one in rendered.warnings() if "revocation" in one] == []
    manifest = (chart / "Chart.yaml").read_text()
    commented = re.search(r"^  # (- name: valkey\n)  # (.+\n)  # (.+)$", manifest, re.MULTILINE)
    assert commented
    [dependency] = yaml.safe_load("".join(commented.groups()))
    assert set(dependency) == {"name", "version", "repository"}


# ------------------------------------------------------------------------------------------------ consistent

@BY_FILE
def test_selectors_match_the_pods_and_no_others(path: Path) -> None:
    rendered = rendered_ci(path)
    deployment = rendered.one("Deployment")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert set(selector) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}, (
        "a Deployment's selector is immutable"
    )
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    selectors = [one["spec"]["selector"] for one in rendered.of("Service")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in rendered.of("PodDisruptionBudget")]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in rendered.of("NetworkPolicy")]
    assert all(one == selector for one in selectors)
    for test in rendered.of("Pod"):
        assert not selector.items() <= test["metadata"]["labels"].items(), (
            "the Services would send checks to the test pod"
        )
    for monitor in rendered.of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        matched = [one for one in rendered.of("Service") if wanted.items() <= one["metadata"]["labels"].items()]
        assert [one["metadata"]["name"].rsplit("-", 1)[1] for one in matched] == ["admin"]
    for monitor in rendered.of("PodMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_selectors_contain_no_version_and_no_common_labels() -> None:
    one, other = (render(merged(NEEDED, {"image": {"tag": tag}, "commonLabels": {"a": tag}})) for tag in ("1", "2"))
    assert one.one("Deployment")["spec"]["selector"] == other.one("Deployment")["spec"]["selector"]
    assert one.one("Deployment")["metadata"]["labels"]["app.kubernetes.io/version"] == "1"
    assert all(each["metadata"]["labels"]["a"] == "1" for each in one.objects if each["kind"] != "Pod")


@BY_FILE
def test_ports_agree_in_arguments_probes_and_services(path: Path) -> None:
    rendered = rendered_ci(path)
    container = rendered.container()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    matches = (re.fullmatch(r"--(\w+)-listen=(?:m?tls:)?\[::\]:(\d+)", one) for one in container["args"])
    listening = {match[1]: match[2] for match in matches if match}
    assert {name: int(port) for name, port in listening.items()} == ports
    assert ("account" in ports) == ("--account-api=false" not in container["args"]), (
        "the account API must not be on the admin port"
    )
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container.get(probe, {})
        assert "httpGet" not in asked or asked["httpGet"]["port"] == "admin"
        assert "grpc" not in asked or asked["grpc"]["port"] == ports["grpc"]
    for service in rendered.of("Service"):
        [port] = service["spec"]["ports"]
        assert port["targetPort"] in ports
        assert port["appProtocol"]
        if service["spec"].get("clusterIP") == "None":
            assert port["port"] == ports[port["targetPort"]], "a headless Service does not translate ports"
    for policy in rendered.of("NetworkPolicy"):
        opened = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert set(ports.values()) <= opened
    for test in rendered.of("Pod"):
        [address] = [one for one in test["spec"]["containers"][0]["args"] if one.startswith("--admin=")]
        service = rendered.one("Service", "-admin")
        host = f"{service['metadata']['name']}.{service['metadata']['namespace']}"
        encrypted = any(one.startswith("--admin-listen=tls:") for one in container["args"])
        base = f"https://{host}.svc" if encrypted else f"http://{host}"
        assert address == f"--admin={base}:{ports['admin']}"
    for gateway in (one for one in rendered.of("SecurityPolicy") if "extAuth" in one["spec"]):
        [backend] = gateway["spec"]["extAuth"]["grpc"]["backendRefs"]
        service = next(one for one in rendered.of("Service") if one["metadata"]["name"] == backend["name"])
        assert (service["metadata"]["namespace"], service["spec"]["ports"][0]["port"]) == (
            backend["namespace"],
            backend["port"],
        )
        assert gateway["spec"]["extAuth"]["failOpen"] is False


def test_envoy_gateway_checks_every_route_except_the_account_api() -> None:
    """The policy targets the Gateway, so it covers routes added later. A route's own policy replaces it."""
    rendered = rendered_ci(CHART / "ci" / "envoy-gateway-values.yaml")
    [asking], [silent] = (
        [one for one in rendered.of("SecurityPolicy") if ("extAuth" in one["spec"]) is asked] for asked in (True, False)
    )
    assert [target["kind"] for target in asking["spec"]["targetRefs"]] == ["Gateway"]
    route = rendered.one("HTTPRoute", "-account")
    assert silent["spec"] == {"authorization": {"defaultAction": "Allow"}, "targetRefs": [
        {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": route["metadata"]["name"]}]}
    assert silent["metadata"]["namespace"] == route["metadata"]["namespace"], (
        "a policy applies only to its own namespace"
    )
    [parent] = route["spec"]["parentRefs"]
    assert (parent["name"], parent["namespace"]) == (
        asking["spec"]["targetRefs"][0]["name"],
        asking["metadata"]["namespace"],
    )
    assert [one.split(":")[0] for one in rendered.warnings()] == [
        "revocation.url is not set",
        "networkPolicy.grpcFrom is empty",
    ]


def test_the_account_service_targets_only_the_account_port() -> None:
    for name in ("account-ingress", "account-httproute"):
        rendered = rendered_ci(CHART / "ci" / f"{name}-values.yaml")
        text = yaml.safe_dump(rendered.of("Ingress") + rendered.of("HTTPRoute"))
        assert "rel-cognito-authz-account" in text
        assert "/auth" in text
        assert rendered.one("Service", "-account")["spec"]["ports"][0]["targetPort"] == "account"


def test_the_metadata_of_protected_resources_is_routed_with_the_account_api() -> None:
    """It is not below the prefix. Without resources, the application may serve these paths itself."""
    account = {"enabled": True, "httpRoute": {"enabled": True, "parentRefs": [{"name": "ingress"}]},
               "ingress": {"enabled": True, "hosts": ["mcp.example.com"]}}
    resources = [{"resource": "https://mcp.example.com/mcp", "policy": "mcp"}]
    file = {"policies": {"mcp": {}}, "protected_resources": resources}
    metadata = [("/.well-known/oauth-protected-resource", True), ("/.well-known/oauth-authorization-server", False)]
    for config, expected in (({}, []), ({"policies": {"mcp": {}}}, []), (file, metadata)):
        rendered = render(merged(NEEDED, {"account": account, "config": config}))
        [rule] = rendered.one("HTTPRoute")["spec"]["rules"]
        found = [(match["path"]["value"], match["path"]["type"] == "PathPrefix") for match in rule["matches"]]
        assert found == [("/auth", True), *expected]
        [host] = rendered.one("Ingress")["spec"]["rules"]
        found = [(path["path"], path["pathType"] == "Prefix") for path in host["http"]["paths"]]
        assert found == [("/auth", True), *expected]


def test_the_http_form_has_a_port_a_service_and_a_rule() -> None:
    off = render(NEEDED)
    assert not [one for one in off.of("Service") if one["metadata"]["name"].endswith("-http")]
    assert not [one for one in off.container()["args"] if one.startswith("--http-")]
    proxies = [{"podSelector": {"matchLabels": {"app": "traefik"}}}]
    http = {"enabled": True, "callers": ["10.1.0.0/16", "fd00::/8"]}
    rendered = render(merged(NEEDED, {"http": http, "networkPolicy": {"httpFrom": proxies}}))
    given = [one for one in rendered.container()["args"] if one.startswith("--http-")]
    assert given == ["--http-listen=[::]:9193", "--http-callers=10.1.0.0/16", "--http-callers=fd00::/8"]
    [port] = rendered.one("Service", "-http")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (9193, "http")
    rules = rendered.one("NetworkPolicy")["spec"]["ingress"]
    assert [rule["from"] for rule in rules if rule["ports"][0]["port"] == 9193] == [proxies]


def test_a_pool_and_a_client_are_enough_for_an_installation() -> None:
    rendered = render(NEEDED)
    kinds = sorted(one["kind"] for one in rendered.objects)
    assert kinds == [
        "Deployment",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "Service",
        "Service",
        "Service",
        "ServiceAccount",
    ]
    spec = rendered.one("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]["rollingUpdate"]) == (2, {"maxUnavailable": 0, "maxSurge": 1})
    container = rendered.container()
    assert "lifecycle" not in container, "Kubernetes 1.29 rejects a preStop sleep"
    assert "--shutdown-delay=5s" in container["args"], "Kubernetes 1.29 rejects a preStop sleep"
    assert "cpu" not in container["resources"]["limits"]
    assert len(spec["template"]["spec"]["topologySpreadConstraints"]) == 2
    assert len(rendered.warnings()) == 1, rendered.notes


def test_the_policy_file_equals_the_values() -> None:
    path = CHART / "ci" / "policy-file-values.yaml"
    rendered = rendered_ci(path)
    written = yaml.safe_load(rendered.one("ConfigMap", "-policy")["data"]["policy.yaml"])
    assert written == yaml.safe_load(path.read_text())["config"]
    template = rendered.one("Deployment")["spec"]["template"]
    assert not any("checksum" in name for name in template["metadata"]["annotations"]), (
        "the program reloads the file itself"
    )
    assert all("subPath" not in mount for mount in rendered.container()["volumeMounts"]), (
        "a file mounted with subPath is never updated"
    )


def test_the_autoscaler_sets_the_number_of_replicas() -> None:
    rendered = rendered_ci(CHART / "ci" / "autoscaling-values.yaml")
    assert "replicas" not in rendered.one("Deployment")["spec"]
    assert (
        rendered.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]
        == rendered.one("Deployment")["metadata"]["name"]
    )
    assert rendered.one("PodDisruptionBudget")["spec"]["minAvailable"] == "50%"
    assert rendered_ci(CHART / "ci" / "single-values.yaml").of("PodDisruptionBudget") == []


def test_a_digest_takes_precedence_over_a_tag_and_a_global_registry_over_the_own() -> None:
    rendered = rendered_ci(CHART / "ci" / "image-values.yaml")
    digest = yaml.safe_load((CHART / "ci" / "image-values.yaml").read_text())["image"]["digest"]
    assert rendered.container()["image"] == f"registry.example.com/mirror/cognito-authz@{digest}"
    secrets = rendered.one("Deployment")["spec"]["template"]["spec"]["imagePullSecrets"]
    assert secrets == [{"name": "shared"}, {"name": "own"}]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert render(NEEDED).container()["image"] == f"ghcr.io/cognito-authz/cognito-authz:{version}"


def test_openshift_can_choose_user_and_group() -> None:
    context = rendered_ci(CHART / "ci" / "openshift-values.yaml").one("Deployment")["spec"]["template"]["spec"][
        "securityContext"
    ]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_templates_in_extra_values_are_evaluated_and_overridden_names_used() -> None:
    rendered = rendered_ci(CHART / "ci" / "extras-values.yaml")
    assert "--realm=rel" in rendered.container()["args"]
    assert {one["metadata"]["name"] for one in rendered.of("ConfigMap")} == {"rel-env", "rel-text"}
    own = [one for one in rendered.objects if one["kind"] not in ("ConfigMap", "Pod")]
    assert {one["metadata"]["namespace"] for one in own} == {"authz"}
    assert {one["metadata"]["labels"]["example.com/team"] for one in own} == {"shop"}
    assert {one["metadata"]["annotations"]["example.com/owner"] for one in own} == {"shop"}
    assert rendered.one("Deployment")["metadata"]["name"] == "authz-of-the-shop"


def test_a_long_release_name_leaves_room_for_suffixes() -> None:
    rendered: Rendered = render(NEEDED, name="r" * 53)
    assert all(len(one["metadata"]["name"]) <= 63 for one in rendered.objects)
    assert len({(one["kind"], one["metadata"]["name"]) for one in rendered.objects}) == len(rendered.objects)
