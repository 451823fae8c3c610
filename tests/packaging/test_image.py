"""The image, as far as it can be tested without a container engine.

The build stage really runs, and the program runs as the Dockerfile says, in a file system with the files that the
Dockerfile copies.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

import dockerfile
import image_build
import network
import web
from commands import Command, output, run
from paths import ROOT, TOOLS
from processes import Child
from stage import CLIENT, POOL, Keys
from upstream import Echo

DOCKERFILE = ROOT / "Dockerfile"
BUILD, FILES, IMAGE = dockerfile.read(DOCKERFILE)

# Every node that runs an Envoy may pull the image, so it must be small. It has about 17 MB, of which doctor, traces
# and the status page together are the newest. The limit makes additions noticed that make it much larger: debug
# information, a second TLS library, a runtime.
MAX_BYTES = 17_500_000

COGNITO = "cognito-idp.eu-west-1.amazonaws.com"
POLICY = f"""
pools:
  main: {{user_pool_id: {POOL}, client_ids: {CLIENT}}}
default: members
policies:
  members: {{}}
  admin: {{groups: {{any: [admins]}}}}
routes:
- {{path_prefix: /admin, policy: admin}}
"""
# Arguments of the chart for a standalone service. Other tests cover the account API.
ARGUMENTS = ["--grpc-listen", "[::]:9191", "--admin-listen", "[::]:9190", "--account-api=false",
             "--config", "/etc/cognito-authz/policy.yaml"]
ADMIN = "http://127.0.0.1:9190"


# ------------------------------------------------------------------------------------------------------ the Dockerfile


def test_the_dockerfile_passes_the_linter() -> None:
    done = run(TOOLS / "hadolint", "--failure-threshold", "style", DOCKERFILE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_base_images_are_pinned_and_the_build_stage_runs_the_script() -> None:
    for stage in [BUILD, IMAGE]:
        assert re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", stage.base), stage.base
    assert BUILD.instructions[-1].name == "RUN"
    assert re.fullmatch(r"CARGO_TARGET_DIR=/target COGNITO_AUTHZ_REVISION=\$REVISION deploy/image/build /out",
                        BUILD.instructions[-1].value), BUILD.instructions[-1]
    # The archives of a release have the same files: .ci/release-archives.
    assert (FILES.base, [each.value for each in FILES.instructions]) == ("scratch", ["/out /"])
    assert not IMAGE.all("RUN"), "the image has no shell, and needs no default arguments"
    assert not IMAGE.all("CMD"), "the image has no shell, and needs no default arguments"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", IMAGE.only("USER").value), (
        "Kubernetes cannot verify by a name that it is not root"
    )
    labels = IMAGE.only("LABEL").value
    for label in ["source", "revision", "version", "licenses", "title", "description"]:
        assert f"org.opencontainers.image.{label}=" in labels
    assert IMAGE.only("ENTRYPOINT").command() == ["/cognito-authz"]


def test_the_build_script_rejects_wrong_arguments(tmp_path: Path) -> None:
    script = ROOT / "deploy" / "image" / "build"
    cases: list[tuple[Command, dict[str, str], int, str]] = [
        ([], {}, 64, "Usage: "), (["--release"], {}, 64, "Usage: "),
        ([tmp_path], {"TARGETARCH": "riscv64"}, 1, "TARGETARCH is riscv64; it can be amd64 or arm64")]
    for arguments, environment, code, said in cases:
        done = run(script, *arguments, env={**os.environ, **environment})
        assert done.returncode == code, (arguments, done)
        assert said in done.stderr, (arguments, done)


# --------------------------------------------------------------------------------------------------------- the program


def test_the_program_is_one_small_hardened_file(static_build: image_build.Build) -> None:
    program = static_build.program
    size = program.stat().st_size
    print(f"{size:,} bytes")
    assert size <= MAX_BYTES, f"{size:,} bytes"
    assert program.stat().st_mode & 0o777 == 0o555
    headers = readelf("-lW", program)
    assert "INTERP" not in headers, "it needs a dynamic loader"
    assert "GNU_RELRO" in headers
    assert re.search(r"GNU_STACK .* RW ", headers), "the stack is executable"
    dynamic = readelf("-dW", program)
    assert "NEEDED" not in dynamic, "it needs shared libraries"
    assert re.search(r"Flags: .*\bNOW\b.*\bPIE\b", dynamic), (
        dynamic
    )  # position-independent, all symbols bound at startup


def test_the_program_contains_its_commit_and_no_path_of_the_builder(static_build: image_build.Build) -> None:
    shown = output(static_build.program, "--version")
    assert shown == f"cognito-authz {cargo_version()} ({static_build.revision})\n"
    content = static_build.program.read_bytes()
    cargo_home = os.environ.get("CARGO_HOME", str(Path.home() / ".cargo"))
    for place in [cargo_home, str(ROOT)]:
        assert os.fsencode(place) not in content, f"paths of the building machine are in the program: {place}"


def readelf(option: str, program: Path) -> str:
    return output("readelf", option, program)


def cargo_version() -> str:
    return re.search(r'^version = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]


# ---------------------------------------------------------------------------------------------------- the running image


@dataclass
class World:
    """Servers that the program can reach: DNS, and Cognito's keys over TLS."""

    keys: Keys
    authority: network.Authority
    asked_for: list[str]
    looked_up: list[str]

    def token(self, **claims: Any) -> str:
        """A valid access token, unless `claims` say otherwise."""
        return self.keys.token(**{"sub": "6d8d0a2e-3f2b-4c55-9a80-0d1f5d2f0b11", **claims})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A network in which Cognito's name resolves to a test server, whose certificate is from a test authority."""
    if why := network.why_not_private():
        pytest.skip(why)
    keys, authority = Keys(), network.Authority("An authority for one test")
    asked_for: list[str] = []
    cognito = network.documents({f"/{POOL}/.well-known/jwks.json": keys.jwks}, asked_for)
    tls = authority.server(COGNITO, tmp_path_factory.mktemp("world"))
    with (network.private_network(), network.NameServer({COGNITO: ["127.0.0.1"]}, port=53) as names,
          network.http_server(("127.0.0.1", 443), cognito, tls)):
        yield World(keys, authority, asked_for, names.questions)


