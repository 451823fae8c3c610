"""Takes the screenshots of the documentation. Runs only with `--screenshots` (see conftest.py)."""

from __future__ import annotations

import io
import random
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

import web
from account import Account
from conftest import ROOT, User, new_user, visit
from stack import Stack
from steps import is_signed_in, set_up_factor, sign_in

_FOLDER = ROOT / "docs" / "screenshots"
_MOST_BYTES = 150_000


def keep(page: Page, name: str, *, down_to: str | None = None) -> None:
    """Saves the viewport, or the page from its top to the end of the element `down_to`."""
    page.evaluate("window.scrollTo(0, 0)")
    box = page.locator(down_to).bounding_box() if down_to else None
    size = page.viewport_size
    if box and size:
        page.set_viewport_size({"width": size["width"], "height": int(box["y"] + box["height"]) + 24})
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
    small = io.BytesIO()
    picture.convert("RGB").quantize(128).save(small, "PNG", optimize=True)
    assert len(small.getvalue()) < _MOST_BYTES, name
    _FOLDER.mkdir(exist_ok=True)
    Path(_FOLDER / name).write_bytes(small.getvalue())


def test_take_them(browser: Browser, binary: Path) -> None:
    with Stack(ROOT, binary, port=0) as stack:
        take(browser, stack)


def test_take_the_status_page(browser: Browser, binary: Path) -> None:
    with Stack(ROOT, binary, port=0) as stack:
        page = browser.new_page(viewport={"width": 1280, "height": 1250})
        page.goto(f"{stack.admin}/")
        user = new_user(stack)
        token = Account(stack.over_uds).done("login", email=user.email, password=user.password)["accessToken"]
        bearer = [("authorization", f"Bearer {token}")]
        # Long enough for several bars.
        until = time.monotonic() + 40
        while time.monotonic() < until:
            for _ in range(random.randint(10, 25)):
                web.get(f"{stack.over_uds}/orders", bearer)
            web.get(f"{stack.over_uds}/admin/users" if random.random() < 0.5 else f"{stack.over_uds}/orders", bearer)
            if random.random() < 0.6:
                web.get(f"{stack.over_uds}/admin/users", bearer)
            if random.random() < 0.4:
                web.get(f"{stack.over_uds}/orders")
            if random.random() < 0.2:
                web.get(f"{stack.over_uds}/orders", [("authorization", f"Bearer {token[:-8]}AAAAAAAA")])
            time.sleep(0.2)
        expect(page.locator("#refusals tbody tr").first).to_be_visible()
        page.get_by_role("button", name="Pause").click()
        keep(page, "status.png")
        page.close()


def take(browser: Browser, stack: Stack) -> None:
    user = new_user(stack, "ada@example.com")
    stack.cognito.add_to_group(stack.pool, user.email, "readers")
    for tab in visit(browser, stack, viewport={"width": 1100, "height": 780}):
        keep(tab.page, "signed-out.png")
        show_a_call(tab.page, user)
        keep(tab.page, "signed-in.png", down_to="#call")
    for tab in visit(browser, stack, viewport={"width": 1100, "height": 780}, color_scheme="dark"):
        show_a_call(tab.page, user)
        keep(tab.page, "signed-in-dark.png", down_to="#call")
        set_up_factor(tab.page)
        # The key in this picture is useless: the emulator that knows it ends with the stack.
        tab.page.locator("#factor").scroll_into_view_if_needed()
        keep_part(tab.page, "second-factor.png")
    for tab in visit(browser, stack, viewport={"width": 375, "height": 800}):
        show_a_call(tab.page, user)
        keep(tab.page, "signed-in-phone.png", down_to="#call .result")


def keep_part(page: Page, name: str) -> None:
    box = page.locator("#factor").screenshot(animations="disabled")
    Image.open(io.BytesIO(box)).convert("RGB").quantize(128).save(_FOLDER / name, "PNG", optimize=True)


def show_a_call(page: Page, user: User) -> None:
    sign_in(page, user)
    is_signed_in(page, user)
    page.get_by_role("button", name="Valid token").click()
    expect(page.locator("#call [data-headers]")).to_be_visible()
