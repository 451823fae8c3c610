"""Accessibility of the demo page: keyboard, narrow screens, screen readers, light and dark colour schemes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from conftest import User, Visit, new_user, visit
from stack import Stack, make_password
from steps import fits, is_signed_in, says, set_up_factor, sign_in


def test_the_page_works_with_the_keyboard_alone(tab: Visit, user: User) -> None:
    page = tab.page

    def tab_to(selector: str) -> None:
        """Presses Tab until the element has the focus; every element on the way must show its focus."""
        for _ in range(40):
            page.keyboard.press("Tab")
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", "the focus is not visible"
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"{selector} cannot be reached")

    tab_to(".skip")
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    tab_to("[data-view=login]")
    page.keyboard.press("Space")
    expect(page.locator("#login-title")).to_be_focused()
    tab_to("#login-email")
    page.keyboard.type(user.email)
    tab_to("#login-password")
    page.keyboard.type("Wrong-horse-1-battery")
    page.keyboard.press("Enter")
    expect(page.locator("#login [data-form-error]")).to_have_text("The address or the password is wrong.")
    expect(page.locator("#login-password")).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type(user.password)
    page.keyboard.press("Enter")
    is_signed_in(page, user)
    expect(page.locator("#session-title")).to_be_focused()
    tab_to("[data-call=token]")
    page.keyboard.press("Enter")
    expect(page.locator("#call [data-verdict]")).to_contain_text("200")
    expect(page.locator("[data-call=token]")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.locator("#session-title").focus()
    tab_to("[data-action=logout]")
    page.keyboard.press("Enter")
    says(page, "You are logged out.")
    expect(page.locator("#login-title")).to_be_focused()


def test_buttons_are_disabled_while_a_request_runs(tab: Visit, user: User) -> None:
    page = tab.page
    held: list[Callable[[], None]] = []
    page.route("**/auth/login", lambda route: held.append(route.continue_))
    sign_in(page, user)
    expect(page.locator("#login form")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#login button.primary")).to_be_disabled()
    page.keyboard.press("Enter")
    held[0]()
    is_signed_in(page, user)
    assert len(held) == 1, "the form was sent more than once"
    page.unroute_all()


def everywhere(page: Page, user: User, look: Callable[[str], None]) -> None:
    """Goes through all views of the page and calls `look` with the name of each."""
    look("create an account")
    page.get_by_role("button", name="Create account", exact=True).click()
    expect(page.locator("#register-name")).to_have_attribute("aria-invalid", "true")
    look("what is missing")
    page.get_by_label("Name").fill("Ada")
    page.locator("#register-email").fill(f"long-address-of-{user.email}")
    page.locator("#register-password").fill(make_password())
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Use this code")).to_be_visible()
    look("verify, with the mailbox")
    sign_in(page, User(user.email, "Wrong-horse-1-battery"))
    expect(page.locator("#login [data-form-error]")).not_to_be_empty()
    look("a wrong password")
    page.get_by_role("button", name="Forgot password?").click()
    look("forgot password")
    page.locator("#forgot-email").fill(user.email)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Use this code")).to_be_visible()
    look("choose a new password")
    sign_in(page, user)
    is_signed_in(page, user)
    look("signed in")
    page.get_by_role("button", name="Valid token").click()
    expect(page.locator("#call [data-headers]")).to_be_visible()
    page.get_by_text("Claims of the access token").click()
    page.locator("#requests summary").first.click()
    look("allowed, with claims and a request")
    page.get_by_role("button", name="Wrong group").click()
    expect(page.locator("#call [data-refusal]")).to_be_visible()
    look("refused")
    app = set_up_factor(page)
    look("the QR code")
    page.locator("#totp-code").fill(app.now())
    page.keyboard.press("Enter")
    says(page, "The second factor is on.")
    look("the second factor")
    page.get_by_role("button", name="Revoked token").click()
    expect(page.locator("#ended [data-refusal]")).to_be_visible()
    look("the old token is refused")
    sign_in(page, user)
    expect(page.locator("#challenge-title")).to_be_visible()
    look("the challenge")


@pytest.fixture
def narrow(browser: Browser, stack: Stack) -> Iterator[Visit]:
    yield from visit(browser, stack, viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)


def test_every_view_fits_a_narrow_screen(narrow: Visit, user: User) -> None:
    page = narrow.page

    def look(what: str) -> None:
        assert fits(page), f"{what}: something is wider than the screen"
        small = page.evaluate("""() => [...document.querySelectorAll('button, input:not(.away), .top a')]
            .filter((each) => each.checkVisibility())
            .map((each) => [each.outerHTML.slice(0, 80), each.closest('label') ?? each])
            .filter(([, each]) => each.getBoundingClientRect().height < 24).map(([html]) => html)""")
        assert small == [], f"{what}: targets are too small (WCAG 2.5.8)"

    everywhere(page, user, look)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Browser, stack: Stack, scheme: str) -> None:
    user = new_user(stack)
    axe = Axe()

    def look(page: Page, what: str) -> None:
        found = axe.run(page, options={"resultTypes": ["violations", "incomplete"]})
        assert found.violations_count == 0, f"{what}:\n{found.generate_report()}"

    # The page's content security policy rightly forbids injecting axe. test_server.py tests that policy.
    for tab in visit(browser, stack, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True):
        everywhere(tab.page, user, partial(look, tab.page))
