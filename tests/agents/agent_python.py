"""An MCP client with the official Python SDK, as an application uses it. `agents.py` describes how a test talks to it.

`agent_python.py MODE URL REDIRECT_URI`: MODE is `auto` (the newest revision that both sides speak) or `legacy` (the
newest one with the `initialize` handshake).
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Literal, cast
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl


def say(**message: object) -> None:
    print(json.dumps(message), flush=True)


async def hear() -> dict[str, Any] | None:
    """The next message of the test; `None` at the end of the input."""
    line = await asyncio.to_thread(sys.stdin.readline)
    return cast("dict[str, Any]", json.loads(line)) if line else None


class Storage:
    """Keeps what the SDK stores, in memory."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


async def open_browser(url: str) -> None:
    say(open=url)


async def wait_for_redirect() -> AuthorizationCodeResult:
    message = await hear()
    assert message is not None
    query = {name: values[0] for name, values in parse_qs(urlsplit(message["redirected"]).query).items()}
    return AuthorizationCodeResult(code=query.get("code", ""), state=query.get("state"), iss=query.get("iss"))


async def report(response: httpx2.Response) -> None:
    request = response.request
    grant = parse_qs(request.content.decode()).get("grant_type") if request.url.path.endswith("/token") else None
    say(http=[request.method, str(request.url.copy_with(query=None)), response.status_code],
        challenge=response.headers.get("www-authenticate"), grant=grant and grant[0])


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group; the SDK's tasks raise groups."""
    nested: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    return [error] if nested is None else [leaf for each in nested for leaf in leaves(each)]


async def attempt(action: Callable[[], Awaitable[object]]) -> bool:
    """Reports the result of the action, or its errors."""
    try:
        say(result=await action())
    except Exception as error:  # noqa: BLE001  (the test judges the error)
        say(error="; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in leaves(error)))
        return False
    return True


async def main(mode: str, url: str, redirect_uri: str) -> None:
    storage = Storage()
    provider = OAuthClientProvider(
        url, OAuthClientMetadata(client_name="test agent", redirect_uris=[AnyUrl(redirect_uri)]), storage,
        redirect_handler=open_browser, callback_handler=wait_for_redirect)
    client: Client | None = None
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            httpx2.AsyncClient(auth=provider, timeout=30, event_hooks={"response": [report]}))

        async def connect() -> dict[str, object]:
            nonlocal client
            transport = streamable_http_client(url, http_client=http)
            connected = Client(transport, mode=cast(Literal["auto", "legacy"], mode))
            client = await stack.enter_async_context(connected)
            tools = (await connected.list_tools()).tools
            assert storage.client is not None
            return {"revision": connected.session.protocol_version, "tools": [tool.name for tool in tools],
                    "client_id": storage.client.client_id}

        if not await attempt(connect):
            return
        while (message := await hear()) is not None:
            name, arguments = message["call"]

            async def call(name: str = name, arguments: dict[str, Any] = arguments) -> object:
                assert client is not None
                result = await client.call_tool(name, arguments)
                return result.structured_content

            await attempt(call)


if __name__ == "__main__":
    # The SDK logs its errors with a traceback. The test gets them as messages.
    logging.disable(logging.CRITICAL)
    asyncio.run(main(*sys.argv[1:]))