@contextmanager
def container(build: image_build.Build, directory: Path, authorities: bytes) -> Iterator[Child]:
    """The program, in a root with the Dockerfile's files, those of an orchestrator, and these root certificates."""
    root = directory / "root"
    root.mkdir(mode=0o755)
    for copy in IMAGE.all("COPY"):
        assert copy.options["from"] == BUILD.name
        source, target = copy.value.split()
        source_path = build.directory / Path(source).relative_to("/out")
        if source_path.is_dir():
            shutil.copytree(source_path, root / target.lstrip("/"))
        else:
            shutil.copy(source_path, root / target.lstrip("/"))
            (root / target.lstrip("/")).chmod(int(copy.options["chmod"], 8))
    for path, content in {
            "etc/ssl/certs/ca-certificates.crt": authorities, "etc/hosts": b"127.0.0.1 localhost\n::1 localhost\n",
            "etc/resolv.conf": b"nameserver 127.0.0.1\n", "etc/cognito-authz/policy.yaml": POLICY.encode()}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    child = Child("cognito-authz", inside(root, *IMAGE.only("ENTRYPOINT").command(), *ARGUMENTS),
                  log=directory / "log", cwd=directory)
    try:
        yield child
    finally:
        child.stop(20)


def inside(root: Path, *command: str) -> Command:
    """The command that runs `command` in a container."""
    return [sys.executable, Path(__file__).with_name("container.py"), root, IMAGE.only("USER").value, *command]


