"""Layout of the demo page by bounding boxes: notices that cover nothing, rows of buttons, no horizontal scrolling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from conftest import User, new_user, visit
from stack import Stack
from steps import fits, is_signed_in, log_out, says, set_up_factor, sign_in

WIDTHS = (320, 375, 768, 1024, 1280, 1920)


@final
@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def is_within(self, other: Box) -> bool:
        """`True` if the box is inside the other one; browsers round to fractions of a pixel."""
        return (self.left >= other.left - 0.5 and self.top >= other.top - 0.5
                and self.right <= other.right + 0.5 and self.bottom <= other.bottom + 0.5)

    def overlaps(self, other: Box) -> bool:
        return (self.left < other.right - 0.5 and other.left < self.right - 0.5
                and self.top < other.bottom - 0.5 and other.top < self.bottom - 0.5)


def box(element: Locator) -> Box:
    found = element.bounding_box()
    assert found is not None, "the element is not visible"
    return Box(found["x"], found["y"], found["x"] + found["width"], found["y"] + found["height"])


def has_room(page: Page, what: str) -> None:
    """Checks that the one notice is in view, as wide as its place, and covers nothing."""
    notice = page.locator(".notice:not(:empty)")
    expect(notice).to_have_count(1)
    expect(notice).to_be_in_viewport(ratio=0.95)
    where, cards = box(notice), [box(card) for card in page.locator(".card:visible").all()]
    around = [card for card in cards if where.is_within(card)]
    assert around or where.is_within(box(page.locator("#main"))), f"{what}: the notice overhangs"
    assert not [card for card in cards if card not in around and where.overlaps(card)], f"{what}: it covers a card"
    rest = notice.locator("xpath=../*[not(contains(@class, 'notice'))]").locator("visible=true").all()
    assert not [each for each in rest if where.overlaps(box(each))], f"{what}: it covers its neighbours"
    # Even if the user scrolls.
    page.evaluate("window.scrollBy(0, 150)")
    where, cards = box(notice), [box(card) for card in page.locator(".card:visible").all()]
    assert not [card for card in cards if where.overlaps(card) and not where.is_within(card)], f"{what}: scrolled"
    assert fits(page), f"{what}: something is wider than the screen"


@pytest.mark.parametrize("width", WIDTHS)
def test_notices_cover_nothing_and_are_seen(browser: Browser, stack: Stack, width: int) -> None:
    user = new_user(stack)
    for tab in visit(browser, stack, viewport={"width": width, "height": 800}):
        page = tab.page
        sign_in(page, User(f"nobody{width}@example.com", user.password))
        expect(page.locator("#login [data-form-error]")).not_to_be_empty()
        sign_in(page, user)
        is_signed_in(page, user)
        says(page, "You are signed in.")
        has_room(page, "signed in")
        page.get_by_role("button", name="Refresh now").click()
        says(page, "You have a new access token.")
        has_room(page, "refreshed")
        app = set_up_factor(page)
        page.locator("#totp-code").fill(app.now())
        page.keyboard.press("Enter")
        says(page, "The second factor is on.")
        has_room(page, "the second factor")
        page.locator("#password-old").fill(user.password)
        page.locator("#password-new").fill(f"{user.password}2")
        page.get_by_role("button", name="Change password").click()
        says(page, "Your password is changed.")
        has_room(page, "the password")
        log_out(page)
        has_room(page, "logged out")
        page.get_by_role("button", name="Forgot password?").click()
        page.locator("#forgot-email").fill(user.email)
        page.keyboard.press("Enter")
        says(page, "If there is an account with this address")
        has_room(page, "forgot password")


def rows(page: Page, selector: str) -> list[list[Box]]:
    """Boxes of the visible elements, by their row."""
    found: dict[float, list[Box]] = {}
    for element in page.locator(selector).locator("visible=true").all():
        where = box(element)
        found.setdefault(round(where.top), []).append(where)
    return list(found.values())


def has_one_line(button: Locator) -> bool:
    """`True` if the text of the button does not wrap."""
    lines = button.evaluate("""button => {
        const range = document.createRange();
        range.selectNodeContents(button);
        return new Set([...range.getClientRects()].map((each) => Math.round(each.top))).size;
    }""")
    return bool(lines == 1)


@pytest.mark.parametrize("width", WIDTHS)
def test_buttons_are_in_rows(browser: Browser, stack: Stack, width: int) -> None:
    user = new_user(stack)
    for tab in visit(browser, stack, viewport={"width": width, "height": 800}):
        page = tab.page
        [choices] = rows(page, ".choices button")
        assert len(choices) == 2
        assert fits(page)
        sign_in(page, user)
        is_signed_in(page, user)
        cases = rows(page, ".cases button")
        columns = 1 if width == 320 else 2 if width == 375 else 3
        assert [len(row) for row in cases] == [columns] * (6 // columns)
        flat = [each for row in cases for each in row]
        for name, sizes in (("width", [each.right - each.left for each in flat]),
                            ("height", [each.bottom - each.top for each in flat])):
            assert max(sizes) - min(sizes) < 1, f"the buttons have different {name}s"
        card = box(page.locator("#call"))
        assert all(each.is_within(card) for each in flat)
        for button in page.locator("#call button, #session button").locator("visible=true").all():
            assert has_one_line(button), button.inner_text()
        assert fits(page)
        log_out(page)
        for button in page.locator(".choices button, .actions button").locator("visible=true").all():
            assert has_one_line(button), button.inner_text()
