"""Runs what the charts render: cognito-authz with these arguments, environment and files, behind a real Envoy."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

import web
from certificates import Authority
from commands import Command, output, run
from helm_charts import (
    CHARTS,
    CI,
    NEEDED,
    SIDECAR,
    Mounts,
    config_maps,
    envoy_config,
    pods,
    render,
    rendered_ci,
    start,
)
from stage import PATIENCE, POOL, Node, Stage, tcp

AUTHORITY = Authority()
# ConfigMaps and Secrets that exist in the cluster besides the release. The contents are test data, not secrets.
EXISTING = {
    "cognito-client": {"client-secret": "a" * 52, "secret": "a" * 52},
    "oauth-state": {"key": "b" * 64},
    "operators": {"token": "c" * 64},
    "rel-rules": {"rules.yaml": "policies: {signed-in: {}}\ndefault: signed-in\n"},
    "pool-secrets": {},
    "authz-certificate": AUTHORITY.secret("cognito-authz.test"),
    "proxies-ca": {"root.crt": AUTHORITY.pem},
    # cert-manager writes it.
    "rel-cognito-authz-tls": AUTHORITY.secret("cognito-authz.test"),
    "valkey-authz": {"authz-password": "d" * 64},
    "valkey-ca": {"ca.crt": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"},
}


@pytest.fixture
def stage(binary: Path, tmp_path: Path) -> Iterator[Stage]:
    with Stage(binary, tmp_path) as running:
        yield running


def test_a_standalone_installation_behind_envoy(stage: Stage) -> None:
    """Everything is set by values. Only the URL of the keys differs from AWS, as with a VPC endpoint."""
    values: Node = {
        "userPool": {**NEEDED["userPool"], "jwksUrl": stage.jwks_url},
        "extraEnv": [{"name": "COGNITO_AUTHZ_REALM", "value": "shop"}],
        "account": {"enabled": True, "trustedHops": 1, "existingSecret": {"name": "cognito-client"}},
        "networkPolicy": {"accountFrom": [{"podSelector": {"matchLabels": {"app": "envoy"}}}]},
        "config": {
            "policies": {"public": {"public": True}, "admins": {"groups": {"any": ["admins"]}}, "signed-in": {}},
            "routes": [{"path_prefix": "/health", "policy": "public"}, {"path_prefix": "/admin", "policy": "admins"}],
            "default": "signed-in",
        },
    }
    rendered = render(values)
    deployment = rendered.one("Deployment")["spec"]["template"]["spec"]
    mounts = Mounts(
        deployment, rendered.container(), config_maps(rendered.objects) | EXISTING, stage.directory / "root"
    )
    authz = start(stage, rendered.container(), mounts)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = rendered.container()[probe]["httpGet"]["path"]
        authz.child.wait_until(probe, partial(web.is_ok, f"http://{authz.admin}{path}"), PATIENCE)
    site = stage.envoy(envoy_config(tcp(authz.bound("grpc")))).urls["in"]

    allowed = web.get(f"{site}/orders", [*stage.keys.bearer(), ("x-auth-sub", "mallory")])
    assert (allowed.status, allowed.header("seen-sub")) == (200, "ada")
    refused = web.get(f"{site}/orders")
    assert (refused.status, refused.header("www-authenticate")) == (401, 'Bearer realm="shop"')
    assert web.get(f"{site}/orders", stage.keys.bearer(client_id="another")).status == 401
    assert web.get(f"{site}/admin", stage.keys.bearer()).status == 403
    assert web.get(f"{site}/admin", stage.keys.bearer(**{"cognito:groups": ["admins"]})).status == 200
    assert web.get(f"{site}/health").status == 200
    assert web.get(f"{site}/health/..%2forders").status == 403, (
        "a public path must not cover a path that an application decodes differently"
    )

    account, admin = authz.bound("account"), authz.admin
    assert web.get(f"http://{account}/auth/openapi.json").status == 200
    assert web.get(f"http://{account}/metrics").status == 404, "the clients' port must not serve the operators' paths"
    assert web.get(f"http://{admin}/auth/openapi.json").status == 404, (
        "the operators' port must not serve the account API"
    )

    # `helm upgrade` with another policy: the kubelet replaces the file, and the program reloads it without a restart.
    values["config"]["routes"] = []
    policy = config_maps(render(values).objects)["rel-cognito-authz-policy"]
    mounts.volumes["/etc/cognito-authz"].write(policy)
    authz.child.wait_until("using the new file", lambda: web.get(f"{site}/health").status == 401, PATIENCE)
    # An invalid file leaves the previous policy in effect, and /readyz reports it.
    mounts.volumes["/etc/cognito-authz"].write({"policy.yaml": "polices: {}\n"})
    authz.child.wait_until(
        "reporting the invalid file", lambda: b"policy_file" in web.get(f"http://{admin}/readyz").body, PATIENCE
    )
    assert web.get(f"http://{admin}/readyz").status == 200
    assert web.get(f"{site}/orders", stage.keys.bearer()).status == 200

    assert rendered.one("Pod", "-test-ready")["spec"]["containers"][0]["args"][0] == "healthcheck"
    assert run(stage.binary, "healthcheck", f"--admin=http://{admin}").returncode == 0

    # Shutdown of a pod: it is not ready at once, so that endpoints drop it, and still answers meanwhile.
    os.kill(authz.child.pid, signal.SIGTERM)
    authz.child.wait_until("not ready", lambda: web.get(f"http://{admin}/readyz").status == 503, PATIENCE)
    assert web.get(f"{site}/orders", stage.keys.bearer()).status == 200
    deadline = time.monotonic() + deployment["terminationGracePeriodSeconds"]
    while authz.child.ended() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert authz.child.ended() == 0


@pytest.mark.parametrize("form", ["native", "classic"])
def test_a_sidecar_behind_envoy_on_its_socket(stage: Stage, form: str) -> None:
    """The manifests for use without Helm. The keys come from the test instead of AWS."""
    everything = list(yaml.safe_load_all((SIDECAR / "examples" / f"{form}.yaml").read_text()))
    [(_, pod)] = pods(everything)
    container = next(one for one in pod.get("initContainers", []) + pod["containers"] if one["name"] == "cognito-authz")
    mounts = Mounts(pod, container, config_maps(everything), stage.directory)
    container["args"].append(f"--jwks-url={stage.jwks_url}")
    authz = start(stage, container, mounts)
    # The startup probe, as the kubelet runs it, but on the test's port.
    command: Command = [stage.binary, *container["startupProbe"]["exec"]["command"][1:], f"--admin=http://{authz.admin}"]
    authz.child.wait_until("ready", lambda: run(*command).returncode == 0, PATIENCE)
    socket = stage.directory / "run" / "cognito-authz" / "authz.sock"
    assert socket.stat().st_mode & 0o777 == 0o660
    site = stage.envoy(envoy_config({"pipe": {"path": str(socket)}})).urls["in"]
    assert web.get(f"{site}/orders", stage.keys.bearer()).header("seen-sub") == "ada"
    assert web.get(f"{site}/orders").status == 401
    assert web.get(f"{site}/health").status == 200


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_check_config_accepts_what_every_example_renders(stage: Stage, path: Path) -> None:
    rendered = rendered_ci(path)
    pod = rendered.one("Deployment")["spec"]["template"]["spec"]
    sources = config_maps(rendered.objects) | EXISTING | {"seed-keys": {"keys.json": json.dumps(stage.keys.jwks)}}
    mounts = Mounts(pod, rendered.container(), sources, stage.directory / "root")
    env = {one["name"]: one.get("value", "") for one in rendered.container().get("env", [])}
    arguments = map(mounts.mapped, rendered.container()["args"])
    done = run(stage.binary, "check-config", *arguments, env=env, cwd=stage.directory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\nthe configuration is right\n")
    assert "shares the admin port" not in done.stderr


def test_templates_use_only_existing_options_and_every_option_has_a_value(binary: Path) -> None:
    help_text = output(binary, "--help")
    known = set(re.findall(r"^ +(?:-\w, )?--([a-z-]+)", help_text, re.MULTILINE)) - {"help", "version"}
    assert "user-pool-id" in known
    assert len(known) > 40
    sidecar_only = {"grpc-socket-mode"}
    single_process = {"revocation-file"}
    # A sidecar is asked on a Unix socket of its pod. Its `extraArgs` can set these.
    between_pods = {"http-listen", "http-callers"}
    between_pods |= {"tls-cert-file", "tls-key-file", "tls-client-ca-file", "tls-client-names"}
    for chart, missing in [
        ("cognito-authz", sidecar_only | single_process),
        ("cognito-authz-sidecar", single_process | between_pods),
    ]:
        templates = "".join(path.read_text() for path in (CHARTS / chart / "templates").glob("_*.tpl"))
        templates += "".join(path.read_text() for path in (CHARTS / chart / "templates").glob("deployment.yaml"))
        used = set(re.findall(r'(?:--|\(list ")([a-z-]+)(?:=|" )', templates))
        assert used - known == set(), "templates use options that the program does not have"
        assert known - used == missing, "options without a value of the chart: add a value, or list them in this test"
        documented = set(re.findall(r"--([a-z-]+)", (CHARTS / chart / "values.yaml").read_text()))
        assert known - documented <= missing & between_pods, "no comment of values.yaml names these options"


def test_values_of_every_type_reach_the_program(stage: Stage) -> None:
    """Large numbers, zero, lists and switches, as `/config` shows them."""
    values = {"userPool": {"id": POOL, "clientIds": ["one", "two"], "jwksUrl": stage.jwks_url},
              "check": {"tokenCache": {"capacity": 20000000, "maxBytes": 0}, "leeway": "0s"}}
    rendered = render(values)
    assert "--token-cache-capacity=20000000" in rendered.container()["args"]
    mounts = Mounts(
        rendered.one("Deployment")["spec"]["template"]["spec"], rendered.container(), {}, stage.directory / "root"
    )
    authz = start(stage, rendered.container(), mounts)
    authz.child.wait_until("ready", lambda: web.is_ok(f"http://{authz.admin}/readyz"), PATIENCE)
    options = json.loads(web.get(f"http://{authz.admin}/config").body)["options"]
    by_flag = {name: option["value"] for name, option in options.items() if option["source"] == "the flag"}
    assert by_flag == {
        "user-pool-id": POOL,
        "client-id": ["one", "two"],
        "jwks-url": stage.jwks_url,
        "leeway": "0s",
        "account-api": "false",
        "token-cache-capacity": "20000000",
        "token-cache-max-bytes": "0",
        "grpc-threads": "2",
        "shutdown-delay": "5s",
        "shutdown-deadline": "10s",
        "log-format": "json",
        "grpc-listen": "[::]:0",
        "admin-listen": "[::]:0",
    }
