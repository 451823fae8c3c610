"""Clients that tools generate from the served document compile, and do a user's journey at the real service."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from conftest import HERE, TOOLS, Tool
from stack import Stack, make_password

NODE = TOOLS / "venv" / "bin" / "node"
MODULES = TOOLS / "node" / "node_modules"

EXPECTED = {
    "delivery": "email",
    "renewed": True,
    "wrong": [401, "invalid_credentials"],
    "incomplete": [400, "invalid_request", "password"],
    "scope": "shared",
    "after": [401, "invalid_token"],
}


def expected(stack: Stack, email: str) -> dict[str, Any]:
    scope = "shared" if stack.over_replica is not None else "replica"
    return {**EXPECTED, "scope": scope, "profile": [email, "Grace Hopper"]}


def test_a_client_in_typescript(stack: Stack, saved: Path, tool: Tool) -> None:
    (tool.folder / "node_modules").symlink_to(MODULES)
    shutil.copy(HERE / "client_typescript.ts", tool.folder)
    (tool.folder / "package.json").write_text('{"type": "module"}')
    tool.says(MODULES / ".bin" / "openapi-typescript", saved.name, "--output", "openapi.ts")
    options = {"strict": True, "noUncheckedIndexedAccess": True, "exactOptionalPropertyTypes": True, "noEmit": True,
               "target": "es2022", "module": "nodenext", "moduleResolution": "nodenext", "lib": ["es2022", "dom"],
               "types": [], "skipLibCheck": True, "allowImportingTsExtensions": True}
    (tool.folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options}))
    tool.says(MODULES / ".bin" / "tsc", "--project", ".")
    email = "typescript@example.com"
    said = tool.says(NODE, "client_typescript.ts", stack.over_tcp, email, make_password())
    assert json.loads(said) == expected(stack, email)


def test_a_client_in_python(stack: Stack, saved: Path, tool: Tool) -> None:
    python = TOOLS / "venv" / "bin" / "python"
    # The package only; the tool would also format it.
    settings = {"package_name_override": "account_client", "post_hooks": []}
    (tool.folder / "settings.yaml").write_text(json.dumps(settings))
    said = tool.says(
        python, "-m", "openapi_python_client", "generate", "--path", saved.name, "--meta", "none", "--config",
        "settings.yaml", "--output-path", "account_client", "--fail-on-warning")
    assert "warning" not in said.lower(), said
    tool.says(python, "-m", "compileall", "-q", "account_client")
    email = "python@example.com"
    said = tool.says(python, HERE / "client_python.py", stack.over_tcp, email, make_password())
    assert json.loads(said) == expected(stack, email)
