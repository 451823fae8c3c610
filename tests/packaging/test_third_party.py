"""Third-party software in the image: notices and bill of materials."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_expression
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

import image_build
from commands import output
from paths import ROOT

TARGET = f"{platform.machine()}-unknown-linux-gnu"


@pytest.fixture(scope="module")
def licenses(static_build: image_build.Build) -> Path:
    return static_build.directory / "licenses"


@pytest.fixture(scope="module")
def bill(licenses: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((licenses / "sbom.cdx.json").read_text())
    return content


@pytest.fixture(scope="module")
def crates() -> set[tuple[str, str]]:
    """Crates in the program, and the macros that it is compiled with, each with its version."""
    tree = output("cargo", "tree", "--locked", "--edges", "normal", "--target", TARGET, "--prefix", "none", cwd=ROOT)
    found = {(words[0], words[1].removeprefix("v")) for words in map(str.split, tree.splitlines()) if words}
    assert len(found) > 100
    return {(name, version) for name, version in found if name != "cognito-authz"}


def test_the_bill_of_materials_is_valid(bill: dict[str, Any]) -> None:
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill))
    assert problem is None, problem
    for component in components(bill):
        assert str(PackageURL.from_string(component["purl"])) == component["purl"]
        for licence in component["licenses"]:
            assert is_expression(licence["expression"]), component


def test_the_bill_of_materials_names_every_crate(bill: dict[str, Any], crates: set[tuple[str, str]]) -> None:
    named = {(component["name"], component["version"]): component for component in components(bill)}
    of_cargo = {key for key, component in named.items() if component["purl"].startswith("pkg:cargo/")}
    assert of_cargo == crates
    assert all(named[crate]["hashes"][0]["alg"] == "SHA-256" for crate in crates)
    # Linked into the program, but not in Cargo.lock.
    others = {component["name"] for key, component in named.items() if key not in crates}
    assert {"aws-lc", "rust-std", "libc6-dev"} <= others
    assert any(name.startswith("libgcc-") for name in others)
    macros = {component["name"] for component in named.values() if component["scope"] == "excluded"}
    assert "serde_derive" in macros
    assert "serde" not in macros


def test_the_bill_of_materials_describes_this_program(bill: dict[str, Any], static_build: image_build.Build) -> None:
    application = bill["metadata"]["component"]
    digest = hashlib.sha256(static_build.program.read_bytes()).hexdigest()
    assert application["hashes"] == [{"alg": "SHA-256", "content": digest}]
    # The program depends on every component, directly or indirectly.
    edges = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    reached: set[str] = set()
    waiting = [application["bom-ref"]]
    while waiting:
        reference = waiting.pop()
        if reference not in reached:
            reached.add(reference)
            waiting += edges.get(reference, [])
    assert reached == {application["bom-ref"], *(component["bom-ref"] for component in components(bill))}


def test_the_notices_have_a_text_for_every_crate(licenses: Path, crates: set[tuple[str, str]]) -> None:
    listed, *texts = (licenses / "THIRD-PARTY-NOTICES").read_text().split("\n" + "=" * 100 + "\n")[1:]
    names = {tuple(line.split(":")[0].split(" ")) for line in listed.splitlines() if line}
    assert crates <= names
    of: set[tuple[str, ...]] = set()
    for text in texts:
        heading, words = text.split("\n" + "-" * 100 + "\n", 1)
        assert len(words.split()) > 5, heading
        of |= {tuple(name.split(" ")) for name in re.split(r",\s+", heading.rstrip(":"))}
    assert crates <= of, crates - of
    whole = "\n".join(texts)
    for sentence in ["GNU LESSER GENERAL PUBLIC LICENSE", "Copyright notices for The Rust Standard Library",
                     "GCC RUNTIME LIBRARY EXCEPTION", "Copyright (c) Andreas Fuchs"]:
        assert sentence in whole, sentence


def test_the_own_licence_is_included(licenses: Path) -> None:
    for name in ["LICENSE", "NOTICE"]:
        assert (licenses / name).read_bytes() == (ROOT / name).read_bytes()
    assert {path.name for path in licenses.iterdir()} == {"LICENSE", "NOTICE", "THIRD-PARTY-NOTICES", "sbom.cdx.json"}
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in licenses.iterdir())


def test_the_same_sources_give_the_same_files(licenses: Path, static_build: image_build.Build, tmp_path: Path) -> None:
    script = static_build.context / "deploy" / "image" / "third_party.py"
    output(sys.executable, script, "--target", TARGET, "--cc", "gcc", "--program", static_build.program, tmp_path)
    for name in ["sbom.cdx.json", "THIRD-PARTY-NOTICES"]:
        assert (tmp_path / name).read_bytes() == (licenses / name).read_bytes(), name


def components(bill: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for component in bill["components"] for part in [component, *component.get("components", [])]]
