"""Passkeys, through the real Envoy: on the page with Chromium's virtual authenticator, and with forged responses.

A proxy in front of the emulator (deploy/local/passkeys.py) has Cognito's calls for passkeys. A library verifies every
signature there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import Browser, CDPSession, Page, expect

import web
from account import Account
from authenticator import Authenticator, Json
from conftest import ROOT, User, Visit, new_user, visit
from stack import Stack
from steps import fits, is_signed_in, log_out, says, sign_in

HOST = "localhost"


@pytest.fixture(scope="module")
def stack(binary: Path) -> Iterator[Stack]:
    """A stack with passkeys, in place of the one without."""
    local = Stack(ROOT, binary, port=0, token_seconds=3600, options=["--limit-address", "1000/1m"])
    local.passkeys = True
    with local as running:
        yield running


# ------------------------------------------------------------------------------------------ in the browser


class VirtualAuthenticator:
    """Chromium's authenticator for tests, which confirms every question of the browser."""

    def __init__(self, page: Page) -> None:
        self._devtools: CDPSession = page.context.new_cdp_session(page)
        self._devtools.send("WebAuthn.enable")
        added = self._devtools.send("WebAuthn.addVirtualAuthenticator", {"options": {
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
            "isUserVerified": True, "automaticPresenceSimulation": True}})
        self._id = added["authenticatorId"]

    def credentials(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._devtools.send(
            "WebAuthn.getCredentials", {"authenticatorId": self._id})["credentials"]
        return found

    def forget(self) -> None:
        self._devtools.send("WebAuthn.clearCredentials", {"authenticatorId": self._id})


def add_passkey(page: Page) -> None:
    page.get_by_role("button", name="Add a passkey").click()
    says(page, "The passkey is added.")
    expect(page.locator("#passkeys tbody tr")).to_have_count(1)


def ask_for_passkey(page: Page, user: User) -> None:
    """Submits the sign-in with a passkey. Does not wait for the result."""
    page.get_by_role("button", name="Sign in", exact=True).first.click()
    page.locator("#login-email").fill(user.email)
    page.get_by_role("button", name="Sign in with a passkey").click()


@pytest.fixture
def tab(browser: Browser, stack: Stack) -> Iterator[Visit]:
    yield from visit(browser, stack, HOST, viewport={"width": 1100, "height": 800})


def test_a_passkey_is_added_signs_in_and_is_deleted(tab: Visit, user: User) -> None:
    page, device = tab.page, VirtualAuthenticator(tab.page)
    sign_in(page, user)
    is_signed_in(page, user)
    expect(page.locator("[data-passkeys-state]")).to_have_text("You have none yet.")
    add_passkey(page)
    [credential] = device.credentials()
    assert (credential["rpId"], credential["isResidentCredential"]) == (HOST, True)
    log_out(page)

    ask_for_passkey(page, user)
    is_signed_in(page, user)
    assert device.credentials()[0]["signCount"] > credential["signCount"], "the authenticator has signed"
    expect(page.locator("[data-tokens] th").first).to_have_text("1, signed in with a passkey")
    expect(page.locator('#tried [data-step="passkey"]')).to_contain_text("(done)")
    page.get_by_role("button", name="Valid token").click()
    expect(page.locator("#call [data-verdict]")).to_have_text("200: the application was reached.")
    page.get_by_role("button", name="Refresh now").click()
    says(page, "You have a new access token.")

    row = page.locator("#passkeys tbody tr")
    expect(row).to_have_count(1)
    expect(row.locator("th")).to_have_text("Passkey 1")
    expect(row.locator("td").first).not_to_be_empty()
    page.get_by_role("button", name="Delete Passkey 1").click()
    says(page, "Passkey 1 is deleted.")
    expect(page.locator("#passkeys-title")).to_be_focused()
    expect(page.locator("[data-passkeys-state]")).to_have_text("You have none yet.")
    expect(row).to_have_count(0)
    log_out(page)

    assert device.credentials(), "the device still has its key"
    ask_for_passkey(page, user)
    expect(page.locator("[data-passkey-error]")).to_have_text("There is no passkey for this address. Use the password.")
    expect(page.locator("#signed-in")).to_be_hidden()


def test_what_the_browser_refuses_is_explained(tab: Visit, user: User) -> None:
    page, device = tab.page, VirtualAuthenticator(tab.page)
    page.get_by_role("button", name="Sign in", exact=True).first.click()
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page.locator("[data-passkey-error]")).to_have_text("Enter your e-mail address above first.")
    expect(page.locator("#login-email")).to_be_focused()
    sign_in(page, user)
    is_signed_in(page, user)
    add_passkey(page)
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.locator("[data-passkeys-error]")).to_have_text("This device already has a passkey for your account.")
    log_out(page)
    device.forget()
    ask_for_passkey(page, user)
    expect(page.locator("[data-passkey-error]")).to_contain_text("this device has no passkey for the account")
    # Another user of the device cannot use it either.
    ask_for_passkey(page, new_user(tab.stack))
    expect(page.locator("[data-passkey-error]")).to_contain_text("There is no passkey for this address.")


