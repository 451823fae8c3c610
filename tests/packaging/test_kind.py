"""deploy/kind: what can be tested without a container engine.

Its objects are valid, and fit to each other and to the chart. `up` names every tool that is missing. The programs of
its pods and the chart's container run as processes, with a real Envoy in front (deploy/envoy, because Envoy Gateway
needs a cluster), and `up` runs to its end against them: its tools for containers and clusters are recorders, everything
else is real.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import web
from bootstrap import Bootstrap
from commands import run
from helm_charts import Mounts, Rendered, config_maps, merged, render, start
from kubernetes_rules import VERSIONS, complaints, restricted
from manifests import DEPLOY, documents, find, is_builtin
from paths import ROOT, TOOLS
from stage import Node, Stage, tcp

KIND = DEPLOY / "kind"
UP = KIND / "up"
IDS = {"userPool": {"id": "us-east-1_AbC123xyz", "clientIds": ["3n4b5urk1ft4fl3mg5e62d9ado"]}}
PATIENCE = 60.0


def values() -> Node:
    found: Node = yaml.safe_load((KIND / "values.yaml").read_text())
    return found


def rendered(ids: Node | None = None) -> Rendered:
    return render(merged(values(), ids or IDS), name="cognito-authz", namespace="cognito-authz")


def shipped() -> list[Node]:
    """What `up` applies."""
    files = [KIND / name for name in ("emulator.yaml", "application.yaml", "gateway.yaml")]
    return documents(*files, DEPLOY / "envoy-gateway" / "application.yaml")


# ------------------------------------------------------------------------------------------------ objects


def test_objects_are_valid_and_restricted() -> None:
    cluster = yaml.safe_load((KIND / "cluster.yaml").read_text())
    [node] = cluster["nodes"]
    kubernetes = re.fullmatch(r"kindest/node:v(\d+\.\d+)\.\d+@sha256:[0-9a-f]{64}", node["image"])
    assert kubernetes
    version = next(one for one in VERSIONS if one.startswith(f"{kubernetes[1]}."))
    for item in filter(is_builtin, shipped() + rendered().objects):
        assert not complaints(version, json.dumps(item))
        if item["kind"] == "Deployment":
            assert not restricted(item["spec"]["template"]["spec"])
    [port] = node["extraPortMappings"]
    assert port["listenAddress"] == "127.0.0.1", "the gateway would be open to the network"
    proxy = find(shipped(), "EnvoyProxy", "node-port")
    [service_port] = proxy["spec"]["provider"]["kubernetes"]["envoyService"]["patch"]["value"]["spec"]["ports"]
    [listener] = find(shipped(), "Gateway", "ingress")["spec"]["listeners"]
    assert service_port == {"port": listener["port"], "nodePort": port["containerPort"]}


def test_references_point_to_existing_objects() -> None:
    objects = shipped() + rendered().objects
    for route in (item for item in objects if item["kind"] == "HTTPRoute"):
        for parent in route["spec"]["parentRefs"]:
            find(objects, "Gateway", parent["name"], parent["namespace"])
        for reference in (one for rule in route["spec"]["rules"] for one in rule["backendRefs"]):
            service = find(objects, "Service", reference["name"], route["metadata"]["namespace"])
            assert reference["port"] in [port["port"] for port in service["spec"]["ports"]]
    policy = find(objects, "SecurityPolicy", "cognito-authz", "ingress")
    [target] = policy["spec"]["targetRefs"]
    gateway = find(objects, target["kind"], target["name"], "ingress")
    gateway_class = find(objects, "GatewayClass", gateway["spec"]["gatewayClassName"])
    reference = gateway_class["spec"]["parametersRef"]
    find(objects, reference["kind"], reference["name"], reference["namespace"])
    # The emulator's Service is the endpoint of the chart, and the network policy lets the pods reach it.
    host, _, port = values()["userPool"]["endpoint"].removeprefix("http://").partition(":")
    name, _, namespace = host.partition(".")
    service = find(objects, "Service", name, namespace)
    assert [one["port"] for one in service["spec"]["ports"]] == [int(port)] == values()["networkPolicy"]["egressPorts"]
    services = [item for item in objects if item["kind"] == "Service"]
    for item in (one for one in services if one["metadata"]["namespace"] != "cognito-authz"):
        deployment = find(objects, "Deployment", item["metadata"]["name"], item["metadata"]["namespace"])
        template = deployment["spec"]["template"]
        assert item["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        [container] = template["spec"]["containers"]
        assert item["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
        assert (container["image"], container["imagePullPolicy"]) == ("localhost/cognito-authz-kind:latest", "Never")
    # Only Envoy reaches the application.
    isolation = find(objects, "NetworkPolicy", "only-through-the-gateway", "shop")
    labels = find(objects, "Deployment", "application", "shop")["spec"]["template"]["metadata"]["labels"]
    assert isolation["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_versions_are_those_of_the_other_files() -> None:
    script = UP.read_text()
    dockerfile = (KIND / "Dockerfile").read_text()
    compose = (DEPLOY / "compose" / "compose.yaml").read_text()
    for line in re.findall(r"^(?:FROM|RUN) .*$", dockerfile, re.MULTILINE):
        assert line in compose, "the image of deploy/compose has other versions"
    for name, wanted in re.findall(r"(\w+)==([\d.]+)", dockerfile):
        assert f"\n{name}=={wanted}\n" in (ROOT / "tests" / "tools" / "stack.txt").read_text()
    install = (ROOT / "docs" / "install.md").read_text()
    for project, variable in (("Envoy Gateway", "envoy_gateway"), ("Helm", "oldest_helm")):
        here, oldest = (re.search(rf"{variable}=v?([\d.]+)", script),
                        re.search(rf"^\| {project} \| ([\d.]+)", install, re.MULTILINE))
        assert here
        assert oldest
        assert tuple(map(int, here[1].split("."))) >= tuple(map(int, oldest[1].split(".")))
    readme = (KIND / "README.md").read_text()
    for tool, wanted in re.findall(r"oldest_(\w+)=([\d.]+)", script):
        assert re.search(rf"\b{tool} {re.escape(wanted)}\b", readme, re.IGNORECASE), f"{tool} {wanted}"


def test_the_linters_accept_the_scripts_and_the_dockerfile() -> None:
    for command in ([TOOLS / "shellcheck", UP, KIND / "check"], [TOOLS / "hadolint", KIND / "Dockerfile"]):
        done = run(*command)
        assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------ prerequisites


def recorder(directory: Path, name: str, text: str) -> None:
    """A program of this name that writes its arguments to `calls` and then does what `text` (shell) says."""
    file = directory / name
    file.write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >>{shlex.quote(str(directory / "calls"))}\n{text}\n')
    file.chmod(0o755)


VERSIONS_SAID = {
    "docker": '[[ $1 != save ]] || : >"$3"',
    "kind": '[[ $1 != --version ]] || echo "kind version 0.32.0"',
    "kubectl": '[[ $1 != version ]] || echo "Client Version: v1.36.1"',
    "helm": '[[ $1 != version ]] || echo "v4.2.3+g0000000"',
}


def path_of(directory: Path, **changed: str | None) -> dict[str, str]:
    """The environment of `up`: the system's tools, and recorders for the tools for containers and clusters."""
    tools = directory / "bin"
    tools.mkdir()
    for name in ("bash", "cat", "curl", "dirname", "env", "grep", "head", "mktemp", "rm", "sed", "sleep", "sort", "tr"):
        found = shutil.which(name)
        assert found, name
        (tools / name).symlink_to(found)
    for name, text in {**VERSIONS_SAID, **changed}.items():
        if text is not None:
            recorder(tools, name, text)
    return {"PATH": str(tools), "TMPDIR": str(directory)}


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"kind": None}, "kind 0.32 or newer is not on the PATH: https://kind.sigs.k8s.io/"),
        ({"kubectl": None}, "kubectl 1.32 or newer is not on the PATH: https://kubernetes.io/"),
        ({"helm": None}, "helm 3.14 or newer is not on the PATH: https://helm.sh/"),
        ({"docker": None}, "neither docker nor podman works"),
        ({"docker": "exit 1"}, "docker is installed, but its daemon does not answer"),
        ({"helm": 'echo "v3.13.2+g2a2fb3b"'}, "helm is 3.13.2, and has to be 3.14 or newer"),
        ({"kind": 'echo "kind version 0.9.0"'}, "kind is 0.9.0, and has to be 0.32 or newer"),
        ({"kubectl": "exit 1"}, "kubectl does not print its version"),
    ],
)
def test_a_missing_tool_is_named(changed: dict[str, str | None], wanted: str, tmp_path: Path) -> None:
    done = run(UP, env=path_of(tmp_path, **changed))
    assert (done.returncode, done.stdout) == (69, "")
    first, *lines = done.stderr.splitlines()
    assert first == "deploy/kind/up cannot start:"
    assert len(lines) == 1, "it names another tool"
    assert wanted in lines[0]


