"""Browser tabs of the tests of sign-in by redirect, what they request, and what the hosted pages need from a user."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request, Response, expect

from conftest import TIMEOUT_MS, User
from stack import Stack

SIGN_IN, CALLBACK, SIGN_OUT = (f"/auth/oauth/{name}" for name in ("sign-in", "callback", "sign-out"))


@dataclass
class Tab:
    """A tab, and the navigations that it made: the path or, at the hosted pages, `hosted:` and the path."""

    page: Page
    stack: Stack
    steps: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", self._request)
        self.page.on("console", lambda message: self._complain(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _request(self, request: Request) -> None:
        if request.is_navigation_request():
            url = urlsplit(request.url)
            hosted = request.url.startswith(f"{self.stack.hosted}/")
            self.urls.append(request.url)
            self.steps.append(f"hosted:{url.path}" if hosted else url.path)

    def _complain(self, kind: str, text: str) -> None:
        # Chromium logs every response with an error status, and ministack's pages have no icon.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.complaints.append(text)

    def url(self, path: str) -> str:
        return f"{self.stack.site}{path}"

    def goes_to(self, path: str) -> Response:
        """Opens a page of the site, and forgets the navigations before that."""
        self.steps.clear()
        self.urls.clear()
        answer = self.page.goto(self.url(path))
        assert answer is not None
        return answer

    def is_at(self, path: str) -> None:
        expect(self.page).to_have_url(self.url(path))

    def cookies(self) -> dict[str, str]:
        """Names and values of the site's cookies, without those of the hosted pages, which are another host."""
        return {cookie["name"]: cookie["value"] for cookie in self.page.context.cookies(self.stack.site)}

    def session(self) -> dict[str, str]:
        """The cookies that hold tokens. Beside them there are short-lived ones, which count rounds of redirects."""
        return {name: value for name, value in self.cookies().items() if "_token" in name}

    def attempts(self) -> list[str]:
        """Names of the cookies of sign-ins that have begun and not ended."""
        return [name for name in self.cookies() if name.startswith("__Host-sign_in.")]


@contextmanager
def window(browser: Browser, **options: Any) -> Iterator[BrowserContext]:
    """A new browser without cookies, with these options."""
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT_MS)
    try:
        yield context
    finally:
        context.close()


def is_asked(tab: Tab) -> None:
    """Checks that the tab shows the form of the hosted pages."""
    expect(tab.page.get_by_label("Password")).to_be_visible()
    assert tab.page.url.startswith(f"{tab.stack.hosted}/"), tab.page.url


def signs_in(tab: Tab, user: User) -> None:
    """Fills in the form of the hosted pages. Does not wait for the result."""
    is_asked(tab)
    tab.page.get_by_label("Username").fill(user.email)
    tab.page.get_by_label("Password").fill(user.password)
    tab.page.get_by_role("button", name="Sign in").click()


def sees_member(tab: Tab, title: str = "Members") -> None:
    expect(tab.page.get_by_role("heading", level=1)).to_have_text(title)
    expect(tab.page.locator("#user")).not_to_be_empty()


def until(condition: Callable[[], bool], page: Page, what: str = "the condition") -> None:
    """Waits until the condition holds, at most for the time limit of the tests."""
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while not condition():
        assert time.monotonic() < deadline, f"{what} does not hold in time"
        page.wait_for_timeout(50)


def add_groups(stack: Stack, user: User, number: int) -> list[str]:
    """Adds the user to groups with long names, and returns the names."""
    names = [f"{user.email.partition('@')[0]}-{each:03}-" + "g" * 100 for each in range(number)]
    for name in names:
        stack.cognito.create_group(stack.pool, name)
        stack.cognito.add_to_group(stack.pool, user.email, name)
    return names
