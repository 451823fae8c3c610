"""Runs the build stage of the image (deploy/image/build) as the Dockerfile does, on files that .dockerignore admits.

    tests/tools/venv/bin/python tests/packaging/image_build.py    builds, and prints the path of the program

The program is static and runs anywhere, so `tests/run` uses it for the tour and the page, too: one release build.
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
    """Output of the build stage."""

    directory: Path  # /out in the Dockerfile
    context: Path  # /src in the Dockerfile: the files that .dockerignore admits
    revision: str

    @property
    def program(self) -> Path:
        return self.directory / "cognito-authz"


def is_possible() -> bool:
    """`True` if this machine can run the build stage: Linux with dpkg."""
    return sys.platform == "linux" and shutil.which("dpkg") is not None


def build() -> Build:
    """Builds, unless nothing changed since. Raises `CalledProcessError` after the script printed the reason."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    context = target / "image" / "context"
    copy_context(context)
    result = Build(target / "image" / "out", context, revision())
    subprocess.run(
        [context / "deploy" / "image" / "build", result.directory], check=True, stdout=sys.stderr,
        env={**os.environ, "CARGO_TARGET_DIR": str(target), "COGNITO_AUTHZ_REVISION": result.revision})
    return result


def copy_context(directory: Path) -> None:
    """Copies the build context to `directory`. Keeps modification times, so that cargo does not compile again."""
    shutil.rmtree(directory, ignore_errors=True)
    for name in admitted():
        source, target = ROOT / name, directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)


def admitted() -> list[str]:
    """Paths that .dockerignore admits. The file must stay simple: exclude everything, then admit plain paths."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", lines
    assert all(line.startswith("!") and not set(line[1:]) & set("*?[!\\") for line in lines[1:]), lines
    return [line[1:] for line in lines[1:]]


def revision() -> str:
    """Commit of the working tree."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "outside-of-git"


if __name__ == "__main__":
    try:
        print(build().program)
    except subprocess.CalledProcessError as failure:
        sys.exit(failure.returncode)  # the script has printed the reason
