"""A minimal HTTP client that sends a request exactly as given.

It uses `http.client` instead of `urllib`: the tour sends a header twice, needs 4xx and 5xx as responses and not as
exceptions, and must not use a proxy from the environment.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """All values of a header, joined by commas; `None` if it is absent. `name` is in lower case."""
        values = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(values) if values else None

    def json(self) -> Any:
        """The parsed body; `None` if it is not JSON, so that a check of its content fails instead of raising."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def request(method: str, url: str, headers: Headers = (), body: bytes = b"", timeout: float = 10) -> Answer:
    parts = urlsplit(url)
    headers = list(headers)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        connection.putrequest(method, target, skip_host=any(name.lower() == "host" for name, _ in headers))
        for name, value in headers:
            connection.putheader(name, value)
        if body:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())
    finally:
        connection.close()


def get(url: str, headers: Headers = (), timeout: float = 10) -> Answer:
    return request("GET", url, headers, timeout=timeout)


def is_ok(url: str) -> bool:
    """`True` if the URL answers 200; `False` also if it cannot be reached. For readiness checks."""
    try:
        return get(url, timeout=2).status == 200
    except (OSError, http.client.HTTPException):
        return False
