"""What the chart cognito-authz renders: right for every Kubernetes from 1.29, restricted, and refused where it makes no sense.

test_chart_running.py starts it; test_chart_metrics.py is about alerts and the dashboard; test_chart_sidecar.py about the library.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate.utils as schemas
import pytest
import referencing
import yaml
from jsonschema.validators import Draft202012Validator

from helm_charts import CHART, CI, NEEDED, Rendered, pods, render, rendered_ci
from manifests import validate_crds
from stage import Node

VERSIONS = [version for version in schemas.all_versions() if schemas.Version(version) >= schemas.Version("1.29.0")]
CUSTOM = {"AuthorizationPolicy", "HTTPRoute", "PodMonitor", "PrometheusRule", "ReferenceGrant", "SecurityPolicy", "ServiceMonitor"}
BY_FILE = pytest.mark.parametrize("path", CI, ids=lambda path: path.name.removesuffix("-values.yaml"))


def merged(base: Node, extra: Node) -> Node:
    """As Helm merges values."""
    result = copy.deepcopy(base)
    for key, value in extra.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result


def nested(path: str, value: Any) -> Node:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------ well-formed

@BY_FILE
def test_lint_is_content(path: Path) -> None:
    report = helm.lint(str(CHART), yaml.safe_load(path.read_text()), strict=True, kube_version="v1.29.0")
    assert not report["errors"], report
    assert [one for one in report["messages"] if one["severity"] > 1] == []


@functools.cache
def definitions(version: str) -> referencing.Registry[Any]:
    contents = schemas.schema_contents(f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version)
    return referencing.Resource.from_contents(contents) @ referencing.Registry()


@functools.cache
def validator(version: str, api_version: str, kind: str) -> Draft202012Validator:
    """As `kubernetes_validate.validate(…, strict=True)`, with files read once."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    file = f"kubernetes-json-schema/v{version}-local-strict/{kind.lower()}-{group}.json"
    schema = schemas.schema_contents(file, version)
    return Draft202012Validator(schema, registry=referencing.Resource.from_contents(schema) @ definitions(version))


@functools.cache
def complaints(version: str, document: str) -> list[str]:
    one = json.loads(document)
    errors = validator(version, one["apiVersion"], one["kind"]).iter_errors(one)
    return [f"{one['kind']}/{one['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message[:300]}" for error in errors]


def first_version(path: Path) -> str:
    named = re.search(r"Needs Kubernetes (\d+\.\d+)", path.read_text().splitlines()[0])
    return f"{named[1]}.0" if named else "1.29.0"


@BY_FILE
def test_every_kubernetes_takes_it(path: Path) -> None:
    for version in VERSIONS:
        if schemas.Version(version) < schemas.Version(first_version(path)):
            continue
        for one in rendered_ci(path).objects:
            if one["kind"] not in CUSTOM:
                assert complaints(version, json.dumps(one)) == [], version


def test_the_validator_finds_what_is_wrong() -> None:
    deployment = copy.deepcopy(render(NEEDED).one("Deployment"))
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    assert complaints("1.29.0", json.dumps(deployment))
    traffic = rendered_ci(CHART / "ci" / "service-values.yaml").of("Service")[0]
    assert complaints("1.29.0", json.dumps(traffic)), "trafficDistribution is younger, so the file says which version it needs"
    assert VERSIONS[0] == "1.29.0"
    assert len(VERSIONS) >= 9


def test_custom_resources_are_valid(crd_validator: Path, tmp_path: Path) -> None:
    manifests = []
    for path in CI:
        manifests.append(tmp_path / path.name)
        custom = [one for one in copy.deepcopy(rendered_ci(path).objects) if one["kind"] in CUSTOM]
        for one in custom:
            # Of the same form as v1, which clusters with an older Gateway API do not have yet.
            if one["apiVersion"] == "gateway.networking.k8s.io/v1beta1":
                one["apiVersion"] = "gateway.networking.k8s.io/v1"
        manifests[-1].write_text(yaml.safe_dump_all(custom))
    validate_crds(crd_validator, *manifests)


def test_every_custom_resource_is_in_an_example() -> None:
    assert {one["kind"] for path in CI for one in rendered_ci(path).objects} >= CUSTOM | {"Ingress", "HorizontalPodAutoscaler"}


