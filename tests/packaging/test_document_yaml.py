"""The YAML of the documents is valid: policy files, values of the charts, and pieces of Envoy's configuration.

test_documents_kubernetes.py checks the Kubernetes objects, tests/it/examples.rs the tables of `test-policy`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from commands import run
from document_commands import Block, blocks
from helm_charts import merged
from paths import ROOT, TOOLS
from stage import CLIENT, POOL

# What a policy file needs that sends browsers to sign in, where the section shows no `.env`.
SIGN_IN = [
    "--account-api=true", "--account-cookies", "--trusted-hops", "1", "--account-listen", "127.0.0.1:9192",
    "--hosted-ui-domain", "example.auth.eu-west-1.amazoncognito.com",
    "--oauth-redirect-uris", "https://app.example.com/auth/oauth/callback",
    "--oauth-logout-uris", "https://app.example.com/",
]  # fmt: skip


@functools.cache
def of_yaml() -> list[Block]:
    return list(blocks("yaml"))


@functools.cache
def policy_schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs/config.schema.json").read_text())
    return found


@functools.cache
def chart(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The default values of a chart, and their schema."""
    folder = ROOT / "charts" / name
    return yaml.safe_load((folder / "values.yaml").read_text()), json.loads((folder / "values.schema.json").read_text())


@functools.cache
def kind(block: Block) -> str:  # noqa: PLR0911
    """What a block of YAML is."""
    if "{{" in block.text or "# an error" in block.text:
        return "not for a parser"
    content = next(iter(yaml.safe_load_all(block.text)), None)
    if content is None:
        return "a comment"
    if isinstance(content, list) and "envoyExtAuthzGrpc" in content[0]:
        return "a part of a file of Helm, Kubernetes or Istio"
    if isinstance(content, list) or "type.googleapis.com/" in block.text:
        return "Envoy"
    names = set(content)
    if "kind" in names:
        return "Kubernetes"
    if "tests" in names:
        return "test-policy"
    if names & {"dependencies", "initContainers", "extensionProviders"}:
        return "a part of a file of Helm, Kubernetes or Istio"
    envoys_routes = isinstance(content.get("routes"), list) and "match" in content["routes"][0]
    if names <= policy_schema()["properties"].keys() and not envoys_routes:
        # A resource refers to a policy of the same file.
        return "a part of a policy file" if names == {"protected_resources"} else "policy file"
    if names == {"cognito-authz-sidecar"} or names <= chart("cognito-authz")[0].keys():
        return "values"
    if names == {"claims"}:
        return "a part of a policy file"
    return "Envoy"


def of_kind(wanted: str) -> Iterator[Block]:
    return (block for block in of_yaml() if kind(block) == wanted)


def test_every_block_is_yaml() -> None:
    kinds = {kind(block) for block in of_yaml()}
    assert {"policy file", "values", "Envoy", "Kubernetes", "test-policy"} <= kinds
    for block in of_yaml():
        if kind(block) != "not for a parser":
            list(yaml.safe_load_all(block.text))


# ------------------------------------------------------------------------------------------------ policy files


def settings_of(block: Block) -> str:
    """The `.env` of the block's section; empty if the section shows none."""
    parts = re.split(r"^## ", (ROOT / block.document).read_text(), flags=re.MULTILINE)
    part = next(part for part in parts if block.text in part)
    found = re.findall(r"^```sh\n(# \.env\n.*?)^```$", part, re.MULTILINE | re.DOTALL)
    assert len(found) <= 1, f"{block}: the section has more than one .env"
    return "".join(found)


def test_policy_files_are_valid(binary: Path, tmp_path: Path) -> None:
    seen = with_settings = 0
    for block in of_kind("policy file"):
        settings = settings_of(block)
        seen, with_settings = seen + 1, with_settings + bool(settings)
        # App clients that the file names have to be accepted.
        clients = [CLIENT, *re.findall(r"^ +.*\b(?:client_id: |clients: \[)(\w+)", block.text, re.MULTILINE)]
        accepted = [part for client in clients for part in ("--client-id", client)]
        # The ids of `pools` include the default.
        options = [] if "pools:" in block.text else ["--user-pool-id", POOL, *accepted]
        options += SIGN_IN if "sign_in: redirect" in block.text else ["--account-api=false"]
        (tmp_path / "policy.yaml").write_text(block.text)
        (tmp_path / ".env").write_text(settings)
        done = run(binary, "check-config", "--config", "policy.yaml", *([] if settings else options), cwd=tmp_path,
                   env={})
        assert done.returncode == 0, f"{block}: {done.stderr}\nwith:\n{settings or options}\nin:\n{block.text}"
    assert seen >= 20
    assert with_settings >= 3


