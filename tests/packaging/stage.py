"""Real processes for the tests: cognito-authz with test keys, an application, and Envoy. Start from `Stage`.

The tests of `charts/` and of `deploy/` both use it; it knows neither Helm nor Kubernetes.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

import network
import web
from paths import ROOT, TOOLS
from processes import Child

Node = dict[str, Any]

POOL, CLIENT = "eu-west-1_AbC123xyz", "3n4b5urk1ft4fl3mg5e62d9ado"
PATIENCE = 30.0  # seconds to wait for a condition; generous, for busy machines


class Keys:
    """A signing key: its JWKS document, and tokens of the test pool that it signs."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self._key.public_key().public_numbers()

        def encode(number: int) -> str:
            octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
            return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()

        key = {"kid": "one", "alg": "RS256", "kty": "RSA", "use": "sig", "e": encode(numbers.e), "n": encode(numbers.n)}
        self.jwks = {"keys": [key]}

    def token(self, **claims: Any) -> str:
        """A valid access token, unless `claims` say otherwise. The member `kid` names another key, in the header."""
        kid = claims.pop("kid", "one")
        now = int(time.time())
        payload = {"iss": f"https://cognito-idp.eu-west-1.amazonaws.com/{POOL}", "sub": "ada", "username": "ada",
                   "client_id": CLIENT, "token_use": "access", "scope": "openid", "iat": now, "auth_time": now,
                   "exp": now + 3600, "jti": "1", **claims}
        return jwt.encode(payload, self._key, algorithm="RS256", headers={"kid": kid})

    def bearer(self, **claims: Any) -> list[tuple[str, str]]:
        """The request header with a token."""
        return [("authorization", f"Bearer {self.token(**claims)}")]


@final
class Stage:
    """A directory, the keys, and the processes of a test, which are stopped at the end of the `with` block."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary = binary
        self.directory = directory
        self.keys = Keys()
        self.cleanup = ExitStack()

    def __enter__(self) -> Stage:
        path = "/jwks.json"
        address = self.cleanup.enter_context(
            network.http_server(("127.0.0.1", 0), network.documents({path: self.keys.jwks}, [])))
        self.jwks_url = f"http://{address}{path}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.cleanup.close()

    def child(self, name: str, command: Sequence[str | Path], env: dict[str, str] | None = None) -> Child:
        child = Child(name, command, log=self.directory / f"{name}.log", cwd=self.directory, env=env)
        # No graceful shutdown here: a test that is about shutdown stops the process itself.
        self.cleanup.callback(child.stop, 0.5)
        return child

    def program(self, name: str, arguments: Sequence[str | Path], env: dict[str, str] | None = None) -> Program:
        """cognito-authz with exactly these arguments; returns once the admin port is open."""
        program = Program(self.child(name, [self.binary, *arguments], env))
        program.admin = program.child.wait_until("listening", lambda: program.bound("admin"), PATIENCE)
        return program

    def authz(self, name: str, *flags: str | Path) -> Program:
        """cognito-authz for the test pool, on free ports unless `flags` say otherwise; returns once it is ready."""
        defaults: dict[str, str | Path] = {"--grpc-listen": "127.0.0.1:0", "--admin-listen": "127.0.0.1:0"}
        defaults = {flag: value for flag, value in defaults.items() if flag not in flags}
        program = self.program(name, [
            "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-url", self.jwks_url, "--log-format", "json",
            "--shutdown-deadline", "200ms", *(part for pair in defaults.items() for part in pair), *flags])
        program.child.wait_until("ready", lambda: web.is_ok(f"http://{program.admin}/readyz"), PATIENCE)
        return program

    def application(self) -> str:
        """Starts an application that answers with the request that it received; returns its address."""
        child = self.child("application", [TOOLS / "python", ROOT / "deploy" / "local" / "upstream.py"])
        line: str = child.wait_until("listening", lambda: "".join(child.lines()), PATIENCE)
        return f"127.0.0.1:{line.rpartition(' ')[2]}"

    def envoy(self, config: Node, name: str = "envoy") -> Envoy:
        """Starts Envoy with this configuration; returns once it is ready."""
        return Envoy(self, config, name)


class Program:
    """A running cognito-authz."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.admin = ""

    def bound(self, listener: str) -> str:
        """The TCP address of a listener, from the log; empty while there is none. A wildcard becomes loopback."""
        for line in self.child.lines():
            fields = json.loads(line).get("fields", {}) if line.startswith("{") else {}
            if fields.get("message") == "listening" and fields.get("listener") == listener:
                address = str(fields.get("address"))
                if not address.startswith("unix:"):
                    return re.sub(r"^(\[::\]|0\.0\.0\.0):", "127.0.0.1:", address)
        return ""

    def metric(self, start: str) -> float:
        """Sum of the series whose names start with `start`."""
        lines = web.get(f"http://{self.admin}/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))


def tcp(address: str) -> Node:
    """`HOST:PORT` as Envoy's configuration writes it."""
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def named(nodes: list[Node], name: str) -> Node:
    """The only node with this name."""
    found = [node for node in nodes if node["name"] == name]
    assert len(found) == 1, f"{name}: {[node['name'] for node in nodes]}"
    return found[0]


class Envoy:
    """A running Envoy. `urls` holds the base URL of each listener, by its name."""

    def __init__(self, stage: Stage, config: Node, name: str) -> None:
        file = stage.directory / f"{name}.json"
        file.write_text(json.dumps(config, indent=1))  # JSON is YAML
        admin = stage.directory / f"{name}-admin"
        self.child = stage.child(name, [
            TOOLS / "envoy", "-c", file, "-l", "warn", "--concurrency", "1", "--disable-hot-restart",
            "--admin-address-path", admin])
        self.admin = "http://" + self.child.wait_until("started", admin.read_text, PATIENCE)
        self.child.wait_until("ready", lambda: web.is_ok(f"{self.admin}/ready"), PATIENCE)
        statuses = web.get(f"{self.admin}/listeners?format=json").json()["listener_statuses"]
        self.urls = {status["name"]: f"http://127.0.0.1:{status['local_address']['socket_address']['port_value']}"
                     for status in statuses}

    def hosts(self, cluster: str) -> dict[str, bool]:
        """Addresses of a cluster, each with `True` if Envoy sends requests to it."""
        statuses = web.get(f"{self.admin}/clusters?format=json").json()["cluster_statuses"]
        hosts: dict[str, bool] = {}
        for host in named(statuses, cluster).get("host_statuses", []):
            address = host["address"].get("socket_address")
            name = f"{address['address']}:{address['port_value']}" if address else host["address"]["pipe"]["path"]
            hosts[name] = host["health_status"] == {"eds_health_status": "HEALTHY"}
        return hosts

    def wait_for(self, cluster: str, count: int) -> None:
        """Waits until the cluster has `count` hosts and all of them are healthy."""
        def all_healthy() -> bool:
            hosts = self.hosts(cluster)
            return len(hosts) == count and all(hosts.values())

        self.child.wait_until(f"finding {count} healthy in {cluster}", all_healthy, PATIENCE)

    def stat(self, name: str) -> int:
        stats = web.get(f"{self.admin}/stats?format=json&filter=^{name}$").json()["stats"]
        assert len(stats) == 1, f"{name}: {stats}"
        value: int = stats[0]["value"]
        return value


def eventually(what: str, condition: Callable[[], object]) -> None:
    """Waits until the condition is true; fails after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not {what} after {PATIENCE:.0f} s"
        time.sleep(0.05)
