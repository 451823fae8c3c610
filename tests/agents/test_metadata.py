"""The two metadata documents and the registration, as docs/mcp.md shows them."""

from __future__ import annotations

import json

import pytest

import guide
import web
from conftest import REDIRECT_URI, Site

_PATHS = ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server"]


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


def test_a_registration_is_answered_with_the_app_client(site: Site) -> None:
    body = json.dumps({"client_name": "agent", "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none"})
    for _ in range(2):
        answer = web.request("POST", f"{site.origin}/auth/oauth/register", [("content-type", "application/json")],
                             body.encode())
        assert answer.status == 201
        assert answer.json()["client_id"] == site.client_id
        assert "client_secret" not in answer.json()
