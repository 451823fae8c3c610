"""Agents that begin with nothing but the URL of the MCP server, sign their user in, and call tools."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from account import Account
from agents import Agent, AgentError
from conftest import REDIRECT_URI, REVISIONS, Site, User, agent

_METADATA = "/.well-known/oauth-protected-resource/mcp"


def _authorization(client: Agent) -> dict[str, str]:
    """The parameters of the last authorization URL."""
    return {name: value for name, (value,) in parse_qs(urlsplit(client.opened[-1]).query).items()}


def test_an_agent_signs_its_user_in_and_calls_a_tool(site: Site, user: User, kind: str) -> None:
    with agent(site, kind, user) as client:
        server = client.connected()
        assert server["revision"] == REVISIONS[kind]
        assert server["tools"] == ["list_orders", "refund", "delete_order"]
        assert server["client_id"] == site.client_id
        result = client.call("list_orders")

    assert result["orders"] == ["A-1", "A-2"]
    caller = result["caller"]
    assert caller["x-auth-username"]
    assert caller["x-auth-sub"]
    assert caller["x-auth-client-id"] == site.client_id
    assert caller["x-auth-token-use"] == "access"
    assert set(caller["x-auth-scope"].split()) == {"openid", "orders/read"}

    # What the SDK did on its way.
    first, second, third, fourth, *rest = client.requests
    assert (first.url, first.status) == (site.url, 401)
    assert first.challenge == f'Bearer realm="api", resource_metadata="{site.origin}{_METADATA}"'
    assert (second.method, second.url, second.status) == ("GET", f"{site.origin}{_METADATA}", 200)
    assert (third.url, third.status) == (f"{site.origin}/.well-known/oauth-authorization-server", 200)
    assert (fourth.method, fourth.url, fourth.status) == ("POST", f"{site.origin}/auth/oauth/register", 201)
    (grant,) = (request for request in rest if request.grant is not None)
    assert (grant.url, grant.grant) == (f"{site.stack.cognito.url}/oauth2/token", "authorization_code")
    assert {request.status for request in rest} <= {200, 202}
    (url,) = client.opened
    assert url.startswith(f"{site.stack.cognito.url}/oauth2/authorize?")
    asked = _authorization(client)
    assert asked["code_challenge_method"] == "S256"
    assert asked["resource"] == site.url
    assert asked["redirect_uri"] == REDIRECT_URI


def test_an_agent_renews_its_tokens(site: Site, user: User, kind: str) -> None:
    """The SDK for Python renews a token when it knows that it has expired, that for TypeScript when it is refused."""
    site.token_seconds(3)
    try:
        with agent(site, kind, user) as client:
            client.connected()
            before = client.call("list_orders")["calls"]
            renewed = 0
            for _ in range(200):  # each call takes some time; at most a few of them fit into three seconds
                before += 1
                assert client.call("list_orders")["calls"] == before
                renewed = sum(request.grant == "refresh_token" for request in client.requests)
                if renewed >= 2:
                    break
            assert renewed >= 2
            assert len(client.opened) == 1
            # The first request has no token.
            refusals = sum(request.status == 401 for request in client.requests[1:])
            assert refusals == (renewed if kind == "typescript" else 0)
    finally:
        site.token_seconds(900)


def test_an_agent_with_another_redirect_uri_is_refused(site: Site, user: User, kind: str) -> None:
    with agent(site, kind, user, "http://localhost:3119/callback") as client:
        # The SDK for TypeScript does not know this code, and shows the description only.
        with pytest.raises(AgentError, match=r"invalid_redirect_uri|A redirect URI is not allowed here"):
            client.connected()
        (registration,) = client.sent("/auth/oauth/register")
        assert registration.status == 400
        assert client.opened == []


def test_a_sign_out_ends_the_session_of_an_agent_at_once(site: Site, user: User, kind: str) -> None:
    account = Account(site.origin)
    own = account.done("login", email=user.email, password=user.password)["accessToken"]
    with agent(site, kind, user) as client:
        client.connected()
        calls = client.call("list_orders")["calls"]
        (caller, before) = (client.requests[-1], len(client.requests))
        assert (caller.url, caller.status) == (site.url, 200)

        # The user signs out in the application, of which the agent knows nothing.
        assert account.post("logout", own).status == 200
        result = client.call("list_orders")

        # The next call of the agent was refused, its tokens could not be renewed, and the user had to sign in again.
        refused, *later = client.requests[before:]
        assert (refused.url, refused.status) == (site.url, 401)
        assert refused.challenge is not None
        assert 'error="invalid_token"' in refused.challenge
        renewals = [request.status for request in later if request.grant == "refresh_token"]
        assert renewals == ([400] if kind == "typescript" else [])
        assert len(client.opened) == 2
        assert result["calls"] == calls + 1
