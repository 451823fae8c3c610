"""The user at the hosted page of the emulator: reads the form, fills it in, and sends it."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin

import web
from web import Answer


class Refused(Exception):
    """The hosted page shows an error instead of its form."""


class _Form(HTMLParser):
    """The form of a page: its target, and the hidden fields with their values."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag == "form":
            self.action = values["action"]
        elif tag == "input" and values.get("type") == "hidden":
            self.fields[values["name"]] = values["value"]


def post_form(url: str, fields: dict[str, str]) -> Answer:
    return web.request("POST", url, [("content-type", "application/x-www-form-urlencoded")], urlencode(fields).encode())


def sign_in(url: str, email: str, password: str) -> str:
    """Opens an authorization URL, signs in, and returns the URL that the page redirects to.

    A URL of the application that the page redirects to at once, with an error, is returned as well.
    """
    answer = web.get(url)
    if answer.status == 302:
        return answer.header("location") or ""
    form = _Form(answer.body.decode())
    if answer.status != 200 or form.action is None:
        raise Refused(answer.body.decode())
    answer = post_form(urljoin(url, form.action), {**form.fields, "username": email, "password": password})
    location = answer.header("location")
    if answer.status != 302 or location is None:
        raise Refused(answer.body.decode())
    return location
