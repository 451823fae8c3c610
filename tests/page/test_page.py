"""The demo page as a new user sees it, in a real browser and through the real Envoy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, expect

from account import Account
from conftest import ROOT, User, Visit, new_user, visit
from stack import TOTP_ISSUER, Stack, make_password
from steps import field_error, is_signed_in, log_out, says, set_up_factor, sign_in, wrong_code


def test_a_newcomer_registers_verifies_and_signs_in(tab: Visit) -> None:
    page, email, password = tab.page, "newcomer@example.com", make_password()
    page.get_by_label("Name").fill("Ada")
    page.locator("#register-email").fill(email)
    page.locator("#register-password").fill(password)
    page.get_by_role("button", name="Create account", exact=True).click()

    says(page, "has to be verified")
    expect(page.locator("#verify-title")).to_be_focused()
    mailbox = page.get_by_role("region", name="Mailbox")
    code = tab.stack.cognito.mailed_code(email)
    expect(mailbox).to_contain_text(code)
    page.locator("#verify-code").fill(wrong_code(code))
    page.get_by_role("button", name="Verify", exact=True).click()
    expect(field_error(page, "verify-code")).to_have_text("This code is wrong or too old. Look for the newest one.")

    mailbox.get_by_role("button", name="Use this code").click()
    expect(page.locator("#verify-code")).to_have_value(code)
    page.keyboard.press("Enter")
    says(page, "Your address is verified.")

    expect(page.locator("#login-email")).to_have_value(email)
    page.locator("#login-password").fill(password)
    page.keyboard.press("Enter")
    is_signed_in(page, User(email, password))
    expect(page.locator("#session-title")).to_be_focused()
    done = page.locator("#tried li[data-done]")
    expect(done).to_have_text([re.compile("Create an account"), re.compile("Verify"), re.compile("Sign in")])


def test_a_sign_in_before_verification_leads_to_the_code(tab: Visit) -> None:
    page, email, password = tab.page, "hasty@example.com", make_password()
    page.get_by_label("Name").fill("Ada")
    page.locator("#register-email").fill(email)
    page.locator("#register-password").fill(password)
    page.keyboard.press("Enter")
    says(page, "has to be verified")
    sign_in(page, User(email, password))
    says(page, "your address is not verified yet")
    page.get_by_role("button", name="Send a new code").click()
    says(page, "A new code is in the mail.")
    page.get_by_role("button", name="Use this code").click()
    page.keyboard.press("Enter")
    says(page, "Your address is verified.")


def test_wrong_input_is_explained_beside_its_field(tab: Visit, user: User) -> None:
    page = tab.page
    page.get_by_role("button", name="Create account", exact=True).click()
    expect(field_error(page, "register-name")).to_have_text("Enter your name.")
    expect(field_error(page, "register-email")).to_have_text("Enter an e-mail address.")
    expect(field_error(page, "register-password")).to_have_text("Choose a password.")
    expect(page.locator("#register-name")).to_be_focused()
    page.locator("#register-name").fill("Ada")
    expect(page.locator("#register-name-error")).to_be_empty()
    page.locator("#register-email").fill("not an address")
    page.locator("#register-password").fill("short")
    page.keyboard.press("Enter")
    expect(field_error(page, "register-email")).to_have_text("An address looks like you@example.com.")
    assert not [request for request in tab.watch.requests if "/auth/" in request.url], "invalid input was sent"

    page.locator("#register-email").fill("short@example.com")
    page.keyboard.press("Enter")
    expect(field_error(page, "register-password")).to_contain_text("assword")
    expect(page.locator("#register-password")).to_be_focused()
    page.locator("#register-email").fill(user.email)
    page.locator("#register-password").fill(user.password)
    page.keyboard.press("Enter")
    expect(field_error(page, "register-email")).to_contain_text("There is an account with this address already.")

    sign_in(page, User(user.email, "Wrong-horse-1-battery"))
    expect(page.locator("#login [data-form-error]")).to_have_text("The address or the password is wrong.")
    expect(page.locator("#login-password")).to_have_value("Wrong-horse-1-battery")
    page.get_by_role("button", name="Show password").locator("visible=true").click()
    expect(page.locator("#login-password")).to_have_attribute("type", "text")


def test_passwords_can_be_pasted_and_saved(tab: Visit) -> None:
    page = tab.page
    wanted = {"register-email": "username", "register-password": "new-password", "verify-code": "one-time-code",
              "login-email": "username", "login-password": "current-password", "challenge-code": "one-time-code",
              "reset-code": "one-time-code", "reset-password": "new-password", "totp-code": "one-time-code",
              "password-old": "current-password", "password-new": "new-password"}
    for field, hint in wanted.items():
        expect(page.locator(f"#{field}")).to_have_attribute("autocomplete", hint)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('Correct-horse-1-battery')")
    page.locator("#register-password").focus()
    page.keyboard.press("Control+V")
    expect(page.locator("#register-password")).to_have_value("Correct-horse-1-battery")


@pytest.fixture
def hasty(binary: Path) -> Iterator[Stack]:
    """A separate stack whose tokens last eight seconds."""
    with Stack(ROOT, binary, port=0, token_seconds=8) as running:
        yield running


def test_a_token_expires_and_is_refreshed(browser: Browser, hasty: Stack) -> None:
    user = new_user(hasty)
    for tab in visit(browser, hasty):
        page = tab.page
        sign_in(page, user)
        is_signed_in(page, user)
        rows, automatic = page.locator("[data-tokens] tr"), page.get_by_label("Refresh automatically")
        automatic.uncheck()
        so_far = rows.count()
        page.get_by_role("button", name="Refresh now").click()
        says(page, "You have a new access token.")
        expect(rows).to_have_count(so_far + 1)
        expect(rows.nth(0)).to_contain_text("refreshed")
        expect(rows.nth(1)).to_contain_text("(replaced)")

        # The page refreshes the token automatically, before it expires.
        automatic.check()
        expect(rows.nth(so_far + 1)).to_be_visible()
        expect(page.locator("[data-token-word]")).to_have_text("Access token expires in")
        expect(rows.nth(0)).to_contain_text("refreshed automatically")
        old, new = (row.locator("td").nth(1).inner_text() for row in (rows.nth(1), rows.nth(0)))
        assert old < new or new < "00:01", "the new token does not expire later than the old one"

        automatic.uncheck()
        expect(page.locator("[data-token-word]")).to_have_text("Access token expired")
        page.get_by_role("button", name="Valid token").click()
        expect(page.locator("#call [data-refusal]")).to_contain_text("expired")
        expect(page.locator("#call [data-why]")).to_contain_text("Refresh it")
        expect(page.locator("#call [data-verdict]")).to_contain_text("401")
        automatic.check()
        expect(page.locator("[data-token-word]")).to_have_text("Access token expires in")
        page.get_by_role("button", name="Valid token").click()
        expect(page.locator("#call [data-verdict]")).to_contain_text("200")


def test_a_session_that_was_revoked_elsewhere_ends_on_the_page(tab: Visit, user: User) -> None:
    page = tab.page
    sign_in(page, user)
    is_signed_in(page, user)
    tab.stack.cognito.call("AdminUserGlobalSignOut", signed=True, UserPoolId=tab.stack.pool, Username=user.email)
    page.get_by_role("button", name="Refresh now").click()
    says(page, "Your session has ended. Sign in again.")
    expect(page.locator("#login-title")).to_be_focused()
    expect(page.locator("#signed-in")).to_be_hidden()


def test_a_second_factor_is_set_up_required_and_switched_off(tab: Visit, user: User) -> None:
    page = tab.page
    sign_in(page, user)
    expect(page.locator("[data-factor-state]")).to_contain_text("Off")
    app = set_up_factor(page)
    assert (app.issuer, app.name) == (TOTP_ISSUER, user.email)
    expect(page.locator("[data-qr-name]")).to_have_text(f"{TOTP_ISSUER} ({user.email})")
    expect(page.locator("[data-secret]")).to_have_text(re.sub("(.{4})(?=.)", r"\1 ", app.secret))
    page.locator("#totp-code").fill(wrong_code(app.now()))
    page.get_by_role("button", name="Switch it on").click()
    expect(field_error(page, "totp-code")).to_contain_text("This code is wrong or too old.")
    page.locator("#totp-code").fill(app.now())
    page.keyboard.press("Enter")
    says(page, "The second factor is on.")
    expect(page.locator("[data-factor-state]")).to_contain_text("On")
    assert app.secret not in page.content().replace(" ", ""), "the key is still in the page"
    log_out(page)

    sign_in(page, user)
    expect(page.locator("#challenge-title")).to_be_focused()
    page.locator("#challenge-code").fill(wrong_code(app.now()))
    page.keyboard.press("Enter")
    expect(field_error(page, "challenge-code")).to_contain_text("This code is wrong or too old.")
    page.locator("#challenge-code").fill(app.now())
    page.keyboard.press("Enter")
    is_signed_in(page, user)
    page.get_by_role("button", name="Switch it off").click()
    says(page, "The second factor is off.")
    log_out(page)
    sign_in(page, user)
    is_signed_in(page, user)


def test_the_password_is_changed(tab: Visit, user: User) -> None:
    page, new = tab.page, make_password()
    sign_in(page, user)
    is_signed_in(page, user)
    page.locator("#password-old").fill("Wrong-horse-1-battery")
    page.locator("#password-new").fill(new)
    page.get_by_role("button", name="Change password").click()
    expect(field_error(page, "password-old")).to_have_text("This is not your current password.")
    page.locator("#password-old").fill(user.password)
    page.locator("#password-new").fill("short")
    page.keyboard.press("Enter")
    expect(field_error(page, "password-new")).to_contain_text("assword")
    page.locator("#password-new").fill(new)
    page.keyboard.press("Enter")
    says(page, "Your password is changed.")
    expect(page.locator("#password-new")).to_have_value("")
    log_out(page)
    sign_in(page, User(user.email, new))
    is_signed_in(page, user)


def test_a_forgotten_password_is_replaced(tab: Visit, user: User) -> None:
    page, new = tab.page, make_password()
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("button", name="Forgot password?").click()
    page.locator("#forgot-email").fill(user.email)
    page.keyboard.press("Enter")
    says(page, "If there is an account with this address")
    page.get_by_role("button", name="Use this code").click()
    page.locator("#reset-password").fill(new)
    page.keyboard.press("Enter")
    says(page, "Sign in with the new one.")
    sign_in(page, User(user.email, new))
    is_signed_in(page, user)


def test_signing_in_on_the_hosted_page(tab: Visit, user: User) -> None:
    page, home = tab.page, f"{tab.stack.over_tcp}/"
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("button", name="hosted page").click()
    page.wait_for_url(f"{tab.stack.cognito.url}/**")
    query = parse_qs(urlsplit(page.url).query)
    assert query["redirect_uri"] == [home]
    assert query["code_challenge_method"] == ["S256"]
    page.get_by_label("Username").fill(user.email)
    page.get_by_label("Password").fill(user.password)
    page.get_by_role("button", name="Sign in").click()

    is_signed_in(page, user)
    assert page.url == home, "the code is still in the address"
    expect(page.locator("[data-tokens]")).to_contain_text("signed in on the hosted page")
    expect(page.locator('#tried [data-step="hosted"]')).to_contain_text("(done)")
    page.get_by_role("button", name="Valid token").click()
    expect(page.locator("#call [data-verdict]")).to_have_text("200: the application was reached.")
    page.get_by_role("button", name="Refresh now").click()
    says(page, "You have a new access token.")
    log_out(page)  # by a redirect that also ends the hosted page's session
    assert [request for request in tab.watch.requests if request.url.startswith(f"{tab.stack.cognito.url}/logout?")]
    assert page.url == home
    expect(page.locator('#tried [data-step="logout"]')).to_contain_text("(done)")


def test_a_code_without_a_pending_sign_in_is_ignored(tab: Visit) -> None:
    page = tab.page
    page.goto(f"{tab.stack.over_tcp}/?code=stolen&state=guessed")
    says(page, "does not belong to a sign-in from this tab")
    assert page.url == f"{tab.stack.over_tcp}/"
    assert not [request for request in tab.watch.requests if "/auth/" in request.url], "the code was sent"
    expect(page.locator("#signed-in")).to_be_hidden()


def test_reloading_the_page_ends_the_session(tab: Visit, user: User) -> None:
    page = tab.page
    sign_in(page, user)
    is_signed_in(page, user)
    page.reload()
    expect(page.locator("#register")).to_be_visible()
    expect(page.locator("#signed-in")).to_be_hidden()


def test_logging_out_forgets_everything(tab: Visit, user: User) -> None:
    page = tab.page
    sign_in(page, user)
    is_signed_in(page, user)
    page.get_by_role("button", name="Valid token").click()
    expect(page.locator("#call [data-verdict]")).to_contain_text("200")
    log_out(page)
    expect(page.locator("#login-title")).to_be_focused()
    page.get_by_role("button", name="Clear").click()  # the list of requests stays until then
    document = page.content() + page.evaluate("sessionStorage.progress")
    assert "x-auth-sub" not in document
    refresh_token = tab.watch.tokens[-1]
    assert Account(tab.stack.over_tcp).post("refresh", refreshToken=refresh_token).status == 401


def test_the_page_says_that_the_emulator_has_no_passkeys(tab: Visit, user: User) -> None:
    page, note = tab.page, "The emulator has no passkeys. Start the stack with deploy/local/up --passkeys to try them."
    page.get_by_role("button", name="Sign in", exact=True).first.click()
    expect(page.locator("[data-passkey-note]")).to_have_text(note)
    expect(page.get_by_role("button", name="Sign in with a passkey")).to_be_hidden()
    sign_in(page, user)
    is_signed_in(page, user)
    expect(page.locator("[data-passkeys-state]")).to_have_text(note)
    expect(page.locator("[data-passkey-note]")).to_have_text(note)
    expect(page.get_by_role("button", name="Add a passkey")).to_be_hidden()
    assert not [request for request in tab.watch.requests if "/webauthn/" in request.url]


def test_too_many_attempts_and_no_answer_are_explained(browser: Browser, binary: Path) -> None:
    guess = User("ada@example.com", "Wrong-horse-1-battery")
    with Stack(ROOT, binary, port=0) as running:
        account = Account(running.over_tcp)
        with ThreadPoolExecutor(20) as pool:
            answers = pool.map(lambda _: account.post("login", email=guess.email, password=guess.password), range(20))
            assert 429 in [answer.status for answer in answers]
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{running.over_tcp}/")
        sign_in(page, guess)
        expect(page.locator("#login [data-form-error]")).to_have_text(
            re.compile(r"^Too many attempts\. Try again in \d+ seconds?\.$"))
    page.keyboard.press("Enter")
    expect(page.locator("#login [data-form-error]")).to_contain_text("Is deploy/local/up still running?")
    expect(page.locator("#login button.primary")).to_be_enabled()
    context.close()
