"""Example 7 of docs/policy.md in a real browser: a page of another origin reads refusals, through the real Envoy."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from account import Account
from conftest import ROOT, TIMEOUT_MS, new_user
from stack import Stack

_EXAMPLE = ROOT / "docs" / "examples" / "policy" / "07-browser-app.yaml"
_ORIGIN = "https://app.example.com"

_READ = """async ([url, token]) => {
    const headers = token === null ? {} : {authorization: `Bearer ${token}`};
    try {
        const response = await fetch(url, {headers});
        const {reason} = await response.json();
        return [response.status, reason ?? null, response.headers.get('www-authenticate')];
    } catch (error) {
        return String(error);
    }
}"""
_UNREADABLE = "TypeError: Failed to fetch"


class _Blank(BaseHTTPRequestHandler):
    """Serves an empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Port of a server for the pages of other origins."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def api(binary: Path, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with the policies of the example, for the origin of our page, and one policy that allows no origin."""
    _, found, policies = _EXAMPLE.read_text().partition("\ndefault: ")
    assert found
    assert _ORIGIN in policies
    assert "\nroutes:\n" in policies
    policies = policies.replace(_ORIGIN, f"http://127.0.0.1:{port}")
    policies = policies.replace("\nroutes:\n", "\n  silent: {cors_preflight: allow}\nroutes:\n"
                                               "- {path_prefix: /silent, policy: silent}\n")
    file = tmp_path_factory.mktemp("cross_origin") / "policy.yaml"
    file.write_text(f"default: {policies}")
    stack = Stack(ROOT, binary, port=0, token_seconds=3600)
    stack.policy, stack.application = file, Path(__file__).with_name("cross_origin_app.py")
    with stack as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT_MS)
    yield context.new_page()
    context.close()


def test_a_page_of_a_listed_origin_reads_refusals(api: Stack, page: Page, port: int) -> None:
    user = new_user(api)
    token = Account(api.over_tcp).done("login", email=user.email, password=user.password)["accessToken"]
    other = api.cognito.sign_in(api.other_client, user.email, user.password).access
    page.goto(f"http://127.0.0.1:{port}/")

    def read(path: str, token: str | None) -> Any:
        results = [page.evaluate(_READ, [f"{envoy}{path}", token]) for envoy in (api.over_uds, api.over_tcp)]
        assert results[0] == results[1]
        return results[0]

    assert read("/orders", None) == [401, "missing_credential", 'Bearer realm="api"']
    status, reason, challenge = read("/orders", other)  # a preflight precedes it
    assert (status, reason) == (401, "wrong_client")
    assert challenge.startswith('Bearer realm="api", error="invalid_token", ')
    assert read("/admin/x", token) == [403, "insufficient_group", None]
    assert read("/orders", token) == [200, None, None]
    # The application answers this request's preflight as well, but it never sees the refused request.
    assert read("/silent", None) == _UNREADABLE
    assert read("/silent", other) == _UNREADABLE


def test_a_page_of_another_origin_reads_nothing(api: Stack, page: Page, port: int) -> None:
    page.goto(f"http://localhost:{port}/")
    for token in (None, "x"):
        assert page.evaluate(_READ, [f"{api.over_tcp}/orders", token]) == _UNREADABLE
