"""Renders the charts and runs the rendered containers. Start from `render` and `start`."""

from __future__ import annotations

import copy
import functools
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

from paths import ROOT
from stage import CLIENT, POOL, Node, Program, Stage

CHARTS = ROOT / "charts"
CHART = CHARTS / "cognito-authz"
SIDECAR = CHARTS / "cognito-authz-sidecar"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
NEEDED: Node = {"userPool": {"id": POOL, "clientIds": [CLIENT]}}


def merged(base: Node, extra: Node) -> Node:
    """Merges values as Helm does: objects member by member, everything else is replaced."""
    result = copy.deepcopy(base)
    for key, value in extra.items():
        result[key] = (
            merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
        )
    return result


def nested(path: str, value: Any) -> Node:
    """The object that has `value` at a dotted path."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value  # type: ignore[no-any-return]


@dataclass
class Rendered:
    """A rendered chart: its objects, and the notes that Helm prints after the installation."""

    objects: list[Node]
    notes: str

    def of(self, kind: str) -> list[Node]:
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Node:
        """The only object of a kind whose name ends with `suffix`."""
        found = [one for one in self.of(kind) if one["metadata"]["name"].endswith(suffix)]
        assert len(found) == 1, (kind, suffix, [one["metadata"]["name"] for one in found])
        return found[0]

    def container(self) -> Node:
        """The container of cognito-authz in the Deployment."""
        pod = self.one("Deployment")["spec"]["template"]["spec"]
        return next(one for one in pod["containers"] if one["name"] == "cognito-authz")

    def warnings(self) -> list[str]:
        return re.findall(r"^WARNING: (.*)$", self.notes, re.MULTILINE)

    def switched_off(self) -> list[str]:
        """Lines of the notes about what is not switched on."""
        _, _, listed = self.notes.partition("\nNot switched on:\n")
        return re.findall(r"^- (.*)$", listed, re.MULTILINE)


def objects(manifests: dict[str, str]) -> list[Node]:
    """Objects in the rendered files. Helm itself does not parse the files."""
    return [
        one for path, text in manifests.items() if path.endswith(".yaml") for one in yaml.safe_load_all(text) if one
    ]


def render(values: Node, chart: Path = CHART, name: str = "rel", namespace: str = "ns") -> Rendered:
    with helm.Chart.load(chart) as loaded:
        manifests = loaded.render(values=values, name=name, namespace=namespace)
    notes = "".join(text for path, text in manifests.items() if path.endswith("/NOTES.txt"))
    return Rendered(objects(manifests), notes)


@functools.cache
def rendered_ci(path: Path) -> Rendered:
    return render(yaml.safe_load(path.read_text()))


def consumer(example: str, folder: Path) -> Path:
    """An example chart that depends on the sidecar chart, after `helm dependency update`, in a copy below `folder`."""
    chart = shutil.copytree(SIDECAR, folder / SIDECAR.name) / "examples" / example
    helm.dependency_update(str(chart))
    assert [one.name for one in (chart / "charts").iterdir()] == [f"{SIDECAR.name}-0.1.0.tgz"]
    return chart


@functools.cache
def rendered_istio_example() -> Rendered:
    """The sidecar chart's objects for Istio, from its example with every value for Istio in use."""
    values = {"check": {"identityHeaders": ["x-tenant"]}, "admin": {"listen": "[::]:9190"},
              "istio": {"exceptPorts": [9190], "envoyFilter": {"corsOrigins": ["https://app.example.com"]}}}
    with tempfile.TemporaryDirectory() as folder:
        return render({SIDECAR.name: values}, consumer("istio", Path(folder)))


def pods(everything: list[Node]) -> list[tuple[str, Node]]:
    """Name and specification of every pod that the objects describe."""
    found = [
        (one["metadata"]["name"], one["spec"]["template"]["spec"])
        for one in everything
        if one["kind"] in ("Deployment", "Job")
    ]
    return found + [(one["metadata"]["name"], one["spec"]) for one in everything if one["kind"] == "Pod"]


class Volume:
    """A mounted ConfigMap or Secret, written as the kubelet does: `..data` links to the current version's directory."""

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
    """Mounts of a container, created below `root`. `sources` holds the data of ConfigMaps and Secrets by name."""

    def __init__(self, pod: Node, container: Node, sources: dict[str, dict[str, str]], root: Path) -> None:
        self.root = root
        self.volumes: dict[str, Volume] = {}
        by_name = {volume["name"]: volume for volume in pod.get("volumes", [])}
        self._paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        for mount in container.get("volumeMounts", []):
            assert "subPath" not in mount, "a file mounted with subPath is never updated"
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
        """Moves the paths of mounts in an argument below `root`."""
        for path in sorted(self._paths, key=len, reverse=True):
            changed = re.sub(rf"(?<==)((?:unix:)?){re.escape(path)}(?=/)", rf"\g<1>{self.root}{path}", argument)
            if changed != argument:
                return changed
        return argument


def config_maps(everything: list[Node]) -> dict[str, dict[str, str]]:
    return {one["metadata"]["name"]: one.get("data", {}) for one in everything if one["kind"] == "ConfigMap"}


def start(stage: Stage, container: Node, mounts: Mounts) -> Program:
    """cognito-authz with the arguments and environment of a rendered container; only ports and paths differ."""
    arguments = [mounts.mapped(re.sub(r"^(--\w+-listen=.*):\d+$", r"\1:0", one)) for one in container["args"]]
    env = {one["name"]: one["value"] for one in container.get("env", [])}
    return stage.program("authz", arguments, env)


def envoy_config(authz: Node) -> Node:
    """Configuration of an Envoy that checks every request with cognito-authz at the address `authz`.

    It answers allowed requests itself, with the header `seen-sub`: the `x-auth-sub` that an application would receive.
    """
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
    return {
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
