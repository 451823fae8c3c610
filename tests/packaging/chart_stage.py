"""What the tests of `charts/` share: rendering, and running what was rendered, with real keys, tokens and a real Envoy.

Start from `render` and `Stage`. Knows nothing of what is asserted.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import helm_python as helm
import jwt
import yaml
from conftest import ROOT, TOOLS
from cryptography.hazmat.primitives.asymmetric import rsa

sys.path.insert(0, str(ROOT / "deploy" / "local"))

import web  # noqa: E402
from processes import Child  # noqa: E402

Node = dict[str, Any]

CHARTS = ROOT / "charts"
CHART = CHARTS / "cognito-authz"
SIDECAR = CHARTS / "cognito-authz-sidecar"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
POOL, CLIENT = "eu-west-1_AbC123xyz", "3n4b5urk1ft4fl3mg5e62d9ado"
NEEDED: Node = {"userPool": {"id": POOL, "clientIds": [CLIENT]}}
PATIENCE = 30.0


@dataclass
class Rendered:
    """A rendered chart: its objects, and what Helm prints after the installation."""

    objects: list[Node]
    notes: str

    def of(self, kind: str) -> list[Node]:
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Node:
        """The only object of a kind whose name ends so."""
        found = [one for one in self.of(kind) if one["metadata"]["name"].endswith(suffix)]
        assert len(found) == 1, (kind, suffix, [one["metadata"]["name"] for one in found])
        return found[0]

    def container(self) -> Node:
        """The program's container of the Deployment."""
        pod = self.one("Deployment")["spec"]["template"]["spec"]
        return next(one for one in pod["containers"] if one["name"] == "cognito-authz")

    def warnings(self) -> list[str]:
        return re.findall(r"^WARNING: (.*)$", self.notes, re.MULTILINE)


def objects(manifests: dict[str, str]) -> list[Node]:
    """What is in the files that Helm has rendered. Helm itself does not read them."""
    return [one for path, text in manifests.items() if path.endswith(".yaml") for one in yaml.safe_load_all(text) if one]


def render(values: Node, chart: Path = CHART, name: str = "rel", namespace: str = "ns") -> Rendered:
    with helm.Chart.load(chart) as loaded:
        manifests = loaded.render(values=values, name=name, namespace=namespace)
    notes = "".join(text for path, text in manifests.items() if path.endswith("/NOTES.txt"))
    return Rendered(objects(manifests), notes)


@functools.cache
def rendered_ci(path: Path) -> Rendered:
    return render(yaml.safe_load(path.read_text()))


def pods(everything: list[Node]) -> list[tuple[str, Node]]:
    """Every pod that the objects make, with a name to find it by."""
    found = [(one["metadata"]["name"], one["spec"]["template"]["spec"]) for one in everything if one["kind"] == "Deployment"]
    return found + [(one["metadata"]["name"], one["spec"]) for one in everything if one["kind"] == "Pod"]


class Keys:
    """A signing key, published at an URL, and tokens signed with it."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self._key.public_key().public_numbers()

        def encode(number: int) -> str:
            return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()

        jwk = {"kid": "one", "alg": "RS256", "kty": "RSA", "use": "sig", "e": encode(numbers.e), "n": encode(numbers.n)}
        self.document = json.dumps({"keys": [jwk]})
        document = self.document.encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(document)))
                self.end_headers()
                self.wfile.write(document)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/jwks.json"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def bearer(self, **claims: Any) -> list[tuple[str, str]]:
        now = int(time.time())
        payload = {"iss": f"https://cognito-idp.eu-west-1.amazonaws.com/{POOL}", "sub": "ada", "username": "ada",
                   "client_id": CLIENT, "token_use": "access", "scope": "openid", "iat": now, "auth_time": now,
                   "exp": now + 3600, "jti": "1", **claims}
        token = jwt.encode(payload, self._key, algorithm="RS256", headers={"kid": "one"})
        return [("authorization", f"Bearer {token}")]


class Volume:
    """A mounted ConfigMap or Secret, written as the kubelet does: `..data` points to a directory for each version."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._version = 0

    def write(self, files: dict[str, str]) -> None:
        self._version += 1
        version = self.directory / f"..{self._version}"
        version.mkdir(parents=True)
        for name, text in files.items():
            (version / name).write_text(text)
            link = self.directory / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        new = self.directory / "..data_tmp"
        new.symlink_to(version.name)
        new.rename(self.directory / "..data")


