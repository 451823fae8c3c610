"""An MCP server for the tests, made with the official Python SDK. It knows nothing of OAuth: Envoy lets only checked
requests pass, and the headers say who the caller is.

`mcp_server.py` serves streamable HTTP at `/mcp` on a free loopback port and prints `listening on N`, like
`deploy/local/upstream.py`. `calls` in each result counts the tool calls so far, so a test notices a refused call that
arrived anyway.
"""

from __future__ import annotations

import itertools
import socket

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

_CALLS = itertools.count(1)

Result = dict[str, object]


def _result(context: Context, **members: object) -> Result:
    request = context.request_context.request
    assert request is not None
    names = {name: value for name, value in request.headers.items() if name.startswith("x-auth-")}
    return {"calls": next(_CALLS), "caller": names, "authorization": "authorization" in request.headers, **members}


def list_orders(context: Context) -> Result:
    """Lists the orders of the caller."""
    return _result(context, orders=["A-1", "A-2"])


def refund(order: str, context: Context) -> Result:
    """Refunds an order."""
    return _result(context, refunded=order)


def delete_order(order: str, context: Context) -> Result:
    """Deletes an order, for operators."""
    return _result(context, deleted=order)


def main() -> None:
    server = MCPServer("Orders")
    for tool in (list_orders, refund, delete_order):
        server.add_tool(tool)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(f"listening on {listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
