"""Kubernetes objects and Helm values in the documents: they refer to existing objects, and leave no route unchecked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import helm_python as helm
import pytest
import yaml

from helm_charts import merged, render
from manifests import DEPLOY, documents, find, folder
from paths import ROOT
from stage import Node
from test_documents import blocks
from test_documents import documents as markdown


def shown() -> Iterator[tuple[str, Node]]:
    """Every Kubernetes object in a YAML block of a document, with the document's path."""
    for document in markdown():
        name = str(document.relative_to(ROOT))
        for block in blocks(name, "yaml"):
            if "{{" not in block and re.search(r"^kind: ", block, re.MULTILINE):
                yield from ((name, item) for item in yaml.safe_load_all(block) if item)


def shipped() -> Iterator[tuple[str, Node]]:
    """Objects in deploy/istio and deploy/envoy-gateway, with the directory."""
    for name in ("istio", "envoy-gateway"):
        yield from ((f"deploy/{name}", item) for item in folder(name))


def backends(item: Node) -> Iterator[Node]:
    """Destinations of an object's requests: all `backendRefs` and destinations of Istio."""
    if isinstance(item, dict):
        for key, value in item.items():
            if key == "backendRefs":
                yield from value
            elif key == "destination" and "host" in value:
                yield {"name": value["host"].split(".")[0], "port": value["port"]["number"]} if "port" in value else {}
            else:
                yield from backends(value)
    elif isinstance(item, list):
        for value in item:
            yield from backends(value)


def test_services_in_documents_exist(production: list[Node]) -> None:
    seen = set()
    for where, item in [*shown(), *shipped()]:
        for backend in backends(item):
            name = backend.get("name", "")
            if name.startswith("cognito-authz") and backend.get("kind", "Service") == "Service":
                ports = [port["port"] for port in find(production, "Service", name)["spec"]["ports"]]
                assert backend["port"] in ports, f"{where}: {name} has no port {backend['port']}, it has {ports}"
                seen.add((where, name))
    assert ("docs/account-api.md", "cognito-authz-account") in seen


def test_objects_in_the_account_api_guide_are_copies_of_shipped_ones() -> None:
    found = [item for where, item in shown() if where == "docs/account-api.md"]
    assert len(found) >= 2
    existing = folder("istio") + folder("envoy-gateway")
    for item in found:
        assert item in existing, f"{item['kind']} {item['metadata']['name']} is in no file of deploy/"


def test_exceptions_in_istio_name_hosts_and_exact_paths() -> None:
    checked = 0
    for where, item in [*shown(), *shipped()]:
        if item["kind"] != "AuthorizationPolicy":
            continue
        checked += 1
        for rule in item["spec"].get("rules", []):
            for operation in (to["operation"] for to in rule.get("to", [])):
                excepted = operation.get("notPaths", [])
                assert not excepted or operation.get("hosts"), (
                    f"{where}: {item['metadata']['name']} excepts paths on every host"
                )
                assert not [path for path in excepted if re.search(r"[*{]", path)], f"{where}: it excepts a pattern"
    assert checked >= 4


@pytest.mark.parametrize("document", ["docs/install.md"])
def test_the_command_for_envoy_gateway_targets_the_gateway(document: str) -> None:
    commands = [block for block in blocks(document, "sh") if "envoyGateway" in block]
    assert commands
    for command in commands:
        given: dict[str, Any] = {}
        for setting in re.findall(r"--set '?(\S+?)'?(?: |$)", command, re.MULTILINE):
            given = merged(given, helm.parse_set_string(setting)) if "[" not in setting else given
        listed = ",".join(one for one in re.findall(r"--set '?(\S+?)'?(?: |$)", command, re.MULTILINE) if "[" in one)
        given = merged(given, helm.parse_set_string(listed))
        values = {"userPool": {"id": "eu-west-1_AbC123xyz", "clientIds": ["3n4b5urk1ft4fl3mg5e62d9ado"]}}
        rendered = render(merged(values, given))
        policy = rendered.one("SecurityPolicy")
        for target in policy["spec"]["targetRefs"]:
            find(
                documents(DEPLOY / "envoy-gateway" / "gateway.yaml"),
                target["kind"],
                target["name"],
                policy["metadata"]["namespace"],
            )
            assert target["kind"] == "Gateway", "routes added later would be open"
        assert not [warning for warning in rendered.warnings() if "targetRefs" in warning]
