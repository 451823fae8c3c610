"""What the local stack needs before it can start: a program and the tools. Start from `prepare` and `unpacked`."""

from __future__ import annotations

import contextlib
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from processes import Failed, run_together

# A profile of Cargo.toml. It compiles in a fraction of the time of a release.
PROFILE = "local"


def prepare(root: Path, *, setup: Sequence[str] = (), profile: str | None = PROFILE) -> Path | None:
    """Runs the command that installs the tools, and at the same time builds the program; returns the program's path.

    Without a profile it builds nothing.
    """
    build = () if profile is None else (
        "cargo", "build", "--profile", profile, "--locked", "--bin", "cognito-authz",
        "--message-format=json-render-diagnostics")
    commands = [command for command in (build, setup) if command]
    started = time.monotonic()
    outputs = run_together(commands, cwd=root)
    seconds = time.monotonic() - started
    if seconds > 10:
        print(f"Prepared in {seconds:.0f} s.")
    return _executable(outputs[0]) if build else None


def build(root: Path, profile: str = PROFILE) -> Path:
    """Builds the program and returns its path."""
    program = prepare(root, profile=profile)
    assert program
    return program


def _executable(messages: str) -> Path:
    """Path of the program, from cargo's messages: the target directory is configurable."""
    for line in reversed(messages.splitlines()):
        message = json.loads(line)
        if message.get("executable"):
            return Path(message["executable"])
    raise Failed("cargo built no executable")


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Path of the program while the block runs. The program of a release archive is unpacked for that long."""
    if not path.name.endswith(".tar.gz"):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cognito-authz-") as directory:
        try:
            with tarfile.open(path) as archive:
                archive.extractall(directory, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise Failed(f"{path} is not a release archive: {error}") from error
        program = next(Path(directory).glob("*/cognito-authz"), None)
        if program is None:
            raise Failed(f"{path} is not a release archive: it has no program cognito-authz")
        yield program
