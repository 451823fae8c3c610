"""The tools that the other tests here rely on are the pinned ones."""

from __future__ import annotations

import subprocess

from conftest import TOOLS


def test_the_tools_run() -> None:
    for tool in ["hadolint", "actionlint", "check-jsonschema", "kubernetes-validate"]:
        done = subprocess.run([TOOLS / tool, "--version"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
