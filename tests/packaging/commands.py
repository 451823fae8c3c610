"""Runs commands for the tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from paths import ROOT

Command = list[str | Path]


def run(*command: str | Path, cwd: Path = ROOT,
        env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, at most 180 s, and returns its exit code and output."""
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=180, check=False)


def output(*command: str | Path, cwd: Path = ROOT) -> str:
    """Output of a command; fails if the command does."""
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
