"""The library chart cognito-authz-sidecar, used by another chart. test_chart_running.py runs what it renders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

import helm_charts
from helm_charts import SIDECAR, merged, pods, render
from kubernetes_rules import VERSIONS, complaints, restricted
from manifests import authz_container
from stage import CLIENT, POOL, Node

EXAMPLE = SIDECAR / "examples" / "chart"
OWN = "cognito-authz-sidecar"
FORMS = pytest.mark.parametrize("native", [True, False], ids=["native", "classic"])


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return helm_charts.consumer("chart", tmp_path_factory.mktemp("sidecar"))


def pod_of(chart: Path, values: Node) -> Node:
    [(_, pod)] = pods(render(values, chart).objects)
    return pod


@FORMS
def test_the_example_is_valid_in_every_kubernetes_version(consumer: Path, native: bool) -> None:
    values = {"nativeSidecar": native}
    report = helm.lint(str(consumer), values, strict=True, kube_version="v1.29.0")
    assert not report["errors"], report
    for version in VERSIONS:
        for one in render(values, consumer).objects:
            assert complaints(version, json.dumps(one)) == [], version


def test_helm_lint_accepts_the_library() -> None:
    report = helm.lint(str(SIDECAR), {}, strict=True)
    assert not report["errors"], report


@FORMS
def test_its_pods_are_restricted(consumer: Path, native: bool) -> None:
    assert restricted(pod_of(consumer, {"nativeSidecar": native})) == []


def test_a_native_sidecar_starts_before_envoy_and_ends_after_the_application(consumer: Path) -> None:
    pod = pod_of(consumer, {"nativeSidecar": True})
    first, second = pod["initContainers"]
    assert (first["name"], second["name"]) == ("cognito-authz", "envoy")
    assert first["restartPolicy"] == "Always"
    assert first["startupProbe"]["exec"]["command"] == ["/cognito-authz", "healthcheck"]
    assert "lifecycle" not in first
    classic = pod_of(consumer, {"nativeSidecar": False})
    assert "initContainers" not in classic
    assert all("restartPolicy" not in one for one in classic["containers"])


def test_the_startup_probe_can_be_replaced_or_removed(consumer: Path) -> None:
    """With `null` for the default's handler: a probe has one."""
    get = {"path": "/livez", "port": 9190}
    replaced = authz_container(pod_of(consumer, {OWN: {"startupProbe": {"exec": None, "httpGet": get}}}))
    assert replaced["startupProbe"] == {"httpGet": get, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 60}
    assert "startupProbe" not in authz_container(pod_of(consumer, {OWN: {"startupProbe": None}}))


@FORMS
def test_both_containers_mount_the_socket_and_no_port_is_open(consumer: Path, native: bool) -> None:
    pod = pod_of(consumer, {"nativeSidecar": native, OWN: {"socket": {"directory": "/run/authz"}}})
    [volume] = [one for one in pod["volumes"] if one["name"] == "cognito-authz-socket"]
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Mi"}
    everyone = pod.get("initContainers", []) + pod["containers"]
    mounts = {
        one["name"]: [mount["mountPath"] for mount in one.get("volumeMounts", []) if mount["name"] == volume["name"]]
        for one in everyone
    }
    assert mounts == {"cognito-authz": ["/run/authz"], "envoy": ["/run/authz"], "app": []}
    arguments = authz_container(pod)["args"]
    assert "--grpc-listen=unix:/run/authz/authz.sock" in arguments
    assert "--grpc-socket-mode=0660" in arguments
    assert "--admin-listen=127.0.0.1:9190" in arguments
    assert "--account-api=false" in arguments
    assert "ports" not in authz_container(pod)
    assert pod["securityContext"]["fsGroup"] == authz_container(pod)["securityContext"]["runAsGroup"], (
        "Envoy could not open the socket"
    )


def test_secrets_policy_file_and_account_api(consumer: Path) -> None:
    values = {OWN: {"account": {"enabled": True, "existingSecret": {"name": "cognito-client"}},
                    "existingConfigMap": {"name": "{{ .Release.Name }}-rules"}, "admin": {"listen": "[::]:9190"},
                    "extraArgs": ["--realm={{ .Release.Name }}"], "image": {"tag": "x"}}}
    rendered = render(values, consumer)
    assert rendered.of("ConfigMap") == []
    [(_, pod)] = pods(rendered.objects)
    names = {volume["name"]: volume for volume in pod["volumes"]}
    assert names["cognito-authz-client-secret"]["secret"]["secretName"] == "cognito-client"
    assert names["cognito-authz-policy"]["configMap"]["name"] == "rel-rules"
    assert {mount["name"] for mount in authz_container(pod)["volumeMounts"]} <= set(names)
    assert "--account-listen=127.0.0.1:9192" in authz_container(pod)["args"]
    assert "--realm=rel" in authz_container(pod)["args"]
    assert authz_container(pod)["image"].endswith("/cognito-authz:x")


