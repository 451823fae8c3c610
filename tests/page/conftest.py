"""Fixtures for the tests of the demo page: the local stack as `deploy/local/up` runs it, a real browser, and users.

Needs `tests/tools/setup --browser --docs --passkeys --node`. Options: `--bin` names the cognito-authz to test (default:
build it); `--screenshots` takes the screenshots in docs/screenshots again; `--pictures` takes others of the sign-in by
redirect.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, Response, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "local"))

from account import Account  # noqa: E402
from prepare import build  # noqa: E402
from stack import Stack, make_password  # noqa: E402

_CHROMIUM = ROOT / "tests" / "tools" / "venv" / "bin" / "chromium"

# Generous, for busy machines; a wait ends as soon as its condition holds.
TIMEOUT_MS = 20_000
expect.set_options(timeout=TIMEOUT_MS)
Stack.busy_machine = True


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bin", type=Path, help="cognito-authz program to run (default: build it)")
    parser.addoption("--screenshots", action="store_true", help="take the screenshots in docs/screenshots again")
    parser.addoption("--pictures", type=Path, help="folder for pictures of every page of the sign-in by redirect")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    is_skipped = collection_path.name == "test_screenshots.py" and not config.getoption("--screenshots")
    return True if is_skipped else None


@pytest.fixture(scope="session")
def binary(pytestconfig: pytest.Config) -> Path:
    named: Path | None = pytestconfig.getoption("--bin")
    return named.resolve() if named else build(ROOT)


@pytest.fixture(scope="session")
def stack(binary: Path) -> Iterator[Stack]:
    """A stack whose tokens outlive the tests, and whose rate limit allows for all tests coming from one address."""
    with Stack(ROOT, binary, port=0, token_seconds=3600, options=["--limit-address", "1000/1m"]) as running:
        yield running


@pytest.fixture(scope="session")
def cookie_stack(binary: Path) -> Iterator[Stack]:
    """The stack of `deploy/local/up --cookies`, with the same tokens and limits."""
    with Stack(ROOT, binary, port=0, token_seconds=3600, cookies=True,
               options=["--limit-address", "1000/1m"]) as running:
        yield running


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    # As root, and in many containers, the browser cannot create its sandbox. It only opens pages of this machine.
    running = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
    yield running
    running.close()


class Watch:
    """Records the requests of a page, the tokens it receives, and its console messages, for checks after the test."""

    def __init__(self, page: Page) -> None:
        self.requests: list[Request] = []
        self.refused: list[str] = []
        self.tokens: list[str] = []
        self._errors: list[str] = []
        self._messages: list[ConsoleMessage] = []
        page.on("request", self._request)
        page.on("response", self._response)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._errors.append(str(error)))

    def _request(self, request: Request) -> None:
        self.requests.append(request)

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.refused.append(response.url)
        if urlsplit(response.url).path in ("/auth/login", "/auth/challenge", "/auth/refresh", "/auth/oauth/token"):
            body = response.json()
            self.tokens += [body[name] for name in ("accessToken", "idToken", "refreshToken") if name in body]

    def _console(self, message: ConsoleMessage) -> None:
        self._messages.append(message)

    @property
    def complaints(self) -> list[str]:
        """Errors of scripts, and the errors and warnings on the console."""
        # Chromium logs every response with an error status. The page handles these, and the tests check how. The two
        # events can come in either order, so they are compared here and not when one of them comes.
        messages = [message.text for message in self._messages if message.type in ("error", "warning") and not (
            message.text.startswith("Failed to load resource") and message.location["url"] in self.refused)]
        return self._errors + messages

    def hosts(self) -> set[str]:
        return {urlsplit(request.url).netloc for request in self.requests if not request.url.startswith("data:")}


@dataclass(frozen=True)
class Visit:
    """A browser tab that shows the demo page."""

    page: Page
    watch: Watch
    stack: Stack


def visit(browser: Browser, stack: Stack, host: str = "127.0.0.1", **options: Any) -> Iterator[Visit]:
    """Opens the page in a new browser context with these options.

    Afterwards checks that the page logged no error, sent no request to another host, and left no token in storage,
    cookies or the document. The only data in storage is the progress of the visit (page/progress.js).
    """
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    watch = Watch(page)
    home = stack.over_tcp.replace("127.0.0.1", host)
    page.goto(f"{home}/")
    yield Visit(page, watch, stack)
    assert watch.complaints == []
    ours = {urlsplit(url).netloc for url in (home, stack.cognito.url)}
    assert watch.hosts() <= ours
    assert page.evaluate("localStorage.length") == 0
    stored = dict(page.evaluate("Object.entries(sessionStorage)"))
    assert stored.keys() <= {"progress"}
    assert not [token for token in watch.tokens if token in json.dumps(stored)]
    assert page.evaluate("indexedDB.databases()") == []
    assert context.cookies() == []
    document = page.content()
    assert not [token for token in watch.tokens if token in document]
    context.close()


@pytest.fixture
def tab(browser: Browser, stack: Stack) -> Iterator[Visit]:
    yield from visit(browser, stack, viewport={"width": 1100, "height": 800})


@dataclass(frozen=True)
class User:
    email: str
    password: str


_NUMBERS = itertools.count(1)


def new_user(stack: Stack, email: str | None = None) -> User:
    """Creates a user who has signed up and verified the address.

    Each test needs its own, because attempts are limited per user.
    """
    user = User(email or f"user{next(_NUMBERS)}@example.com", make_password())
    account = Account(stack.over_tcp)
    account.done("register", email=user.email, password=user.password, name="Ada")
    account.done("verify", email=user.email, code=stack.cognito.mailed_code(user.email))
    return user


@pytest.fixture
def user(stack: Stack) -> User:
    return new_user(stack)
