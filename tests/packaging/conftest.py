"""What the tests of what is shipped share: where things are.

Needs `tests/tools/setup --packaging`. Schemas of custom resources (Istio, Envoy Gateway, Prometheus operator) are not part of this
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
sys.path.insert(0, str(ROOT / "deploy" / "local"))

from stack import build  # noqa: E402

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
def binary(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Path:
    """The program that the other tests run: the one that `--bin` names; else the image's, so that one release build is enough
    to wait for; where that cannot be built, one as users build it."""
    chosen: Path | None = pytestconfig.getoption("--bin")
    if chosen:
        return chosen.resolve()
    if image_build.is_possible():
        return request.getfixturevalue("static_build").program
    return build(ROOT)