def test_every_missing_tool_is_named_at_once(tmp_path: Path) -> None:
    done = run(UP, env=path_of(tmp_path, docker=None, kind=None, kubectl=None, helm=None))
    assert done.returncode == 69
    assert len(done.stderr.splitlines()) == 5


def test_an_unknown_option_is_an_error_and_help_is_not(tmp_path: Path) -> None:
    assert run(UP, "--no-such-option", env=path_of(tmp_path)).returncode == 64
    assert run(UP, "--port", "no").returncode == 64
    done = run(UP, "--help")
    assert done.returncode == 0
    assert "--delete" in done.stdout


def test_delete_removes_this_cluster_only(tmp_path: Path) -> None:
    # It needs neither kubectl nor helm.
    done = run(UP, "--delete", env=path_of(tmp_path, kubectl=None, helm=None))
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "bin" / "calls").read_text().splitlines()
    assert [call for call in calls if "delete" in call] == ["kind delete cluster --name cognito-authz"]


# ------------------------------------------------------------------------------------------------ running


@dataclass
class Running:
    """The programs of the pods, with an Envoy in front."""

    port: str
    application: str
    created: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def running(binary: Path, tmp_path: Path) -> Iterator[Running]:
    with Stage(binary, tmp_path) as stage:
        [container] = find(shipped(), "Deployment", "emulator")["spec"]["template"]["spec"]["containers"]
        port = free_port()
        here = {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1",
                "STATE_DIR": str(tmp_path / "state"), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert here.keys() - {"TMPDIR"} <= environment.keys()
        emulator = stage.child("emulator", [TOOLS / container["command"][0]], environment | here)
        url = f"http://127.0.0.1:{port}"
        probe = container["readinessProbe"]["httpGet"]["path"]
        emulator.wait_until("ready", lambda: web.is_ok(url + probe), PATIENCE)

        python_path = {"PYTHONPATH": str(DEPLOY / "local")}
        made = run(TOOLS / "python", KIND / "pool.py", url, env=python_path)
        assert made.returncode == 0, made.stderr
        pool, client, *_ = made.stdout.split()

        chart = rendered({"userPool": {"id": pool, "clientIds": [client], "endpoint": url}})
        pod = chart.one("Deployment")["spec"]["template"]["spec"]
        mounts = Mounts(pod, chart.container(), config_maps(chart.objects), tmp_path / "root")
        authz = start(stage, chart.container(), mounts)
        authz.child.wait_until("ready", lambda: web.is_ok(f"http://{authz.admin}/readyz"), PATIENCE)
        application = stage.child("application", [TOOLS / "python", KIND / "application.py", "0"], python_path)
        line: str = application.wait_until("listening", lambda: "".join(application.lines()), PATIENCE)

        bootstrap = Bootstrap()
        listeners = bootstrap.config["static_resources"]["listeners"]
        listeners[:] = [bootstrap.listener("ingress_tcp")]
        bootstrap.point("cognito_authz_tcp", tcp(authz.bound("grpc")))
        bootstrap.point("account", tcp(authz.bound("account")))
        address = f"127.0.0.1:{line.rpartition(' ')[2]}"
        bootstrap.point("app", tcp(address))
        # envoy.yaml names a policy for /admin; in the cluster, the policy file does.
        for site in bootstrap.manager("ingress_tcp")["route_config"]["virtual_hosts"]:
            site["routes"] = [route for route in site["routes"] if route["name"] != "admin"]
        envoy = stage.envoy(bootstrap.config)
        envoy.wait_for("cognito_authz_tcp", 1)
        yield Running(envoy.urls["ingress_tcp"].rpartition(":")[2], address, made.stdout)


def test_up_installs_everything_and_its_check_passes(running: Running, tmp_path: Path) -> None:
    directory = tmp_path / "up"
    directory.mkdir()
    created = directory / "created"
    created.write_text(running.created)
    kubectl = f"""
[[ $1 != version ]] || echo "Client Version: v1.36.1"
case "$*" in *" exec "*) cat {shlex.quote(str(created))} ;; *" -f -"*) cat >/dev/null ;; esac"""
    environment = path_of(directory, kubectl=kubectl)
    done = run(UP, "--port", running.port, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    pool, client, email, password = running.created.split()
    for line in ("401, reason missing_credential", f"x-auth-client-id: {client}", "403, reason insufficient_group",
                 "401, reason revoked", "The cluster is ready."):
        assert line in done.stdout, done.stdout
    assert re.search(r"200, and the application received x-auth-sub: [0-9a-f-]{36}\n", done.stdout)

    calls = (directory / "bin" / "calls").read_text().splitlines()
    assert all("--context kind-cognito-authz" in call for call in calls
               if call.startswith("kubectl") and " version " not in f"{call} "), "another cluster could be changed"
    assert all("--kube-context kind-cognito-authz" in call for call in calls
               if call.startswith("helm") and " version " not in f"{call} ")
    for path in re.findall(rf"{re.escape(str(ROOT))}/\S+", "\n".join(calls)):
        assert Path(path).exists(), path
    positions = [next(number for number, call in enumerate(calls) if part in call) for part in (
        "kind create cluster", "docker build --tag localhost/cognito-authz:kind", "kind load image-archive",
        "gateway-helm --version v", "emulator.yaml", "exec deployment/emulator", "charts/cognito-authz --namespace",
        "envoy-gateway/application.yaml", "kind/gateway.yaml", "wait gateway/ingress",
        "wait securitypolicy/cognito-authz")]
    assert positions == sorted(positions), "routes would exist before the policies"
    [install] = [call for call in calls if "charts/cognito-authz --namespace" in call]
    assert f"--set userPool.id={pool} --set userPool.clientIds={{{client}}}" in install
    assert password not in "".join(calls)
    assert email in done.stdout


def test_check_fails_where_requests_are_not_checked_and_for_a_wrong_password(running: Running, tmp_path: Path) -> None:
    _, _, email, password = running.created.split()
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "EMAIL": email, "WAIT_SECONDS": "0"}
    done = run(KIND / "check", f"http://{running.application}", env=environment | {"PASSWORD": password})
    assert done.returncode == 1
    assert "/orders has status 200 instead of 401" in done.stderr
    done = run(KIND / "check", f"http://127.0.0.1:{running.port}", env=environment | {"PASSWORD": "wrong"})
    assert done.returncode == 1
    assert "/auth/login has status 401 instead of 200" in done.stderr
    assert run(KIND / "check", env=environment).returncode == 1, "it needs a URL"
