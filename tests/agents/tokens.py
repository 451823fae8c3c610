"""Access tokens for requests that no SDK sends: signs a user in by hand, and issues tokens with other claims."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt

from conftest import REDIRECT_URI, Site, User
from hosted_page import post_form, sign_in


def access_token(site: Site, user: User, *scopes: str) -> str:
    """Signs the user in at the hosted page, as an agent does, and returns the access token."""
    verifier = secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    query = urlencode({
        "response_type": "code", "client_id": site.client_id, "redirect_uri": REDIRECT_URI, "scope": " ".join(scopes),
        "code_challenge": challenge, "code_challenge_method": "S256"})
    redirected = sign_in(f"{site.stack.cognito.url}/oauth2/authorize?{query}", user.email, user.password)
    (code,) = parse_qs(urlsplit(redirected).query)["code"]
    answer = post_form(f"{site.stack.cognito.url}/oauth2/token", {
        "grant_type": "authorization_code", "client_id": site.client_id, "code": code, "redirect_uri": REDIRECT_URI,
        "code_verifier": verifier})
    assert answer.status == 200
    token: str = answer.json()["access_token"]
    return token


def with_claims(site: Site, token: str, **claims: Any) -> str:
    """The token with further claims, signed with the key of the pool.

    Cognito adds `aud` to tokens that a client requests for a resource (RFC 8707). The emulator does not.
    """
    key = (site.stack.state / "cognito-pool-keys" / f"{site.stack.pool}-access.pem").read_text()
    known = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode({**known, **claims}, key, "RS256", {"kid": jwt.get_unverified_header(token)["kid"]})
