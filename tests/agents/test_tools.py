"""Tools that need more than the others: a scope, and a group."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from agents import Agent, AgentError
from conftest import REFRESHES_INSTEAD, Site, User, agent

_METADATA = "/.well-known/oauth-protected-resource/mcp"


def _asked_scopes(client: Agent) -> set[str]:
    """The scopes in the last authorization URL."""
    (scope,) = parse_qs(urlsplit(client.opened[-1]).query)["scope"]
    return set(scope.split())


def test_a_tool_that_needs_another_scope_is_refused_with_a_challenge(site: Site, user: User, kind: str) -> None:
    with agent(site, kind, user) as client:
        client.connected()
        calls = client.call("list_orders")["calls"]
        before = len(client.requests)
        if kind in REFRESHES_INSTEAD:
            with pytest.raises(AgentError, match="Server returned 403 after trying upscoping"):
                client.call("refund", order="A-1")
        else:
            result = client.call("refund", order="A-1")
            assert result["refunded"] == "A-1"
            assert result["calls"] == calls + 1  # the refused call never arrived
            assert set(result["caller"]["x-auth-scope"].split()) == {"openid", "orders/read", "orders/write"}
            assert len(client.opened) == 2
            assert _asked_scopes(client) == {"openid", "orders/read", "orders/write"}
        refused = client.requests[before]
        assert (refused.url, refused.status) == (site.url, 403)
        assert refused.challenge is not None
        assert 'error="insufficient_scope"' in refused.challenge
        assert 'scope="orders/read openid orders/write"' in refused.challenge  # of both policies
        assert f'resource_metadata="{site.origin}{_METADATA}"' in refused.challenge
        # The agent can continue with other tools.
        assert client.call("list_orders")["calls"] == calls + (1 if kind in REFRESHES_INSTEAD else 2)


def test_a_tool_for_a_group_is_refused_without_a_challenge(site: Site, user: User, kind: str) -> None:
    """No sign-in puts a user into a group, so the SDK does not ask for one."""
    with agent(site, kind, user) as client:
        client.connected()
        calls = client.call("list_orders")["calls"]
        with pytest.raises(AgentError, match=r"insufficient_group|Server returned an error response"):
            client.call("delete_order", order="A-1")
        assert (client.requests[-1].status, client.requests[-1].challenge) == (403, None)
        assert len(client.opened) == 1
        assert client.call("list_orders")["calls"] == calls + 1

    site.stack.cognito.add_to_group(site.stack.pool, user.email, "operators")
    with agent(site, kind, user) as client:
        client.connected()
        result = client.call("delete_order", order="A-1")
        assert result["deleted"] == "A-1"
        assert result["caller"]["x-auth-groups"] == "operators"
