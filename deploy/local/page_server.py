"""Web server of the demo page, for the local stack only: the page, the API reference and the emulator's mailbox.

`page_server.py EMULATOR_URL [--cookies] [--passkeys]` listens on a free loopback port and prints `listening on N`. The
options tell the page that sessions are in cookies, and that there are passkeys (passkeys.py).

Envoy forwards to it on routes that need no token (envoy_config.PAGE_ROUTES). It serves only the files that it finds at
startup, so no request path can leave its folders. The only secrets it handles are the codes in the mailbox, which the
emulator hands to any process on this machine anyway.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from emulator import Cognito

_PAGE = Path(__file__).with_name("page")

_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
          ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

# The files of Swagger UI that its page loads.
_REFERENCE_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}

_STRICT = "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "

# No inline code, no other origins, no conversion of text to markup. The browser itself submits no form either: if a
# script failed to load, that would put a password into the URL.
_PAGE_POLICY = (_STRICT + "script-src 'self'; style-src 'self'; img-src 'self'; "
                "require-trusted-types-for 'script'; trusted-types 'none'")

# Swagger UI uses data: URLs for icons and converts text to markup.
_REFERENCE_POLICY = _STRICT + "script-src 'self'; style-src 'self'; img-src 'self' data:"


# Where the page says how it keeps sessions; page/session.js and the style sheet read it. With cookies the page changes
# even if no script runs.
_MODE = b'<html lang="en" data-session="tokens">'


def files() -> dict[str, Path]:
    """All files that are served, by request path."""
    found = {f"/page/{path.relative_to(_PAGE)}": path for path in _PAGE.rglob("*") if path.suffix in _TYPES}
    found["/"] = found.pop("/page/index.html")
    found["/docs/"] = found.pop("/page/docs.html")
    swagger_ui = _swagger_ui()
    return found | {f"/docs/{name}": swagger_ui / name for name in _REFERENCE_FILES}


def _swagger_ui() -> Path:
    """Folder of Swagger UI's files. The package is located without importing it, because that would load Flask."""
    spec = importlib.util.find_spec("flask_swagger_ui")
    if spec is None or spec.origin is None:
        raise SystemExit("flask_swagger_ui is not installed: run tests/tools/setup")
    return Path(spec.origin).with_name("dist")


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "page"
    sys_version = ""
    files: dict[str, Path]
    cognito: Cognito
    has_passkeys: bool
    mode = _MODE

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if not self.is_addressed_to_loopback():
            # Otherwise a website whose name resolves to 127.0.0.1 could read the mailbox (DNS rebinding).
            self.answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"Use the host 127.0.0.1 or localhost.\n")
        elif url.path == "/mailbox":
            mail = self.cognito.mail(parse_qs(url.query).get("to", [""])[0])
            self.answer(HTTPStatus.OK, "application/json", json.dumps({"messages": mail}).encode())
        elif url.path == "/page/passkeys.json":
            self.answer(HTTPStatus.OK, "application/json", json.dumps({"passkeys": self.has_passkeys}).encode())
        elif url.path == "/docs":
            self.answer(HTTPStatus.PERMANENT_REDIRECT, "text/plain", b"", location="/docs/")
        elif url.path in self.files:
            path = self.files[url.path]
            policy = _REFERENCE_POLICY if url.path == "/docs/" else _PAGE_POLICY
            body = path.read_bytes().replace(_MODE, self.mode)
            self.answer(HTTPStatus.OK, _TYPES[path.suffix], body, content_security_policy=policy)
        else:
            self.answer(HTTPStatus.NOT_FOUND, "text/plain", b"Not found.\n")

    do_HEAD = do_GET

    def is_addressed_to_loopback(self) -> bool:
        return urlsplit(f"//{self.headers.get('host', '')}").hostname in ("127.0.0.1", "localhost")

    def answer(self, status: HTTPStatus, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        fields = {"content-type": kind, "content-length": str(len(body)), **_HEADERS, **headers}
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing: the query of `/` holds the code from the hosted sign-in page."""


def main() -> None:
    options = set(sys.argv[2:])
    if len(sys.argv) < 2 or options - {"--cookies", "--passkeys"}:
        raise SystemExit("usage: page_server.py EMULATOR_URL [--cookies] [--passkeys]")
    if "--cookies" in options:
        Page.mode = _MODE.replace(b"tokens", b"cookies")
    Page.files = files()
    Page.cognito = Cognito(sys.argv[1])
    Page.has_passkeys = "--passkeys" in options
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
