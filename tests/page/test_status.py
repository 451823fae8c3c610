"""The status page of the admin port, in a browser: what operators see, who sees it, and accessibility."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

import web
from account import Account
from conftest import ROOT, TIMEOUT_MS, User, Watch, new_user
from stack import Stack
from steps import fits

_TOKEN = "operators-token-of-the-page-tests"
_BEARER = [("authorization", f"Bearer {_TOKEN}")]
# The page reads the status every five seconds.
_NEXT_MS = 30_000


@pytest.fixture(scope="module")
def watched(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose status only operators may read."""
    file = tmp_path_factory.mktemp("operators") / "token"
    file.write_text(_TOKEN)
    options = ["--limit-address", "1000/1m", "--admin-token-file", str(file)]
    with Stack(ROOT, binary, port=0, token_seconds=3600, options=options) as running:
        yield running


def uses_it(stack: Stack) -> User:
    """A user signs in and uses the application; other requests are refused, for several reasons."""
    user = new_user(stack)
    token = Account(stack.over_uds).done("login", email=user.email, password=user.password)["accessToken"]
    for _ in range(10):
        assert web.get(f"{stack.over_uds}/orders", [("authorization", f"Bearer {token}")]).status == 200
    assert web.get(f"{stack.over_uds}/orders?from={user.email}").status == 401
    assert web.get(f"{stack.over_uds}/admin/x", [("authorization", f"Bearer {token}")]).status == 403
    assert web.get(f"{stack.over_uds}/orders", [("authorization", f"Bearer {token[:-8]}AAAAAAAA")]).status == 401
    assert web.get(f"{stack.over_uds}/orders", [("authorization", "Bearer <script>alert(1)</script>")]).status == 401
    return user


def tab(browser: Browser, **options: object) -> Page:
    context = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(TIMEOUT_MS)
    return context.new_page()


def shows_token(page: Page, token: str = _TOKEN) -> None:
    page.locator("#token").fill(token)
    page.get_by_role("button", name="Show the status").click()


def is_shown(page: Page) -> None:
    expect(page.locator("#verdict-title")).to_be_visible()
    expect(page.locator("#ask")).to_be_hidden()


def test_an_operator_signs_in_with_the_token(browser: Browser, watched: Stack) -> None:
    page = tab(browser, viewport={"width": 1280, "height": 900})
    watch = Watch(page)
    page.goto(f"{watched.admin}/")
    expect(page.locator("#token")).to_be_focused()
    expect(page.locator("#report")).to_be_hidden()
    shows_token(page, "not-the-token-of-the-operators")
    expect(page.locator("#token-error")).to_have_text("This is not the token.")
    shows_token(page, "größer")
    expect(page.locator("#token-error")).to_contain_text("visible ASCII")
    shows_token(page)
    is_shown(page)
    expect(page.locator("#verdict-title")).to_have_text("Everything is in order")
    expect(page.get_by_role("link", name="Metrics")).to_have_attribute("href", "metrics")
    # The token is in the memory of the tab, and nowhere else.
    assert page.locator("#token").input_value() == ""
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie.length]") == [0, 0, 0]
    assert _TOKEN not in page.content() + page.url
    assert page.context.cookies() == []
    page.get_by_role("button", name="Forget the token").click()
    expect(page.locator("#token")).to_be_focused()
    assert page.locator("#verdict-title").text_content() == ""
    assert watch.hosts() == {watched.admin.removeprefix("http://")}
    # Chromium logs the answers 401 themselves.
    assert watch.complaints == []
    page.context.close()


