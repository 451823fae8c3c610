"""The tour: sends requests of a user, of a client without a token and of an attacker through the real Envoy.

Each step prints the request and the response, and checks the response. Start from `run`.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt

import web
from account import Account
from emulator import REGION, Tokens
from processes import describe
from stack import DEMO_EMAIL, DEMO_GROUP, DEMO_NAME, Stack, make_password
from tour_browser import sign_in_by_redirect
from tour_tools import CannotGoOn, Steps, bearer, green, red, samples, shortened, tampered, totp
from web import Answer, Headers

# Identity headers, in any spelling that an application may read as one.
_IDENTITY_HEADER = re.compile(r"x[-_.]auth[-_.]", re.IGNORECASE)

_INVALID_TOKEN = 'Bearer realm="api", error="invalid_token", error_description="'
_INVALID_REQUEST = 'Bearer realm="api", error="invalid_request", error_description="'

# Headers of a client that pretends to be someone else.
_FORGED = [
    ("x-auth-sub", "root"),
    ("X-Auth-Groups", "admins"),
    ("x-auth-email", "root@example.com"),   # an identity header that has no value for this token
    ("x.auth.sub", "root"),                 # another spelling
    ("x-auth-role", "superuser"),           # not an identity header, but with our prefix
]


def run(stack: Stack) -> bool:
    """Runs the tour; `True` if every step passed."""
    tour = _Tour(stack)
    try:
        tour.walk()
    except CannotGoOn:
        print("\nThe next steps need this one's result, so the tour ends here.")
    if tour.failed:
        print(f"\n{red('FAILED')}: step {', '.join(map(str, tour.failed))} of {tour.number}.")
        return False
    print(f"\n{green('OK')}: all {tour.number} steps passed.")
    return True


@dataclass(frozen=True)
class Session:
    """The tokens of a sign-in."""

    access: str
    id: str
    refresh: str


class _Tour(Steps):
    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack
        self.password = ""
        self.secret = ""
        # Number of checks that Envoy should have made, by decision and reason, to be compared with the metrics.
        self.checks: Counter[tuple[str, str]] = Counter()
        self.reached = 0

    # ----------------------------------------------------------------------------------- the steps

    def walk(self) -> None:
        session, foreign = self.become_a_user(self.stack.over_uds)
        tokens = Tokens(session.access, session.id)
        identity = self.expected_identity(tokens)

        print("\nEnvoy calls cognito-authz over a Unix socket:")
        url = self.stack.over_uds
        self.public_route(url)
        self.without_a_token(url)
        self.with_a_token(url, tokens, identity)
        self.with_forged_headers(url, tokens, identity)
        with self.step("A tampered token: one character of the signature is changed"):
            self.refused(self.ask(url, [bearer(tampered(tokens.access))]), "bad_signature", _INVALID_TOKEN)
        with self.step("The ID token instead of the access token"):
            self.refused(self.ask(url, [bearer(tokens.id)]), "wrong_token_use", _INVALID_TOKEN)
        with self.step("An access token of the same user, issued to another app client of the pool"):
            self.refused(self.ask(url, [bearer(foreign.access)]), "wrong_client", _INVALID_TOKEN)
        with self.step("Two valid credentials: the application might use either"):
            self.refused(self.ask(url, [bearer(tokens.access), bearer(tokens.access)]),
                         "multiple_credentials", _INVALID_REQUEST)
        self.policy(url, tokens)

        print("\nEnvoy calls cognito-authz over TCP:")
        url = self.stack.over_tcp
        self.without_a_token(url)
        self.with_forged_headers(url, tokens, identity)

        print("\nThe user's own account:")
        self.account = Account(url)
        self.profile(session)
        self.second_factor(session)

        print("\nSign-out:")
        self.signs_out(session)

        if self.stack.cookies:
            print("\nA browser without JavaScript:")
            self.reached = sign_in_by_redirect(self, self.stack, self.password, self.checks)

        print("\nMetrics and shutdown:")
        self.counted()
        self.service_stops(tokens)

    def become_a_user(self, url: str) -> tuple[Session, Tokens]:
        stack, cognito = self.stack, self.stack.cognito
        self.account = Account(url)
        self.password = password = make_password()
        print("\nSign-up and sign-in, with the account API:")
        with self.step(f"{DEMO_EMAIL} signs up", needed=True):
            body = self.answered("register", 201, email=DEMO_EMAIL, password=password, name=DEMO_NAME)
            self.say("<", f"{body.get('message')} (sub {body.get('userSub')})")
            self.expect((body.get("delivery") or {}).get("medium") == "EMAIL", "a code by e-mail")
        with self.step("A sign-in before the address is verified"):
            self.answered("login", 401, code="user_not_confirmed", email=DEMO_EMAIL, password=password)
        with self.step("She confirms the address with the code from the mail", needed=True):
            code = cognito.mailed_code(DEMO_EMAIL)
            self.say("> code", code)
            self.answered("verify", 200, email=DEMO_EMAIL, code_=code)
        with self.step(f"An administrator adds her to the group {DEMO_GROUP}", needed=True):
            cognito.add_to_group(stack.pool, DEMO_EMAIL, DEMO_GROUP)
        with self.step("A wrong password and an unknown user get the same answer"):
            wrong = self.answered("login", 401, code="invalid_credentials", email=DEMO_EMAIL, password="Wrong-horse-1")
            unknown = self.answered("login", 401, code="invalid_credentials", email="eve@example.com",
                                    password="Wrong-horse-1")
            ids = wrong.pop("request_id", None), unknown.pop("request_id", None)
            self.expect(wrong == unknown and ids[0] != ids[1], "the same answer, but for its id")
        with self.step("She signs in", needed=True):
            body = self.answered("login", 200, email=DEMO_EMAIL, password=password)
            session = Session(str(body["accessToken"]), str(body["idToken"]), str(body["refreshToken"]))
            foreign = cognito.sign_in(stack.other_client, DEMO_EMAIL, password)
            self.say("< access token", shortened(session.access))
            self.say("< ID token", shortened(session.id))
            # PyJWT accepts these tokens, so a denial below is a decision of cognito-authz, not a broken token.
            self.expect(self.claims(session.access)["token_use"] == "access", "PyJWT verifies the access token")
            self.expect(self.claims(session.id)["token_use"] == "id", "PyJWT verifies the ID token")
            self.expect(self.claims(foreign.access)["client_id"] == stack.other_client,
                        "PyJWT verifies the other client's token")
        with self.step("She refreshes, and the new access token is accepted", needed=True):
            body = self.answered("refresh", 200, refreshToken=session.refresh)
            fresh = str(body.get("accessToken"))
            self.expect(self.claims(fresh)["token_use"] == "access", "PyJWT verifies the new access token")
            self.passed(self.ask(url, [bearer(fresh)]))
        with self.step("Only the account API is reachable on the service's port"):
            for path in ("/auth/metrics", "/auth/..%2fmetrics", "/auth/../metrics", "/authors"):
                answer = web.get(f"{url}{path}")
                self.say("> GET", f"{path}: {answer.status}")
                self.expect(answer.status in (307, 401, 404), f"no {path}")
                self.expect(b"cognito_authz_" not in answer.body, f"no metrics behind {path}")
                if answer.status == 401:
                    self.checks["deny", "missing_credential"] += 1
        return session, foreign

    def profile(self, session: Session) -> None:
        with self.step("She reads her profile and changes her name; attributes that are not listed are rejected"):
            body = self.answered("me", 200, method="GET", token=session.access)
            self.say("<", f"sub {body.get('sub')}, {body.get('attributes')}")
            self.expect((body.get("attributes") or {}).get("email") == DEMO_EMAIL, f"the address {DEMO_EMAIL}")
            name = f"{DEMO_NAME} Lovelace"
            body = self.answered("me", 200, method="PATCH", token=session.access, attributes={"name": name})
            self.expect((body.get("attributes") or {}).get("name") == name, f"the name {name}")
            self.answered("me", 400, method="PATCH", code="invalid_request", token=session.access,
                          attributes={"custom:role": "admin"})

    def second_factor(self, session: Session) -> None:
        with self.step("She sets up an authenticator and signs in with it"):
            body = self.answered("mfa/totp", 200, token=session.access)
            self.secret = secret = str(body.get("secret"))
            url = urlsplit(str(body.get("otpauthUrl")))
            self.say("< otpauth URL", f"{url.scheme}://{url.netloc}{url.path}?secret=(hidden)")
            self.expect(parse_qs(url.query).get("secret") == [secret], "the secret is in the URL for the QR code")
            self.answered("mfa/totp/verify", 200, token=session.access, code_=totp(secret))
            self.answered("mfa/preference", 200, method="PUT", token=session.access,
                          totp={"enabled": True, "preferred": True})
            self.sign_in_with_code()

    def sign_in_with_code(self) -> str:
        """Signs in with the password and a code of the authenticator, and returns the access token."""
        body = self.answered("login", 200, email=DEMO_EMAIL, password=self.password)
        self.expect(body.get("challenge") == "SOFTWARE_TOKEN_MFA", "the challenge SOFTWARE_TOKEN_MFA")
        body = self.answered("challenge", 200, challenge=body.get("challenge"), session=body.get("session"),
                             email=DEMO_EMAIL, responses={"SOFTWARE_TOKEN_MFA_CODE": totp(self.secret)})
        token = str(body.get("accessToken"))
        self.expect(self.claims(token)["token_use"] == "access", "PyJWT verifies the access token")
        return token

    def signs_out(self, session: Session) -> None:
        stack, token = self.stack, session.access
        scope = "replica" if stack.over_replica is None else "shared"
        if stack.over_replica is not None:
            with self.step("A second replica of cognito-authz accepts her token, too"):
                self.passed(self.ask(stack.over_replica, [bearer(token)]))
        with self.step("She is signed out here, and refused there"):
            self.answered("logout", 401, code="invalid_token")
            body = self.answered("logout", 200, token=token, refreshToken=session.refresh)
            since = time.monotonic()
            self.say("<", f"{body.get('message')} (scope {body.get('scope')})")
            self.expect(body.get("scope") == scope, f"scope {scope}")
            if stack.over_replica is None:
                self.say("-", "no redis-server is installed: there is no second replica, and the scope is this one")
            else:
                self.refused_within(1, since, stack.over_replica, token)
            self.refused(self.ask(stack.over_tcp, [bearer(token)]), "revoked", _INVALID_TOKEN)
        with self.step("Neither her refresh token nor a second sign-out works"):
            self.answered("refresh", 401, code="invalid_token", refreshToken=session.refresh)
            self.answered("logout", 401, code="invalid_token", token=token)
        with self.step("She signs in again at once, and the new token is accepted everywhere"):
            new = self.sign_in_with_code()
            for url in filter(None, (stack.over_tcp, stack.over_replica)):
                self.passed(self.ask(url, [bearer(new)]))

    def refused_within(self, seconds: float, since: float, url: str, token: str) -> None:
        """Sends requests until one is refused as revoked, for at most `seconds` after `since`."""
        while True:
            answer = self.ask(url, [bearer(token)])
            late = time.monotonic() - since
            if answer.status != 200 or late > seconds:
                break
            self.passed(answer)
        self.refused(answer, "revoked", _INVALID_TOKEN)
        self.say("<", f"refused {late * 1000:.0f} ms after the sign-out was confirmed")

    def passed(self, answer: Answer) -> None:
        """Checks that the application was reached."""
        self.checks["allow", ""] += 1
        self.expect(answer.status == 200, "status 200")
        self.reached = (answer.json() or {}).get("number", self.reached)

    def answered(self, route: str, status: int, *, method: str = "POST", code: str | None = None,
                 token: str | None = None, **members: Any) -> dict[str, Any]:
        """Sends a request to the account API, checks the response and returns its body.

        `code` is the expected error code. `code_` is the member `code` of the request.
        """
        members = {name.rstrip("_"): value for name, value in members.items()}
        self.say(f"> {method}", f"{self.account.url}/auth/{route}")
        answer = self.account.ask(method, route, token, **members)
        body = answer.json()
        body = body if isinstance(body, dict) else {}
        self.say("<", f"{answer.status} {body.get('code') or ''}".rstrip())
        self.expect(answer.status == status, f"status {status}")
        self.expect(body.get("code") == code, f"code {code}")
        self.expect(answer.header("cache-control") == "no-store", "cache-control no-store")
        return body

    def public_route(self, url: str) -> None:
        with self.step("A route that Envoy does not check, without a token"):
            self.say("> GET", f"{url}/healthz")
            answer = web.get(f"{url}/healthz")
            self.say("<", f"{answer.status} {answer.body.decode(errors='replace').strip()}")
            self.expect(answer.status == 200, "status 200")

    def without_a_token(self, url: str) -> None:
        with self.step("Without a token"):
            self.refused(self.ask(url), "missing_credential", None)

    def with_a_token(self, url: str, tokens: Tokens, identity: list[list[str]]) -> None:
        with self.step("With the access token"):
            self.allowed(self.ask(url, [bearer(tokens.access)]), identity)

    def with_forged_headers(self, url: str, tokens: Tokens, identity: list[list[str]]) -> None:
        with self.step("With the access token and forged identity headers: only the real headers arrive"):
            self.allowed(self.ask(url, [*_FORGED, bearer(tokens.access)]), identity)

    def policy(self, url: str, tokens: Tokens) -> None:
        with self.step("A valid token without the group that /admin requires (deploy/local/policy.yaml)"):
            answer = self.ask(url, [bearer(tokens.access)], path="/admin/users")
            self.checks["deny", "insufficient_group"] += 1
            self.say("<", answer.body.decode(errors="replace").strip())
            body: Any = answer.json()
            self.expect(answer.status == 403, "status 403")
            reason = body.get("reason") if isinstance(body, dict) else None
            self.expect(reason == "insufficient_group", "reason insufficient_group")
        with self.step("cognito-authz explain names the rule that denied it"):
            allowed, text = self.stack.explain(tokens.access, "/admin/users")
            for line in text.splitlines():
                if not line.endswith("passed"):
                    self.say("<", line)
            self.expect(not allowed, "exit code 1")
            self.expect("failed: insufficient_group (groups)" in text, "the requirement that failed")
            self.expect(tokens.access not in text, "no token")

    def counted(self) -> None:
        with self.step("The metrics count exactly the requests that were sent"):
            counted: Counter[tuple[str, str]] = Counter()
            for admin in self.stack.admins:
                self.say("> GET", f"{admin}/metrics")
                answer = web.get(f"{admin}/metrics")
                for labels, value in samples(answer.body.decode(), "cognito_authz_checks_total"):
                    if value:
                        self.say("<", f"checks_total decision={labels['decision']} reason={labels['reason'] or '-'} "
                                 f"pool={labels['pool'] or '-'} policy={labels['policy']}: {value}")
                        counted[labels["decision"], labels["reason"]] += value
            self.expect(counted == self.checks, f"the counters are {dict(self.checks)}")

            stats = web.get(f"{self.stack.envoy_admin}/stats?filter=ext_authz\\.cognito\\.").body.decode()
            envoy: Counter[str] = Counter()
            for name, value in re.findall(
                    r"^http\.\w+\.ext_authz\.cognito\.(ok|denied|error): (\d+)$", stats, re.MULTILINE):
                envoy[name] += int(value)
            self.say("< Envoy itself", f"ok {envoy['ok']}, denied {envoy['denied']}, error {envoy['error']}")
            allowed = self.checks["allow", ""]
            denied = self.checks.total() - allowed
            self.expect((envoy["ok"], envoy["denied"], envoy["error"]) == (allowed, denied, 0),
                        f"Envoy counted {allowed} ok, {denied} denied, 0 error")
            self.say("< the application", f"received {self.reached} requests")
            self.expect(self.reached == allowed, f"the application received the {allowed} allowed requests only")

    def service_stops(self, tokens: Tokens) -> None:
        with self.step("cognito-authz stops cleanly, and Envoy then denies every request"):
            code = self.stack.stop_authz()
            self.say("< cognito-authz", f"ended with {describe(code)}")
            self.expect(code == 0, "exit code 0")
            answer = self.ask(self.stack.over_uds, [bearer(tokens.access)])
            self.expect(answer.status == 503, "status 503")

    # ------------------------------------------------------------------------- requests and checks

    def ask(self, url: str, headers: Headers = (), path: str = "/orders?page=2") -> Answer:
        headers = list(headers)
        self.say("> GET", f"{url}{path}")
        for name, value in headers:
            self.say(f"> {name}:", shortened(value))
        answer = web.get(f"{url}{path}", headers)
        self.say("<", str(answer.status))
        return answer

    def allowed(self, answer: Answer, identity: list[list[str]]) -> None:
        self.checks["allow", ""] += 1
        self.expect(answer.status == 200, "status 200")
        echo = answer.json()
        echo = echo if isinstance(echo, dict) else {}
        received = sorted(pair for pair in echo.get("headers", []) if _IDENTITY_HEADER.match(pair[0]))
        self.say("< the application received", f"{echo.get('method')} {echo.get('path')}")
        for name, value in received:
            self.say(f"    {name}:", value)
        self.expect(received == identity, f"exactly the identity headers {identity}")
        self.reached = echo.get("number", self.reached)

    def refused(self, answer: Answer, reason: str, challenge: str | None) -> None:
        """Checks a 401 response.

        `challenge` is the start of `WWW-Authenticate`; `None` is the one for a request without a credential.
        """
        self.checks["deny", reason] += 1
        authenticate = answer.header("www-authenticate")
        self.say("< www-authenticate:", authenticate or "(none)")
        self.say("<", answer.body.decode(errors="replace").strip())
        body: Any = answer.json()
        body = body if isinstance(body, dict) else {}
        self.expect(answer.status == 401, "status 401")
        if challenge is None:
            self.expect(authenticate == 'Bearer realm="api"', 'the challenge Bearer realm="api"')
            self.expect(body.get("error") == "missing_token", "error missing_token")
        else:
            self.expect((authenticate or "").startswith(challenge), f"a challenge that begins with {challenge}")
        self.expect(body.get("reason") == reason, f"reason {reason}")
        self.expect(answer.header("content-type") == "application/json", "content-type application/json")
        self.expect(answer.header("cache-control") == "no-store", "cache-control no-store")

    def claims(self, token: str) -> dict[str, Any]:
        """Verifies signature, issuer and times with PyJWT and the pool's published keys, and returns the claims."""
        keys = jwt.PyJWKSet.from_dict(
            web.get(f"{self.stack.cognito.url}/{self.stack.pool}/.well-known/jwks.json").json())
        key = keys[jwt.get_unverified_header(token)["kid"]]
        issuer = f"https://cognito-idp.{REGION}.amazonaws.com/{self.stack.pool}"
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], issuer=issuer,
                                            options={"verify_aud": False, "require": ["exp", "iss"]})
        return claims

    def expected_identity(self, tokens: Tokens) -> list[list[str]]:
        claims = self.claims(tokens.access)
        return sorted([
            ["x-auth-sub", claims["sub"]],
            ["x-auth-username", claims["username"]],
            ["x-auth-client-id", self.stack.client],
            ["x-auth-token-use", "access"],
            ["x-auth-scope", claims["scope"]],
            ["x-auth-groups", DEMO_GROUP],
        ])
