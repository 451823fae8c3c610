"""The API reference of the local stack (Swagger UI): requests work as they are filled in."""

from __future__ import annotations

import json

from playwright.sync_api import Browser, Locator, Page, expect

import web
from conftest import TIMEOUT_MS, Watch
from stack import Stack


def execute(page: Page, path: str, **replaced: str) -> Locator:
    """Sends the request of an operation as it is filled in, with these members replaced. Returns the response."""
    block = page.locator(".opblock", has=page.locator(f'[data-path="{path}"]'))
    block.locator(".opblock-summary-control").click()
    body = block.locator("textarea")
    if replaced:
        body.fill(json.dumps({**json.loads(body.input_value()), **replaced}))
    block.get_by_role("button", name="Execute").click()
    return block.locator(".live-responses-table")


def test_a_user_signs_up_and_in_with_the_requests_that_are_filled_in(browser: Browser, stack: Stack) -> None:
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    watch = Watch(page)
    page.goto(f"{stack.over_tcp}/docs/")
    steps = ["Sign-up", "Sign-in", "Second factors", "Passkeys", "Session", "Password", "Account", "Hosted sign-in",
             "Metadata"]
    expect(page.locator(".opblock-tag")).to_have_count(len(steps))
    assert [tag.get_attribute("data-tag") for tag in page.locator(".opblock-tag").all()] == steps

    document = web.get(f"{stack.over_tcp}/auth/openapi.json").json()
    register = document["paths"]["/auth/register"]["post"]["requestBody"]["content"]["application/json"]
    expect(execute(page, "/auth/register")).to_contain_text("Registration successful.")
    code = stack.cognito.mailed_code(register["example"]["email"])
    expect(execute(page, "/auth/verify", code=code)).to_contain_text("Email verified.")
    answer = execute(page, "/auth/login")
    expect(answer.locator("tr.response .response-col_status")).to_have_text("200")
    expect(answer).to_contain_text("accessToken")
    assert watch.complaints == []
    context.close()
