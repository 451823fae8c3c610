"""The application behind Envoy: echoes every request as JSON, and has some pages (members.py).

`upstream.py [PORT]` listens on a loopback port (default: a free one) and prints `listening on N`.

`headers` is a list of pairs, so repeated headers show. `number` counts all requests received so far, so the tour
notices a refused request that reached the application anyway. Pages have it in the header `x-number`.
"""

from __future__ import annotations

import itertools
import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import members


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    numbers = itertools.count(1)

    def answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        number = next(self.numbers)
        if members.owns(self.path):
            if length > members.MOST_BYTES:
                self.close_connection = True  # the body is not read
                self.send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"x-number": str(number)}, b"")
                return
            page = members.answer(self.command, self.path, self.headers, self.rfile.read(length))
            self.send(page.status, {**page.headers, "x-number": str(number)}, page.body)
            return
        self.rfile.read(length)
        self.send(HTTPStatus.OK, {"content-type": "application/json"}, self.echo(number).encode())

    def echo(self, number: int) -> str:
        """The request as JSON, with each header on a line of its own."""
        request = json.dumps({"number": number, "method": self.command, "path": self.path, "headers": []}, indent=2)
        headers = ",\n".join(f"    {json.dumps([name.lower(), value])}" for name, value in self.headers.items())
        return request.removesuffix("]\n}") + f"\n{headers}\n  ]\n}}\n"

    def send(self, status: HTTPStatus, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing: the query may hold a token."""


def main() -> None:
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Echo) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
