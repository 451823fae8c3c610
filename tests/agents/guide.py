"""Reads docs/mcp.md, so that the tests run what the page tells its readers to run.

That is the commands of the AWS CLI, the policy file, and the fragment of Envoy's configuration.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import botocore.session
import yaml
from botocore import xform_name
from botocore.model import Shape
from botocore.validate import ParamValidator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mcp.md"
# Examples on the page, which the tests replace.
ORIGIN = "https://mcp.example.com"
HOSTED_PAGE = "https://example.auth.eu-west-1.amazoncognito.com"
CLIENT_ID = "4example5agents6client7id"
OWN_CLIENT_ID = "7example23clientid45abcdefg"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def _block(language: str, start: str) -> str:
    (block,) = (each for each in _blocks(language) if each.startswith(start))
    return block


def policy_file() -> str:
    return _block("yaml", "# policy.yaml")


def responses() -> list[dict[str, Any]]:
    """The JSON documents on the page: metadata of the resource, and of the authorization server."""
    return [json.loads(block) for block in _blocks("json")]


def challenge() -> str:
    """The challenge on the page."""
    (value,) = re.findall(r"^www-authenticate: (.*)$", PAGE.read_text(), re.MULTILINE)
    return str(value)


def redirect_uris() -> dict[str, list[str]]:
    """The redirect URIs in the table of clients, by client."""
    section = PAGE.read_text().split("\n## Connecting clients\n", 1)[1].split("\n## ", 1)[0]
    found = {}
    for name, uris in re.findall(r"^\| (\w[^|]*) \| ([^|]*) \|", section, re.MULTILINE):
        if known := re.findall(r"`(\w+://[^`]+)`", uris):
            found[name] = [uri.replace("PORT", "3118") for uri in known]
    return found


def envoy_routes() -> list[dict[str, Any]]:
    routes: list[dict[str, Any]] = yaml.safe_load(_block("yaml", "routes:"))["routes"]
    return routes


def envoy_body() -> dict[str, Any]:
    """Settings of the filter `ext_authz` for bodies."""
    settings: dict[str, Any] = yaml.safe_load(_block("yaml", "with_request_body:"))
    return settings


def envoy_no_body() -> dict[str, Any]:
    """Settings of the virtual host, for routes without bodies."""
    settings: dict[str, Any] = yaml.safe_load(_block("yaml", "typed_per_filter_config:"))["typed_per_filter_config"]
    return settings


class Command(NamedTuple):
    """A command `aws cognito-idp …` as a call of Cognito's API."""

    operation: str
    members: dict[str, Any]


def aws_commands() -> list[Command]:
    """The commands of the page, checked with AWS's own description of the API."""
    service = botocore.session.get_session().get_service_model("cognito-idp")
    operations = {xform_name(name, "-"): name for name in service.operation_names}
    commands = []
    shown = "".join(_blocks("sh"))
    for text in re.findall(r"aws cognito-idp (.*?)(?:\)$|(?<!\\)\n)", shown, re.MULTILINE | re.DOTALL):
        name, *words = shlex.split(text.replace("\\\n", " "))
        shape = service.operation_model(operations[name]).input_shape
        assert shape is not None
        members = _members(shape, words)
        report = ParamValidator().validate(members, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
        commands.append(Command(operations[name], members))
    return commands


def _members(shape: Shape, words: list[str]) -> dict[str, Any]:
    """Options of the AWS CLI as members of a call."""
    names = {xform_name(name, "-"): name for name in shape.members}
    members: dict[str, Any] = {}
    while words:
        option = words.pop(0).removeprefix("--")
        values = []
        while words and not words[0].startswith("--"):
            values.append(words.pop(0))
        if option in ("query", "output"):  # of the CLI itself
            continue
        if option.startswith("no-") and option.removeprefix("no-") in names:
            members[names[option.removeprefix("no-")]] = False
            continue
        name = names[option]
        members[name] = _value(shape.members[name], values)
    return members


def _value(shape: Shape, values: list[str]) -> Any:
    if shape.type_name == "boolean":
        assert not values
        return True
    if shape.type_name == "list":
        return [_value(shape.member, [value]) for value in values]
    (value,) = values
    if shape.type_name == "structure":  # the CLI's shorthand: A=1,B=2
        return {name: _value(shape.members[name], [text])
                for name, text in (pair.split("=", 1) for pair in value.split(","))}
    return int(value) if shape.type_name == "integer" else value