# ------------------------------------------------------------------------------------------------ values


def paths(values: Any, defaults: Any, at: str = "") -> Iterator[str]:
    """Paths in `values` that the chart does not have. What is empty by default can have any content."""
    if isinstance(values, dict) and isinstance(defaults, dict) and defaults:
        for name, value in values.items():
            if name in defaults:
                yield from paths(value, defaults[name], f"{at}{name}.")
            else:
                yield at + name


def test_values_of_the_charts_exist() -> None:
    seen = 0
    for block in of_kind("values"):
        values, name = yaml.safe_load(block.text), "cognito-authz"
        if "cognito-authz-sidecar" in values:
            name = "cognito-authz-sidecar"
            values = values[name]
        defaults, schema = chart(name)
        unknown = list(paths(values, defaults))
        assert not unknown, f"{block}: {name} has no value {unknown}"
        required = {"userPool": {"id": POOL, "clientIds": [CLIENT]}}
        try:
            jsonschema.validate(merged(merged(defaults, required), values), schema)
        except jsonschema.ValidationError as error:
            pytest.fail(f"{block}: {error.message}")
        seen += 1
    assert seen >= 4


# ------------------------------------------------------------------------------------------------ Envoy

TYPES = "type.googleapis.com/envoy.extensions.filters"
ROUTER = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPES}.http.router.v3.Router"}}
MANAGER = f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"
MUTATION = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
DESTINATIONS = [
    "account", "app", "cognito", "cognito_authz", "cognito_authz_http", "cognito_authz_uds", "collector", "shadow",
]  # fmt: skip


def ext_authz(settings: dict[str, Any]) -> dict[str, Any]:
    """The filter with these settings."""
    service = {} if "http_service" in settings else {"grpc_service": {"envoy_grpc": {"cluster_name": "cognito_authz"}}}
    config = {"@type": f"{TYPES}.http.ext_authz.v3.ExtAuthz", "transport_api_version": "V3", **service, **settings}
    return {"name": "envoy.filters.http.ext_authz", "typed_config": config}


def bootstrap(piece: Any) -> dict[str, Any]:
    """A configuration with this piece at the place that the document means."""
    host: dict[str, Any] = {"name": "all", "domains": ["*"]}
    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 204}}]
    filters: list[Any] = []
    manager: dict[str, Any] = {}
    clusters = {name: {"name": name, "type": "STATIC"} for name in DESTINATIONS}
    if isinstance(piece, list) and "remove" in piece[0]:
        config = {"@type": MUTATION, "mutations": piece}
        manager["early_header_mutation_extensions"] = [{"name": "mutation", "typed_config": config}]
    elif isinstance(piece, list) and "typed_config" in piece[0]:
        filters = piece
    elif isinstance(piece, list) and piece[0].keys() & {"exact", "safe_regex"}:
        filters = [ext_authz({"allowed_headers": {"patterns": piece}})]
    elif isinstance(piece, list):
        routes = piece
    elif "match" in piece:
        routes = [piece]
    elif "load_assignment" in piece:
        clusters[piece["name"]] = piece
    elif piece.keys() & {"allowed_headers", "with_request_body", "http_service"}:
        filters = [ext_authz(piece)]
    else:
        routes = piece.get("routes", routes)
        filters = [each for each in piece.get("http_filters", []) if each != ROUTER]
        host |= {name: value for name, value in piece.items() if name == "typed_per_filter_config"}
        manager = {name: value for name, value in piece.items() if name in {"tracing", "upgrade_configs"}}
        others = piece.keys() - {"routes", "http_filters", "typed_per_filter_config", *manager}
        assert not others, f"where does this belong: {others}?"
    manager |= {
        "@type": MANAGER, "stat_prefix": "piece", "http_filters": [*filters, ROUTER],
        "route_config": {"virtual_hosts": [{**host, "routes": routes}]}}
    secrets = [{"name": name, "generic_secret": {"secret": {"inline_string": "x"}}} for name in ["hmac", "token"]]
    return {"static_resources": {
        "clusters": list(clusters.values()),
        "listeners": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                       "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}]}],
        "secrets": secrets}}


def test_pieces_of_envoys_configuration_are_valid(tmp_path: Path) -> None:
    seen = 0
    for block in of_kind("Envoy"):
        file = tmp_path / "envoy.json"
        file.write_text(json.dumps(bootstrap(yaml.safe_load(block.text))))
        done = run(TOOLS / "envoy", "--mode", "validate", "-c", file, "-l", "warn")
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{block}: {said}\nin: {block.text}"
        assert not re.search(r"\[(warning|error|critical)\]", said), f"{block}: {said}\nin: {block.text}"
        seen += 1
    assert seen >= 20
