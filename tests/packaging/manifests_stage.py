"""Real processes for the tests of `deploy/`: cognito-authz with keys and tokens of ours, an application, Envoy, DNS.

Knows nothing of Kubernetes. Start from `Stage` and `Bootstrap`.
"""

from __future__ import annotations

import base64
import copy
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from conftest import ROOT, TOOLS
from cryptography.hazmat.primitives.asymmetric import rsa

sys.path.insert(0, str(ROOT / "deploy" / "local"))

import web  # noqa: E402
from processes import Child  # noqa: E402

Node = dict[str, Any]

POOL = "eu-west-1_AbC123xyz"
CLIENT = "3n4b5urk1ft4fl3mg5e62d9ado"
ENVOY_YAML = ROOT / "deploy" / "envoy" / "envoy.yaml"
EXT_AUTHZ = "envoy.filters.http.ext_authz"
RBAC = "envoy.filters.http.rbac"
PATIENCE = 30.0


class Keys:
    """A signing key, published as a file, and tokens signed with it."""

    def __init__(self, directory: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self._key.public_key().public_numbers()

        def encode(number: int) -> str:
            octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
            return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()

        self.file = directory / "jwks.json"
        key = {"kid": "one", "alg": "RS256", "kty": "RSA", "use": "sig", "e": encode(numbers.e), "n": encode(numbers.n)}
        self.file.write_text(json.dumps({"keys": [key]}))

    def token(self, **claims: Any) -> str:
        now = int(time.time())
        payload = {"iss": f"https://cognito-idp.eu-west-1.amazonaws.com/{POOL}", "sub": "ada", "username": "ada",
                   "client_id": CLIENT, "token_use": "access", "scope": "openid", "iat": now, "auth_time": now,
                   "exp": now + 3600, "jti": "1", **claims}
        return jwt.encode(payload, self._key, algorithm="RS256", headers={"kid": "one"})

    def bearer(self, **claims: Any) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.token(**claims)}")]


