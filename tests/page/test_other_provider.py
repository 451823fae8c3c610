"""Sign-in by redirect with another OpenID provider in the place of the hosted pages (tests/tools/node/provider.mjs).

It keeps a session of its own in the browser, as Cognito's hosted pages do and the emulator's do not. It issues no
refresh token, so an expired session of ours is renewed by its session.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, expect

from conftest import ROOT, User
from cookie_filter import CookieFilter
from redirects import CALLBACK, SIGN_IN, SIGN_OUT, Tab, is_asked, sees_member, signs_in, until, window
from stack import Stack

_TOOLS = ROOT / "tests" / "tools"
_ADA = User("ada", "Correct-horse-1-battery")
_GRACE = User("grace", "Correct-horse-2-battery")
_SHORT_SECONDS = 6
_RECENT_SECONDS = 4

HOSTED = "hosted:/oauth2/authorize"
# A round of redirects that the provider's session answers.
SILENT = [SIGN_IN, HOSTED, CALLBACK]


def _stack(binary: Path, token_seconds: int, folder: Path, *, ignores_prompt: bool = False) -> Stack:
    stack = Stack(ROOT, binary, port=0, token_seconds=token_seconds, cookies=True,
                  options=["--limit-address", "1000/1m"])
    policies = stack.policy.read_text()
    assert "max_auth_age: 1m" in policies
    stack.policy = folder / "policy.yaml"
    stack.policy.write_text(policies.replace("max_auth_age: 1m", f"max_auth_age: {_RECENT_SECONDS}s"))
    stack.hosted_pages = lambda stack: [_TOOLS / "venv" / "bin" / "node", _TOOLS / "node" / "provider.mjs", json.dumps({
        "client": stack.client, "callbacks": stack.callbacks, "logouts": stack.logouts, "tokenSeconds": token_seconds,
        "users": {user.email: user.password for user in (_ADA, _GRACE)}, "ignoresPrompt": ignores_prompt})]
    return stack


@pytest.fixture(scope="module")
def other(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with _stack(binary, 3600, tmp_path_factory.mktemp("other")) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Its tokens last some seconds."""
    with _stack(binary, _SHORT_SECONDS, tmp_path_factory.mktemp("hasty")) as running:
        yield running


@pytest.fixture
def tab(browser: Browser, other: Stack) -> Iterator[Tab]:
    with window(browser, java_script_enabled=False) as context:
        tab = Tab(context.new_page(), other)
        yield tab
        assert tab.complaints == []


def _prompts(tab: Tab) -> list[str]:
    """Values of `prompt` in the requests that sent the browser to the provider."""
    return [prompt for url in tab.urls if urlsplit(url).path == "/oauth2/authorize"
            for prompt in parse_qs(urlsplit(url).query).get("prompt", [])]


def test_a_first_visit_leads_through_the_provider_to_the_page_asked_for(tab: Tab) -> None:
    tab.goes_to("/members/report?page=2")
    signs_in(tab, _ADA)
    sees_member(tab, "Report")
    tab.is_at("/members/report?page=2")
    expect(tab.page.locator("#user")).to_have_text("ada")
    expect(tab.page.locator("#groups")).to_have_text("readers")
    [callback] = [url for url in tab.urls if urlsplit(url).path == CALLBACK]
    assert parse_qs(urlsplit(callback).query)["iss"] == [tab.stack.hosted], "the provider names itself (RFC 9207)"
    assert tab.session().keys() == {"__Host-access_token"}, "there is no refresh token"


def test_an_expired_session_is_renewed_by_the_session_of_the_provider(browser: Browser, hasty: Stack) -> None:
    with window(browser, java_script_enabled=False) as context:
        tab = Tab(context.new_page(), hasty)
        tab.goes_to("/members")
        signs_in(tab, _ADA)
        sees_member(tab)
        until(lambda: tab.session() == {}, tab.page)
        tab.goes_to("/members/report?page=2#totals")
        sees_member(tab, "Report")
        tab.is_at("/members/report?page=2#totals")
        assert tab.steps == ["/members/report", *SILENT, "/members/report"]
        until(lambda: tab.session() == {}, tab.page)
        tab.goes_to("/auth/oauth/renew?return_to=%2Fmembers")
        sees_member(tab)
        tab.is_at("/members")


