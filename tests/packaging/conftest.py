"""Fixtures for the tests of the image, the charts, the manifests, the workflows and the documents.

Needs `tests/tools/setup --packaging --prometheus --redis`. Options: `--bin` names the cognito-authz to test (default:
build it); `--renew` renews instructions.tsv (test_instructions.py) and the outputs in the pages of
docs/troubleshooting.md (test_troubleshooting.py).

The schemas of custom resources (Istio, Envoy Gateway, Prometheus operator) are not part of this project. The variable
CRD_VALIDATOR names a script that validates manifests against them. If it is unset, `crds/validate_crd.py` in a
directory next to the checkout is used. Without either, those tests are skipped with a message.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import image_build
from manifests import DEPLOY, build_kustomization
from paths import ROOT
from prepare import build
from stage import Node


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bin", type=Path, help="the cognito-authz to run (default: build it)")
    parser.addoption("--renew", action="store_true", help="write what was counted or shown to the files")
    parser.addoption("--clones", type=Path, help="directory with the clones that custom_resources.py names")


@pytest.fixture(scope="session")
def crd_validator() -> Path:
    """Path of the script that validates custom resources; skips the test if there is none."""
    named = os.environ.get("CRD_VALIDATOR")
    found = [Path(named)] if named else sorted(ROOT.parent.glob("*/crds/validate_crd.py"))
    if not found:
        pytest.skip("no schemas of custom resources: set CRD_VALIDATOR=/path/to/validate_crd.py")
    assert found[0].is_file(), f"CRD_VALIDATOR: {found[0]} does not exist"
    return found[0]


@pytest.fixture(scope="session")
def static_build() -> image_build.Build:
    """Output of the image's build stage: the static program, the licences and the bill of materials."""
    return image_build.build()


@pytest.fixture(scope="session")
def binary(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Path:
    """Path of the cognito-authz that the tests run.

    In this order: the one that `--bin` names; the image's, so that the tests need only one release build; where the
    image's cannot be built, a release build.
    """
    chosen: Path | None = pytestconfig.getoption("--bin")
    if chosen:
        return chosen.resolve()
    if image_build.is_possible():
        build_of_image: image_build.Build = request.getfixturevalue("static_build")
        return build_of_image.program
    return build(ROOT, "release")


@pytest.fixture(scope="session")
def production() -> list[Node]:
    """The objects of the production overlay of deploy/kustomize."""
    return build_kustomization(DEPLOY / "kustomize" / "overlays" / "production")
