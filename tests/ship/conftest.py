"""What the tests of what is shipped share: where things are.

Needs `tests/tools/setup --ship`. Schemas of custom resources (Istio, Envoy Gateway, Prometheus operator) are not part of this
project. CRD_VALIDATOR names a script `validate_crd.py` that checks manifests against schemas beside it; without the variable one
in a folder `crds` next to the checkout is taken; without either those checks are skipped, and say so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import image_build
import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tests" / "tools" / "venv" / "bin"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bin", type=Path, help="the cognito-authz to run (default: build it)")


@pytest.fixture(scope="session")
def crd_validator() -> Path:
    """The script that checks custom resources; skips where there is none."""
    named = os.environ.get("CRD_VALIDATOR")
    found = [Path(named)] if named else sorted(ROOT.parent.glob("*/crds/validate_crd.py"))
    if not found:
        pytest.skip("no schemas of custom resources here: CRD_VALIDATOR=/path/to/validate_crd.py names some")
    assert found[0].is_file(), f"CRD_VALIDATOR: {found[0]} is not there"
    return found[0]


def validate_crds(validator: Path, *manifests: Path) -> None:
    """Fails with what the validator says about a manifest."""
    done = subprocess.run([sys.executable, validator, *manifests], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def static_build() -> image_build.Build:
    """What the build stage of the image leaves: the static program, licences, bill of materials."""
    return image_build.build()


@pytest.fixture(scope="session")
def static_binary(static_build: image_build.Build) -> Path:
    """The program as it is in the image: a release build, for whoever needs a program to run."""
    return static_build.program
