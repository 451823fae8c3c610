"""Translates the objects in deploy/istio to Envoy's configuration, as Istio does.

Istio itself does not run in the tests. Start from `istio_bootstrap`.
"""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import yaml

from bootstrap import EXT_AUTHZ, RBAC, Bootstrap
from manifests import DEPLOY, documents
from stage import Node, named

ISTIO = DEPLOY / "istio"
SHOP, OTHER = "shop.example.com", "other.example.com"


def provider(name: str) -> Node:
    """An extension provider of mesh-config.yaml."""
    config = yaml.safe_load((ISTIO / "mesh-config.yaml").read_text())["meshConfig"]
    assert config["pathNormalization"] == {"normalization": "DECODE_AND_MERGE_SLASHES"}
    found: Node = named(config["extensionProviders"], name)["envoyExtAuthzGrpc"]
    return found


def merge(into: Node, patch: Node) -> None:
    """Merges like protobuf, as `MERGE` of an EnvoyFilter does: messages are merged, lists are concatenated."""
    for name, value in patch.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        elif isinstance(value, list) and name in into:
            into[name] = into[name] + value
        else:
            into[name] = copy.deepcopy(value)


def apply_envoy_filters(manager: Node, filters: list[Node], context: str) -> None:
    """Applies the patches of a context. Fails if there is none, or one matches nothing; Istio ignores those."""
    patches = [patch for item in filters for patch in item["spec"]["configPatches"]
               if patch["match"]["context"] == context]
    assert patches
    for patch in patches:
        operation, value, match = patch["patch"]["operation"], patch["patch"]["value"], patch["match"]
        hosts = manager["route_config"]["virtual_hosts"]
        inner = match.get("listener", {}).get("filterChain", {}).get("filter", {}).get("subFilter", {}).get("name")
        targets: list[Node] = {
            "NETWORK_FILTER": [{"typed_config": manager}],
            "HTTP_FILTER": [entry for entry in manager["http_filters"] if entry["name"] == inner],
            "VIRTUAL_HOST": hosts,
            "HTTP_ROUTE": [route for host in hosts for route in host["routes"] if route["name"] == match.get(
                "routeConfiguration", {}).get("vhost", {}).get("route", {}).get("name")],
        }[patch["applyTo"]]
        if operation == "INSERT_FIRST":
            manager["http_filters"].insert(0, copy.deepcopy(value))
            continue
        assert operation == "MERGE", patch
        assert targets, patch
        for target in targets:
            if "typed_config" in value:
                assert target["typed_config"]["@type"] == value["typed_config"]["@type"], "MERGE needs equal types"
            merge(target, value)


def istio_rbac(name: str, policies: Node, action: str, shadow: bool = False) -> Node:
    rules = {"shadow_rules" if shadow else "rules": {"action": action, "policies": policies}}
    prefix = {"shadow_rules_stat_prefix": "istio_ext_authz_"} if shadow else {}
    return {"name": name, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", **rules, **prefix}}


def matcher(value: str) -> Node:
    """Envoy's matcher for a value of Istio: exact, `prefix*` or `*suffix`."""
    if value.endswith("*"):
        return {"prefix": value[:-1]}
    return {"suffix": value[1:]} if value.startswith("*") else {"exact": value}


def permissions(rule: Node) -> list[Node]:
    """RBAC permissions for `to` and `when` of a rule. One operation must match, with all of its fields."""
    def any_of(field: str, values: list[str]) -> Node:
        matchers = [matcher(value) for value in values]
        if field == "ports":
            return {"or_rules": {"rules": [{"destination_port": int(value)} for value in values]}}
        rules = {
            # Paths: normalized, without the query. Hosts: case-insensitive (Istio's `HostMatcher`).
            "paths": [{"url_path": {"path": one}} for one in matchers],
            "hosts": [
                {"header": {"name": ":authority", "string_match": {**one, "ignore_case": True}}} for one in matchers
            ],
        }[field]
        return {"or_rules": {"rules": rules}}

    when: list[Node] = []
    for condition in rule.get("when", []):
        name, key = condition["key"].removeprefix("experimental.").removesuffix("]").split("[")
        values = [{"sourced_metadata": {"metadata_matcher": {
            "filter": name, "path": [{"key": key}], "value": {"string_match": {"exact": value}}}}}
            for value in condition["notValues"]]
        when.append({"not_rule": {"or_rules": {"rules": values}}})
    found = []
    for operation in (to["operation"] for to in rule.get("to", [{"operation": {}}])):
        conditions = [any_of(field, values) for field, values in operation.items() if not field.startswith("not")]
        conditions += [{"not_rule": any_of(field[3:].lower(), values)} for field, values in operation.items()
                       if field.startswith("not")]
        found.append({"and_rules": {"rules": conditions + when}} if conditions + when else {"any": True})
    return found


def generated_filters(first: Node, second: Node, settings: Node) -> list[Node]:
    """The HTTP filters that Istio generates for a CUSTOM and a DENY policy (pilot/pkg/security/authz).

    A shadow rule marks the requests that need a check, ext_authz checks those, and the DENY policy follows.
    """
    def policies(item: Node, name: str) -> Node:
        return {f"{name}-{number}": {"permissions": permissions(rule), "principals": [{"any": True}]}
                for number, rule in enumerate(item["spec"]["rules"])}

    return [
        istio_rbac(RBAC, policies(first, "istio-ext-authz"), "DENY", shadow=True),
        {"name": EXT_AUTHZ, "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "cognito_authz_tcp", "authority": "outbound_.9191_._.x"},
                             "timeout": settings["timeout"]},
            "failure_mode_allow": settings["failOpen"],
            "status_on_error": {"code": int(settings["statusOnError"])},
            "filter_enabled_metadata": {
                "filter": RBAC, "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
                "value": {"string_match": {"prefix": "istio-ext-authz"}}}}},
        istio_rbac(f"{RBAC}.deny", policies(second, "second-line"), "DENY"),
        {"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}},
    ]


