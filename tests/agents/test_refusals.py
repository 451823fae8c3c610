"""Requests that no SDK sends: batches, long bodies, forged hosts, tokens for another resource."""

from __future__ import annotations

import json
from typing import Any

import pytest

import web
from account import Account
from conftest import Site, User
from tokens import access_token, with_claims
from web import Answer

_METADATA = "/.well-known/oauth-protected-resource/mcp"


def _call(tool: str, number: int = 1, **arguments: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


def _post(url: str, token: str | None, body: object, *headers: tuple[str, str]) -> Answer:
    """Sends a message as an MCP client of revision 2025-11-25 sends it, without a session."""
    sent = [("content-type", "application/json"), ("accept", "application/json, text/event-stream"), *headers]
    if token is not None:
        sent.append(("authorization", f"Bearer {token}"))
    return web.request("POST", f"{url}/mcp", sent, body if isinstance(body, bytes) else json.dumps(body).encode())


def _reason(answer: Answer) -> tuple[int, str | None]:
    return answer.status, (answer.json() or {}).get("reason")


@pytest.fixture(params=["over_tcp", "over_uds"])
def envoy(site: Site, request: pytest.FixtureRequest) -> str:
    """Each way from Envoy to cognito-authz."""
    url: str = getattr(site.stack, request.param)
    return url


@pytest.fixture
def token(site: Site, user: User) -> str:
    return access_token(site, user, "openid", "orders/read")


def test_every_message_of_a_batch_is_checked(envoy: str, token: str) -> None:
    assert _reason(_post(envoy, token, [_call("list_orders"), _call("refund", 2)])) == (403, "insufficient_scope")
    assert _reason(_post(envoy, token, [_call("delete_order"), _call("list_orders", 2)])) == (403, "insufficient_group")
    # The check lets this one pass; the MCP server knows no batches.
    answer = _post(envoy, token, [_call("list_orders"), _call("list_orders", 2)])
    assert (answer.status, answer.json()["jsonrpc"]) == (400, "2.0")


def test_a_body_that_is_not_one_clear_message_is_refused(envoy: str, token: str) -> None:
    for body in (
        b"",
        b"refund",
        b"[]",
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_orders", "name": "refund"}}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "Method": "ping", "params": {"name": "refund"}}',
        json.dumps(_call("refund")).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(_call("refund")).encode(),
    ):
        assert _reason(_post(envoy, token, body)) == (403, "no_http_request"), body
    gzip = ("content-encoding", "gzip")
    assert _reason(_post(envoy, token, _call("list_orders"), gzip)) == (403, "no_http_request")


def test_a_body_over_the_limit_is_refused(envoy: str, token: str) -> None:
    """64 KiB is the limit of the policy, and 65 KiB that of Envoy."""
    for size, expected in [
        (65_000, (403, "insufficient_scope")),
        (66_000, (403, "no_http_request")),
        (67_000, (413, None)),
    ]:
        assert _reason(_post(envoy, token, _call("refund", order="x" * size))) == expected


def test_a_forged_host_changes_no_metadata(envoy: str, site: Site) -> None:
    forged = ("host", "evil.example")
    answer = _post(envoy, None, _call("list_orders"), forged)
    assert answer.status == 401
    assert f'resource_metadata="{site.origin}{_METADATA}"' in (answer.header("www-authenticate") or "")
    for path in (_METADATA, "/.well-known/oauth-authorization-server"):
        answer = web.get(f"{envoy}{path}", [forged])
        assert answer.status == 200
        assert b"evil" not in answer.body
        assert answer.json() == web.get(f"{site.origin}{path}").json()


def test_the_token_of_an_agent_opens_nothing_else(envoy: str, site: Site, user: User, token: str) -> None:
    own = Account(site.origin).done("login", email=user.email, password=user.password)["accessToken"]
    # The application has nothing at this path, which it says with 404.
    for each, status in [(own, 404), (token, 403)]:
        assert web.get(f"{envoy}/orders", [("authorization", f"Bearer {each}")]).status == status


def test_a_token_for_another_resource_is_refused(envoy: str, site: Site, token: str) -> None:
    for audience, status in [
        (site.url, 200),
        ([site.url, "https://files.example.com/"], 200),
        ("https://files.example.com/", 403),
        (f"{site.url}/", 403),
        (site.origin, 403),
        (site.client_id, 403),
    ]:
        answer = _post(envoy, with_claims(site, token, aud=audience), _call("list_orders"))
        # The MCP server wants a session first, which it says with 400.
        assert (answer.status == 403) == (status == 403), audience
        assert status == 200 or answer.json()["reason"] == "claim_mismatch"


def test_a_token_without_an_audience_is_refused_where_it_is_required(site: Site, token: str) -> None:
    def is_refused() -> bool:
        return _reason(_post(site.origin, token, _call("list_orders"))) == (403, "claim_mismatch")

    assert not is_refused()
    with site.changed_policy("  name: Orders\n", "  name: Orders\n  audience: required\n", is_refused):
        bound = with_claims(site, token, aud=site.url)
        assert _post(site.origin, bound, _call("list_orders")).status not in (401, 403)
