"""Pages of other origins in a real browser, through the real Envoy.

They read refusals, with the policies of example 7 of docs/policy-examples.md, and open WebSockets with a token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

import envoy_config
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


_OPEN = """([url, protocols]) => new Promise((resolve) => {
    const socket = new WebSocket(url, protocols);
    socket.onmessage = ({data}) => { resolve([socket.protocol, JSON.parse(data)]); socket.close(); };
    socket.onerror = () => resolve('error');
})"""
_PROTOCOL = "sec[-_.]websocket[-_.]protocol"


def _let_websockets_pass(file: Path) -> None:
    """Changes Envoy's configuration as deploy/envoy/README.md says, for WebSockets with a token in a subprotocol."""
    config = json.loads(file.read_text())
    for listener in config["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        (check,) = (each["typed_config"] for each in manager["http_filters"] if each["name"].endswith(".ext_authz"))
        check["allowed_headers"]["patterns"].append({"safe_regex": {"regex": f"(?i){_PROTOCOL}"}})
        expression = check["decoder_header_mutation_rules"]["allow_expression"]
        expression["regex"] += f"|^({_PROTOCOL})$"
    file.write_text(json.dumps(config))


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
    """The stack with the policies of the example, for the origin of our page.

    Two more policies: one allows no origin, and one accepts the token of a WebSocket.
    """
    _, found, policies = _EXAMPLE.read_text().partition("\ndefault: ")
    assert found
    assert _ORIGIN in policies
    assert "\nroutes:\n" in policies
    policies = policies.replace(_ORIGIN, f"http://127.0.0.1:{port}")
    policies = policies.replace("\nroutes:\n", """
  silent: {cors_preflight: allow}
  live: {from: {websocket_protocol: bearer, websocket_query: access_token}}
routes:
- {path_prefix: /silent, policy: silent}
- {path_prefix: /live, policy: live}
""")
    file = tmp_path_factory.mktemp("cross_origin") / "policy.yaml"
    file.write_text(f"default: {policies}")
    stack = Stack(ROOT, binary, port=0, token_seconds=3600)
    stack.policy, stack.application = file, Path(__file__).with_name("cross_origin_app.py")
    write = envoy_config.write

    def write_changed(source: Path, target: Path, **addresses: Any) -> None:
        write(source, target, **addresses)
        _let_websockets_pass(target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envoy_config, "write", write_changed)
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


def test_a_page_opens_a_websocket_with_a_token(api: Stack, page: Page, port: int) -> None:
    user = new_user(api)
    token = Account(api.over_tcp).done("login", email=user.email, password=user.password)["accessToken"]
    page.goto(f"http://127.0.0.1:{port}/")
    for envoy in (api.over_uds, api.over_tcp):
        url = f"{envoy.replace('http://', 'ws://')}/live"
        for address, protocols, chosen in [
            (url, ["bearer", token], "bearer"),
            (url, ["graphql-transport-ws", f"bearer.{token}"], "graphql-transport-ws"),
            (f"{url}?a=1&access_token={token}", [], ""),
        ]:
            protocol, seen = page.evaluate(_OPEN, [address, protocols])
            assert protocol == chosen
            headers = {name.lower(): value for name, value in seen["headers"]}
            assert headers["x-auth-sub"]
            assert headers.get("sec-websocket-protocol", "") == chosen
            assert token not in json.dumps(seen)
        assert seen["path"] == "/live?a=1"
        # The page offers a subprotocol, and the application is left without one to choose: the browser gives up.
        assert page.evaluate(_OPEN, [url, [f"bearer.{token}"]]) == "error"
        for protocols in ([], ["chat"], ["bearer", "x"]):
            assert page.evaluate(_OPEN, [url, protocols]) == "error"