class Mounts:
    """The files of a container, below a folder of the test; `sources` holds data of ConfigMaps and Secrets by name."""

    def __init__(self, pod: Node, container: Node, sources: dict[str, dict[str, str]], root: Path) -> None:
        self.root = root
        self.volumes: dict[str, Volume] = {}
        by_name = {volume["name"]: volume for volume in pod.get("volumes", [])}
        self._paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        for mount in container.get("volumeMounts", []):
            assert "subPath" not in mount, "a file that is mounted by itself never changes"
            volume = by_name[mount["name"]]
            here = root / mount["mountPath"].lstrip("/")
            source = volume.get("configMap") or volume.get("secret")
            if source is None:
                here.mkdir(parents=True)
                continue
            data = sources[source.get("name") or source["secretName"]]
            self.volumes[mount["mountPath"]] = Volume(here)
            items = source.get("items") or [{"key": key, "path": key} for key in data]
            self.volumes[mount["mountPath"]].write({item["path"]: data[item["key"]] for item in items})

    def mapped(self, argument: str) -> str:
        """An argument with the paths of mounts put below the test's folder."""
        for path in sorted(self._paths, key=len, reverse=True):
            changed = re.sub(rf"(?<==)((?:unix:)?){re.escape(path)}(?=/)", rf"\g<1>{self.root}{path}", argument)
            if changed != argument:
                return changed
        return argument


def config_maps(everything: list[Node]) -> dict[str, dict[str, str]]:
    return {one["metadata"]["name"]: one.get("data", {}) for one in everything if one["kind"] == "ConfigMap"}


class Program:
    """A running cognito-authz."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.admin = ""

    def bound(self, listener: str) -> str:
        """Where a listener is, from the log; on loopback, if it is everywhere."""
        for line in self.child.lines():
            fields = json.loads(line).get("fields", {}) if line.startswith("{") else {}
            if fields.get("message") == "listening" and fields.get("listener") == listener:
                return re.sub(r"^(\[::\]|0\.0\.0\.0):", "127.0.0.1:", str(fields["address"]))
        return ""


class Stage:
    """Where processes live: a folder, the keys, and everything that was started, which ends with the block."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary = binary
        self.directory = directory
        self._ends = ExitStack()

    def __enter__(self) -> Stage:
        self.keys = Keys()
        self._ends.callback(self.keys.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def child(self, name: str, command: list[str | Path], env: dict[str, str] | None = None) -> Child:
        child = Child(name, command, log=self.directory / f"{name}.log", cwd=self.directory, env=env)
        self._ends.callback(child.stop, 0.5)  # whoever wants an end in good order asks for it before
        return child

    def start(self, container: Node, mounts: Mounts) -> Program:
        """The program with a rendered container's arguments and environment. Only ports and paths are others."""
        arguments = [mounts.mapped(re.sub(r"^(--\w+-listen=.*):\d+$", r"\1:0", one)) for one in container["args"]]
        env = {one["name"]: one["value"] for one in container.get("env", [])}
        program = Program(self.child("authz", [self.binary, *arguments], env))
        program.admin = program.child.wait_until("listening", lambda: program.bound("admin"), PATIENCE)
        return program

    def envoy(self, authz: Node) -> str:
        """The base URL of an Envoy that asks at the address `authz`, and answers with what an application would see."""
        hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ext_authz = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
        router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
        http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        loopback = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        manager = {
            "@type": hcm, "stat_prefix": "in", "route_config": {"virtual_hosts": [{
                "name": "all", "domains": ["*"], "routes": [{
                    "match": {"prefix": "/"}, "direct_response": {"status": 200},
                    "response_headers_to_add": [
                        {"header": {"key": "seen-sub", "value": "%REQ(x-auth-sub)%"}, "keep_empty_value": True}]}]}]},
            "http_filters": [
                {"name": "envoy.filters.http.ext_authz", "typed_config": {
                    "@type": ext_authz, "transport_api_version": "V3", "stat_prefix": "cognito",
                    "status_on_error": {"code": "ServiceUnavailable"},
                    "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "10s"}}},
                {"name": "envoy.filters.http.router", "typed_config": {"@type": router}}]}
        config = {
            "node": {"id": "test", "cluster": "test"}, "admin": {"address": loopback},
            "static_resources": {
                "listeners": [{"name": "in", "address": loopback, "filter_chains": [{"filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
                "clusters": [{
                    "name": "authz", "type": "STATIC", "connect_timeout": "5s",
                    "typed_extension_protocol_options": {http: {
                        "@type": f"type.googleapis.com/{http}", "explicit_http_config": {"http2_protocol_options": {}}}},
                    "load_assignment": {"cluster_name": "authz", "endpoints": [
                        {"lb_endpoints": [{"endpoint": {"address": authz}}]}]}}]}}
        file, admin = self.directory / "envoy.yaml", self.directory / "envoy-admin"
        file.write_text(yaml.safe_dump(config))
        child = self.child("envoy", [TOOLS / "envoy", "-c", file, "-l", "warn", "--concurrency", "1", "--disable-hot-restart",
                                     "--admin-address-path", admin])
        self.envoy_admin = child.wait_until("started", lambda: admin.exists() and admin.read_text().strip(), PATIENCE)
        child.wait_until("ready", lambda: web.is_ok(f"http://{self.envoy_admin}/ready"), PATIENCE)
        listeners = web.get(f"http://{self.envoy_admin}/listeners?format=json").body
        port = json.loads(listeners)["listener_statuses"][0]["local_address"]["socket_address"]["port_value"]
        return f"http://127.0.0.1:{port}"


def tcp(address: str) -> Node:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
