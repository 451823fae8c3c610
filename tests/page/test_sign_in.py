"""Sign-in by redirect in a real browser, through the real Envoy, with the emulator's hosted pages.

The emulator's hosted pages keep no session: they ask at every sign-in. test_other_provider.py has pages that keep one.
"""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Route, expect

from conftest import ROOT, User, new_user
from cookie_filter import CookieFilter
from redirects import CALLBACK, SIGN_IN, SIGN_OUT, Tab, add_groups, is_asked, sees_member, signs_in, until, window
from stack import Stack

REPORT = "/members/report?page=2&q=a%20b%2F%26"
SESSION = {"__Host-access_token", "__Host-refresh_token"}
HOSTED = "hosted:/oauth2/authorize"

_SHORT_SECONDS = 6


@pytest.fixture(scope="module")
def hasty(binary: Path) -> Iterator[Stack]:
    """A separate stack whose tokens last some seconds."""
    with Stack(ROOT, binary, port=0, token_seconds=_SHORT_SECONDS, cookies=True,
               options=["--limit-address", "1000/1m"]) as running:
        yield running


@pytest.fixture(params=[False, True], ids=["no-script", "script"])
def tab(request: pytest.FixtureRequest, browser: Browser, cookie_stack: Stack) -> Iterator[Tab]:
    """A tab of a new browser, without JavaScript and with it."""
    with window(browser, java_script_enabled=request.param) as context:
        tab = Tab(context.new_page(), cookie_stack)
        yield tab
        assert tab.complaints == []


@pytest.fixture
def member(cookie_stack: Stack) -> User:
    return new_user(cookie_stack)


def test_a_first_visit_leads_through_the_hosted_page_to_the_page_asked_for(tab: Tab, member: User) -> None:
    tab.goes_to(REPORT)
    is_asked(tab)
    query = parse_qs(urlsplit(tab.page.url).query)
    assert query["redirect_uri"] == [tab.url(CALLBACK)]
    assert query["code_challenge_method"] == ["S256"]
    assert "prompt" not in query
    assert tab.steps == ["/members/report", SIGN_IN, HOSTED]
    [attempt] = tab.page.context.cookies(tab.stack.site)
    assert attempt["name"].startswith("__Host-sign_in.")
    assert (attempt["httpOnly"], attempt["secure"], attempt["sameSite"]) == (True, True, "Lax")

    tab.steps.clear()
    signs_in(tab, member)
    sees_member(tab, "Report")
    tab.is_at(REPORT)
    expect(tab.page.locator("main")).to_contain_text("Page 2 of the report.")
    assert tab.steps == ["hosted:/login", CALLBACK, "/members/report"]
    assert tab.session().keys() == SESSION
    assert tab.attempts() == [], "the cookie of the attempt is still there"
    for cookie in tab.page.context.cookies(tab.stack.site):
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Lax")

    # The session holds for links and for the application's own forms.
    tab.steps.clear()
    tab.page.get_by_role("link", name="Members").click()
    sees_member(tab)
    tab.page.get_by_label("Note").fill("Buy <milk>")
    tab.page.get_by_role("button", name="Keep").click()
    expect(tab.page.locator("#notes li")).to_have_text(["Buy <milk>"])
    assert tab.steps == ["/members", "/members/notes", "/members"]


def test_a_wrong_password_stays_at_the_hosted_page(tab: Tab, member: User) -> None:
    tab.goes_to("/members")
    signs_in(tab, User(member.email, "Wrong-horse-1-battery"))
    expect(tab.page.get_by_text("Incorrect username or password.")).to_be_visible()
    signs_in(tab, member)
    sees_member(tab)
    tab.is_at("/members")


@pytest.mark.parametrize("script", [False, True], ids=["no-script", "script"])
def test_an_expired_session_is_renewed_without_a_visible_step(browser: Browser, hasty: Stack, script: bool) -> None:
    user = new_user(hasty)
    with window(browser, java_script_enabled=script) as context:
        tab = Tab(context.new_page(), hasty)
        tab.goes_to("/members")
        signs_in(tab, user)
        sees_member(tab)
        before = tab.session()
        until(lambda: "__Host-access_token" not in tab.cookies(), tab.page)

        tab.goes_to(f"{REPORT}#totals")
        sees_member(tab, "Report")
        tab.is_at(f"{REPORT}#totals")  # redirects alone keep the fragment
        assert tab.steps == ["/members/report", SIGN_IN, "/members/report"]
        after = tab.session()
        assert after.keys() == before.keys()
        assert after["__Host-access_token"] != before["__Host-access_token"]

        # The route for pages that know that the session has ended.
        until(lambda: "__Host-access_token" not in tab.cookies(), tab.page)
        tab.goes_to("/auth/oauth/renew?return_to=%2Fmembers")
        sees_member(tab)
        assert tab.steps == ["/auth/oauth/renew", "/members"]