class Stage:
    """Where processes live: a folder, and everything that was started, which ends with the block."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary = binary
        self.directory = directory
        self.keys = Keys(directory)
        self.children = ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.children.close()

    def child(self, name: str, command: Sequence[str | Path], env: dict[str, str] | None = None) -> Child:
        child = Child(name, command, log=self.directory / f"{name}.log", cwd=self.directory, env=env)
        self.children.callback(child.stop, 5)
        return child

    def authz(self, name: str, *flags: str | Path, ready: bool = True) -> Program:
        """cognito-authz with the pool and key of these tests; on ports of its own unless `flags` say otherwise."""
        usual: dict[str, str | Path] = {"--grpc-listen": "127.0.0.1:0", "--admin-listen": "127.0.0.1:0"}
        usual = {flag: value for flag, value in usual.items() if flag not in flags}
        command = [self.binary, "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-file", self.keys.file,
                   "--jwks-url", "http://127.0.0.1:9/", "--log-format", "json", "--shutdown-deadline", "200ms",
                   *(part for pair in usual.items() for part in pair), *flags]
        program = Program(self.child(name, command))
        program.admin = program.child.wait_until("listening", lambda: program.bound("admin"), PATIENCE)
        if ready:
            program.child.wait_until("ready", lambda: web.is_ok(f"http://{program.admin}/readyz"), PATIENCE)
        return program

    def application(self) -> int:
        """An application that answers with what it received; its port."""
        child = self.child("application", [TOOLS / "python", ROOT / "deploy" / "local" / "upstream.py"])
        line: str = child.wait_until("listening", lambda: "".join(child.lines()), PATIENCE)
        return int(line.rpartition(" ")[2])

    def envoy(self, bootstrap: Bootstrap, name: str = "envoy") -> Envoy:
        return Envoy(self, bootstrap, name)


class Program:
    """A running cognito-authz."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.admin = ""

    def bound(self, listener: str) -> str:
        """The TCP address that a listener got, from the log."""
        for line in self.child.lines():
            fields = json.loads(line).get("fields", {}) if line.startswith("{") else {}
            if fields.get("message") == "listening" and fields.get("listener") == listener:
                address = str(fields.get("address"))
                if not address.startswith("unix:"):
                    return address
        return ""

    def metric(self, start: str) -> float:
        """The sum of the series that begin so."""
        lines = web.get(f"http://{self.admin}/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))


def tcp(host: str, port: int) -> Node:
    return {"socket_address": {"address": host, "port_value": port}}


class Bootstrap:
    """A configuration of Envoy in the making: a file of ours, as data."""

    def __init__(self, source: Path = ENVOY_YAML) -> None:
        # A round trip, so that what is an alias in the file is a value here, and a change stays where it is made.
        self.config: Node = json.loads(json.dumps(yaml.safe_load(source.read_text())))
        self.config["admin"]["address"] = tcp("127.0.0.1", 0)
        for listener in self.config["static_resources"]["listeners"]:
            listener["address"] = tcp("127.0.0.1", 0)
            grpc = self.ext_authz(listener["name"])["grpc_service"]
            # What a busy machine could miss. The numbers of the file are the tour's to prove (deploy/local/up --tour).
            grpc["timeout"] = "15s"
            if "retry_policy" in grpc:
                grpc["retry_policy"]["retry_back_off"]["max_interval"] = "7s"

    def listener(self, name: str) -> Node:
        return named(self.config["static_resources"]["listeners"], name)

    def cluster(self, name: str) -> Node:
        return named(self.config["static_resources"]["clusters"], name)

    def manager(self, listener: str) -> Node:
        found: Node = self.listener(listener)["filter_chains"][0]["filters"][0]["typed_config"]
        return found

    def ext_authz(self, listener: str) -> Node:
        found: Node = named(self.manager(listener)["http_filters"], EXT_AUTHZ)["typed_config"]
        return found

    def point(self, cluster: str, *addresses: Node) -> None:
        """Sends a cluster's requests to these addresses instead."""
        self.cluster(cluster)["connect_timeout"] = "5s"
        self.cluster(cluster)["load_assignment"]["endpoints"] = [
            {"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}]

    def remove_filter(self, listener: str, name: str) -> None:
        filters = self.manager(listener)["http_filters"]
        filters.remove(named(filters, name))

    def copy_listener(self, name: str, to: str) -> None:
        listener = copy.deepcopy(self.listener(name))
        listener["name"] = to
        self.config["static_resources"]["listeners"].append(listener)
        self.manager(to)["stat_prefix"] = to

    def write(self, target: Path) -> Path:
        target.write_text(json.dumps(self.config, indent=1))  # JSON is YAML
        return target


def named(nodes: list[Node], name: str) -> Node:
    found = [node for node in nodes if node["name"] == name]
    assert len(found) == 1, f"{name}: {[node['name'] for node in nodes]}"
    return found[0]


class Envoy:
    """A running Envoy."""

    def __init__(self, stage: Stage, bootstrap: Bootstrap, name: str) -> None:
        config = bootstrap.write(stage.directory / f"{name}.json")
        admin = stage.directory / f"{name}-admin"
        self.child = stage.child(name, [
            TOOLS / "envoy", "-c", config, "-l", "warn", "--concurrency", "1", "--disable-hot-restart",
            "--admin-address-path", admin])
        self.admin = "http://" + self.child.wait_until("started", admin.read_text, PATIENCE)
        self.child.wait_until("ready", lambda: web.is_ok(f"{self.admin}/ready"), PATIENCE)
        statuses = web.get(f"{self.admin}/listeners?format=json").json()["listener_statuses"]
        self.urls = {status["name"]: f"http://127.0.0.1:{status['local_address']['socket_address']['port_value']}"
                     for status in statuses}

    def hosts(self, cluster: str) -> dict[str, bool]:
        """The addresses that Envoy knows of a cluster, and whether each may get requests."""
        statuses = web.get(f"{self.admin}/clusters?format=json").json()["cluster_statuses"]
        hosts: dict[str, bool] = {}
        for host in named(statuses, cluster).get("host_statuses", []):
            address = host["address"].get("socket_address")
            name = f"{address['address']}:{address['port_value']}" if address else host["address"]["pipe"]["path"]
            hosts[name] = host["health_status"] == {"eds_health_status": "HEALTHY"}
        return hosts

    def wait_for(self, cluster: str, count: int) -> None:
        """Until so many hosts of the cluster are known, and all of them healthy."""
        def all_healthy() -> bool:
            hosts = self.hosts(cluster)
            return len(hosts) == count and all(hosts.values())

        self.child.wait_until(f"finding {count} healthy in {cluster}", all_healthy, PATIENCE)

    def stat(self, name: str) -> int:
        stats = web.get(f"{self.admin}/stats?format=json&filter=^{name}$").json()["stats"]
        assert len(stats) == 1, f"{name}: {stats}"
        value: int = stats[0]["value"]
        return value


def validate(config: Path) -> None:
    """Fails if Envoy refuses a configuration, or warns: deprecated fields are warnings."""
    done = subprocess.run([TOOLS / "envoy", "--mode", "validate", "-c", config, "-l", "warn"],
                          capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not any(f"[{level}]" in said for level in ("warning", "error", "critical")), said


class NameServer:
    """DNS with one name (RFC 1035), as a headless Service has it: an A record for every pod that is ready."""

    def __init__(self, name: str) -> None:
        self._name = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
        self.addresses: list[str] = []
        self.questions = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def resolver(self) -> Node:
        """What makes an Envoy cluster ask here."""
        return {"name": "envoy.network.dns_resolver.cares", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {
                "protocol": "UDP", "address": "127.0.0.1", "port_value": self.port}}],
            "dns_resolver_options": {"no_default_search_domain": True}}}

    def close(self) -> None:
        # Wakes the thread up: closing alone would not.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(512)
            if len(query) < 12:
                return
            question = query[12:query.index(b"\0", 12) + 5]
            kind = struct.unpack("!H", question[-4:-2])[0]
            known = question[:-4].lower() == self._name
            answers = [socket.inet_aton(address) for address in self.addresses] if known and kind == 1 else []
            self.questions += known and kind == 1
            header = query[:2] + struct.pack("!HHHHH", 0x8580 | (0 if known else 3), 1, len(answers), 0, 0)
            records = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + address for address in answers)
            self._socket.sendto(header + question + records, sender)


def eventually(what: str, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not {what} after {PATIENCE:.0f} s"
        time.sleep(0.05)
