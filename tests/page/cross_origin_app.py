"""An application that answers CORS itself: it allows every origin, in preflights and in other responses.

`cross_origin_app.py` listens on a free loopback port and prints `listening on N`, like `deploy/local/upstream.py`.
"""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy" / "local"))

from upstream import Echo


class CrossOrigin(Echo):
    def end_headers(self) -> None:
        self.send_header("access-control-allow-origin", self.headers.get("origin") or "null")
        self.send_header("access-control-allow-headers", "authorization")
        super().end_headers()


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), CrossOrigin) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()
