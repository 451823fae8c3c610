"""The two metadata documents and the registration, as docs/mcp.md shows them."""

from __future__ import annotations

import json

import pytest

import guide
import web
from conftest import REDIRECT_URI, Site
from web import Answer

_PATHS = ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server"]


def test_the_challenge_is_as_the_page_shows_it(site: Site) -> None:
    for method in ("POST", "GET"):
        answer = web.request(method, site.url)
        assert answer.status == 401
        assert answer.header("www-authenticate") == guide.challenge().replace(guide.ORIGIN, site.origin)


@pytest.mark.parametrize("index", [0, 1])
def test_documents_are_as_the_page_shows_them(site: Site, index: int) -> None:
    """The emulator has further members in its metadata, as Cognito has."""
    shown = json.dumps(guide.responses()[index])
    shown = shown.replace(guide.ORIGIN, site.origin).replace(guide.HOSTED_PAGE, site.stack.cognito.url)
    answer = web.get(f"{site.origin}{_PATHS[index]}", [("origin", "https://inspector.example")])
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.header("access-control-allow-origin") == "*"
    assert answer.json() | json.loads(shown) == answer.json()
    # Nothing of the pool itself names another issuer, and responses do not carry `iss` (RFC 9207).
    assert answer.json().get("issuer", site.origin) == site.origin
    assert "authorization_response_iss_parameter_supported" not in answer.json()


def test_the_metadata_is_found_at_the_root_as_well(site: Site) -> None:
    path = _PATHS[0]
    root = path.removesuffix("/mcp")
    assert web.get(f"{site.origin}{root}").json() == web.get(f"{site.origin}{path}").json()
    assert web.get(f"{site.origin}{root}/other").status == 404


def _register(site: Site, redirect_uris: list[str]) -> Answer:
    body = {"client_name": "agent", "redirect_uris": redirect_uris, "token_endpoint_auth_method": "none"}
    return web.request("POST", f"{site.origin}/auth/oauth/register", [("content-type", "application/json")],
                       json.dumps(body).encode())


def test_a_registration_is_answered_with_the_app_client(site: Site) -> None:
    for _ in range(2):
        answer = _register(site, [REDIRECT_URI])
        assert answer.status == 201
        assert answer.json()["client_id"] == site.client_id
        assert "client_secret" not in answer.json()


def test_the_clients_on_the_page_can_register(site: Site) -> None:
    """Each of them registers all of its redirect URIs at once, some of which have a scheme of their own."""
    clients = guide.redirect_uris()
    assert len(clients) == 4
    old = f"  - {REDIRECT_URI}\n"
    known = guide.policy_file()
    added = "".join(f"  - {uri}\n" for uris in clients.values() for uri in uris if uri not in known)
    *_, last = clients.values()
    with site.changed_policy(old, f"{old}{added}", lambda: _register(site, last).status == 201):
        for client, uris in clients.items():
            answer = _register(site, uris)
            assert (answer.status, answer.json().get("redirect_uris")) == (201, uris), client
            assert _register(site, [*uris, "https://evil.example/callback"]).json()["error"] == "invalid_redirect_uri"