def test_several_tabs_sign_in_and_are_renewed_at_once(browser: Browser, hasty: Stack) -> None:
    user = new_user(hasty)
    paths = ["/members", "/members/report?page=3", "/members/report?page=4"]
    with window(browser) as context:
        tabs = [Tab(context.new_page(), hasty) for _ in paths]
        for tab, path in zip(tabs, paths, strict=True):
            tab.goes_to(path)
            is_asked(tab)
        for tab in reversed(tabs):
            signs_in(tab, user)
        for tab, path in zip(tabs, paths, strict=True):
            tab.is_at(path)
            sees_member(tab, "Members" if path == "/members" else "Report")

        for _ in range(2):
            until(lambda: "__Host-access_token" not in tabs[0].cookies(), tabs[0].page)
            for tab in tabs:
                tab.steps.clear()
                tab.page.evaluate("setTimeout(() => location.reload())")  # all tabs load at the same time
            for tab, path in zip(tabs, paths, strict=True):
                until(lambda tab=tab: len(tab.steps) >= 3 or "__Host-access_token" in tab.cookies(), tab.page)  # type: ignore[misc]
                tab.is_at(path)
                sees_member(tab, "Members" if path == "/members" else "Report")
                own = urlsplit(path).path
                assert tab.steps in ([own], [own, SIGN_IN, own]), "no tab was asked"


def test_after_a_sign_out_the_next_visit_asks_again(tab: Tab, member: User) -> None:
    """The emulator's hosted pages keep no session, so this proves that ours has ended, not theirs."""
    tab.goes_to("/members")
    signs_in(tab, member)
    sees_member(tab)
    session = tab.page.context.cookies(tab.stack.site)
    tab.steps.clear()
    tab.page.get_by_role("button", name="Sign out").click()
    expect(tab.page.locator("main")).to_contain_text("You are not signed in.")
    tab.is_at("/welcome")
    assert tab.steps == [SIGN_OUT, "hosted:/logout", "/welcome"]
    assert tab.cookies() == {}
    tab.page.go_back()
    assert "Signed in as" not in tab.page.content(), "the page from before the sign-out is shown again"
    tab.goes_to("/members")
    is_asked(tab)

    # A copy of the old session is worth nothing.
    tab.page.context.clear_cookies()
    tab.page.context.add_cookies([dict(cookie) for cookie in session])  # type: ignore[misc]
    tab.goes_to("/members")
    is_asked(tab)
    assert parse_qs(urlsplit(tab.page.url).query)["prompt"] == ["login"]
    signs_in(tab, member)
    sees_member(tab)


def test_the_back_button_after_a_sign_in_does_no_harm(tab: Tab, member: User) -> None:
    tab.goes_to("/members/report?page=5")
    signs_in(tab, member)
    sees_member(tab, "Report")
    session = tab.session()
    tab.page.go_back()
    is_asked(tab)
    tab.page.go_forward()
    sees_member(tab, "Report")
    # A second submission of the form leads to a callback with a used state.
    tab.page.go_back()
    tab.steps.clear()
    signs_in(tab, member)
    tab.page.wait_for_url(tab.url("/"))
    assert tab.steps == ["hosted:/login", CALLBACK, "/"]
    # A script of the page at / gets a new access token at once. Only a sign-in brings a new refresh token.
    assert tab.session().keys() == SESSION
    assert tab.session()["__Host-refresh_token"] == session["__Host-refresh_token"]
    tab.goes_to("/members")
    sees_member(tab)
    assert tab.steps == ["/members"]


def test_a_stale_callback_leads_to_a_page_and_not_to_a_loop(tab: Tab) -> None:
    answer = tab.goes_to(f"{CALLBACK}?code=stolen&state=guessed")
    assert answer.status == 400
    assert tab.steps == [CALLBACK]
    assert tab.cookies() == {}
    tab.page.get_by_role("link", name="Sign in again").click()
    is_asked(tab)


@pytest.mark.parametrize("script", [False, True], ids=["no-script", "script"])
def test_a_browser_that_blocks_cookies_gets_a_page_that_says_so(browser: Browser, cookie_stack: Stack, member: User,
                                                               script: bool) -> None:
    with CookieFilter(lambda _: False) as proxy, window(
            browser, java_script_enabled=script, proxy={"server": proxy}) as context:
        tab = Tab(context.new_page(), cookie_stack)
        tab.goes_to("/members")
        tab.steps.clear()
        signs_in(tab, member)
        expect(tab.page.locator("body")).to_contain_text("cookies")
        assert tab.steps == ["hosted:/login", CALLBACK]
        assert tab.cookies() == {}


def test_a_browser_that_drops_the_session_is_not_sent_around_forever(browser: Browser, cookie_stack: Stack,
                                                                     member: User) -> None:
    with CookieFilter(lambda name: not name.endswith("_token")) as proxy, window(
            browser, java_script_enabled=False, proxy={"server": proxy}) as context:
        tab = Tab(context.new_page(), cookie_stack)
        tab.goes_to("/members")
        for _ in range(5):
            if not tab.page.url.startswith(tab.stack.hosted):
                break
            signs_in(tab, member)
            tab.page.wait_for_load_state()
        assert urlsplit(tab.page.url).path.startswith("/auth/oauth/"), tab.page.url
        assert tab.steps.count(CALLBACK) == 3
        expect(tab.page.get_by_role("link")).to_be_visible()


