"""Runs an MCP client made with an official SDK, and plays its user. Start from `Agent`.

The client is a program of its own (`agent_python.py`, `agent_typescript.mjs`). It connects when it starts, and calls
one tool for each line of its input. It prints one JSON object a line:

- `{"http": [METHOD, URL, STATUS], "challenge": …, "grant": …}`: a request that the SDK sent, without its query;
- `{"open": URL}`: the SDK opens the browser; the program waits for a line `{"redirected": URL}`;
- `{"result": …}` or `{"error": TEXT}`: the outcome of connecting or of a call.
"""

from __future__ import annotations

import json
import queue
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, final

from processes import environment

# Generous, for busy machines; a wait ends as soon as its condition holds.
_TIMEOUT_SECONDS = 60


class AgentError(Exception):
    """The error that the SDK reported to its application."""


@dataclass(frozen=True)
class Request:
    """A request that the SDK sent, and the response's status and challenge."""

    method: str
    url: str
    status: int
    challenge: str | None
    # `grant_type` of a request to the token endpoint.
    grant: str | None


@final
@dataclass
class Agent:
    """A running client, as a context manager. `user` follows an authorization URL to the URL of the redirect."""

    command: Sequence[str | Path]
    user: Callable[[str], str]
    requests: list[Request] = field(default_factory=list)
    # Authorization URLs that the SDK opened.
    opened: list[str] = field(default_factory=list)

    def __enter__(self) -> Agent:
        self._process = subprocess.Popen(
            [str(part) for part in self.command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment())
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None,
                 _trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def connected(self) -> Any:
        """Waits until the client is connected, and returns what it knows of the server."""
        return self._outcome()

    def call(self, tool: str, **arguments: object) -> Any:
        """Calls a tool and returns its result; raises `AgentError` with the SDK's error."""
        self._write({"call": [tool, arguments]})
        return self._outcome()

    def sent(self, path: str) -> list[Request]:
        """The requests so far whose URL ends with this path."""
        return [request for request in self.requests if request.url.endswith(path)]

    def _outcome(self) -> Any:
        while True:
            line = self._lines.get(timeout=_TIMEOUT_SECONDS)
            assert line, f"the client ended with {self._process.wait()}"
            message = json.loads(line)
            if "result" in message:
                return message["result"]
            if "error" in message:
                raise AgentError(message["error"])
            if "open" in message:
                self.opened.append(message["open"])
                self._write({"redirected": self.user(message["open"])})
            else:
                method, url, status = message["http"]
                self.requests.append(Request(method, url, status, message["challenge"], message["grant"]))

    def _write(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")  # the end