def test_a_page_that_needs_a_recent_sign_in_asks_although_the_provider_has_a_session(tab: Tab) -> None:
    tab.goes_to("/members/recent")
    signs_in(tab, _ADA)
    sees_member(tab, "Recent sign-in")
    signed_in = time.time()
    until(lambda: time.time() > signed_in + _RECENT_SECONDS + 1, tab.page)  # times in tokens are whole seconds
    tab.goes_to("/members/recent")
    is_asked(tab)
    assert _prompts(tab) == ["login"]
    signs_in(tab, _ADA)
    sees_member(tab, "Recent sign-in")


def test_a_sign_out_ends_the_session_of_the_provider(tab: Tab) -> None:
    tab.goes_to("/members")
    signs_in(tab, _ADA)
    sees_member(tab)
    tab.steps.clear()
    tab.page.get_by_role("button", name="Sign out").click()
    tab.page.get_by_role("button", name="Yes, sign me out").click()
    tab.is_at("/welcome")
    assert tab.steps == [SIGN_OUT, "hosted:/logout", "hosted:/logout/confirm", "/welcome"]
    assert tab.cookies() == {}
    tab.goes_to("/members")
    is_asked(tab)
    assert _prompts(tab) == [], "there is no session to skip"
    signs_in(tab, _GRACE)
    sees_member(tab)
    expect(tab.page.locator("#user")).to_have_text("grace")


def test_a_provider_whose_session_survives_the_sign_out_has_to_ask(tab: Tab) -> None:
    """The user does not confirm there. Its session then gives tokens of the old sign-in, which is revoked."""
    tab.goes_to("/members")
    signs_in(tab, _ADA)
    sees_member(tab)
    tab.page.get_by_role("button", name="Sign out").click()
    expect(tab.page.get_by_role("button", name="Yes, sign me out")).to_be_visible()
    tab.goes_to("/members")
    is_asked(tab)
    assert tab.steps == ["/members", *SILENT, HOSTED, f"hosted:{urlsplit(tab.page.url).path}"]
    assert _prompts(tab) == ["login"]
    signs_in(tab, _ADA)
    sees_member(tab)


def test_a_provider_that_never_asks_ends_on_a_page(browser: Browser, binary: Path, tmp_path: Path) -> None:
    """It ignores `prompt=login` and uses the revoked sign-in again. The page leads to its own sign-out."""
    with _stack(binary, 3600, tmp_path, ignores_prompt=True) as stack, window(
            browser, java_script_enabled=False) as context:
        tab = Tab(context.new_page(), stack)
        tab.goes_to("/members")
        signs_in(tab, _ADA)
        sees_member(tab)
        tab.page.get_by_role("button", name="Sign out").click()
        expect(tab.page.get_by_role("button", name="Yes, sign me out")).to_be_visible()
        tab.goes_to("/members")
        expect(tab.page.get_by_text("Sign out there first.")).to_be_visible()
        assert tab.steps == ["/members", *SILENT, HOSTED, CALLBACK]
        assert tab.session() == {}
        tab.page.get_by_role("button", name="Sign out").click()
        tab.page.get_by_role("button", name="Yes, sign me out").click()
        tab.is_at("/welcome")
        tab.goes_to("/members")
        signs_in(tab, _GRACE)
        sees_member(tab)


def test_a_browser_that_drops_the_session_is_not_sent_around_forever(browser: Browser, other: Stack) -> None:
    """The provider answers every round by itself, so nothing but us ends the loop."""
    with CookieFilter(lambda name: not name.endswith("_token")) as proxy, window(
            browser, java_script_enabled=False, proxy={"server": proxy}) as context:
        tab = Tab(context.new_page(), other)
        tab.goes_to("/members")
        tab.steps.clear()
        signs_in(tab, _ADA)
        expect(tab.page.get_by_role("link")).to_be_visible()
        assert urlsplit(tab.page.url).path.startswith("/auth/oauth/"), tab.page.url
        assert tab.steps.count(CALLBACK) == 3
        assert len(tab.steps) < 20
        # The page is an end, and its link is a new beginning with as many rounds.
        tab.steps.clear()
        tab.page.get_by_role("link").click()
        expect(tab.page.get_by_role("link")).to_be_visible()
        assert tab.steps.count(CALLBACK) == 3


def test_a_browser_that_blocks_cookies_gets_a_page_that_says_so(browser: Browser, other: Stack) -> None:
    with CookieFilter(lambda name: not name.startswith("__Host-")) as proxy, window(
            browser, java_script_enabled=False, proxy={"server": proxy}) as context:
        tab = Tab(context.new_page(), other)
        tab.goes_to("/members")
        tab.steps.clear()
        signs_in(tab, _ADA)
        expect(tab.page.locator("body")).to_contain_text("cookies")
        assert tab.steps.count(CALLBACK) == 1
        assert tab.session() == {}
