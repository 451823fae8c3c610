"""deploy/envoy/envoy.yaml as data that a test can change. Start from `Bootstrap`."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import yaml

from commands import run
from paths import ROOT, TOOLS
from stage import Node, named, tcp

ENVOY_YAML = ROOT / "deploy" / "envoy" / "envoy.yaml"
EXT_AUTHZ = "envoy.filters.http.ext_authz"
RBAC = "envoy.filters.http.rbac"


class Bootstrap:
    """Configuration of an Envoy: by default deploy/envoy/envoy.yaml, on free ports and with longer time limits."""

    def __init__(self, source: Path = ENVOY_YAML) -> None:
        # The round trip through JSON copies YAML aliases, so that a change affects only the place where it is made.
        self.config: Node = json.loads(json.dumps(yaml.safe_load(source.read_text())))
        self.config["admin"]["address"] = tcp("127.0.0.1:0")
        for listener in self.config["static_resources"]["listeners"]:
            listener["address"] = tcp("127.0.0.1:0")
            # A busy machine could exceed the file's limits. deploy/local/up --tour tests those.
            self.relax(listener["name"])

    def relax(self, listener: str) -> None:
        """Raises the time limits of the check."""
        grpc = self.ext_authz(listener)["grpc_service"]
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
        """Writes the configuration to a file and returns the file's path."""
        target.write_text(json.dumps(self.config, indent=1))  # JSON is YAML
        return target


def validate(config: Path) -> None:
    """Fails if Envoy rejects a configuration or warns about it. It warns about deprecated fields."""
    done = run(TOOLS / "envoy", "--mode", "validate", "-c", config, "-l", "warn")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not any(f"[{level}]" in said for level in ("warning", "error", "critical")), said
