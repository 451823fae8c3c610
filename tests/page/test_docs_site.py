"""The documentation site in a browser: search, colours, narrow screens, and nothing from other hosts.

tests/packaging/test_site.py tests what needs no browser.
"""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from conftest import ROOT, TIMEOUT_MS, Watch

# The site is published below a path.
PREFIX = "cognito-authz"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the site, as one command builds it."""
    found = tmp_path_factory.mktemp("site") / PREFIX
    subprocess.run([sys.executable, ROOT / "docs/site/build", "--output", found], check=True)
    return found


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    """URL of the site's home page."""
    handler = functools.partial(Quiet, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{PREFIX}/"
        server.shutdown()


def opened(browser: Browser, site: str, **options: Any) -> Iterator[Page]:
    """Opens the home page. Afterwards checks that nothing was missing, and nothing came from another host."""
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    watch = Watch(page)
    page.goto(site)
    yield page
    assert watch.complaints == []
    assert watch.refused == []
    assert {request.url for request in watch.requests if not request.url.startswith((site, "data:", "blob:"))} == set()
    context.close()


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    yield from opened(browser, site, viewport={"width": 1280, "height": 900}, color_scheme="light")


@pytest.fixture
def phone(browser: Browser, site: str) -> Iterator[Page]:
    yield from opened(browser, site, viewport={"width": 375, "height": 812}, color_scheme="dark")


@pytest.mark.parametrize(
    ("words", "address"),
    [("shadow mode", "docs/policy-testing/"), ("--revocation-required", "docs/reference/options/"),
     ("forward_auth", "deploy/caddy/"), ("cognito:groups", "docs/cognito/")],
)
def test_search_leads_to_the_page(page: Page, site: str, words: str, address: str) -> None:
    page.get_by_placeholder("Search").fill(words)
    results = page.locator(f".md-search-result__link[href^='{site}{address}']")
    expect(results.first).to_be_visible()
    results.first.click()
    page.wait_for_url(f"{site}{address}**")


def test_colours_follow_the_system_until_the_reader_chooses(page: Page) -> None:
    body = page.locator("body")
    expect(body).to_have_attribute("data-md-color-scheme", "default")
    page.emulate_media(color_scheme="dark")
    expect(body).to_have_attribute("data-md-color-scheme", "slate")
    page.get_by_title("Switch to light mode").click()
    expect(body).to_have_attribute("data-md-color-scheme", "default")
    page.reload()
    expect(body).to_have_attribute("data-md-color-scheme", "default")


def test_code_has_a_button_that_copies_it(page: Page, site: str) -> None:
    page.goto(f"{site}docs/try-it/")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("pre").first.hover()
    page.locator(".md-clipboard, .md-code__button[data-md-type=copy]").first.click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('deploy/local/up'))")


def test_no_page_is_wider_than_a_phone(phone: Page, site: str, folder: Path) -> None:
    """A wide table or a long line of code scrolls by itself."""
    pages = [path.parent.relative_to(folder) for path in sorted(folder.rglob("index.html"))]
    assert len(pages) > 30
    wide = {}
    for each in pages:
        phone.goto(f"{site}{each}/")
        width = phone.evaluate("document.documentElement.scrollWidth")
        if width > 375:
            wide[str(each)] = width
    assert wide == {}