def test_the_page_shows_who_is_refused_and_no_identity(browser: Browser, watched: Stack) -> None:
    page = tab(browser, viewport={"width": 1280, "height": 900})
    watch = Watch(page)
    page.goto(f"{watched.admin}/")
    shows_token(page)
    is_shown(page)
    user = uses_it(watched)
    rows = page.locator("#refusals tbody tr")
    refused = rows.filter(has_text="insufficient_group")
    expect(refused.first).to_be_visible(timeout=_NEXT_MS)
    expect(refused.first).to_contain_text("admin")
    expect(refused.first).to_contain_text("groups")
    newest = json.loads(web.get(f"{watched.admin}/status", _BEARER).body)["refusals"]["newest"]
    shown = next(each for each in newest if each["reason"] == "insufficient_group")
    # Envoy gives every request an id, which the application and its log know, too.
    assert len(shown["request_id"]) == 36
    page.get_by_label("Filter").fill(shown["request_id"])
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(shown["request_id"])
    page.get_by_label("Filter").fill("nothing like that")
    expect(page.locator("#refusals-lead")).to_have_text("No refusal matches the filter.")
    page.get_by_label("Filter").fill("")
    decisions = page.locator("#decisions li")
    for reason, status in (("missing_credential", "401"), ("insufficient_group", "403"), ("bad_signature", "401")):
        expect(decisions.filter(has_text=reason)).to_contain_text(status)
    assert decisions.first.locator("svg rect").count() >= 3, "a bar in each of the three windows"
    expect(page.locator("#pools")).to_contain_text(watched.pool)
    text = page.content()
    for secret in (user.email, user.email.partition("@")[0], "orders?from", "alert(1)"):
        assert secret not in text, secret
    assert page.locator("script").count() == 1
    assert watch.complaints == []
    page.context.close()


def test_a_page_can_be_paused_and_says_when_it_is_old(browser: Browser, watched: Stack) -> None:
    page = tab(browser, viewport={"width": 1280, "height": 900})
    page.goto(f"{watched.admin}/")
    shows_token(page)
    is_shown(page)
    with page.expect_response(f"{watched.admin}/status", timeout=_NEXT_MS):
        pass
    page.context.set_offline(True)
    lost = page.locator("#lost")
    expect(lost).to_contain_text("This instance does not answer. Below is the state of", timeout=_NEXT_MS)
    expect(page).to_have_title("No answer · cognito-authz")
    page.context.set_offline(False)
    expect(page.locator("#lost")).to_be_hidden(timeout=_NEXT_MS)
    page.get_by_role("button", name="Pause").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    # Longer than the time between two requests.
    page.wait_for_timeout(6000)
    assert asked == []
    with page.expect_response(f"{watched.admin}/status"):
        page.get_by_role("button", name="Paused").click()
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen_and_axe_finds_no_violation(browser: Browser, watched: Stack, stack: Stack, scheme: str,
                                                         pytestconfig: pytest.Config) -> None:
    folder: Path | None = pytestconfig.getoption("--pictures")
    # The page's content security policy rightly forbids injecting axe. The tests above run with that policy.
    page = tab(browser, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce")
    axe = Axe()

    def look(name: str) -> None:
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        for width in (320, 375, 768, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert fits(page), f"{name}: something is wider than {width} pixels"
            small = page.evaluate("""() => [...document.querySelectorAll('button, input, nav a')]
                .filter((each) => each.checkVisibility() && each.getBoundingClientRect().height < 24)
                .map((each) => each.outerHTML)""")
            assert small == [], f"{name}: targets are too small (WCAG 2.5.8)"
            found = axe.run(page, options={"resultTypes": ["violations", "incomplete"]})
            assert found.violations_count == 0, f"{name}, {width} pixels:\n{found.generate_report()}"
            if folder is not None:
                folder.mkdir(exist_ok=True)
                page.screenshot(path=folder / f"status-{name}-{scheme}-{width}.png", full_page=True)

    page.goto(f"{watched.admin}/")
    expect(page.locator("#token")).to_be_visible()
    look("asks")
    shows_token(page)
    is_shown(page)
    look("before-traffic" if scheme == "light" else "after-traffic")
    uses_it(watched)
    expect(page.locator("#refusals tbody tr").first).to_be_visible(timeout=_NEXT_MS)
    look("busy")
    page.context.set_offline(True)
    expect(page.locator("#lost")).to_be_visible(timeout=_NEXT_MS)
    page.context.set_offline(False)
    page.context.close()
    # Without a token there is nothing to ask for.
    page = tab(browser, color_scheme=scheme)
    page.goto(f"{stack.admin}/")
    is_shown(page)
    page.context.close()


def test_the_page_works_with_the_keyboard_alone(browser: Browser, watched: Stack) -> None:
    page = tab(browser, viewport={"width": 1280, "height": 900})
    page.goto(f"{watched.admin}/")
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.type(_TOKEN)
    page.keyboard.press("Enter")
    is_shown(page)
    reached: list[str] = []
    page.evaluate("document.activeElement.blur()")
    for _ in range(16):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            continue  # behind the last element, before the first one again
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", "the focus is not visible"
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"Metrics", "Configuration", "Documentation", "pause", "forget", "filter"} <= set(reached), reached
    page.context.close()
