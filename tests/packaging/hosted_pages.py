"""The emulator's user pool with hosted sign-in pages, and a browser with cookies and without scripts."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode, urlsplit

import web
from emulator import REGION, SCOPES, Cognito
from paths import TOOLS
from scratch import free_port
from stage import PATIENCE, Stage

EMAIL, PASSWORD = "ada@example.com", "Correct-horse-1-battery"

# Headers with which a browser opens a page, and with which a script of the page calls an API.
NAVIGATION = [("sec-fetch-mode", "navigate"), ("accept", "text/html,application/xhtml+xml,*/*;q=0.8")]
CALL = [("sec-fetch-mode", "cors"), ("accept", "application/json")]


class HostedPages:
    """A running emulator with a pool and one user."""

    def __init__(self, stage: Stage) -> None:
        port = free_port()
        self.cognito = Cognito(f"http://127.0.0.1:{port}")
        self.child = stage.child("ministack", [TOOLS / "ministack"], {
            "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1", "AUTH": "true",
            "MINISTACK_REGION": REGION, "STATE_DIR": str(stage.directory / "ministack"),
            "TMPDIR": str(stage.directory), "SERVICES": "cognito-idp", "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0"})
        self.child.wait_until("ready", lambda: web.is_ok(f"{self.url}/_ministack/health"), PATIENCE)
        self.pool = self.cognito.create_pool("pages")
        self.manage("AdminCreateUser", Username=EMAIL, MessageAction="SUPPRESS", UserAttributes=[
            {"Name": "email", "Value": EMAIL}, {"Name": "email_verified", "Value": "true"}])
        self.manage("AdminSetUserPassword", Username=EMAIL, Password=PASSWORD, Permanent=True)

    @property
    def url(self) -> str:
        return self.cognito.url

    def manage(self, operation: str, **members: Any) -> dict[str, Any]:
        return self.cognito.call(operation, signed=True, UserPoolId=self.pool, **members)

    def client(self, callbacks: list[str], sign_out_urls: list[str], *, token_seconds: int) -> tuple[str, str]:
        """Creates an app client with a secret; returns its id and its secret."""
        made = self.manage(
            "CreateUserPoolClient", ClientName="pages", GenerateSecret=True, EnableTokenRevocation=True,
            AccessTokenValidity=token_seconds, IdTokenValidity=token_seconds,
            TokenValidityUnits={"AccessToken": "seconds", "IdToken": "seconds"},
            ExplicitAuthFlows=["ALLOW_REFRESH_TOKEN_AUTH"], SupportedIdentityProviders=["COGNITO"],
            CallbackURLs=callbacks, LogoutURLs=sign_out_urls, AllowedOAuthFlowsUserPoolClient=True,
            AllowedOAuthFlows=["code"], AllowedOAuthScopes=list(SCOPES))["UserPoolClient"]
        return made["ClientId"], made["ClientSecret"]

    def join_groups(self, count: int) -> None:
        """Makes the user a member of `count` groups with long names, so that tokens become large."""
        for number in range(count):
            group = f"group-{number:03}-{'x' * 40}"
            self.cognito.create_group(self.pool, group)
            self.cognito.add_to_group(self.pool, EMAIL, group)


class Browser:
    """Cookies and redirects of a browser, for one host. Has neither a limit on the size of a cookie nor on time."""

    def __init__(self, host: str, pages: HostedPages) -> None:
        self.host, self.pages = host, pages
        self.cookies: dict[str, str] = {}
        # Values of `Set-Cookie` in the last response of the host.
        self.set: list[str] = []

    def send(self, url: str, method: str = "GET", headers: Iterable[tuple[str, str]] = NAVIGATION,
             body: bytes = b"") -> web.Answer:
        """Sends one request, without following a redirect. A path is one of the host."""
        url = self.host + url if url.startswith("/") else url
        headers = list(headers)
        ours = url.startswith(self.host + "/")
        if ours and self.cookies:
            headers.append(("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
        answer = web.request(method, url, headers, body)
        if ours:
            self.set = [value for name, value in answer.headers if name.lower() == "set-cookie"]
            for line in self.set:
                pair, _, attributes = line.partition(";")
                name, _, value = pair.partition("=")
                if re.search(r"max-age=0\b|expires=thu, 01 jan 1970", attributes, re.IGNORECASE):
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = value
        return answer

    def sign_in(self, page: str) -> str:
        """Opens the hosted page, signs in, and returns the URL to which the page redirects."""
        shown = self.send(page)
        assert shown.status == 200, shown
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', shown.body.decode())
        form = {name: html.unescape(value) for name, value in hidden} | {"username": EMAIL, "password": PASSWORD}
        answer = self.send(f"{self.pages.url}/login", "POST", [("content-type", "application/x-www-form-urlencoded")],
                           urlencode(form).encode())
        return location(answer)

    def visit(self, path: str) -> tuple[web.Answer, list[str]]:
        """Opens a page, follows redirects, and signs in where asked. Also returns the paths of the requests."""
        answer, paths = self.send(path), [path]
        while answer.status == 302:
            assert len(paths) < 12, paths
            target = location(answer)
            if target.startswith(self.pages.url):
                paths.append("hosted page")
                target = self.sign_in(target)
            paths.append(urlsplit(target).path)
            answer = self.send(target)
        return answer, paths


def location(answer: web.Answer) -> str:
    target = answer.header("location")
    assert answer.status == 302, answer
    assert target is not None, answer
    return target


def received(answer: web.Answer) -> dict[str, str]:
    """Headers that the application received."""
    assert answer.status == 200, answer
    return dict(answer.json()["headers"])
