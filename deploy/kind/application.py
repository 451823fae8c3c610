"""The application of deploy/local (upstream.py) for a pod: it listens on port 3000 of every address.

It answers each request with the request that it received, as JSON.
"""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer

from upstream import Echo


def main(port: int) -> None:
    with ThreadingHTTPServer(("", port), Echo) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000)
