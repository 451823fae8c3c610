"""An application that answers CORS itself: it allows every origin, in preflights and in other responses.

It opens every WebSocket with the first subprotocol that it is offered, and sends the request that it received.

`cross_origin_app.py` listens on a free loopback port and prints `listening on N`, like `deploy/local/upstream.py`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy" / "local"))

from upstream import Echo

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


class CrossOrigin(Echo, BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if (self.headers.get("upgrade") or "").lower() != "websocket":
            self.answer()
            return
        key = self.headers["sec-websocket-key"] + _GUID
        accept = base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode()
        head = ["HTTP/1.1 101 Switching Protocols", "upgrade: websocket", "connection: Upgrade",
                f"sec-websocket-accept: {accept}"]
        if offered := self.headers.get("sec-websocket-protocol"):
            head.append(f"sec-websocket-protocol: {offered.split(', ')[0]}")
        text = json.dumps({"path": self.path, "headers": self.headers.items()}).encode()
        self.wfile.write("\r\n".join([*head, "", ""]).encode())
        self.wfile.write(b"\x81\x7e" + len(text).to_bytes(2, "big") + text)  # one text frame
        self.rfile.read(1)  # until the page closes the connection
        self.close_connection = True

    def end_headers(self) -> None:
        self.send_header("access-control-allow-origin", self.headers.get("origin") or "null")
        self.send_header("access-control-allow-headers", "authorization")
        super().end_headers()


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), CrossOrigin) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()
