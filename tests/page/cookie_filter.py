"""A proxy between a browser and the stack that removes cookies from responses, as a browser that blocks them does.

Start from `CookieFilter`.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "content-length"}


class CookieFilter:
    """The running proxy, as a context manager. It keeps only cookies whose name `is_kept` accepts."""

    def __init__(self, is_kept: Callable[[str], bool]) -> None:
        class Proxy(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)
                try:
                    connection.putrequest(self.command, f"{url.path}{'?' + url.query if url.query else ''}",
                                          skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():
                        if name.lower() not in _HOP_BY_HOP:
                            connection.putheader(name, value)
                    if body:
                        connection.putheader("content-length", str(len(body)))
                    connection.endheaders(body or None)
                    response = connection.getresponse()
                    content = response.read()
                finally:
                    connection.close()
                self.send_response_only(response.status)
                for name, value in response.getheaders():
                    blocked = name.lower() == "set-cookie" and not is_kept(value.partition("=")[0])
                    if name.lower() not in _HOP_BY_HOP and not blocked:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *arguments: object) -> None:
                """Logs nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        self._server.daemon_threads = True

    def __enter__(self) -> str:
        """Starts the proxy and returns its URL."""
        Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None,
                 _trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
