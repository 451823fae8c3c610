"""Small tools of the tour: steps and their output, codes of an authenticator, tokens for display, metrics, colours."""

from __future__ import annotations

import base64
import hmac
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class CannotGoOn(Exception):
    """A step failed whose result later steps need."""


class Steps:
    """Numbered steps, what they print, and which of them failed."""

    def __init__(self) -> None:
        self.number = 0
        self.failed: list[int] = []
        self.problems: list[str] = []

    @contextmanager
    def step(self, title: str, *, needed: bool = False) -> Iterator[None]:
        """Prints a numbered step and its result.

        An exception fails the step. It ends the tour only if later steps need this one (`needed`).
        """
        self.number += 1
        self.problems = []
        print(f"\n{self.number:2}. {title}")
        try:
            yield
        except Exception as error:  # noqa: BLE001  (any error is reported with the step in which it occurs)
            self.problems.append(f"{type(error).__name__}: {error}")
        if self.problems:
            self.failed.append(self.number)
            for problem in self.problems:
                print(f"    {red('FAILED')}  {problem}")
            if needed:
                raise CannotGoOn
        else:
            print(f"    {green('OK')}")

    def say(self, what: str, text: str) -> None:
        print(f"      {what} {text}")

    def expect(self, fact: bool, wanted: str) -> None:
        if not fact:
            self.problems.append(f"expected {wanted}")


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
