"""Fixtures for the tests of agents: clients made with the official MCP SDKs, and an MCP server behind Envoy.

Needs `tests/tools/setup --node --agents`. Option: `--bin` names the cognito-authz to test (default: build it).
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "local"))

import envoy_config  # noqa: E402
import guide  # noqa: E402
from account import Account  # noqa: E402
from agents import Agent  # noqa: E402
from hosted_page import sign_in  # noqa: E402
from prepare import build  # noqa: E402
from stack import Stack, make_password  # noqa: E402

HERE = Path(__file__).resolve().parent
Stack.busy_machine = True

# The redirect URI of the agents. It is one of those in the policy file of docs/mcp.md.
REDIRECT_URI = "http://localhost:3118/callback"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bin", type=Path, help="cognito-authz program to run (default: build it)")


@pytest.fixture(scope="session")
def binary(pytestconfig: pytest.Config) -> Path:
    named: Path | None = pytestconfig.getoption("--bin")
    return named.resolve() if named else build(ROOT)


@dataclass(frozen=True)
class User:
    email: str
    password: str


@dataclass
class Site:
    """The running stack, set up as docs/mcp.md tells."""

    stack: Stack
    # Members of the app client of the agents.
    client: dict[str, Any]

    @property
    def origin(self) -> str:
        return self.stack.over_tcp

    @property
    def url(self) -> str:
        """URL of the MCP server: all that an agent is told."""
        return f"{self.origin}/mcp"

    @property
    def client_id(self) -> str:
        client_id: str = self.client["ClientId"]
        return client_id

    def token_seconds(self, seconds: int) -> None:
        """Sets the lifetime of access tokens that are issued from now on."""
        self.stack.cognito.call("UpdateUserPoolClient", signed=True, **{
            **self.client, "AccessTokenValidity": seconds, "TokenValidityUnits": {"AccessToken": "seconds"}})

    @contextmanager
    def changed_policy(self, old: str, new: str, is_in_effect: Callable[[], bool]) -> Iterator[None]:
        """Replaces a part of the policy file while the block runs. Both changes wait until the file is read again."""
        text = self.stack.policy.read_text()
        assert old in text

        def write(text: str, *, wanted: bool) -> None:
            self.stack.policy.write_text(text)
            deadline = time.monotonic() + 20
            while is_in_effect() != wanted:
                assert time.monotonic() < deadline
                time.sleep(0.1)

        write(text.replace(old, new), wanted=True)
        try:
            yield
        finally:
            write(text, wanted=False)


def _set_up(site: Site, policy: Path, stack: Stack) -> None:
    """Does what docs/mcp.md tells, with the addresses of this stack."""
    for operation, members in guide.aws_commands():
        if operation == "CreateManagedLoginBranding":
            continue  # the emulator has one form of the hosted page
        members["UserPoolId"] = stack.pool
        result = stack.cognito.call(operation, signed=True, **members)
        if operation == "CreateUserPoolClient":
            client_id = result["UserPoolClient"]["ClientId"]
            members.pop("GenerateSecret")
            site.client = {**members, "ClientId": client_id}
            stack.clients.append(client_id)
    stack.cognito.create_group(stack.pool, "operators")
    text = guide.policy_file()
    examples = {guide.ORIGIN: site.origin, guide.CLIENT_ID: site.client_id, guide.OWN_CLIENT_ID: stack.client}
    for shown, real in examples.items():
        assert shown in text
        text = text.replace(shown, real)
    policy.write_text(text)
    stack.policy = policy


_CHECK = "envoy.filters.http.ext_authz"


def _change_envoy(write: Callable[..., None], source: Path, target: Path, **addresses: Any) -> None:
    """Writes Envoy's configuration as docs/mcp.md tells: routes before all others, and bodies for one of them."""
    write(source, target, **addresses)
    config = json.loads(target.read_text())
    for listener in config["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        (check,) = (each["typed_config"] for each in manager["http_filters"] if each["name"] == _CHECK)
        check.update(guide.envoy_body())
        for host in manager["route_config"]["virtual_hosts"]:
            host["typed_per_filter_config"].update(guide.envoy_no_body())
            for route in host["routes"]:
                settings = route.get("typed_per_filter_config", {}).get(_CHECK, {})
                if "check_settings" in settings:
                    settings["check_settings"].update(guide.envoy_no_body()[_CHECK]["check_settings"])
            host["routes"][:0] = guide.envoy_routes()
    target.write_text(json.dumps(config))


@pytest.fixture(scope="session")
def site(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    stack = Stack(ROOT, binary, port=0, options=["--limit-address", "1000/1m"])
    running = Site(stack, {})
    stack.application = HERE / "mcp_server.py"
    stack.leeway = "2s"
    stack.prepare = partial(_set_up, running, tmp_path_factory.mktemp("agents") / "policy.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envoy_config, "write", partial(_change_envoy, envoy_config.write))
        with stack:
            yield running


_NUMBERS = itertools.count(1)


@pytest.fixture
def user(site: Site) -> User:
    """A user who has signed up and verified the address. Each test needs its own: attempts are limited per user."""
    user = User(f"user{next(_NUMBERS)}@example.com", make_password())
    account = Account(site.origin)
    account.done("register", email=user.email, password=user.password, name="Ada")
    account.done("verify", email=user.email, code=site.stack.cognito.mailed_code(user.email))
    return user


# The clients, by SDK and the revision of the protocol that it negotiates with the server.
KINDS = {
    "python": ["agent_python.py", "auto"],
    "python-2025": ["agent_python.py", "legacy"],
    "typescript": ["agent_typescript.mjs"],
}
# The kinds that renew a token that lacks a scope, which does not help (modelcontextprotocol/typescript-sdk#2255).
REFRESHES_INSTEAD = {"typescript"}
REVISIONS = {"python": "2026-07-28", "python-2025": "2025-11-25", "typescript": "2025-11-25"}


def agent(site: Site, kind: str, user: User, redirect_uri: str = REDIRECT_URI) -> Agent:
    """A client that knows the URL of the MCP server and its own redirect URI, and nothing else."""
    program, *mode = KINDS[kind]
    interpreter = site.stack.tools / ("node" if program.endswith(".mjs") else "python")
    return Agent([interpreter, HERE / program, *mode, site.url, redirect_uri],
                 lambda url: sign_in(url, user.email, user.password))


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
