"""What the tests of the page share: the local stack as `deploy/local/up` runs it, a real browser, and a user.

Needs `tests/tools/setup --browser`. Options: `--bin` names the cognito-authz to test (default: build it),
`--screenshots` writes docs/screenshots anew.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, Response, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "local"))

from account import Account  # noqa: E402
from stack import Stack, build, make_password  # noqa: E402

_CHROMIUM = ROOT / "tests" / "tools" / "venv" / "bin" / "chromium"

# Long enough for a machine that is busy with other things; a condition that is met ends the wait.
TIMEOUT_MS = 10_000
expect.set_options(timeout=TIMEOUT_MS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bin", type=Path, help="the cognito-authz to run (default: build it)")
    parser.addoption("--screenshots", action="store_true", help="write docs/screenshots anew")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    is_left_out = collection_path.name == "test_screenshots.py" and not config.getoption("--screenshots")
    return True if is_left_out else None


@pytest.fixture(scope="session")
def binary(pytestconfig: pytest.Config) -> Path:
    named: Path | None = pytestconfig.getoption("--bin")
    return named.resolve() if named else build(ROOT)


@pytest.fixture(scope="session")
def stack(binary: Path) -> Iterator[Stack]:
    """With tokens that last longer than these tests, and with limits that all of them together, being one address,
    stay below."""
    with Stack(ROOT, binary, port=0, token_seconds=3600, options=["--limit-address", "1000/1m"]) as running:
        yield running


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    # A sandbox of its own the browser cannot make for root, and in many containers not at all; it opens
    # pages of this machine only.
    running = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
    yield running
    running.close()


class Watch:
    """Everything that a page asks for and complains about, judged when the test is over."""

    def __init__(self, page: Page) -> None:
        self.requests: list[Request] = []
        self.refused: list[str] = []
        self.complaints: list[str] = []
        self.tokens: list[str] = []
        page.on("request", lambda request: self.requests.append(request))
        page.on("response", self._response)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.refused.append(response.url)
        if urlsplit(response.url).path in ("/auth/login", "/auth/challenge", "/auth/refresh", "/auth/oauth/token"):
            body = response.json()
            self.tokens += [body[name] for name in ("accessToken", "idToken", "refreshToken") if name in body]

    def _console(self, message: ConsoleMessage) -> None:
        # Chromium mentions every refusal; those are the page's to explain, and the tests look at how.
        explained = message.text.startswith("Failed to load resource") and message.location["url"] in self.refused
        if message.type in ("error", "warning") and not explained:
            self.complaints.append(message.text)

    def hosts(self) -> set[str]:
        return {urlsplit(request.url).netloc for request in self.requests if not request.url.startswith("data:")}


@dataclass(frozen=True)
class Visit:
    """A tab with the page in it."""

    page: Page
    watch: Watch
    stack: Stack


def visit(browser: Browser, stack: Stack, **options: object) -> Iterator[Visit]:
    """Opens the page; in the end, nothing was asked of anybody else, nothing broke, and no token lies around."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    watch = Watch(page)
    page.goto(f"{stack.over_tcp}/")
    yield Visit(page, watch, stack)
    assert watch.complaints == []
    ours = {urlsplit(url).netloc for url in (stack.over_tcp, stack.cognito.url)}
    assert watch.hosts() <= ours
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
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
    """One who has signed up and is verified. Each test has its own: attempts are counted by user."""
    user = User(email or f"user{next(_NUMBERS)}@example.com", make_password())
    account = Account(stack.over_tcp)
    account.done("register", email=user.email, password=user.password, name="Ada")
    account.done("verify", email=user.email, code=stack.cognito.mailed_code(user.email))
    return user


@pytest.fixture
def user(stack: Stack) -> User:
    return new_user(stack)
