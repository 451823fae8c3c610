"""Calls of protected routes from the demo page, what refusals look like, and the list of requests."""

from __future__ import annotations

import base64
import json

from playwright.sync_api import Locator, Page, expect

from conftest import User, Visit
from redirects import until
from steps import is_signed_in, log_out, says, set_up_factor, sign_in


def test_the_protected_route_is_reached_with_the_token_only(tab: Visit, user: User) -> None:
    page = tab.page
    sign_in(page, user)
    is_signed_in(page, user)
    tab.stack.cognito.add_to_group(tab.stack.pool, user.email, "readers")
    page.get_by_role("button", name="Refresh now").click()  # only a new token has the group
    says(page, "You have a new access token.")

    verdict, headers = page.locator("#call [data-verdict]"), page.locator("#call [data-headers] tbody tr")
    page.get_by_role("button", name="Valid token").click()
    expect(verdict).to_have_text("200: the application was reached.")
    told = dict(row.split("\t") for row in headers.all_inner_texts())
    assert told["x-auth-groups"] == "readers"
    assert told["x-auth-client-id"] == tab.stack.client
    assert told["x-auth-token-use"] == "access"
    assert "root" not in told.values()

    page.get_by_role("button", name="Forged headers").click()
    expect(verdict).to_contain_text("never arrived")
    assert dict(row.split("\t") for row in headers.all_inner_texts()) == told

    refusal = page.locator("#call [data-refusal]")
    page.get_by_role("button", name="No token").click()
    expect(verdict).to_have_text("401: refused. The application never saw the request.")
    expect(refusal).to_contain_text("missing_credential")
    request_id = refusal.locator("dt:text('request id') + dd").inner_text()
    log = tab.stack.logs / "cognito-authz.log"
    # A thread of its own writes the log, perhaps after the response.
    until(lambda: any(request_id in line and "missing_credential" in line
                      for line in log.read_text().splitlines()), page)
    expect(headers).to_have_count(0)
    page.get_by_role("button", name="Tampered token").click()
    expect(refusal).to_contain_text("bad_signature")
    explains(page.locator("#call"), "signature was changed")


def explains(card: Locator, words: str) -> None:
    """Checks that the card explains a refusal in one sentence."""
    why = card.locator("[data-why]")
    expect(why).to_contain_text(words)
    assert why.inner_text().count(". ") <= 1, "expected a sentence, and at most another one on what to do"


def test_a_call_of_a_route_of_another_group_is_forbidden(tab: Visit, user: User) -> None:
    page, card = tab.page, tab.page.locator("#call")
    sign_in(page, user)
    is_signed_in(page, user)
    page.get_by_role("button", name="Wrong group").click()
    expect(card.locator("[data-verdict]")).to_have_text("403: refused. The application never saw the request.")
    expect(card.locator("[data-refusal]")).to_contain_text("insufficient_group")
    explains(card, "not in the group admins")
    assert tab.watch.requests[-1].url == f"{tab.stack.over_tcp}/admin"
    expect(page.locator('#tried [data-step="group"]')).to_contain_text("(done)")

    # A member of the group passes. The explanation is gone.
    tab.stack.cognito.add_to_group(tab.stack.pool, user.email, "admins")
    page.get_by_role("button", name="Refresh now").click()
    says(page, "You have a new access token.")
    page.get_by_role("button", name="Wrong group").click()
    expect(card.locator("[data-verdict]")).to_have_text("200: the application was reached.")
    expect(card.locator("[data-why]")).to_be_empty()


def test_a_revoked_token_is_refused(tab: Visit, user: User) -> None:
    page, ended = tab.page, tab.page.locator("#ended")
    sign_in(page, user)
    is_signed_in(page, user)
    page.get_by_role("button", name="Revoked token").click()
    expect(ended.locator("[data-verdict]")).to_have_text("401: refused. The application never saw the request.")
    expect(ended.locator("[data-refusal]")).to_contain_text("revoked")
    explains(ended, "logged out since it was issued")
    expect(page.locator("#ended-title")).to_be_focused()
    expect(ended).to_be_in_viewport()
    expect(page.locator("#signed-in")).to_be_hidden()
    expect(page.locator("#login")).to_be_visible()
    for step in ("logout", "revoked"):
        expect(page.locator(f'#tried [data-step="{step}"]')).to_contain_text("(done)")
    [token] = [one for one in tab.watch.tokens if json.loads(claims_of(one)).get("token_use") == "access"]
    *_, logout, last = tab.watch.requests
    assert logout.url == f"{tab.stack.over_tcp}/auth/logout"
    assert (last.headers["authorization"], last.url) == (f"Bearer {token}", f"{tab.stack.over_tcp}/orders")


def test_a_token_whose_revocation_fails_is_not_used(tab: Visit, user: User) -> None:
    page = tab.page
    sign_in(page, user)
    is_signed_in(page, user)
    page.route("**/auth/logout", lambda route: route.fulfill(status=503, json={"code": "upstream_unavailable"}))
    page.get_by_role("button", name="Revoked token").click()
    expect(page.locator("[data-revoke-error]")).to_contain_text("Cognito is not responding.")
    is_signed_in(page, user)
    page.unroute_all()
    page.get_by_role("button", name="Valid token").click()
    expect(page.locator("#call [data-verdict]")).to_contain_text("200")