def virtual_hosts(context: str) -> list[Node]:
    """Routes of a proxy. At the gateway: those of gateway.yaml, and another site without exceptions."""
    everything: Node = {"name": "application", "match": {"prefix": "/"}, "route": {"cluster": "app"}}
    if context == "SIDECAR_INBOUND":
        return [{"name": "inbound|http|3000", "domains": ["*"], "routes": [everything]}]
    sites: dict[str, list[tuple[str, Node]]] = {OTHER: [("/", everything)]}
    for item in (item for item in documents(ISTIO / "gateway.yaml") if item["kind"] == "HTTPRoute"):
        for host, rule in itertools.product(item["spec"]["hostnames"], item["spec"]["rules"]):
            [match], [backend] = rule["matches"], rule["backendRefs"]
            assert match["path"]["type"] == "PathPrefix"
            prefix = match["path"]["value"]
            cluster = "account" if backend["name"] == "cognito-authz-account" else "app"
            route = {"name": rule["name"], "route": {"cluster": cluster},
                     "match": {"prefix": "/"} if prefix == "/" else {"path_separated_prefix": prefix}}
            sites.setdefault(host, []).append((prefix, route))
    # Longer prefixes take precedence (Gateway API).
    return [
        {
            "name": f"{host}:80",
            "domains": [host, f"{host}:*"],
            "routes": [route for _, route in sorted(routes, key=lambda one: -len(one[0]))],
        }
        for host, routes in sites.items()
    ]


# meshConfig.pathNormalization, as Istio translates it (pilot/pkg/networking/core, `connectionManager`).
NORMALIZATIONS: dict[str, Node] = {
    "BASE": {"normalize_path": True, "merge_slashes": False, "path_with_escaped_slashes_action": "KEEP_UNCHANGED"},
    "MERGE_SLASHES": {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
    },
    "DECODE_AND_MERGE_SLASHES": {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
    },
}


def generated_bootstrap(policies: list[Node], filters: list[Node], context: str, settings: Node) -> Bootstrap:
    """Configuration that Istio generates for a proxy, based on envoy.yaml with its filters and routes replaced.

    `policies` are a CUSTOM and a DENY policy, `filters` are EnvoyFilters, and `settings` are those of the provider.
    """
    bootstrap = Bootstrap()
    listeners = bootstrap.config["static_resources"]["listeners"]
    listeners[:] = [named(listeners, "ingress_tcp")]
    manager = bootstrap.manager("ingress_tcp")
    for unsupported in ("early_header_mutation_extensions", "common_http_protocol_options"):
        del manager[unsupported]
    manager.update(NORMALIZATIONS["DECODE_AND_MERGE_SLASHES"])
    manager["route_config"] = {"name": "http.80", "virtual_hosts": virtual_hosts(context)}
    first, second = policies
    manager["http_filters"] = generated_filters(first, second, settings)
    if filters:
        apply_envoy_filters(manager, filters, context)
    return bootstrap


def istio_bootstrap(directory: Path, context: str, name: str, *, patched: bool = True) -> Bootstrap:
    """Configuration that Istio generates from the files of a directory."""
    filters = documents(directory / "envoy-filter.yaml") if patched else []
    return generated_bootstrap(documents(directory / "authorization-policy.yaml"), filters, context, provider(name))