def healthcheck(directory: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command of the Dockerfile's HEALTHCHECK in the container."""
    kind, command = IMAGE.only("HEALTHCHECK").value.split(maxsplit=1)
    assert kind == "CMD"
    return run(*inside(directory / "root", *json.loads(command)))


def test_the_image_serves_from_an_empty_file_system(
        static_build: image_build.Build, world: World, tmp_path: Path) -> None:
    with container(static_build, tmp_path, world.authority.pem) as child:
        child.wait_until("ready", lambda: web.is_ok(f"{ADMIN}/readyz"), 30)
        assert world.asked_for == [f"/{POOL}/.well-known/jwks.json"], "the keys, over TLS, once"
        assert COGNITO in world.looked_up, "the program did not look up the name"
        assert_confined(child, tmp_path / "root")

        checked = healthcheck(tmp_path)
        assert (checked.returncode, checked.stdout) == (0, "ready\n"), checked
        metrics = web.get(f"{ADMIN}/metrics").body.decode()
        assert (
            f'cognito_authz_build_info{{revision="{static_build.revision}",version="{cargo_version()}"}} 1' in metrics
        )

        with envoy(tmp_path) as (ask, proxy):
            token = world.token()
            proxy.wait_until("asking it", lambda: ask("/orders", token).status == 200, 20)
            answer = ask("/orders", token)
            assert ["x-auth-sub", "6d8d0a2e-3f2b-4c55-9a80-0d1f5d2f0b11"] in answer.json()["headers"]
            assert ask("/orders").status == 401
            assert ask("/orders", token[:-4] + "AAAA").status == 401
            assert ask("/orders", world.token(exp=int(time.time()) - 60)).status == 401
            assert ask("/admin", token).status == 403
            assert ask("/admin", world.token(**{"cognito:groups": ["admins"]})).status == 200

        assert child.stop(20) == 0, child.lines()[-5:]
    assert healthcheck(tmp_path).returncode == 1, "the program has ended"


def test_the_image_trusts_only_the_authorities_in_it(
        static_build: image_build.Build, world: World, tmp_path: Path) -> None:
    requests = len(world.asked_for)
    with container(static_build, tmp_path, network.Authority("Another authority").pem) as child:
        child.wait_until("failing to fetch keys", lambda: any("jwks" in line.lower() and "certificate" in line.lower()
                                                              for line in child.lines()), 30)
        assert web.get(f"{ADMIN}/readyz").status == 503
        checked = healthcheck(tmp_path)
        assert checked.returncode == 1, checked
        assert "not ready (503" in checked.stderr, checked
        assert web.is_ok(f"{ADMIN}/livez"), "a restart must not be triggered: it would not help"
        assert len(world.asked_for) == requests, "it sent a request to a server that it must not trust"
        assert child.stop(20) == 0


def assert_confined(child: Child, root: Path) -> None:
    """Checks with /proc that the program is confined."""
    parent = Path(f"/proc/{child.pid}")
    [pid] = (parent / "task" / str(child.pid) / "children").read_text().split()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    user, group = IMAGE.only("USER").value.split(":")
    assert status["Uid"].split() == [user] * 4
    assert status["Gid"].split() == [group] * 4
    assert status["Groups"].split() == []
    for kind in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert status["NSpid"].split()[-1] == "1", "the program is process 1, as in a container"
    assert Path(f"/proc/{pid}/root").readlink() == root
    [mount] = [fields for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
               if (fields := line.split())[4] == "/"]
    assert "ro" in mount[5].split(","), mount


@contextmanager
def envoy(directory: Path) -> Iterator[tuple[Any, Child]]:
    """Envoy with deploy/envoy/envoy.yaml, unchanged: its ports are free in the private network."""
    source = ROOT / "deploy" / "envoy" / "envoy.yaml"
    resources = yaml.safe_load(source.read_text())
    admin = port(resources["admin"])
    listener = next(port(one) for one in resources["static_resources"]["listeners"] if one["name"] == "ingress_tcp")
    app = next(one for one in resources["static_resources"]["clusters"] if one["name"] == "app")
    endpoint = app["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]

    def ask(path: str, token: str | None = None) -> web.Answer:
        headers = [("host", "app.example.com")] + ([("authorization", f"Bearer {token}")] if token else [])
        return web.get(f"http://127.0.0.1:{listener}{path}", headers)

    handler: type[BaseHTTPRequestHandler] = Echo
    with network.http_server(("127.0.0.1", port(endpoint)), handler):
        child = Child(
            "envoy",
            [TOOLS / "envoy", "-c", source, "-l", "warn", "--concurrency", "1", "--disable-hot-restart"],
            log=directory / "envoy.log",
            cwd=directory,
        )
        try:
            child.wait_until("ready", lambda: web.is_ok(f"http://127.0.0.1:{admin}/ready"), 20)
            yield ask, child
        finally:
            child.stop(10)


def port(node: dict[str, Any]) -> int:
    number: int = node["address"]["socket_address"]["port_value"]
    return number
