"""Reads the Kubernetes manifests of `deploy/`, and checks rules that hold for all of them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import yaml

from commands import run
from paths import ROOT, TOOLS
from stage import Node, named

DEPLOY = ROOT / "deploy"
IMAGE = "ghcr.io/cognito-authz/cognito-authz"
# There are schemas of several patches of a version; they are the same for these kinds.
VERSIONS = [version for version in dict.fromkeys(map(kubernetes_validate.utils.major_minor,
                                                     kubernetes_validate.utils.all_versions()))
            if tuple(map(int, version.split("."))) >= (1, 29)]

# Custom resources for which CRD_VALIDATOR has no schema. The tests check their fields instead.
WITHOUT_SCHEMA = {"PeerAuthentication", "ClientTrafficPolicy", "EnvoyProxy"}
# Not manifests: values of other projects' charts.
VALUES = {DEPLOY / "istio" / "mesh-config.yaml", DEPLOY / "envoy-gateway" / "sidecar" / "envoy-gateway.yaml",
          DEPLOY / "kind" / "values.yaml"}


def documents(*paths: Path) -> list[Node]:
    return [document for path in paths for document in yaml.safe_load_all(path.read_text()) if document]


def folder(name: str) -> list[Node]:
    """All objects of a directory of `deploy/`."""
    return documents(*(path for path in sorted((DEPLOY / name).rglob("*.yaml")) if path not in VALUES))


def build_kustomization(path: Path) -> list[Node]:
    done = run(TOOLS / "kubectl", "kustomize", path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def find(objects: list[Node], kind: str, name: str, namespace: str | None = None) -> Node:
    """The only object of this kind and name."""
    found = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name
             and (namespace is None or item["metadata"]["namespace"] == namespace)]
    assert len(found) == 1, f"{kind} {namespace}/{name}: {len(found)} of them"
    return found[0]


def is_builtin(item: Node) -> bool:
    """`True` for kinds of Kubernetes itself, `False` for custom resources."""
    group = item["apiVersion"].rpartition("/")[0]
    return "." not in group or (group.endswith(".k8s.io") and not group.startswith("gateway."))


def check_builtin(objects: list[Node], versions: list[str]) -> None:
    """Validates the objects against the schemas of these Kubernetes versions."""
    for item, version in itertools.product(filter(is_builtin, objects), versions):
        kubernetes_validate.validate(item, version, strict=True)


def validate_crds(validator: Path, *manifests: Path) -> None:
    """Fails with the validator's output if a manifest is invalid."""
    done = run(sys.executable, validator, *manifests)
    assert done.returncode == 0, done.stdout + done.stderr


def pod_specs(objects: list[Node]) -> Iterator[Node]:
    return (item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Deployment")


def assert_restricted(pod: Node) -> None:
    """Checks the Pod Security Standard `restricted` (fields for Linux), and promises that go beyond it."""
    inherited = pod.get("securityContext", {})
    assert not any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))
    kinds = {"configMap", "emptyDir", "secret", "projected", "downwardAPI"}
    assert all(set(volume) & kinds for volume in pod.get("volumes", []))
    for container in pod.get("initContainers", []) + pod["containers"]:
        own = container["securityContext"]
        name = container["name"]
        assert own.get("runAsNonRoot", inherited.get("runAsNonRoot")) is True, name
        assert isinstance(own.get("runAsUser", inherited.get("runAsUser")), int), (
            "the kubelet cannot verify a user name"
        )
        assert own.get("runAsUser", inherited.get("runAsUser")) != 0, name
        assert own.get("seccompProfile", inherited.get("seccompProfile"))["type"] == "RuntimeDefault", name
        assert own["allowPrivilegeEscalation"] is False, name
        assert not own.get("privileged"), name
        assert own["capabilities"] == {"drop": ["ALL"]}, name
        assert own["readOnlyRootFilesystem"] is True, "not part of `restricted`, but promised"
        assert not any(port.get("hostPort") for port in container.get("ports", [])), name
        assert container["resources"]["limits"]["memory"], name
        assert container["resources"]["requests"], name
    mounted = {mount["name"] for container in pod.get("initContainers", []) + pod["containers"]
               for mount in container.get("volumeMounts", [])}
    assert mounted <= {volume["name"] for volume in pod.get("volumes", [])}


def authz_container(pod: Node) -> Node:
    """The container of cognito-authz in a pod."""
    return named(pod.get("initContainers", []) + pod["containers"], "cognito-authz")


def environment_of(container: Node, objects: list[Node]) -> dict[str, str]:
    """Environment variables of a container, including those from ConfigMaps."""
    environment: dict[str, str] = {}
    for reference in container.get("envFrom", []):
        environment |= find(objects, "ConfigMap", reference["configMapRef"]["name"])["data"]
    return environment | {entry["name"]: entry["value"] for entry in container.get("env", [])}


def check_routes(objects: list[Node], production: list[Node]) -> None:
    """Checks that Gateways and Services that HTTPRoutes name exist."""
    routes = [item for item in objects if item["kind"] == "HTTPRoute"]
    assert routes
    for route in routes:
        for parent in route["spec"]["parentRefs"]:
            find(objects, "Gateway", parent["name"], parent["namespace"])
        for reference in (reference for rule in route["spec"]["rules"] for reference in rule["backendRefs"]):
            assert "namespace" not in reference, "it would need a ReferenceGrant"
            if route["metadata"]["namespace"] == "cognito-authz":
                service = find(production, "Service", reference["name"], "cognito-authz")
                assert reference["port"] in {port["port"] for port in service["spec"]["ports"]}
            else:
                assert (reference["name"], reference["port"]) == ("application", 3000), "the example application"


def patched_envoy_deployment(directory: Path) -> Node:
    """The Deployment that Envoy Gateway creates (only the fields that matter here), with the patch of EnvoyProxy.

    `kubectl kustomize` applies the patch, with the same code as a cluster.
    """
    objects = documents(DEPLOY / "envoy-gateway" / "sidecar" / "envoy-proxy.yaml")
    [proxy] = [item for item in objects if item["kind"] == "EnvoyProxy"]
    settings = proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]
    assert set(settings) == {"replicas", "patch"}
    assert settings["patch"]["type"] == "StrategicMerge"
    restricted = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "allowPrivilegeEscalation": False,
                  "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
                  "seccompProfile": {"type": "RuntimeDefault"}}
    resources = {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}
    certs = {"name": "certs", "mountPath": "/certs", "readOnly": True}
    labels = {"app.kubernetes.io/name": "envoy"}
    pod = {"containers": [{"name": name, "image": "registry.example.com/x:1", "securityContext": restricted,
                           "resources": resources, "volumeMounts": [certs]} for name in ("envoy", "shutdown-manager")],
           "volumes": [{"name": "certs", "secret": {"secretName": "envoy"}}]}
    made = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "envoy"}, "spec": {
        "replicas": settings["replicas"], "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod}}}
    work = directory / "envoy-proxy"
    work.mkdir(exist_ok=True)
    (work / "deployment.yaml").write_text(yaml.safe_dump(made))
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "envoy"}, **settings["patch"]["value"]}
    (work / "patch.yaml").write_text(yaml.safe_dump(patch))
    kustomization = {"resources": ["deployment.yaml"], "patches": [{"path": "patch.yaml"}]}
    (work / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    [deployment] = build_kustomization(work)
    return deployment
