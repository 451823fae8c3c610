"""Fixtures for the tests of the OpenAPI document: the local stack with Envoy in front, and the tools that read it.

Needs `tests/tools/setup --node --passkeys --clients`. Option: `--bin` names the cognito-authz to test (default: build
it).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The two other folders have the user at the hosted pages, and the passkey in software.
sys.path[:0] = [str(ROOT / folder) for folder in ("deploy/local", "tests/agents", "tests/page")]

import web  # noqa: E402
from prepare import build  # noqa: E402
from processes import environment  # noqa: E402
from stack import Stack  # noqa: E402

HERE = Path(__file__).resolve().parent
TOOLS = ROOT / "tests" / "tools"
# Generous, for busy machines.
TIMEOUT_SECONDS = 300
Stack.busy_machine = True


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bin", type=Path, help="cognito-authz program to run (default: build it)")


@pytest.fixture(scope="session")
def binary(pytestconfig: pytest.Config) -> Path:
    named: Path | None = pytestconfig.getoption("--bin")
    return named.resolve() if named else build(ROOT)


@pytest.fixture(scope="session")
def stack(binary: Path) -> Iterator[Stack]:
    local = Stack(ROOT, binary, port=0, token_seconds=3600, options=["--limit-address", "1000/1m"])
    local.passkeys = True
    with local as running:
        yield running


@pytest.fixture(scope="session")
def document(stack: Stack) -> dict[str, Any]:
    """The document that the stack serves, through Envoy."""
    served: dict[str, Any] = web.get(f"{stack.over_tcp}/auth/openapi.json").json()
    return served


@final
class Tool:
    """A program of tests/tools, run in a folder. `says` returns its output and fails the test if it fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def says(self, *command: str | Path, env: dict[str, str] | None = None) -> str:
        run = self.run(*command, env=env)
        assert run.returncode == 0, f"{command[0]}: {run.stdout}{run.stderr}"
        return run.stdout

    def run(self, *command: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        node = {"PATH": f"{TOOLS / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False, cwd=self.folder,
            timeout=TIMEOUT_SECONDS, env=environment({**node, **(env or {})}))


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path)


@pytest.fixture
def saved(document: dict[str, Any], tmp_path: Path) -> Path:
    """The document as a file."""
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document))
    return path
