"""The hook that runs `cognito-authz doctor` before an installation or an upgrade."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import run
from helm_charts import CI, NEEDED, Mounts, Rendered, config_maps, merged, render
from stage import Node, Stage
from test_chart_running import EXISTING

POLICY: Node = {"policies": {"members": {}}, "default": "members"}
ON: Node = merged(NEEDED, {"doctor": {"enabled": True}, "config": POLICY})


@pytest.fixture
def stage(binary: Path, tmp_path: Path) -> Iterator[Stage]:
    with Stage(binary, tmp_path) as running:
        yield running


def job(rendered: Rendered) -> tuple[Node, Node, Node]:
    """The Job, its pod and its container."""
    found = rendered.one("Job")
    pod = found["spec"]["template"]["spec"]
    [container] = pod["containers"]
    return found, pod, container


def test_the_hook_is_off_by_default() -> None:
    assert render(NEEDED).of("Job") == []
    assert len(render(merged(NEEDED, {"config": POLICY})).of("ConfigMap")) == 1


def test_the_hook_has_the_configuration_of_the_deployment() -> None:
    values = merged(ON, {
        "account": {"enabled": True, "existingSecret": {"name": "cognito-client", "key": "secret"}},
        "http": {"enabled": True, "callers": ["10.0.0.0/8"]},
        "extraArgs": ["--realm={{ .Release.Name }}"],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.test:3128"}],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "imagePullSecrets": ["registry"],
    })
    rendered = render(values)
    found, pod, container = job(rendered)
    served = rendered.container()
    deployment = rendered.one("Deployment")["spec"]["template"]["spec"]
    assert container["args"] == ["doctor", "--online", *served["args"]]
    for member in ("image", "env", "envFrom", "securityContext", "volumeMounts"):
        assert container[member] == served[member], member
    for member in ("securityContext", "tolerations", "imagePullSecrets"):
        assert pod[member] == deployment[member], member
    [own, *rest] = pod["volumes"]
    [theirs, *others] = deployment["volumes"]
    assert rest == others
    assert (own["configMap"].pop("name"), theirs["configMap"].pop("name")) == (
        "rel-cognito-authz-doctor", "rel-cognito-authz-policy")
    assert own == theirs
    assert pod["serviceAccountName"] == "default", "the chart's own does not exist before the installation"
    assert found["spec"]["backoffLimit"] == 0
    assert found["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    own_account = merged(values, {"serviceAccount": {"create": False, "name": "mine"}})
    assert job(render(own_account))[1]["serviceAccountName"] == "mine"
    offline = merged(values, {"doctor": {"online": False, "activeDeadlineSeconds": 30, "annotations": {"a": "b"}}})
    found, _, container = job(render(offline))
    assert container["args"] == ["doctor", *served["args"]]
    assert found["spec"]["activeDeadlineSeconds"] == 30
    assert found["metadata"]["annotations"]["a"] == "b"


def test_the_policy_file_exists_before_the_job() -> None:
    rendered = render(ON)
    own = rendered.one("ConfigMap", "-doctor")
    hooks = own["metadata"]["annotations"]
    assert (hooks["helm.sh/hook"], hooks["helm.sh/hook-weight"]) == ("pre-install,pre-upgrade", "-1")
    assert own["data"] == rendered.one("ConfigMap", "-policy")["data"]
    existing = render(merged(NEEDED, {"doctor": {"enabled": True}, "existingConfigMap": {"name": "rules", "key": "x"}}))
    assert existing.of("ConfigMap") == []
    assert job(existing)[1]["volumes"][0]["configMap"]["name"] == "rules"


def test_no_service_selects_the_job() -> None:
    rendered = render(ON)
    labels = job(rendered)[0]["spec"]["template"]["metadata"]["labels"]
    services = rendered.of("Service")
    assert services
    for service in services:
        assert not service["spec"]["selector"].items() <= labels.items(), service["metadata"]["name"]


def test_a_certificate_that_is_not_issued_yet_is_not_needed() -> None:
    issued: dict[str, Any] = {"certManager": {"enabled": True, "issuerRef": {"name": "internal"}}, "grpc": "tls"}
    rendered = render(merged(ON, {"tls": issued}))
    _, pod, container = job(rendered)
    assert "--grpc-listen=tls:[::]:9191" in rendered.container()["args"]
    assert "--grpc-listen=[::]:9191" in container["args"]
    assert [volume["name"] for volume in pod["volumes"]] == ["policy"]
    own = render(merged(ON, {"tls": {"existingSecret": "mine", "grpc": "tls"}}))
    assert "--grpc-listen=tls:[::]:9191" in job(own)[2]["args"], "a Secret of your own exists before"


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_doctor_finds_no_error_in_what_every_example_renders(stage: Stage, path: Any) -> None:
    values = merged(yaml.safe_load(path.read_text()), {"doctor": {"enabled": True, "online": False}})
    rendered = render(values)
    _, pod, container = job(rendered)
    seed = {"seed-keys": {"keys.json": json.dumps(stage.keys.jwks)}}
    mounts = Mounts(pod, container, config_maps(rendered.objects) | EXISTING | seed, stage.directory / "root")
    env = {one["name"]: one.get("value", "") for one in container.get("env", [])}
    arguments = [mounts.mapped(argument) for argument in container["args"]]
    done = run(stage.binary, *arguments, env=env, cwd=stage.directory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing reads" not in done.stdout.lower()
    faulty = run(stage.binary, *arguments, "--envoy=/nonexistent", env=env, cwd=stage.directory)
    assert faulty.returncode == 1, faulty.stdout
