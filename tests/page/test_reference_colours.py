"""The API reference of the local stack, Swagger UI: colour schemes, contrast, narrow screens."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from conftest import TIMEOUT_MS, Watch
from redirects import until
from stack import Stack
from steps import fits

Scheme = Literal["light", "dark"]
SCHEMES = get_args(Scheme)


@contextmanager
def reference(browser: Browser, stack: Stack, **options: object) -> Iterator[Page]:
    context = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    watch = Watch(page)
    page.goto(f"{stack.over_tcp}/docs/")
    yield page
    assert watch.complaints == []
    context.close()


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance (WCAG 2.2)."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
                        for part in (each / 255 for each in colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def colours(text: Locator) -> tuple[float, float]:
    """Luminance of a text, and of what is behind it."""
    found = text.evaluate("""element => {
        const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
        let behind = element;
        while (behind && parts(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
        return [getComputedStyle(element).color, getComputedStyle(behind ?? document.documentElement).backgroundColor]
            .map((colour) => parts(colour).slice(0, 3));
    }""")
    return luminance(found[0]), luminance(found[1])


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def is_readable(text: Locator, scheme: Scheme) -> None:
    """Waits until a text has enough contrast (WCAG 1.4.3) and is light on dark in the dark scheme only.

    Swagger UI follows a change of the scheme with a script, and has transitions.
    """
    def holds() -> bool:
        ink, ground = colours(text)
        return contrast(ink, ground) >= 4.5 and (ground < ink) == (scheme == "dark")

    until(holds, text.page, f"{scheme} scheme, contrast of {text.inner_text()!r}")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_reference_has_the_colours_of_the_system(browser: Browser, stack: Stack, scheme: Scheme) -> None:
    with reference(browser, stack, color_scheme=scheme) as page:
        first = page.locator(".opblock").first
        expect(first).to_be_visible()
        for text in (".brand", ".bar a", ".info .title", ".info p", ".opblock-tag", ".opblock-summary-path",
                     ".opblock-summary-description"):
            is_readable(page.locator(text).first, scheme)
        other: Scheme = "light" if scheme == "dark" else "dark"
        page.emulate_media(color_scheme=other)
        is_readable(page.locator(".info .title"), other)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("script", [True, False])
def test_the_reference_never_shows_the_other_scheme(browser: Browser, stack: Stack, scheme: Scheme,
                                                    script: bool) -> None:
    """Before Swagger UI has loaded, and without scripts, the page has the colours of the system, too."""
    held: list[Callable[[], None]] = []
    context = browser.new_context(color_scheme=scheme, java_script_enabled=script)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    page.route("**/swagger-ui-bundle.js", lambda route: held.append(route.continue_))
    page.goto(f"{stack.over_tcp}/docs/", wait_until="commit")
    expect(page.locator(".brand")).to_be_visible()
    if script:
        expect(page.locator(".opblock")).to_have_count(0)
    for text in (page.locator(".brand"), page.locator(".bar a")):
        is_readable(text, scheme)
    ground = page.screenshot(clip={"x": 0, "y": 300, "width": 1, "height": 1})
    assert is_dark(ground) == (scheme == "dark")
    for go_on in held:
        go_on()
    if script:
        expect(page.locator(".opblock").first).to_be_visible()
        assert is_dark(page.screenshot(clip={"x": 0, "y": 300, "width": 1, "height": 1})) == (scheme == "dark")
    else:
        is_readable(page.locator("noscript a"), scheme)
    context.close()


def is_dark(pixel: bytes) -> bool:
    return luminance(Image.open(io.BytesIO(pixel)).convert("RGB").tobytes()) < 0.2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_enough_contrast_in_the_reference(browser: Browser, stack: Stack, scheme: Scheme) -> None:
    axe = Axe()
    options = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}
    # The content security policy of the page rightly forbids injecting axe.
    with reference(browser, stack, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True) as page:

        def look(what: str) -> None:
            # Swagger UI has transitions.
            page.wait_for_function("document.getAnimations().every((each) => each.playState !== 'running')")
            for width in (320, 375, 1280):
                page.set_viewport_size({"width": width, "height": 800})
                assert fits(page), f"{what}: something is wider than {width} pixels"
            found = axe.run(page, options=options)
            assert found.violations_count == 0, f"{what}:\n{found.generate_report()}"

        expect(page.locator(".opblock").first).to_be_visible()
        look("list")
        for method in ("get", "post", "put", "patch", "delete"):
            operation = page.locator(f".opblock-{method}").first
            operation.locator(".opblock-summary-control").click()
            expect(operation.get_by_role("button", name="Execute")).to_be_visible()
            if method == "post":
                operation.get_by_role("button", name="Execute").click()
                expect(operation.locator(".live-responses-table")).to_be_visible()
                operation.get_by_text("Schema", exact=True).first.click()
            look(method)
            operation.locator(".opblock-summary-control").click()
        page.get_by_role("button", name="Authorize").first.click()
        expect(page.locator(".modal-ux")).to_be_visible()
        look("authorize")
