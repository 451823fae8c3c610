"""The page server and its routes: access, host names, content security policy, API reference."""

from __future__ import annotations

import hashlib
import http.client
import json
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

import web
from conftest import ROOT, TIMEOUT_MS, User, Watch
from stack import Stack


def test_the_page_is_public_and_everything_else_is_not(stack: Stack) -> None:
    for url in (stack.over_tcp, stack.over_uds):
        for path in ("/", "/?code=x", "/page/main.js", "/page/vendor/uqr.js", "/docs/", "/docs/swagger-ui-bundle.js"):
            assert web.get(f"{url}{path}").status == 200, path
        for path in ("/orders", "/index.html", "/pages", "/docs2", "/mailbox/", "/mailbox/x", "//orders",
                     "/page/../orders"):
            assert web.get(f"{url}{path}").status == 401, path


def test_no_path_leaves_the_folders_of_the_page_server(stack: Stack) -> None:
    for path in ("/page/", "/page/nothing.js", "/page/page_server.py", "/page/vendor/uqr.LICENSE",
                 "/docs/swagger-ui.js"):
        assert web.get(f"{stack.over_tcp}{path}").status == 404, path
    for path in ("/page/..%2fpage_server.py", "/page/%2e%2e/page_server.py", "/page/..%5cpage_server.py"):
        assert web.get(f"{stack.over_tcp}{path}").status in (307, 401, 404), path


def test_the_page_server_answers_only_to_loopback_names(stack: Stack, user: User) -> None:
    """Otherwise a website whose name resolves to 127.0.0.1 could read the codes (DNS rebinding)."""
    mailbox = f"{stack.over_tcp}/mailbox?to={user.email}"
    assert len(web.get(mailbox).json()["messages"]) == 1
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080"):
        status, answer = ask_as(host, mailbox)
        assert status == 421
        assert user.email.encode() not in answer
        assert b"code" not in answer


def ask_as(host: str, url: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.putrequest("GET", f"{parts.path}?{parts.query}", skip_host=True)
        connection.putheader("host", host)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_the_vendored_library_has_the_documented_checksum() -> None:
    folder = ROOT / "deploy" / "local" / "page" / "vendor"
    assert hashlib.sha256((folder / "uqr.js").read_bytes()).hexdigest() in (folder / "README.md").read_text()


@pytest.mark.parametrize("path", ["/", "/docs/"])
def test_the_content_security_policy_allows_own_scripts_only(stack: Stack, path: str) -> None:
    answer = web.get(f"{stack.over_tcp}{path}")
    header = answer.header("content-security-policy") or ""
    policy = dict(part.strip().partition(" ")[::2] for part in header.split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["form-action"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("referrer-policy") == "no-referrer"
    assert answer.header("x-content-type-options") == "nosniff"


def test_the_api_reference_shows_every_operation_of_the_service(browser: Browser, stack: Stack) -> None:
    document = web.get(f"{stack.over_tcp}/auth/openapi.json").json()
    operations = {(method, path) for path, item in document["paths"].items() for method in item}
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    watch = Watch(page)
    page.goto(f"{stack.over_tcp}/docs")
    shown = page.locator(".opblock")
    expect(shown).to_have_count(len(operations))
    assert {(block.locator(".opblock-summary-method").inner_text().lower(),
             block.locator(".opblock-summary-path").get_attribute("data-path")) for block in shown.all()} == operations

    # A request sent from the reference reaches the service.
    login = page.locator(".opblock", has=page.locator('[data-path="/auth/login"]'))
    login.locator(".opblock-summary-control").click()
    login.locator("textarea").fill(json.dumps({"email": "nobody@example.com", "password": "Wrong-horse-1-battery"}))
    login.get_by_role("button", name="Execute").click()
    expect(login.locator(".live-responses-table")).to_contain_text("invalid_credentials")

    page.get_by_role("link", name="Try it").click()
    expect(page.locator("#register")).to_be_visible()
    assert watch.complaints == []
    assert watch.hosts() == {stack.over_tcp.removeprefix("http://")}
    context.close()
