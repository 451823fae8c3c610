"""Runs the services of deploy/compose/compose.yaml as processes, and sends the requests that its README shows.

Usage: compose_run.py BINARY DIRECTORY, in its own network and mount namespaces (`unshare -rnm`), so that the ports
of the file are free and /run can be replaced. Prints the results as JSON. It does not use the images.
"""

from __future__ import annotations

import fcntl
import json
import re
import shlex
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from paths import ROOT, TOOLS

sys.path.insert(0, str(ROOT / "deploy" / "local"))

import web
from processes import Child
from web import Headers

COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"
PATIENCE = 60.0


class Stack:
    """The services of a compose file, each started as a process."""

    def __init__(self, binary: Path, directory: Path, services: dict[str, Any], children: ExitStack) -> None:
        self._directory = directory
        self.services = services
        self._children = children
        # Variables of the shell in which `docker compose` runs.
        self.variables: dict[str, str] = {}
        self._programs = {name: TOOLS / name for name in ("envoy", "ministack", "python", "valkey-server")}
        self._binary = binary
        self.running: dict[str, Child] = {}

    def start(self, name: str) -> None:
        """Starts a service, after the services that it depends on."""
        if name in self.running:
            return
        service = self.services[name]
        depends = service.get("depends_on", [])
        for other in depends:
            self.start(other)
            if isinstance(depends, dict) and depends[other]["condition"] == "service_completed_successfully":
                self._complete(other)
        command = [self._here(service, word) for word in service["command"]]
        # The image of cognito-authz has an entry point; the others have their program in the command.
        program: list[str | Path] = [self._binary] if name == "cognito-authz" else [self._programs[command.pop(0)]]
        if name == "envoy":
            program += ["--disable-hot-restart"]  # its shared memory would not be in a namespace
        cwd = Path(self._here(service, service["working_dir"])) if "working_dir" in service else self._directory
        environment = {key: self._here(service, value) for key, value in service.get("environment", {}).items()}
        environment["TMPDIR"] = str(self._directory)
        child = Child(name, [*program, *command], log=self._directory / f"{name}.log", cwd=cwd, env=environment)
        self._children.callback(child.stop, 5)
        self.running[name] = child

    def restart(self, name: str) -> None:
        """Ends a service, and starts it again with the variables of now."""
        self.running.pop(name).stop(15)
        self.start(name)

    def _complete(self, name: str) -> None:
        child = self.running[name]
        deadline = time.monotonic() + PATIENCE
        while child.ended() is None:
            if time.monotonic() > deadline:
                raise child.failure(f"has not ended after {PATIENCE:.0f} s")
            time.sleep(0.05)
        if child.ended() != 0:
            raise child.failure(f"ended with {child.ended()}")

    def _here(self, service: dict[str, Any], text: str) -> str:
        """Replaces variables, paths of the container by the mounted host paths, and /tmp by the test's directory."""
        text = re.sub(r"\$\{(\w+):-(.*?)\}", lambda match: self.variables.get(match[1], match[2]), text)
        if text.startswith("/tmp/"):
            return str(self._directory / text.removeprefix("/tmp/"))
        for mount in service.get("volumes", []):
            source, target, *_ = mount.split(":")
            if source.startswith("."):
                text = text.replace(target, str((COMPOSE.parent / source).resolve()))
            elif source == "settings":
                text = text.replace(target, str(self._directory / source))
        return text


def bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        name = struct.pack("16sh", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(handle, 0x8914, name)  # SIOCSIFFLAGS


def rejects(url: str) -> bool:
    """`True` if a request without a token gets 401: Envoy reaches cognito-authz."""
    return web.get(url).status == 401


def sign_out(stack: Stack, url: str, token: Headers) -> list[Any]:
    """Scope of a sign-out, and the reasons for which the token is refused before and after a restart of cognito-authz.

    `None` if it is accepted.
    """
    scope = web.request("POST", "http://127.0.0.1:8081/auth/logout", token).json().get("scope")
    before = web.get(url, token).json().get("reason")
    stack.restart("cognito-authz")
    stack.running["envoy"].wait_until("finding cognito-authz again", partial(rejects, url), PATIENCE)
    return [scope, before, web.get(url, token).json().get("reason")]


def with_store(stack: Stack, sign_in: list[str]) -> list[Any]:
    """Starts the profile `store` as the README says, signs in and out, and restarts cognito-authz."""
    readme = (COMPOSE.parent / "README.md").read_text()
    command = re.search(r"^(REVOCATION_URL)=(\S+) docker compose .*--profile (\w+) up", readme, re.MULTILINE)
    assert command
    stack.variables[command[1]] = command[2]
    for name, service in stack.services.items():
        if command[3] in service.get("profiles", []):
            stack.start(name)
    stack.restart("cognito-authz")
    url = "http://127.0.0.1:8081/orders"
    stack.running["envoy"].wait_until("finding cognito-authz again", partial(rejects, url), PATIENCE)
    body = sign_in[sign_in.index("-d") + 1].encode()
    signed_in = web.request("POST", sign_in[2], [("content-type", "application/json")], body)
    return sign_out(stack, url, [("authorization", f"Bearer {signed_in.json()['accessToken']}")])


def main(binary: Path, directory: Path) -> dict[str, Any]:
    bring_up_loopback()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    Path("/run/cognito-authz").mkdir()
    (directory / "settings").mkdir()
    found: dict[str, Any] = {}
    with ExitStack() as children:
        stack = Stack(binary, directory, yaml.safe_load(COMPOSE.read_text())["services"], children)
        for name, service in stack.services.items():
            if "profiles" not in service:
                stack.start(name)
        authz = stack.running["cognito-authz"]
        authz.wait_until("ready", lambda: web.is_ok("http://127.0.0.1:9190/readyz"), PATIENCE)
        # The command that the README and `setup` tell the reader to run.
        said = "\n".join(stack.running["setup"].lines())
        words = shlex.split(said[said.index("curl -s"):].split("\ncurl -i")[0])
        url, body = words[2], words[words.index("-d") + 1]
        stack.running["envoy"].wait_until("passing sign-ins on", lambda: web.request(
            "POST", url, [("content-type", "application/json")], body.encode()).status == 200, PATIENCE)
        signed_in = web.request("POST", url, [("content-type", "application/json")], body.encode())
        token = [("authorization", f"Bearer {signed_in.json()['accessToken']}")]
        for port in (8080, 8081):
            url = f"http://127.0.0.1:{port}/orders"
            stack.running["envoy"].wait_until("finding cognito-authz", partial(rejects, url), PATIENCE)
            answer = web.get(url, token)
            headers = [name for name, _ in answer.json()["headers"]]
            without = web.get(url).status
            found[str(port)] = [without, answer.status, "x-auth-sub" in headers]
        found["healthcheck"] = subprocess.run(
            [binary, "healthcheck"], capture_output=True, timeout=30, check=False
        ).returncode
        found["without a store"] = sign_out(stack, url, token)
        found["with a store"] = with_store(stack, words)
        authz = stack.running["cognito-authz"]
        authz.stop(15)
        found["stopped"] = web.get("http://127.0.0.1:8081/orders", token).status
        found["ended"] = [name for name, child in stack.running.items()
                          if child.ended() is not None and name not in ("setup", "cognito-authz")]
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