def test_the_old_token_is_refused_after_logging_out(tab: Visit, user: User) -> None:
    page, ended = tab.page, tab.page.locator("#ended")
    sign_in(page, user)
    is_signed_in(page, user)
    expect(ended).to_be_hidden()
    page.get_by_role("button", name="Valid token").click()
    expect(page.locator("#call [data-verdict]")).to_have_text("200: the application was reached.")
    log_out(page)
    page.get_by_role("button", name="Use the old token").click()
    expect(ended.locator("[data-verdict]")).to_have_text("401: refused. The application never saw the request.")
    expect(ended.locator("[data-refusal]")).to_contain_text("revoked")
    expect(page.locator('#tried [data-step="revoked"]')).to_contain_text("(done)")
    [token] = [one for one in tab.watch.tokens if json.loads(claims_of(one)).get("token_use") == "access"]
    last = tab.watch.requests[-1]
    assert (last.headers["authorization"], last.url) == (f"Bearer {token}", f"{tab.stack.over_tcp}/orders")

    # A new sign-in works at once. Then nothing of the old session is left on the page.
    sign_in(page, user)
    is_signed_in(page, user)
    expect(ended).to_be_hidden()
    page.get_by_role("button", name="Valid token").click()
    expect(page.locator("#call [data-verdict]")).to_have_text("200: the application was reached.")
    assert ended.locator("[data-refusal]").inner_text() == ""


def claims_of(token: str) -> bytes:
    """The claims of a token as JSON; an empty object for a refresh token, which is not a JWT."""
    parts = token.split(".")
    return base64.urlsafe_b64decode(parts[1] + "==") if len(parts) == 3 else b"{}"


def test_the_list_of_requests_has_no_secrets(tab: Visit, user: User) -> None:
    page = tab.page
    sign_in(page, user)
    is_signed_in(page, user)
    page.get_by_role("button", name="Valid token").click()
    expect(page.locator("#call [data-verdict]")).to_contain_text("200")
    requests = page.locator("#requests details")
    for entry in requests.all():
        entry.locator("summary").click()
    listed = page.locator("#requests").inner_text()
    assert "/auth/login" in listed
    assert "/orders" in listed
    sent = json.loads(page.locator("#requests li", has_text="/auth/login").locator("pre").first.inner_text())
    assert sent == {"email": user.email, "password": "•••"}
    assert user.password not in listed
    assert "eyJ" not in listed




def paths(page: Page) -> list[str]:
    """Paths in the list of requests, newest first."""
    return page.locator("#requests .path").all_inner_texts()


def test_the_list_of_requests_stays_until_it_is_cleared(tab: Visit, user: User) -> None:
    page, clear = tab.page, tab.page.get_by_role("button", name="Clear")
    expect(clear).to_be_hidden()
    expect(page.locator("[data-no-requests]")).to_be_visible()
    sign_in(page, user)
    is_signed_in(page, user)
    app = set_up_factor(page)
    page.locator("#totp-code").fill(app.now())
    page.keyboard.press("Enter")
    says(page, "The second factor is on.")
    page.get_by_role("button", name="Valid token").click()
    expect(page.locator("#call [data-verdict]")).to_contain_text("200")
    before = paths(page)
    log_out(page)
    assert paths(page) == ["/auth/logout", *before]

    page.reload()
    expect(page.locator("#register")).to_be_visible()
    assert paths(page) == ["/auth/logout", *before]
    expect(page.locator('#tried [data-step="call"]')).to_contain_text("(done)")
    stored = page.evaluate("sessionStorage.progress")
    for secret in (*tab.watch.tokens, "eyJ", user.password, app.secret, "otpauth:", app.now()):
        assert secret not in stored

    # The hosted page is another document, too.
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("button", name="hosted page").click()
    page.get_by_label("Username").fill(user.email)
    page.get_by_label("Password").fill(user.password)
    page.get_by_role("button", name="Sign in").click()
    is_signed_in(page, user)
    expect(page.locator("#requests .path", has_text="/auth/oauth/token")).to_be_visible()
    assert {"/auth/oauth/authorize-url", "/auth/logout", *before} < set(paths(page))
    page.locator("#requests li", has_text="/auth/logout").locator("summary").click()
    assert "?" not in "".join(paths(page)), "a query can hold a code"

    clear.click()
    expect(page.locator("#requests-title")).to_be_focused()
    expect(clear).to_be_hidden()
    assert paths(page) == []
    page.reload()
    expect(page.locator("#register")).to_be_visible()
    assert paths(page) == []
    expect(page.locator("[data-no-requests]")).to_be_visible()


def test_what_others_left_in_storage_does_not_stop_the_page(tab: Visit, user: User) -> None:
    page = tab.page
    for left in ("no JSON", "null", "[]", '{"requests": 1, "tried": "x"}', '{"requests": [null, {}], "tried": [null]}'):
        page.evaluate("left => sessionStorage.setItem('progress', left)", left)
        page.reload()
        expect(page.locator("#register")).to_be_visible()
        expect(page.locator("[data-no-requests]")).to_be_visible()
    sign_in(page, user)
    is_signed_in(page, user)
