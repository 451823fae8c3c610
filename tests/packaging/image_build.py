"""Runs the build stage of the image (deploy/image/build) as the Dockerfile does, from what .dockerignore lets through.

    tests/tools/venv/bin/python tests/packaging/image_build.py    builds, and prints the path of the program

The program is static and runs anywhere, so `tests/run` builds no other release: the tour and the page run this one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from paths import ROOT


@dataclass(frozen=True)
class Build:
    """What the build stage leaves."""

    directory: Path  # /out in the Dockerfile
    context: Path  # /src in the Dockerfile: the files that .dockerignore lets through
    revision: str

    @property
    def program(self) -> Path:
        return self.directory / "cognito-authz"


def is_possible() -> bool:
    """Whether this is a machine like the build stage's."""
    return sys.platform == "linux" and shutil.which("dpkg") is not None


def build() -> Build:
    """Builds, or finds that nothing has changed since it did. Raises with the script's messages in view."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    context = target / "image" / "context"
    copy_context(context)
    result = Build(target / "image" / "out", context, revision())
    subprocess.run(
        [context / "deploy" / "image" / "build", result.directory], check=True, stdout=sys.stderr,
        env={**os.environ, "CARGO_TARGET_DIR": str(target), "COGNITO_AUTHZ_REVISION": result.revision})
    return result


def copy_context(directory: Path) -> None:
    """Makes `directory` what a builder is sent. Times are kept, or cargo would compile what it has compiled."""
    shutil.rmtree(directory, ignore_errors=True)
    for name in sent():
        source, target = ROOT / name, directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)


def sent() -> list[str]:
    """What .dockerignore lets through. It is to be read at a glance: everything is left out, except for paths."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", lines
    assert all(line.startswith("!") and not set(line[1:]) & set("*?[!\\") for line in lines[1:]), lines
    return [line[1:] for line in lines[1:]]


def revision() -> str:
    """The commit that is checked out."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "outside-of-git"


if __name__ == "__main__":
    try:
        print(build().program)
    except subprocess.CalledProcessError as failure:
        sys.exit(failure.returncode)  # the script has said why
