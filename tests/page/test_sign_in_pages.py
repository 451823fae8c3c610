"""The pages of cognito-authz for a sign-in by redirect that does not succeed: what they say, and accessibility."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from conftest import ROOT, new_user
from cookie_filter import CookieFilter
from redirects import CALLBACK, SIGN_IN, SIGN_OUT, Tab, add_groups, is_asked, sees_member, signs_in, window
from stack import Stack
from steps import fits

# cognito-authz itself waits for Cognito for up to ten seconds.
_PATIENCE_MS = 30_000

Look = Callable[[Tab, str], None]


@pytest.fixture(params=["light", "dark"])
def looked(request: pytest.FixtureRequest, browser: Browser, cookie_stack: Stack,
           pytestconfig: pytest.Config) -> Iterator[tuple[Tab, Look]]:
    """A tab in one of the colour schemes, and a check of the page that it shows."""
    scheme, axe = request.param, Axe()
    folder: Path | None = pytestconfig.getoption("--pictures")

    def look(tab: Tab, name: str) -> None:
        page = tab.page
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        assert page.locator("script").count() == 0
        for width in (320, 375, 1280):
            page.set_viewport_size({"width": width, "height": 700})
            assert fits(page), f"{name}: something is wider than {width} pixels"
            if folder is not None and width != 320:
                folder.mkdir(exist_ok=True)
                page.screenshot(path=folder / f"{name}-{scheme}-{width}.png")
        # The content security policy of the pages rightly forbids injecting axe.
        found = axe.run(page, options={"resultTypes": ["violations", "incomplete"]})
        assert found.violations_count == 0, f"{name}:\n{found.generate_report()}"

    with window(browser, color_scheme=scheme, bypass_csp=True) as context:
        yield Tab(context.new_page(), cookie_stack), look


@contextmanager
def silent(stack: Stack) -> Iterator[None]:
    """The emulator does not answer while the block runs."""
    os.killpg(stack.emulator.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(stack.emulator.pid, signal.SIGCONT)


def test_an_error_of_the_hosted_page_is_named(looked: tuple[Tab, Look]) -> None:
    tab, look = looked
    for error, shown in [("access_denied", "access_denied"), ("<b>evil</b>", "unknown_error")]:
        tab.goes_to("/members/report?page=2")
        is_asked(tab)
        state = parse_qs(urlsplit(tab.page.url).query)["state"][0]
        answer = tab.goes_to(f"{CALLBACK}?error={quote(error)}&error_description=Call+0800+EVIL&state={quote(state)}")
        assert answer.status == 400
        expect(tab.page.get_by_text(shown)).to_be_visible()
        assert "EVIL" not in tab.page.content()
        assert "<b>" not in tab.page.content()
        look(tab, f"error-{shown}")
        tab.page.get_by_role("link", name="Sign in again").click()
        is_asked(tab)
    signs_in(tab, new_user(tab.stack))
    sees_member(tab, "Report")
    tab.is_at("/members/report?page=2")


def test_a_stale_callback(looked: tuple[Tab, Look]) -> None:
    tab, look = looked
    tab.goes_to(f"{CALLBACK}?code=x&state=y")
    look(tab, "stale")


def test_a_sign_out_to_be_confirmed(looked: tuple[Tab, Look]) -> None:
    tab, look = looked
    tab.page.goto(f"data:text/html,<a href='{tab.url(SIGN_OUT)}'>Out</a>")
    tab.page.get_by_role("link").click()
    expect(tab.page.get_by_role("button")).to_be_visible()
    look(tab, "confirm-sign-out")


def test_a_token_too_large_for_cookies(looked: tuple[Tab, Look]) -> None:
    tab, look = looked
    user = new_user(tab.stack)
    add_groups(tab.stack, user, 130)
    tab.goes_to("/members")
    signs_in(tab, user)
    expect(tab.page.locator("body")).to_contain_text("too large")
    look(tab, "too-large")


def test_a_session_that_no_page_accepts(browser: Browser, looked: tuple[Tab, Look]) -> None:
    tab, look = looked
    user = new_user(tab.stack)
    scheme = "dark" if tab.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
    with CookieFilter(lambda name: not name.endswith("_token")) as proxy, window(
            browser, color_scheme=scheme, bypass_csp=True, proxy={"server": proxy}) as context:
        other = Tab(context.new_page(), tab.stack)
        other.goes_to("/members")
        for _ in range(3):
            signs_in(other, user)
            other.page.wait_for_load_state()
        other.page.wait_for_url(f"{other.url(SIGN_IN)}**")
        look(other, "loop")


def test_cognito_does_not_answer(looked: tuple[Tab, Look]) -> None:
    """Nothing is lost: the same step works when Cognito answers again."""
    tab, look = looked
    user = new_user(tab.stack)
    tab.goes_to("/members")
    signs_in(tab, user)
    sees_member(tab)
    session = tab.session()
    tab.page.set_default_timeout(_PATIENCE_MS)
    with silent(tab.stack):
        answer = tab.goes_to("/auth/oauth/renew?return_to=%2Fmembers")
        assert answer.status == 503
        assert tab.session() == session
        look(tab, "unavailable-renewal")
        tab.goes_to("/members")
        tab.page.get_by_role("button", name="Sign out").click()
        button = tab.page.get_by_role("button", name="Try again")
        expect(button).to_be_visible(timeout=_PATIENCE_MS)
        assert tab.session() == session, "the user is signed out here, but not at Cognito"
        look(tab, "unavailable-sign-out")
    button.click()
    tab.is_at("/welcome")
    assert tab.cookies() == {}


def test_too_many_requests(looked: tuple[Tab, Look], binary: Path) -> None:
    tab, look = looked
    with Stack(ROOT, binary, port=0, cookies=True, options=["--limit-address", "2/1m"]) as strict:
        few = Tab(tab.page, strict)
        for _ in range(10):
            answer = few.goes_to(f"{SIGN_IN}?return_to=%2Fmembers")
            if answer.status == 429:
                break
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) > 0
        look(few, "too-many")