def test_the_page_says_where_passkeys_work(browser: Browser, stack: Stack, user: User) -> None:
    for tab in visit(browser, stack):
        page, note = tab.page, "Passkeys belong to a host name, not to an address: open http://localhost:"
        page.get_by_role("button", name="Sign in", exact=True).first.click()
        expect(page.locator("[data-passkey-note]")).to_contain_text(note)
        expect(page.get_by_role("button", name="Sign in with a passkey")).to_be_hidden()
        expect(page.get_by_role("link", name="http://localhost:")).to_have_attribute(
            "href", f"{stack.over_tcp.replace('127.0.0.1', HOST)}/")
        sign_in(page, user)
        is_signed_in(page, user)
        expect(page.locator("[data-passkeys-state]")).to_contain_text(note)
        expect(page.get_by_role("button", name="Add a passkey")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_passkeys_are_accessible_and_fit_a_narrow_screen(browser: Browser, stack: Stack, scheme: str) -> None:
    user, axe = new_user(stack), Axe()
    options = {"viewport": {"width": 320, "height": 640}, "color_scheme": scheme, "reduced_motion": "reduce"}
    # The page's content security policy rightly forbids injecting axe. test_server.py tests that policy.
    for tab in visit(browser, stack, HOST, bypass_csp=True, **options):
        page = tab.page
        VirtualAuthenticator(page)

        def look(what: str, page: Page = page) -> None:
            assert fits(page), f"{what}: something is wider than the screen"
            found = axe.run(page, options={"resultTypes": ["violations", "incomplete"]})
            assert found.violations_count == 0, f"{what}:\n{found.generate_report()}"

        ask_for_passkey(page, user)
        expect(page.locator("[data-passkey-error]")).not_to_be_empty()
        look("no passkey")
        sign_in(page, user)
        is_signed_in(page, user)
        expect(page.get_by_role("button", name="Add a passkey")).to_be_visible()
        look("none yet")
        add_passkey(page)
        page.locator("#passkeys").scroll_into_view_if_needed()
        look("one passkey")


# -------------------------------------------------------------------------------------- forged responses


class Person:
    """A signed-in user with a passkey in software."""

    def __init__(self, stack: Stack) -> None:
        self.user = new_user(stack)
        self.api = Account(stack.over_tcp)
        self.device = Authenticator(stack.over_tcp.replace("127.0.0.1", HOST))
        body = self.api.done("login", email=self.user.email, password=self.user.password)
        self.token: str = body["accessToken"]

    def start(self) -> Json:
        options = self.api.ask("POST", "webauthn/registration", self.token)
        assert options.status == 200, options.body
        found: Json = options.json()
        return found

    def complete(self, credential: Json) -> tuple[int, str | None]:
        return verdict(self.api.ask("PUT", "webauthn/registration", self.token, credential=credential))

    def add(self) -> None:
        assert self.complete(self.device.register(self.start())) == (200, None)

    def listed(self) -> list[Json]:
        answer = self.api.ask("GET", "webauthn/credentials", self.token)
        assert answer.status == 200, answer.body
        found: list[Json] = answer.json()["credentials"]
        return found

    def ask(self) -> tuple[str, Json]:
        """Starts a sign-in: its session, and the options for the authenticator."""
        body = self.api.done("login", email=self.user.email, authFlow="USER_AUTH",
                             authParameters={"PREFERRED_CHALLENGE": "WEB_AUTHN"})
        assert body["challenge"] == "WEB_AUTHN", body
        return body["session"], json.loads(body["parameters"]["CREDENTIAL_REQUEST_OPTIONS"])

    def answer(self, session: str, credential: Json) -> web.Answer:
        return self.api.post("challenge", challenge="WEB_AUTHN", session=session, email=self.user.email,
                             responses={"CREDENTIAL": json.dumps(credential)})


def verdict(answer: web.Answer) -> tuple[int, str | None]:
    return answer.status, answer.json().get("code")


@pytest.fixture
def person(stack: Stack) -> Person:
    return Person(stack)


def test_a_passkey_signs_in_through_the_api(stack: Stack, person: Person) -> None:
    options = person.start()
    assert (options["rp"]["id"], options["excludeCredentials"]) == (HOST, [])
    assert person.complete(person.device.register(options)) == (200, None)
    [passkey] = person.listed()
    assert passkey["relyingPartyId"] == HOST
    assert (passkey["authenticatorAttachment"], passkey["transports"]) == ("platform", ["internal"])
    assert [one["id"] for one in person.start()["excludeCredentials"]] == [passkey["credentialId"]]

    session, request = person.ask()
    assert [one["id"] for one in request["allowCredentials"]] == [passkey["credentialId"]]
    tokens = person.answer(session, person.device.sign(request)).json()
    bearer = [("authorization", f"Bearer {tokens['accessToken']}")]
    assert web.get(f"{stack.over_tcp}/orders", bearer).status == 200
    me = person.api.ask("GET", "me", tokens["accessToken"]).json()
    assert me["attributes"]["email"] == person.user.email
    assert person.api.post("refresh", refreshToken=tokens["refreshToken"]).status == 200
    assert person.api.post("logout", tokens["accessToken"]).status == 200
    assert web.get(f"{stack.over_tcp}/orders", bearer).json()["reason"] == "revoked"
    assert person.api.post("refresh", refreshToken=tokens["refreshToken"]).status == 401
    # The user can also choose the factor after the sign-in has begun. The password still works.
    begun = person.api.done("login", email=person.user.email, authFlow="USER_AUTH")
    assert (begun["challenge"], begun["availableChallenges"]) == ("SELECT_CHALLENGE", ["PASSWORD", "WEB_AUTHN"])
    chosen = person.api.done("challenge", challenge="SELECT_CHALLENGE", session=begun["session"],
                             email=person.user.email, responses={"ANSWER": "WEB_AUTHN"})
    request = json.loads(chosen["parameters"]["CREDENTIAL_REQUEST_OPTIONS"])
    assert person.answer(chosen["session"], person.device.sign(request)).status == 200
    assert person.api.post("login", email=person.user.email, password=person.user.password).status == 200


Change = Callable[[Authenticator, Json], Json]

_OTHER_CHALLENGE = {"challenge": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
_OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def changed(name: str, value: object) -> Change:
    """Changes a member of the device and leaves the options as they are."""

    def change(device: Authenticator, options: Json) -> Json:
        setattr(device, name, value)
        return options

    return change


def another_challenge(_device: Authenticator, options: Json) -> Json:
    return options | _OTHER_CHALLENGE


WRONG: dict[str, Change] = {
    "origin": changed("origin", "http://localhost.evil.example"),
    "port of the origin": changed("origin", "http://localhost:1"),
    "relying party": changed("rp_id", "evil.example"),
    "signature": changed("signing_key", _OTHER_KEY),
    "challenge": another_challenge,
}


@pytest.mark.parametrize("what", WRONG)
def test_a_registration_that_does_not_verify_is_refused(person: Person, what: str) -> None:
    credential = person.device.register(WRONG[what](person.device, person.start()))
    expected = "invalid_challenge" if what == "challenge" else "passkey_not_accepted"
    assert person.complete(credential) == (400, expected)
    assert person.listed() == []


def test_a_registration_is_accepted_once(stack: Stack, person: Person) -> None:
    credential = person.device.register(person.start())
    other = Person(stack)
    other.start()
    assert other.complete(credential) == (400, "invalid_challenge"), "the challenge is of another user"
    assert person.complete(credential) == (200, None)
    assert person.complete(credential) == (400, "invalid_challenge"), "the challenge is used"
    person.start()
    assert person.complete(credential) == (400, "invalid_challenge"), "the challenge is an old one"
    assert other.complete(other.device.register(_OTHER_CHALLENGE)) == (400, "invalid_challenge"), "none was started"
    other.start()
    malformed = {"id": "AAAA", "rawId": "AAAA", "type": "public-key",
                 "response": {"clientDataJSON": "e30", "attestationObject": "AAAA"}}
    assert other.complete(malformed) == (400, "passkey_not_accepted")
    assert (len(person.listed()), other.listed()) == (1, [])


@pytest.mark.parametrize("what", WRONG)
def test_a_sign_in_that_does_not_verify_is_refused(person: Person, what: str) -> None:
    person.add()
    session, request = person.ask()
    answer = person.answer(session, person.device.sign(WRONG[what](person.device, request)))
    assert verdict(answer) == (401, "invalid_credentials")


def test_an_answer_to_a_sign_in_cannot_be_used_again(person: Person) -> None:
    person.add()
    session, request = person.ask()
    credential = person.device.sign(request)
    assert person.answer(session, credential).status == 200
    assert verdict(person.answer(session, credential)) == (401, "invalid_session")
    fresh, _ = person.ask()
    assert verdict(person.answer(fresh, credential)) == (401, "invalid_credentials"), "it signs another challenge"


def test_a_cloned_passkey_is_noticed(person: Person) -> None:
    person.add()
    for _ in range(3):
        session, request = person.ask()
        assert person.answer(session, person.device.sign(request)).status == 200
    person.device.counter = 1  # as a copy that was made after the first sign-in
    session, request = person.ask()
    assert verdict(person.answer(session, person.device.sign(request))) == (401, "invalid_credentials")
    person.device.counter = 3
    session, request = person.ask()
    assert person.answer(session, person.device.sign(request)).status == 200


def test_a_passkey_belongs_to_one_user(stack: Stack, person: Person) -> None:
    person.add()
    other = Person(stack)
    other.add()
    [mine] = person.listed()
    session, request = other.ask()
    assert verdict(other.answer(session, person.device.sign(request))) == (401, "invalid_credentials")
    # Nor with the id of the other user's passkey.
    session, request = other.ask()
    forged = person.device.sign(request) | {key: other.device.sign(request)[key] for key in ("id", "rawId")}
    assert verdict(other.answer(session, forged)) == (401, "invalid_credentials")
    path = f"webauthn/credentials/{mine['credentialId']}"
    assert verdict(other.api.ask("DELETE", path, other.token)) == (404, "not_found")
    assert person.listed() == [mine]
    # A device that pretends to have the other user's passkey cannot take it over.
    copy = Authenticator(other.device.origin)
    copy.id = person.device.id
    assert other.complete(copy.register(other.start())) == (400, "passkey_not_accepted")
    session, request = person.ask()
    assert person.answer(session, person.device.sign(request)).status == 200


def test_a_deleted_passkey_signs_nobody_in(person: Person) -> None:
    person.add()
    session, request = person.ask()
    credential = person.device.sign(request)
    [mine] = person.listed()
    path = f"webauthn/credentials/{mine['credentialId']}"
    assert person.api.ask("DELETE", path, person.token).status == 200
    assert verdict(person.api.ask("DELETE", path, person.token)) == (404, "not_found")
    assert verdict(person.answer(session, credential)) == (401, "invalid_credentials"), "the sign-in had begun before"
    begun = person.api.done("login", email=person.user.email, authFlow="USER_AUTH",
                            authParameters={"PREFERRED_CHALLENGE": "WEB_AUTHN"})
    assert (begun["challenge"], begun["availableChallenges"]) == ("SELECT_CHALLENGE", ["PASSWORD"])
    chosen = person.api.post("challenge", challenge="SELECT_CHALLENGE", session=begun["session"],
                             email=person.user.email, responses={"ANSWER": "WEB_AUTHN"})
    assert verdict(chosen) == (401, "invalid_request")


def test_an_unknown_user_looks_like_one_without_a_passkey(person: Person) -> None:
    answers = []
    for email in (person.user.email, "unknown@example.com"):
        body = person.api.done("login", email=email, authFlow="USER_AUTH",
                               authParameters={"PREFERRED_CHALLENGE": "WEB_AUTHN"})
        answers.append({**body, "session": len(body["session"])})
    assert answers[0] == answers[1]


def test_long_lists_have_pages(person: Person) -> None:
    for _ in range(21):
        person.device = Authenticator(person.device.origin)
        person.add()
    first = person.api.ask("GET", "webauthn/credentials", person.token).json()
    assert len(first["credentials"]) == 20
    second = person.api.ask("GET", f"webauthn/credentials?next={first['next']}", person.token).json()
    assert (len(second["credentials"]), "next" in second) == (1, False)
    ids = [one["credentialId"] for one in first["credentials"] + second["credentials"]]
    assert len(set(ids)) == 21
