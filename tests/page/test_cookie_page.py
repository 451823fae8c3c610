"""The demo page with sessions in cookies (`deploy/local/up --cookies`), and its way to the pages without JavaScript."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from conftest import ROOT, User, Visit, Watch, new_user
from redirects import Tab, sees_member, signs_in, until, window
from stack import Stack
from steps import fits, is_signed_in, log_out, says, sign_in


@pytest.fixture
def tab(browser: Browser, cookie_stack: Stack) -> Iterator[Visit]:
    """A tab that shows the page. Afterwards checks that no script could see a token."""
    with window(browser, viewport={"width": 1100, "height": 800}) as context:
        page = context.new_page()
        watch = Watch(page)
        page.goto(f"{cookie_stack.site}/")
        yield Visit(page, watch, cookie_stack)
        assert watch.complaints == []
        assert watch.tokens == [], "a response has a token in its body"
        assert page.evaluate("[document.cookie, localStorage.length]") == ["", 0]
        stored = dict(page.evaluate("Object.entries(sessionStorage)"))
        assert stored.keys() <= {"progress"}
        assert "eyJ" not in page.content() + json.dumps(stored)


@pytest.fixture
def member(cookie_stack: Stack) -> User:
    return new_user(cookie_stack)


def test_a_session_in_cookies_survives_a_reload_until_the_user_logs_out(tab: Visit, member: User) -> None:
    page = tab.page
    expect(page.locator("#register")).to_be_visible()
    expect(page.locator("#announcement")).to_be_empty()
    sign_in(page, member)
    is_signed_in(page, member)
    expect(page.locator("[data-token-word]")).to_have_text("Access token expires in")
    expect(page.get_by_text("Claims of the access token")).to_be_hidden()
    page.reload()
    is_signed_in(page, member)
    expect(page.locator("[data-tokens]")).to_contain_text("continued")
    expect(page.locator('#tried [data-step="reload"]')).to_contain_text("(done)")
    page.get_by_role("button", name="Refresh now").click()
    says(page, "You have a new access token.")
    log_out(page)
    expect(page.locator("#ended")).to_be_hidden()
    assert page.context.cookies() == []
    page.reload()
    expect(page.locator("#register")).to_be_visible()
    expect(page.locator("#signed-in")).to_be_hidden()


def test_a_session_without_cookies_ends(tab: Visit, member: User) -> None:
    page = tab.page
    sign_in(page, member)
    is_signed_in(page, member)
    page.context.clear_cookies()
    page.get_by_role("button", name="Refresh now").click()
    says(page, "Your session has ended. Sign in again.")
    expect(page.locator("#signed-in")).to_be_hidden()


def test_the_protected_route_is_reached_with_the_session_only(tab: Visit, member: User) -> None:
    page, verdict = tab.page, tab.page.locator("#call [data-verdict]")
    sign_in(page, member)
    is_signed_in(page, member)
    page.get_by_role("button", name="Valid session").click()
    expect(verdict).to_have_text("200: the application was reached.")
    page.get_by_role("button", name="Forged headers").click()
    expect(verdict).to_contain_text("never arrived")
    page.get_by_role("button", name="No session").click()
    expect(page.locator("#call [data-refusal]")).to_contain_text("missing_credential")
    page.get_by_role("button", name="Wrong group").click()
    expect(verdict).to_contain_text("403")
    expect(page.locator("#call [data-refusal]")).to_contain_text("insufficient_group")
    # A page that never sees a token can neither change one nor keep one.
    for token in ("Tampered token", "Revoked token"):
        expect(page.get_by_role("button", name=token)).to_be_hidden()


def test_the_hosted_page_and_a_new_password(tab: Visit, member: User) -> None:
    page = tab.page
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("button", name="hosted page").click()
    page.get_by_label("Username").fill(member.email)
    page.get_by_label("Password").fill(member.password)
    page.get_by_role("button", name="Sign in").click()
    is_signed_in(page, member)
    page.locator("#password-old").fill(member.password)
    page.locator("#password-new").fill(f"{member.password}2")
    page.get_by_role("button", name="Change password").click()
    says(page, "Your password is changed.")
    log_out(page)  # by a redirect that also ends the hosted page's session
    assert not [cookie for cookie in page.context.cookies() if "_token" in cookie["name"]]


def test_the_way_without_javascript_leads_to_pages_with_the_same_session(tab: Visit, member: User) -> None:
    page = tab.page
    page.get_by_role("link", name="Sign in without JavaScript").click()
    pages = Tab(page, tab.stack)
    signs_in(pages, member)
    sees_member(pages)
    page.goto(f"{tab.stack.site}/")
    is_signed_in(page, member)
    log_out(page)
    page.goto(f"{tab.stack.site}/members")
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto(f"{tab.stack.site}/")
    expect(page.locator("#register")).to_be_visible()


@pytest.fixture
def hasty(binary: Path) -> Iterator[Stack]:
    """A separate stack whose tokens last some seconds."""
    with Stack(ROOT, binary, port=0, token_seconds=6, cookies=True) as running:
        yield running


def test_an_expired_session_is_refreshed(browser: Browser, hasty: Stack) -> None:
    user = new_user(hasty)
    with window(browser) as context:
        page = context.new_page()
        page.goto(f"{hasty.site}/")
        sign_in(page, user)
        is_signed_in(page, user)
        page.get_by_label("Refresh automatically").uncheck()
        names = {"__Host-refresh_token"}
        until(lambda: {cookie["name"] for cookie in context.cookies(hasty.site)} == names, page)
        page.get_by_role("button", name="Valid session").click()
        expect(page.locator("#call [data-refusal]")).to_contain_text("missing_credential")
        page.reload()
        is_signed_in(page, user)
        page.get_by_role("button", name="Valid session").click()
        expect(page.locator("#call [data-verdict]")).to_have_text("200: the application was reached.")


@pytest.mark.parametrize("cookies", [True, False], ids=["cookies", "tokens"])
def test_a_browser_without_javascript_is_told_what_works(request: pytest.FixtureRequest, browser: Browser,
                                                         cookies: bool) -> None:
    stack: Stack = request.getfixturevalue("cookie_stack" if cookies else "stack")
    with window(browser, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{stack.site}/")
        section = page.get_by_role("region", name="Without JavaScript")
        link, hint = section.get_by_role("link"), section.get_by_text("deploy/local/up --cookies")
        expect(link if cookies else hint).to_be_visible()
        expect(hint if cookies else link).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Browser, cookie_stack: Stack, scheme: str) -> None:
    """On the page, and on the application's pages without JavaScript."""
    user, axe = new_user(cookie_stack), Axe()
    with window(browser, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True,
                viewport={"width": 320, "height": 640}) as context:
        page = context.new_page()

        def look(what: str) -> None:
            assert fits(page), f"{what}: something is wider than the screen"
            found = axe.run(page, options={"resultTypes": ["violations", "incomplete"]})
            assert found.violations_count == 0, f"{what}:\n{found.generate_report()}"

        page.goto(f"{cookie_stack.site}/")
        expect(page.locator("#register")).to_be_visible()
        look("signed out")
        pages = Tab(page, cookie_stack)
        pages.goes_to("/welcome")
        look("welcome")
        pages.goes_to("/members")
        signs_in(pages, user)
        sees_member(pages)
        look("members")
        for path in ("/members/report", "/members/recent", "/members/nothing", "/welcome"):
            pages.goes_to(path)
            look(path)
        page.goto(f"{cookie_stack.site}/")
        is_signed_in(page, user)
        look("signed in")
