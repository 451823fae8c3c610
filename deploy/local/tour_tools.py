"""Small tools of the tour: codes of an authenticator, tokens for display and for attacks, metrics, colours."""

from __future__ import annotations

import base64
import hmac
import os
import re
import sys
import time
from collections.abc import Iterator


def totp(secret: str) -> str:
    """The code that an authenticator shows now (RFC 6238: SHA-1, six digits, 30 seconds)."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    tag = hmac.digest(key, int(time.time() // 30).to_bytes(8, "big"), "sha1")
    offset = tag[-1] & 15
    number = int.from_bytes(tag[offset:offset + 4], "big") & 0x7fff_ffff
    return f"{number % 1_000_000:06}"


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


def shortened(value: str) -> str:
    """Shortens a token for display: long enough to recognise it, too short to use it."""
    return value if len(value) <= 80 else f"{value[:24]}... ({len(value)} characters)"


def tampered(token: str) -> str:
    """Changes one character of the signature, in the middle: some bits of the last character are ignored."""
    head, _, signature = token.rpartition(".")
    middle = len(signature) // 2
    other = "A" if signature[middle] != "A" else "B"
    return f"{head}.{signature[:middle]}{other}{signature[middle + 1:]}"


def samples(exposition: str, metric: str) -> Iterator[tuple[dict[str, str], int]]:
    """Labels and values of a metric in the Prometheus text format. Label values must not hold quotes."""
    for labels, value in re.findall(rf"^{metric}\{{(.*)\}} (\S+)$", exposition, re.MULTILINE):
        yield dict(re.findall(r'(\w+)="([^"]*)"', labels)), int(float(value))


def _coloured(code: int, text: str) -> str:
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ
    return text if plain else f"\033[{code}m{text}\033[0m"


def green(text: str) -> str:
    return _coloured(32, text)


def red(text: str) -> str:
    return _coloured(31, text)