# ------------------------------------------------------------------------------------------------ security

def restricted(pod: Node) -> list[str]:
    """What the restricted profile of the Pod Security Standards refuses, rule by rule. Empty: it is let in."""
    own = pod.get("securityContext", {})
    found = [f"host namespaces: {name}" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    found += [f"volume type: {volume}" for volume in pod.get("volumes", []) if not set(volume) - {"name"} <= allowed]
    found += ["sysctls"] if own.get("sysctls") else []
    for container in pod.get("initContainers", []) + pod["containers"] + pod.get("ephemeralContainers", []):
        context, name = container.get("securityContext", {}), container["name"]
        effective = {**{key: own.get(key) for key in ("runAsNonRoot", "seccompProfile", "runAsUser")}, **context}
        capabilities = context.get("capabilities", {})
        rules = {
            "privileged": context.get("privileged", False) is False,
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "runAsNonRoot": effective["runAsNonRoot"] is True,
            "runAsUser": effective["runAsUser"] != 0,
            "seccompProfile": (effective["seccompProfile"] or {}).get("type") in ("RuntimeDefault", "Localhost"),
            "capabilities.drop": "ALL" in capabilities.get("drop", []),
            "capabilities.add": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "procMount": context.get("procMount", "Default") == "Default",
            "seLinuxOptions": not {"user", "role"} & set(context.get("seLinuxOptions", {})),
            "hostPort": all(not port.get("hostPort") for port in container.get("ports", [])),
            "windowsOptions": not context.get("windowsOptions", {}).get("hostProcess"),
            "appArmorProfile": context.get("appArmorProfile", {}).get("type") != "Unconfined",
            # Not of the profile, and promised all the same.
            "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
        }
        found += [f"{name}: {rule}" for rule, kept in rules.items() if not kept]
    return found


@BY_FILE
def test_pods_are_restricted(path: Path) -> None:
    everything = pods(rendered_ci(path).objects)
    assert everything
    for name, pod in everything:
        assert restricted(pod) == [], name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name


@pytest.mark.parametrize(("where", "value"), [
    ("securityContext", {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}), ("podSecurityContext", {"runAsNonRoot": False, "runAsUser": 0}),
    ("securityContext", {"allowPrivilegeEscalation": None}), ("podSecurityContext", {"seccompProfile": None}),
    ("securityContext", {"readOnlyRootFilesystem": False, "privileged": True}),
    ("extraVolumes", [{"name": "host", "hostPath": {"path": "/"}}]), ("extraContainers", [{"name": "loose", "image": "x"}])])
def test_the_restricted_profile_would_be_missed(where: str, value: Any) -> None:
    values = merged(NEEDED, {where: value})
    if where == "podSecurityContext":
        values["securityContext"] = {"runAsNonRoot": None}
    assert restricted(pods(render(values).objects)[0][1])


@BY_FILE
def test_no_secret_is_in_a_manifest(path: Path) -> None:
    rendered = rendered_ci(path)
    assert rendered.of("Secret") == []
    for name, pod in pods(rendered.objects):
        for container in pod["containers"]:
            for argument in container.get("args", []):
                assert "secret" not in argument or argument.startswith(("--client-secret-file=/run/secrets/", "--oauth-state-key-file=/run/secrets/")), name
            for variable in container.get("env", []):
                assert "SECRET" not in variable["name"] or "valueFrom" in variable, name


def test_a_secret_is_mounted_for_the_program_only() -> None:
    rendered = rendered_ci(CHART / "ci" / "account-values.yaml")
    volumes = rendered.one("Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {volume["secret"]["secretName"] for volume in volumes if "secret" in volume} == {"cognito-client", "oauth-state"}
    assert all(volume["secret"]["defaultMode"] == 0o440 for volume in volumes if "secret" in volume)
    off = render(merged(NEEDED, {"account": {"existingSecret": {"name": "cognito-client"}}}))
    assert "volumes" not in off.one("Deployment")["spec"]["template"]["spec"], "without the account API nobody needs it"


# ------------------------------------------------------------------------------------------------ consistent

@BY_FILE
def test_selectors_match_pods_and_nothing_else(path: Path) -> None:
    rendered = rendered_ci(path)
    deployment = rendered.one("Deployment")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert set(selector) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}, "a selector can never be changed"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    selectors = [one["spec"]["selector"] for one in rendered.of("Service")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in rendered.of("PodDisruptionBudget")]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in rendered.of("NetworkPolicy")]
    assert all(one == selector for one in selectors)
    for test in rendered.of("Pod"):
        assert not selector.items() <= test["metadata"]["labels"].items(), "the test pod would get checks"
    for monitor in rendered.of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        matched = [one for one in rendered.of("Service") if wanted.items() <= one["metadata"]["labels"].items()]
        assert [one["metadata"]["name"].rsplit("-", 1)[1] for one in matched] == ["admin"]
    for monitor in rendered.of("PodMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_labels_of_a_release_differ_and_keep_their_version_out_of_selectors() -> None:
    one, other = (render(merged(NEEDED, {"image": {"tag": tag}, "commonLabels": {"a": tag}})) for tag in ("1", "2"))
    assert one.one("Deployment")["spec"]["selector"] == other.one("Deployment")["spec"]["selector"]
    assert one.one("Deployment")["metadata"]["labels"]["app.kubernetes.io/version"] == "1"
    assert all(each["metadata"]["labels"]["a"] == "1" for each in one.objects if each["kind"] != "Pod")


@BY_FILE
def test_ports_probes_services_and_arguments_agree(path: Path) -> None:
    rendered = rendered_ci(path)
    container = rendered.container()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    matches = (re.fullmatch(r"--(\w+)-listen=\[::\]:(\d+)", one) for one in container["args"])
    listening = {match[1]: match[2] for match in matches if match}
    assert {name: int(port) for name, port in listening.items()} == ports
    assert ("account" in ports) == ("--account-api=false" not in container["args"]), "never on the admin port"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container.get(probe, {})
        assert "httpGet" not in asked or asked["httpGet"]["port"] == "admin"
        assert "grpc" not in asked or asked["grpc"]["port"] == ports["grpc"]
    for service in rendered.of("Service"):
        [port] = service["spec"]["ports"]
        assert port["targetPort"] in ports
        assert port["appProtocol"]
        if service["spec"].get("clusterIP") == "None":
            assert port["port"] == ports[port["targetPort"]], "nobody translates ports"
    for policy in rendered.of("NetworkPolicy"):
        opened = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert set(ports.values()) <= opened
    for test in rendered.of("Pod"):
        [address] = [one for one in test["spec"]["containers"][0]["args"] if one.startswith("--admin=")]
        service = rendered.one("Service", "-admin")
        assert address == f"--admin=http://{service['metadata']['name']}.{service['metadata']['namespace']}:{ports['admin']}"
    for gateway in (one for one in rendered.of("SecurityPolicy") if "extAuth" in one["spec"]):
        [backend] = gateway["spec"]["extAuth"]["grpc"]["backendRefs"]
        service = next(one for one in rendered.of("Service") if one["metadata"]["name"] == backend["name"])
        assert (service["metadata"]["namespace"], service["spec"]["ports"][0]["port"]) == (backend["namespace"], backend["port"])
        assert gateway["spec"]["extAuth"]["failOpen"] is False


def test_envoy_gateway_asks_about_everything_but_the_account_api() -> None:
    """A policy for routes would leave those open that are added later; one for a route takes precedence over the Gateway's."""
    rendered = rendered_ci(CHART / "ci" / "envoy-gateway-values.yaml")
    [asking], [silent] = ([one for one in rendered.of("SecurityPolicy") if ("extAuth" in one["spec"]) is asked] for asked in (True, False))
    assert [target["kind"] for target in asking["spec"]["targetRefs"]] == ["Gateway"]
    route = rendered.one("HTTPRoute", "-account")
    assert silent["spec"] == {"authorization": {"defaultAction": "Allow"}, "targetRefs": [
        {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": route["metadata"]["name"]}]}
    assert silent["metadata"]["namespace"] == route["metadata"]["namespace"], "a policy reaches no other namespace"
    [parent] = route["spec"]["parentRefs"]
    assert (parent["name"], parent["namespace"]) == (asking["spec"]["targetRefs"][0]["name"], asking["metadata"]["namespace"])
    assert [one.split(":")[0] for one in rendered.warnings()] == ["networkPolicy.grpcFrom is empty"]


def test_the_account_service_leads_to_the_account_port_only() -> None:
    for name in ("account-ingress", "account-httproute"):
        rendered = rendered_ci(CHART / "ci" / f"{name}-values.yaml")
        text = yaml.safe_dump(rendered.of("Ingress") + rendered.of("HTTPRoute"))
        assert "rel-cognito-authz-account" in text
        assert "/auth" in text
        assert rendered.one("Service", "-account")["spec"]["ports"][0]["targetPort"] == "account"


def test_defaults_with_a_pool_and_a_client_are_an_installation() -> None:
    rendered = render(NEEDED)
    kinds = sorted(one["kind"] for one in rendered.objects)
    assert kinds == ["Deployment", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Service", "Service", "Service", "ServiceAccount"]
    spec = rendered.one("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]["rollingUpdate"]) == (2, {"maxUnavailable": 0, "maxSurge": 1})
    container = rendered.container()
    assert "lifecycle" not in container, "a preStop sleep is refused by 1.29"
    assert "--shutdown-delay=5s" in container["args"], "a preStop sleep is refused by 1.29"
    assert "cpu" not in container["resources"]["limits"]
    assert len(spec["template"]["spec"]["topologySpreadConstraints"]) == 2
    assert len(rendered.warnings()) == 1, rendered.notes


def test_a_policy_file_is_what_the_values_say() -> None:
    path = CHART / "ci" / "policy-file-values.yaml"
    rendered = rendered_ci(path)
    written = yaml.safe_load(rendered.one("ConfigMap", "-policy")["data"]["policy.yaml"])
    assert written == yaml.safe_load(path.read_text())["config"]
    template = rendered.one("Deployment")["spec"]["template"]
    assert not any("checksum" in name for name in template["metadata"]["annotations"]), "the program reads it again by itself"
    assert all("subPath" not in mount for mount in rendered.container()["volumeMounts"]), "would never change"


def test_replicas_are_left_to_the_autoscaler() -> None:
    rendered = rendered_ci(CHART / "ci" / "autoscaling-values.yaml")
    assert "replicas" not in rendered.one("Deployment")["spec"]
    assert rendered.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == rendered.one("Deployment")["metadata"]["name"]
    assert rendered.one("PodDisruptionBudget")["spec"]["minAvailable"] == "50%"
    assert rendered_ci(CHART / "ci" / "single-values.yaml").of("PodDisruptionBudget") == []


def test_the_image_is_found_by_digest_before_tag_and_in_the_registry_of_all() -> None:
    rendered = rendered_ci(CHART / "ci" / "image-values.yaml")
    digest = yaml.safe_load((CHART / "ci" / "image-values.yaml").read_text())["image"]["digest"]
    assert rendered.container()["image"] == f"registry.example.com/mirror/cognito-authz@{digest}"
    secrets = rendered.one("Deployment")["spec"]["template"]["spec"]["imagePullSecrets"]
    assert secrets == [{"name": "shared"}, {"name": "own"}]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert render(NEEDED).container()["image"] == f"ghcr.io/cognito-authz/cognito-authz:{version}"


def test_openshift_may_choose_ids() -> None:
    context = rendered_ci(CHART / "ci" / "openshift-values.yaml").one("Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_templates_in_extras_are_evaluated_and_names_followed() -> None:
    rendered = rendered_ci(CHART / "ci" / "extras-values.yaml")
    assert "--realm=rel" in rendered.container()["args"]
    assert {one["metadata"]["name"] for one in rendered.of("ConfigMap")} == {"rel-env", "rel-text"}
    own = [one for one in rendered.objects if one["kind"] not in ("ConfigMap", "Pod")]
    assert {one["metadata"]["namespace"] for one in own} == {"authz"}
    assert {one["metadata"]["labels"]["example.com/team"] for one in own} == {"shop"}
    assert {one["metadata"]["annotations"]["example.com/owner"] for one in own} == {"shop"}
    assert rendered.one("Deployment")["metadata"]["name"] == "authz-of-the-shop"


def test_a_long_name_still_has_room_for_what_comes_behind() -> None:
    rendered: Rendered = render(NEEDED, name="r" * 53)
    assert all(len(one["metadata"]["name"]) <= 63 for one in rendered.objects)
    assert len({(one["kind"], one["metadata"]["name"]) for one in rendered.objects}) == len(rendered.objects)