def test_sidecars_share_a_store_of_revocations(consumer: Path) -> None:
    revocation = {"url": "rediss://authz@valkey", "existingSecret": {"name": "valkey-authz"},
                  "caConfigMap": {"name": "trusted"}, "required": True, "maxTokenLife": "1h"}
    pod = pod_of(consumer, {OWN: {"revocation": revocation}})
    arguments = authz_container(pod)["args"]
    assert "--revocation-url=rediss://authz@valkey" in arguments
    assert {"--revocation-required=true", "--max-token-life=1h"} <= set(arguments)
    mounts = {one["name"]: one["mountPath"] for one in authz_container(pod)["volumeMounts"]}
    assert f"--revocation-password-file={mounts['cognito-authz-revocation-password']}/password" in arguments
    assert f"--revocation-ca-file={mounts['cognito-authz-revocation-ca']}/ca.crt" in arguments
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert volumes["cognito-authz-revocation-password"]["secret"]["secretName"] == "valkey-authz"
    assert volumes["cognito-authz-revocation-ca"]["configMap"]["name"] == "trusted"


def test_the_dependency_can_have_an_alias(consumer: Path, tmp_path: Path) -> None:
    chart = shutil.copytree(consumer, tmp_path / "shop")
    manifest = yaml.safe_load((chart / "Chart.yaml").read_text())
    manifest["dependencies"][0]["alias"] = "authz"
    (chart / "Chart.yaml").write_text(yaml.safe_dump(manifest))
    (chart / "values.yaml").write_text(
        yaml.safe_dump({"nativeSidecar": True, "authz": {"userPool": {"id": POOL, "clientIds": ["any"]}}})
    )
    template = chart / "templates" / "shop.yaml"
    template.write_text(template.read_text().replace('(dict "root" .)', '(dict "root" . "values" .Values.authz)'))
    container = authz_container(pod_of(chart, {}))
    assert "--client-id=any" in container["args"]
    assert container["image"] == "ghcr.io/cognito-authz/cognito-authz:0.1.0", (
        "the defaults of the library apply under an alias"
    )


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"userPool": {"id": ""}, "config": None}, "HelmRenderError"),
        ({"userPool": {"clientIds": []}}, "HelmRenderError"),
        ({"userPol": {}}, "HelmValuesError"),
        ({"socket": {"mode": "rw"}}, "HelmValuesError"),
        ({"config": {"polices": {}}}, "HelmValuesError"),
        ({"replicaCount": 2}, "HelmValuesError"),
        ({"account": {"port": 1}}, "HelmValuesError"),
        ({"revocation": {"url": "rediss://authz:hunter2@valkey"}}, "HelmValuesError"),
        ({"revocation": {"url": "rediss://authz@valkey"}}, "HelmRenderError"),
        ({"revocation": {"required": True}}, "HelmRenderError"),
        # Every pod of the cluster would reach the port and could forge its address in X-Forwarded-For.
        *(
            ({"account": {"enabled": True, "trustedHops": 1, "listen": listen}}, "HelmRenderError")
            for listen in ("[::]:9192", "0.0.0.0:9192", ":9192", "10.0.0.1:9192")
        ),
    ],
)
def test_wrong_values_are_rejected(consumer: Path, values: dict[str, Any], kind: str) -> None:
    with pytest.raises(getattr(helm, kind)):
        render({OWN: values}, consumer)


@pytest.mark.parametrize(
    "account",
    [
        {"enabled": True, "trustedHops": 1},
        {"enabled": True, "trustedHops": 1, "listen": "[::1]:9192"},
        {"enabled": True, "trustedHops": 0, "listen": "[::]:9192"},
        {"trustedHops": 1, "listen": "[::]:9192"},
        {"enabled": True, "listen": "[::]:9192"},
    ],
)
def test_forwarded_addresses_are_trusted_only_on_loopback(consumer: Path, account: Node) -> None:
    arguments = authz_container(pod_of(consumer, {OWN: {"account": account}}))["args"]
    assert ("--trusted-hops=1" in arguments) == (account.get("enabled", False) and account.get("trustedHops") == 1)


def test_the_pod_of_the_readme_works(consumer: Path, tmp_path: Path) -> None:
    """Renders the pod template that the README shows."""
    blocks = (SIDECAR / "README.md").read_text().split("```yaml\n")
    [printed] = [block.split("```")[0] for block in blocks if block.startswith("# The pod of your Deployment")]
    chart = shutil.copytree(consumer, tmp_path / "shop")
    (chart / "templates" / "shop.yaml").write_text(
        "kind: Pod\nmetadata: {name: x}\nspec:\n" + "".join(f"  {line}\n" for line in printed.splitlines())
    )
    rendered = render(merged({OWN: {"userPool": {"id": POOL, "clientIds": [CLIENT]}}}, {}), chart)
    assert authz_container(rendered.one("Pod")["spec"])["restartPolicy"] == "Always"
