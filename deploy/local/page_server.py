"""The page to try it, for the local stack only: its files, the API reference, and the emulator's mailbox.

Run as a program: `page_server.py EMULATOR_URL` listens on a free loopback port and prints `listening on N`.
Envoy is in front, on routes that need no token (envoy_config.PAGE_ROUTES). It serves the files it found when
it started and no other path, so there is no way out of its folders. It knows no secret but the codes in the
mailbox, and those only because the emulator hands them to anybody on this machine.
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

# Of Swagger UI's files, what its page asks for.
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

# Nothing inline, nothing from elsewhere, no form that a browser would send by itself (with a password in the
# URL, should a script fail to load), and no text that becomes markup.
_PAGE_POLICY = (_STRICT + "script-src 'self'; style-src 'self'; img-src 'self'; "
                "require-trusted-types-for 'script'; trusted-types 'none'")

# Swagger UI has its icons as data: URLs, and makes markup of text.
_REFERENCE_POLICY = _STRICT + "script-src 'self'; style-src 'self'; img-src 'self' data:"


def files() -> dict[str, Path]:
    """By request path, every file there is."""
    found = {f"/page/{path.relative_to(_PAGE)}": path for path in _PAGE.rglob("*") if path.suffix in _TYPES}
    found["/"] = found.pop("/page/index.html")
    found["/docs/"] = found.pop("/page/docs.html")
    swagger_ui = _swagger_ui()
    return found | {f"/docs/{name}": swagger_ui / name for name in _REFERENCE_FILES}


def _swagger_ui() -> Path:
    """Where the package keeps them; it is not imported, which would want to start a web framework."""
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

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if not self.is_for_us():
            # Or a page on the internet whose name it points at 127.0.0.1 could read the mailbox (DNS rebinding).
            self.answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"This is a page of 127.0.0.1.\n")
        elif url.path == "/mailbox":
            mail = self.cognito.mail(parse_qs(url.query).get("to", [""])[0])
            self.answer(HTTPStatus.OK, "application/json", json.dumps({"messages": mail}).encode())
        elif url.path == "/docs":
            self.answer(HTTPStatus.PERMANENT_REDIRECT, "text/plain", b"", location="/docs/")
        elif url.path in self.files:
            path = self.files[url.path]
            policy = _REFERENCE_POLICY if url.path == "/docs/" else _PAGE_POLICY
            self.answer(HTTPStatus.OK, _TYPES[path.suffix], path.read_bytes(), content_security_policy=policy)
        else:
            self.answer(HTTPStatus.NOT_FOUND, "text/plain", b"There is nothing here.\n")

    do_HEAD = do_GET

    def is_for_us(self) -> bool:
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
        """Quiet: the request line of `/` carries the code of the hosted sign-in page."""


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: page_server.py EMULATOR_URL")
    Page.files = files()
    Page.cognito = Cognito(sys.argv[1])
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
