"""Actions of a user on the demo page, and checks of what the page shows."""

from __future__ import annotations

import io

import pyotp
import zxingcpp
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from conftest import User


def sign_in(page: Page, user: User) -> None:
    """Submits the sign-in form. Does not wait for the result."""
    page.get_by_role("button", name="Sign in", exact=True).first.click()
    page.locator("#login-email").fill(user.email)
    page.locator("#login-password").fill(user.password)
    page.locator("#login button.primary").click()


def is_signed_in(page: Page, user: User) -> None:
    expect(page.locator("#session-title")).to_have_text(f"Signed in as {user.email}")


def says(page: Page, text: str) -> None:
    expect(page.locator(".notice:not(:empty)")).to_contain_text(text)


def log_out(page: Page) -> None:
    page.get_by_role("button", name="Log out").click()
    says(page, "You are logged out.")


def field_error(page: Page, field: str) -> Locator:
    """The error message of a field, after checking that a screen reader finds it from the field."""
    field_input = page.locator(f"#{field}")
    expect(field_input).to_have_attribute("aria-invalid", "true")
    assert f"{field}-error" in (field_input.get_attribute("aria-describedby") or "")
    return page.locator(f"#{field}-error")


def wrong_code(right: str) -> str:
    return f"{(int(right) + 1) % 1_000_000:06}"


def scan(qr: Locator) -> pyotp.TOTP:
    """Reads the QR code from a screenshot, as an authenticator app does with its camera."""
    picture = Image.open(io.BytesIO(qr.screenshot()))
    # Without the format, it finds a short Codabar code in the modules of one QR code in some hundreds.
    codes = zxingcpp.read_barcodes(picture, formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode))
    assert len(codes) == 1, "expected one readable QR code"
    totp = pyotp.parse_uri(codes[0].text)
    assert isinstance(totp, pyotp.TOTP)
    return totp


def set_up_factor(page: Page) -> pyotp.TOTP:
    """Starts setting up an authenticator app, up to the field for the code, and scans the QR code."""
    page.get_by_role("button", name="Set up an authenticator app").click()
    return scan(page.locator(".qr svg"))


def fits(page: Page) -> bool:
    """`True` if the page does not scroll horizontally."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
