"""Derives the stack's Envoy configuration from deploy/envoy/envoy.yaml: other addresses, plus routes to the demo page,
plus a listener for a second replica.

Everything else is as in the file, so what the stack and its tour show holds for the file that users copy. Only
tests have longer time limits.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from processes import Failed

Node = dict[str, Any]

# Routes of the page server, the only ones added. Every other route is as in the file and needs a token.
PAGE_ROUTES: list[Node] = [
    {"path": "/"}, {"path_separated_prefix": "/page"}, {"path_separated_prefix": "/docs"}, {"path": "/mailbox"}]


def tcp(port: int) -> Node:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def unix(path: Path) -> Node:
    return {"pipe": {"path": str(path)}}


def write(source: Path, target: Path, *, listeners: dict[str, Node], clusters: dict[str, Node],  # noqa: PLR0913
          page: Node, replica: tuple[Node, Node] | None, busy_machine: bool = False) -> None:
    """Writes the bootstrap file `source` to `target` with the given addresses and the page server's routes.

    `listeners` and `clusters` map every name in the file to its new address. The kernel chooses the admin port.
    `replica` has the address of another listener, and of the replica of cognito-authz that checks its requests.
    On a `busy_machine` a check could exceed the time limits of the file, so they are longer.
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
    if busy_machine:
        _raise_limits(resources)
    _add_page(resources, page)
    if replica is not None:
        _add_replica(resources, *replica)
    target.write_text(json.dumps(config, indent=1))  # JSON is valid YAML, and has no aliases


def _raise_limits(resources: Node) -> None:
    for listener in resources["listeners"]:
        check = _check(listener)["grpc_service"]
        check["timeout"] = "15s"
        if "retry_policy" in check:
            check["retry_policy"]["retry_back_off"]["max_interval"] = "7s"


def _check(listener: Node) -> Node:
    """Returns the filter that asks cognito-authz."""
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    [found] = [one["typed_config"] for one in filters if "grpc_service" in one["typed_config"]]
    check: Node = found
    return check


def _add_page(resources: Node, address: Node) -> None:
    """Adds the page's routes and disables the check on them as the file does for the account API."""
    # The listeners share one route configuration (a YAML alias), so changing the first one changes all.
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


def _add_replica(resources: Node, address: Node, authz: Node) -> None:
    """Adds a copy of the listener `ingress_tcp` whose checks go to another replica, and the cluster of that replica."""
    cluster = copy.deepcopy(next(one for one in resources["clusters"] if one["name"] == "cognito_authz_tcp"))
    cluster["name"] = cluster["load_assignment"]["cluster_name"] = "cognito_authz_replica"
    cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [{"endpoint": {"address": authz}}]}]
    listener = copy.deepcopy(next(one for one in resources["listeners"] if one["name"] == "ingress_tcp"))
    listener["name"], listener["address"] = "ingress_replica", address
    listener["filter_chains"][0]["filters"][0]["typed_config"]["stat_prefix"] = listener["name"]
    _check(listener)["grpc_service"]["envoy_grpc"]["cluster_name"] = cluster["name"]
    resources["listeners"].append(listener)
    resources["clusters"].append(cluster)


def _named(source: Path, kind: str, nodes: list[Node], addresses: dict[str, Node]) -> Iterator[Node]:
    """Yields all nodes; raises unless each has a new address, because the original ones are fixed ports."""
    names = {node["name"] for node in nodes}
    if names != set(addresses):
        raise Failed(f"{source} has the {kind}s {sorted(names)}; deploy/local knows {sorted(addresses)}")
    yield from nodes
