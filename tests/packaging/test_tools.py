"""The pinned tools run."""

from __future__ import annotations

from commands import run
from paths import TOOLS


def test_the_tools_run() -> None:
    for tool in ["hadolint", "actionlint", "check-jsonschema", "kubernetes-validate"]:
        done = run(TOOLS / tool, "--version")
        assert done.returncode == 0, done.stderr
