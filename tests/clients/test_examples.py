"""The examples of the OpenAPI document work: each request is sent as it stands, in the order of a user's journey.

The real service answers, behind Envoy and in front of the emulator, and each response is the documented success.

Values that only the journey gives take the place of the example's: codes, tokens, sessions, the answers of a passkey.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import web
from authenticator import Authenticator
from hosted_page import sign_in
from stack import PASSKEY_HOST, Stack
from tour_tools import totp
from web import Answer

Json = dict[str, Any]

# The emulator does not have Cognito's operations for these. tests/it/account/openapi.rs sends their examples to a fake.
NOT_IN_THE_EMULATOR = {"verify-attribute", "verify-attribute-code"}
# For the navigations of a browser, which tests/page makes.
NAVIGATIONS = {"oauth-sign-in", "oauth-callback", "oauth-renew", "oauth-sign-out", "oauth-sign-out-form"}

JOURNEY = [
    "openapi", "register", "resend-code", "verify", "login", "refresh", "me", "update-me", "webauthn-registration",
    "complete-webauthn-registration", "webauthn-credentials", "delete-webauthn-credentials", "mfa-totp",
    "mfa-totp-verify", "mfa-preference", "challenge", "forgot-password", "reset-password", "change-password", "revoke",
    "logout", "oauth-authorize-url", "oauth-token", "delete-me",
]


class Journey:
    """A user who sends the examples one after the other, and keeps what the answers give."""

    def __init__(self, stack: Stack, document: Json) -> None:
        self.stack = stack
        self.origin = stack.over_tcp.replace("127.0.0.1", PASSKEY_HOST)
        self.operations: dict[str, tuple[str, str, Json]] = {
            operation["operationId"]: (method, path, operation)
            for path, item in document["paths"].items() for method, operation in item.items()}
        self.email = self.example("register")["email"]
        self.known: Json = {}
        self.passkey = Authenticator(self.origin)
        self.token = ""

    def example(self, name: str) -> Json:
        _, _, operation = self.operations[name]
        if "requestBody" not in operation:
            return {}
        example: Json = operation["requestBody"]["content"]["application/json"]["example"]
        return example

    def send(self, name: str, **replaced: Any) -> Json:
        """Sends the example of an operation with these members replaced. Returns the body of the documented success."""
        method, path, operation = self.operations[name]
        body = self.example(name)
        assert set(replaced) <= set(body), f"{name}: the example lacks {set(replaced) - set(body)}"
        query = {}
        for parameter in operation.get("parameters", []):
            value = self.known.get(parameter["name"], parameter.get("example"))
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", value)
            elif parameter["required"]:
                query[parameter["name"]] = value
        headers = [("content-type", "application/json")] if "requestBody" in operation else []
        # With a token, no session is needed.
        if operation["security"]:
            headers.append(("authorization", f"Bearer {self.token}"))
        url = f"{self.origin}{path}" + (f"?{urlencode(query)}" if query else "")
        sent = json.dumps({**body, **replaced}).encode() if "requestBody" in operation else b""
        answer: Answer = web.request(method.upper(), url, headers, sent)
        success = 201 if "201" in operation["responses"] else 200
        assert answer.status == success, f"{name}: {answer.status} {answer.body!r}"
        result: Json = answer.json()
        return result

    def code(self) -> str:
        return self.stack.cognito.mailed_code(self.email)

    def signed_in(self) -> Json:
        """Signs in with the example of `login`, and keeps the tokens."""
        result = self.send("login")
        if "accessToken" in result:
            self.token = result["accessToken"]
        return result


def test_the_examples_are_a_journey(stack: Stack, document: Json) -> None:
    journey = Journey(stack, document)
    assert set(JOURNEY) == set(journey.operations) - NOT_IN_THE_EMULATOR - NAVIGATIONS
    send = journey.send
    login: Json = {}
    secret = ""

    def log_in() -> None:
        login.update(journey.signed_in())

    def refresh() -> None:
        journey.token = send("refresh", refreshToken=login["refreshToken"])["accessToken"]

    def passkey() -> None:
        options = send("webauthn-registration")
        journey.known["credential"] = journey.passkey.register(options)

    def listed() -> None:
        (found,) = send("webauthn-credentials")["credentials"]
        journey.known["credentialId"] = found["credentialId"]

    def set_up() -> None:
        nonlocal secret
        secret = send("mfa-totp")["secret"]

    def challenge() -> None:
        asked = journey.signed_in()
        assert asked["challenge"] == journey.example("challenge")["challenge"]
        (factor,) = journey.example("challenge")["responses"]
        answer = send("challenge", session=asked["session"], responses={factor: totp(secret)})
        journey.token, login["refreshToken"] = answer["accessToken"], answer["refreshToken"]
        # The sign-ins that follow ask for no second factor.
        web.request("PUT", f"{journey.origin}/auth/mfa/preference", [
            ("content-type", "application/json"), ("authorization", f"Bearer {journey.token}")],
            json.dumps({"totp": {"enabled": False}}).encode())

    def changed() -> None:
        send("change-password")

    def log_out() -> None:
        # The session was revoked, and the password changed.
        journey.token = ""
        password = journey.example("change-password")["newPassword"]
        journey.token = send("login", password=password)["accessToken"]
        send("logout")

    def begin() -> None:
        journey.known.update(send("oauth-authorize-url"))

    def exchange() -> None:
        password = journey.example("change-password")["newPassword"]
        location = urlsplit(sign_in(journey.known["url"], journey.email, password))
        code = parse_qs(location.query)["code"][0]
        known = {name: journey.known[name] for name in ("state", "codeVerifier")}
        journey.token = send("oauth-token", code=code, **known)["accessToken"]

    steps: dict[str, Callable[[], object]] = {
        "verify": lambda: send("verify", code=journey.code()),
        "login": log_in,
        "refresh": refresh,
        "webauthn-registration": passkey,
        "complete-webauthn-registration": lambda: send(
            "complete-webauthn-registration", credential=journey.known["credential"]),
        "webauthn-credentials": listed,
        "mfa-totp": set_up,
        "mfa-totp-verify": lambda: send("mfa-totp-verify", code=totp(secret)),
        "challenge": challenge,
        "reset-password": lambda: send("reset-password", code=journey.code()),
        "change-password": changed,
        "revoke": lambda: send("revoke", refreshToken=login["refreshToken"]),
        "logout": log_out,
        "oauth-authorize-url": begin,
        "oauth-token": exchange,
    }
    for name in JOURNEY:
        steps.get(name, lambda name=name: send(name))()
