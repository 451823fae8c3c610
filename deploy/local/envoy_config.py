"""deploy/envoy/envoy.yaml with other addresses, the routes of the page to try it, and nothing else changed.

Changed as data: what the stack and its tour prove is true of the file that people copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from processes import Failed

Node = dict[str, Any]

# What the page server has. Everything else stays as it is in the file: it needs a token.
PAGE_ROUTES: list[Node] = [
    {"path": "/"}, {"path_separated_prefix": "/page"}, {"path_separated_prefix": "/docs"}, {"path": "/mailbox"}]


def tcp(port: int) -> Node:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def unix(path: Path) -> Node:
    return {"pipe": {"path": str(path)}}


def write(source: Path, target: Path, *, listeners: dict[str, Node], clusters: dict[str, Node],
          page: Node) -> None:
    """Copies the bootstrap, each listener bound to, and each cluster pointed at, the given address, and with
    the page server's routes.

    Port 0 lets the kernel choose; Envoy's admin API, itself on such a port, tells which it became.
    """
    config = yaml.safe_load(source.read_text())
    config["admin"]["address"] = tcp(0)
    resources = config["static_resources"]
    for listener in _named(source, "listener", resources["listeners"], listeners):
        listener["address"] = listeners[listener["name"]]
    for cluster in _named(source, "cluster", resources["clusters"], clusters):
        for locality in cluster["load_assignment"]["endpoints"]:
            for endpoint in locality["lb_endpoints"]:
                endpoint["endpoint"]["address"] = clusters[cluster["name"]]
    _add_page(resources, page)
    target.write_text(json.dumps(config, indent=1))  # JSON is YAML; this way every alias is written out


def _add_page(resources: Node, address: Node) -> None:
    """Routes without a token, switched off in the very way in which the file does it for the account API."""
    # The listeners share one configuration of routes (an alias in the file), so this is all of them.
    routes = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]
    for host in routes["virtual_hosts"]:
        account = next(route for route in host["routes"] if route["name"] == "account")
        host["routes"][:0] = [
            {"name": "page", "match": match, "route": {"cluster": "page"},
             "typed_per_filter_config": account["typed_per_filter_config"]}
            for match in PAGE_ROUTES]
    resources["clusters"].append({
        "name": "page", "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "page", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address}}]}]}})


def _named(source: Path, kind: str, nodes: list[Node], addresses: dict[str, Node]) -> Iterator[Node]:
    """All of them: one without an address of ours would reach for a port of this machine."""
    names = {node["name"] for node in nodes}
    if names != set(addresses):
        raise Failed(f"{source} has the {kind}s {sorted(names)}; deploy/local knows {sorted(addresses)}")
    yield from nodes
