"""A browser without JavaScript, as far as the tour needs one: navigations with the headers of a browser, and cookies.

Start from `Browser`. It follows no redirect by itself, so that each one can be shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode, urljoin, urlsplit

import web
from web import Answer


@dataclass(frozen=True)
class SetCookie:
    """A cookie of a response: its name, and its attributes in lower case without the value."""

    name: str
    attributes: frozenset[str]


class Browser:
    """Keeps cookies by host. Like a browser, it ignores the port: all ports of a host share their cookies."""

    def __init__(self) -> None:
        self._cookies: dict[str, dict[str, str]] = {}

    def names(self, url: str) -> list[str]:
        """Names of the cookies that a request for the URL has."""
        return sorted(self._cookies.get(urlsplit(url).hostname or "", {}))

    def drop(self, url: str, name: str) -> None:
        """Deletes a cookie, as a browser does when its lifetime ends."""
        del self._cookies[urlsplit(url).hostname or ""][name]

    def go(self, url: str, *, form: dict[str, str] | None = None, origin: str | None = None,
           site: str = "none") -> Answer:
        """Navigates to a URL, with POST if there is a form.

        `origin` is that of the page with the form; `site` is the value of `Sec-Fetch-Site`.
        """
        headers = [("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
                   ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), ("sec-fetch-site", site)]
        jar = self._cookies.setdefault(urlsplit(url).hostname or "", {})
        if jar:
            headers.append(("cookie", "; ".join(f"{name}={value}" for name, value in jar.items())))
        if origin is not None:
            headers.append(("origin", origin))
        if form is None:
            answer = web.get(url, headers)
        else:
            headers.append(("content-type", "application/x-www-form-urlencoded"))
            answer = web.request("POST", url, headers, urlencode(form).encode())
        for value in _values(answer):
            pair, *attributes = value.split(";")
            name, _, content = pair.partition("=")
            if "max-age=0" in [attribute.strip().lower() for attribute in attributes]:
                jar.pop(name, None)
            else:
                jar[name] = content
        return answer


def set_cookies(answer: Answer) -> list[SetCookie]:
    """The cookies that a response sets or deletes."""
    return [SetCookie(pair.partition("=")[0], frozenset(attribute.strip().lower() for attribute in attributes))
            for pair, *attributes in (value.split(";") for value in _values(answer))]


def target(url: str, answer: Answer) -> str:
    """The absolute URL that a response to a request for `url` redirects to; empty if it does not redirect."""
    location = answer.header("location")
    return urljoin(url, location) if location and 300 <= answer.status < 400 else ""


def _values(answer: Answer) -> list[str]:
    return [value for name, value in answer.headers if name.lower() == "set-cookie"]
