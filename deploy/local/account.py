"""Client of cognito-authz's account API. Like an application in a browser, it sends requests through Envoy."""

from __future__ import annotations

import json
from typing import Any

import web
from processes import Failed
from web import Answer


class Account:
    """Asks for tokens in bodies, as a client that is no browser has to with --account-cookies."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, route: str, token: str | None = None, **members: Any) -> Answer:
        """Sends a POST with `members` as its JSON body, and `token` as Bearer."""
        return self.ask("POST", route, token, **members)

    def ask(self, method: str, route: str, token: str | None = None, **members: Any) -> Answer:
        """Sends a request with `members` as its JSON body, and `token` as Bearer."""
        headers = [("content-type", "application/json"), ("x-account-tokens", "body")]
        if token is not None:
            headers.append(("authorization", f"Bearer {token}"))
        return web.request(method, f"{self.url}/auth/{route}", headers, json.dumps(members).encode())

    def done(self, route: str, **members: Any) -> dict[str, Any]:
        """Sends a POST and returns the body of the response; raises `Failed` unless the status is 200 or 201."""
        answer = self.post(route, **members)
        body = answer.json()
        if answer.status not in (200, 201) or not isinstance(body, dict):
            raise Failed(f"/auth/{route} answered {answer.status}")
        return body
