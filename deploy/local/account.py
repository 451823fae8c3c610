"""The account API of cognito-authz, as an application in a browser calls it: through Envoy."""

from __future__ import annotations

import json
from typing import Any

import web
from processes import Failed
from web import Answer


class Account:
    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, route: str, token: str | None = None, **members: Any) -> Answer:
        """One request. `token` is sent as Bearer."""
        return self.ask("POST", route, token, **members)

    def ask(self, method: str, route: str, token: str | None = None, **members: Any) -> Answer:
        """The same, with another method."""
        headers = [("content-type", "application/json")]
        if token is not None:
            headers.append(("authorization", f"Bearer {token}"))
        return web.request(method, f"{self.url}/auth/{route}", headers, json.dumps(members).encode())

    def done(self, route: str, **members: Any) -> dict[str, Any]:
        """The same, where anything but success is the end."""
        answer = self.post(route, **members)
        body = answer.json()
        if answer.status not in (200, 201) or not isinstance(body, dict):
            raise Failed(f"/auth/{route} answered {answer.status}")
        return body
