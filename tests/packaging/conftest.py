"""What the tests of what is shipped share: where things are.

Needs `tests/tools/setup --packaging`. Schemas of custom resources (Istio, Envoy Gateway, Prometheus operator) are not part of this
project. CRD_VALIDATOR names a script `validate_crd.py` that checks manifests against schemas beside it; without the variable one
in a folder `crds` next to the checkout is taken; without either those checks are skipped, and say so.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import image_build
from manifests import DEPLOY, build_kustomization
from paths import ROOT
from stack import build
from stage import Node


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
        build_of_image: image_build.Build = request.getfixturevalue("static_build")
        return build_of_image.program
    return build(ROOT)


@pytest.fixture(scope="session")
def production() -> list[Node]:
    """The objects of the production overlay of deploy/kustomize."""
    return build_kustomization(DEPLOY / "kustomize" / "overlays" / "production")