@pytest.mark.parametrize("with_hosted", [False, True], ids=["self", "self-and-hosted"])
def test_form_action_of_an_application_has_to_list_the_hosted_pages(browser: Browser, cookie_stack: Stack, member: User,
                                                                    with_hosted: bool) -> None:
    """As docs/try-it.md says: Chromium applies it to the redirects after the form, too."""
    sources = f"'self' {cookie_stack.hosted}" if with_hosted else "'self'"

    def add(route: Route) -> None:
        answer = route.fetch(max_redirects=0)
        policy = f"{answer.headers['content-security-policy']}; form-action {sources}"
        route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": policy})

    with window(browser, java_script_enabled=False) as context:
        tab = Tab(context.new_page(), cookie_stack)
        tab.goes_to("/members")
        signs_in(tab, member)
        sees_member(tab)
        tab.page.route(tab.url("/members"), add)
        tab.goes_to("/members")
        tab.page.get_by_role("button", name="Sign out").click()
        if with_hosted:
            tab.is_at("/welcome")
            return
        until(lambda: tab.session() == {}, tab.page)
        until(lambda: any("form-action" in complaint for complaint in tab.complaints), tab.page)
        tab.is_at("/members")
        assert "hosted:/logout" not in tab.steps


# -------------------------------------------------------------------------------------------- other sites

_OTHER = """<!doctype html><html lang="en"><title>Other site</title>
<a href="{site}/members/report?page=7">Report</a>
<a href="{site}/auth/oauth/sign-out">Leave</a>
<form method="post" action="{site}/members/notes"><input name="note" value="forged"><button>Note</button></form>
<form method="post" action="{site}/auth/oauth/sign-out"><button>Out</button></form>
"""


@pytest.fixture
def other_site(cookie_stack: Stack) -> Iterator[str]:
    """URL of a page of another site: 127.0.0.1 is not the site localhost."""
    body = _OTHER.format(site=cookie_stack.site).encode()

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_links_of_another_site_reach_a_page_with_its_session(tab: Tab, member: User, other_site: str) -> None:
    tab.goes_to("/members")
    signs_in(tab, member)
    sees_member(tab)
    tab.page.goto(other_site)
    tab.steps.clear()
    tab.page.get_by_role("link", name="Report").click()
    sees_member(tab, "Report")
    tab.is_at("/members/report?page=7")
    assert tab.steps == ["/members/report"]


def test_forms_of_another_site_are_refused(tab: Tab, member: User, other_site: str) -> None:
    tab.goes_to("/members")
    signs_in(tab, member)
    sees_member(tab)
    session = tab.session()
    # The browser keeps the session to itself (SameSite=Lax), so the first form has none. Signing out asks first.
    for button, path, status in [("Note", "/members/notes", 401), ("Out", SIGN_OUT, 403)]:
        tab.page.goto(other_site)
        with tab.page.expect_response(lambda answer, path=path: urlsplit(answer.url).path == path) as answer:  # type: ignore[misc]
            tab.page.get_by_role("button", name=button).click()
        assert answer.value.status == status, button
    assert tab.session() == session
    tab.goes_to("/members")
    sees_member(tab)
    expect(tab.page.locator("#notes")).to_have_count(0)


def test_a_link_to_sign_out_of_another_site_asks_first(tab: Tab, member: User, other_site: str) -> None:
    tab.goes_to("/members")
    signs_in(tab, member)
    sees_member(tab)
    session = tab.session()
    tab.page.goto(other_site)
    tab.page.get_by_role("link", name="Leave").click()
    button = tab.page.get_by_role("button")
    expect(button).to_be_visible()
    assert tab.session() == session, "the link alone has signed the user out"
    button.click()
    expect(tab.page.locator("main")).to_contain_text("You are not signed in.")
    tab.is_at("/welcome")
    assert tab.cookies() == {}


# -------------------------------------------------------------------------------------------- large tokens


def test_a_large_token_is_split_over_cookies(tab: Tab, member: User) -> None:
    groups = add_groups(tab.stack, member, 60)
    tab.goes_to("/members")
    signs_in(tab, member)
    sees_member(tab)
    names = tab.session().keys()
    assert {"__Host-access_token", "__Host-access_token.1", "__Host-access_token.2"} <= names
    assert all(len(f"{name}={value}") <= 4096 for name, value in tab.cookies().items())
    expect(tab.page.locator("#groups")).to_have_text(", ".join(groups))
    tab.page.get_by_role("button", name="Sign out").click()
    tab.is_at("/welcome")
    assert tab.cookies() == {}, "no piece is left"


def test_a_token_too_large_for_cookies_is_explained(tab: Tab, member: User) -> None:
    add_groups(tab.stack, member, 130)
    tab.goes_to("/members")
    tab.steps.clear()
    signs_in(tab, member)
    expect(tab.page.get_by_role("heading", level=1)).to_be_visible()
    tab.page.wait_for_url(f"{tab.url(CALLBACK)}**")
    assert tab.steps == ["hosted:/login", CALLBACK]
    assert tab.session() == {}
    expect(tab.page.locator("body")).to_contain_text("too large")
