#!/usr/bin/env python3
"""Writes the bill of materials (CycloneDX) and the third-party notices of the program.

    third_party.py --target TRIPLE --cc COMPILER --program FILE DIRECTORY

writes sbom.cdx.json and THIRD-PARTY-NOTICES. `cargo tree -e normal` lists the crates in the program; their licence
texts come from the crates' own sources. A static program also contains code that is not in Cargo.lock, where a scanner
would look: Rust's standard library, AWS-LC (inside aws-lc-sys), glibc and libgcc. A part without a licence text is an
error, so that nothing ships without one.

The same sources and tools give the same bytes. Needs Python 3.11, cargo, and dpkg for the C libraries.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HOME = "https://github.com/cognito-authz/cognito-authz"
_LICENCE_FILE = re.compile(r"(un)?licen[cs]e|copying|copyright|notice", re.IGNORECASE)

# Used for crates that declare MIT but do not include the text. With any other licence, a missing text is an error.
_MIT = """MIT License

Copyright (c) {authors}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


class Failed(Exception):
    """A build failure, reported as one sentence."""


@dataclass
class Part:
    """A third-party component of the program."""

    name: str
    version: str
    purl: str
    licence: str
    texts: list[str]
    source: str | None = None
    sha256: str | None = None
    # A procedural macro: it runs at compile time. The code that it generates is in the program, the macro is not.
    macro: bool = False
    needs: list[str] = field(default_factory=list)  # purls
    parts: list[Part] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(prog="third_party.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", required=True, help="Rust target that the program was compiled for")
    parser.add_argument("--cc", required=True, help="C compiler that linked the program")
    parser.add_argument("--program", required=True, type=Path, help="path of the program")
    parser.add_argument("directory", type=Path, help="directory to write the files to")
    options = parser.parse_args()
    version, own, parts = crates(options.target)
    parts += [rust_std(), *c_libraries(options.cc)]
    options.directory.mkdir(parents=True, exist_ok=True)
    bill = bill_of_materials(version, own, parts, options.program)
    write(options.directory / "sbom.cdx.json", json.dumps(bill, indent=1) + "\n")
    write(options.directory / "THIRD-PARTY-NOTICES", notices(version, options.target, parts))
    print(f"{len(parts)} third parties: sbom.cdx.json, THIRD-PARTY-NOTICES")


def write(path: Path, text: str) -> None:
    """Writes the file atomically and makes it world-readable, whatever the umask."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o444)
    new.replace(path)


# ------------------------------------------------------------------------------------------------------ finding parts


def crates(target: str) -> tuple[str, list[str], list[Part]]:
    """Our version, the purls of our direct dependencies, and all crates in a program for `target`."""
    tree = run("cargo", "tree", "--locked", "--target", target, "--edges", "normal", "--prefix", "none",
               "--no-dedupe", "--format", "{p}")
    lines = (line.split() for line in tree.splitlines() if line)
    wanted = {(name, version.removeprefix("v")) for name, version, *_ in lines}
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    own = metadata["resolve"]["root"]
    found = {package["id"]: package for package in metadata["packages"]
             if (package["name"], package["version"]) in wanted}
    if len(found) != len(wanted):
        raise Failed("cargo tree and cargo metadata do not agree about the crates")
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

    def needs(crate: str) -> list[str]:
        return sorted(purl(found[edge["pkg"]]) for edge in nodes[crate]["deps"] if edge["pkg"] in found
                      and any(kind["kind"] is None for kind in edge["dep_kinds"]))

    checksums = lock_checksums()
    parts = []
    for crate, package in found.items():
        if crate != own:
            parts.append(Part(
                package["name"], package["version"], purl(package), expression(package),
                crate_texts(package, found.values()), source=package["repository"],
                sha256=checksums[package["name"], package["version"]], needs=needs(crate),
                macro=any("proc-macro" in made["kind"] for made in package["targets"]),
                parts=[aws_lc(package)] if package["name"] == "aws-lc-sys" else []))
    return found[own]["version"], needs(own), sorted(parts, key=lambda part: (part.name, part.version))


def purl(package: dict[str, Any]) -> str:
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def expression(package: dict[str, Any]) -> str:
    """Licence of a package as an SPDX expression. crates.io used to accept a slash for `OR`."""
    licence = package["license"]
    if not licence:
        raise Failed(f"{package['name']} declares no licence")
    return " OR ".join(part.strip() for part in str(licence).split("/"))


def crate_texts(package: dict[str, Any], all_packages: Iterable[dict[str, Any]]) -> list[str]:
    texts = licence_files(package)
    if texts:
        return texts
    # Another crate of the same workspace may include the text.
    for other in sorted(all_packages, key=lambda other: other["name"]):
        same = all(package[what] and package[what] == other[what] for what in ["repository", "license"])
        texts = texts or (licence_files(other) if same else [])
    if texts:
        return texts
    if package["license"] == "MIT" and package["authors"]:
        authors = ", ".join(re.sub(r"\s*<[^>]*>", "", author) for author in package["authors"])
        return [_MIT.format(authors=authors)]
    raise Failed(f"{package['name']} {package['version']} ({package['license']}) has no licence text")


def licence_files(package: dict[str, Any]) -> list[str]:
    """Texts of all licence files of a crate, including those of code that it vendors."""
    directory = Path(package["manifest_path"]).parent
    files = {path for path in directory.rglob("*") if path.is_file() and _LICENCE_FILE.match(path.name)
             and path.suffix not in {".rs", ".c", ".h", ".py", ".go"}}
    if package["license_file"]:
        files.add(directory / package["license_file"])
    return [path.read_text(encoding="utf-8", errors="replace") for path in sorted(files)]


def lock_checksums() -> dict[tuple[str, str], str | None]:
    """SHA-256 of each crate's archive, by name and version; `None` for a crate without one."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}


def aws_lc(package: dict[str, Any]) -> Part:
    """AWS-LC as a component of its own: its advisories name AWS-LC's version, not that of the crate."""
    header = Path(package["manifest_path"]).parent / "aws-lc" / "include" / "openssl" / "base.h"
    version = re.search(r'AWSLC_VERSION_NUMBER_STRING "([0-9.]+)"', header.read_text())
    if not version:
        raise Failed(f"{header}: no AWSLC_VERSION_NUMBER_STRING")
    return Part("aws-lc", version[1], f"pkg:github/aws/aws-lc@v{version[1]}", expression(package), [],
                source="https://github.com/aws/aws-lc")


def rust_std() -> Part:
    version = re.search(r"^release: (\S+)$", run("rustc", "--version", "--verbose"), re.MULTILINE)
    page = Path(run("rustc", "--print", "sysroot").strip()) / "share" / "doc" / "rust" / "COPYRIGHT-library.html"
    if not version or not page.is_file():
        raise Failed(f"{page} is missing: use a toolchain installed by rustup, which includes it")
    body = page.read_text(encoding="utf-8").partition("<body>")[2]
    text = html.unescape(re.sub(r"<[^>]+>", "", body))
    return Part("rust-std", version[1], f"pkg:github/rust-lang/rust@{version[1]}", "MIT OR Apache-2.0",
                [re.sub(r"[ \t]+\n", "\n", text)], source="https://github.com/rust-lang/rust")


def c_libraries(cc: str) -> list[Part]:
    """The Debian packages of the C archives that `+crt-static` links into the program."""
    system = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    system = {key: value.strip('"') for key, value in system.items()}
    distribution = f"{system['ID']}-{system.get('VERSION_ID', 'testing')}"
    parts = []
    for archive, licence, shared in [
            ("libc.a", "LGPL-2.1-or-later", ["LGPL-2.1"]),
            ("libgcc_eh.a", "GPL-3.0-or-later WITH GCC-exception-3.1", [])]:
        path = Path(run(cc, f"-print-file-name={archive}").strip())
        if not path.is_absolute():
            raise Failed(f"{cc} has no {archive}: a static C library is needed (Debian: libc6-dev)")
        package = run("dpkg", "--search", str(path.resolve())).partition(": ")[0]
        name, version, architecture, source, source_version = run(
            "dpkg-query", "--show", "--showformat",
            "${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}", package).split()
        copyright_file = Path("/usr/share/doc") / name / "copyright"
        texts = [copyright_file.read_text(encoding="utf-8", errors="replace")]
        texts += [(Path("/usr/share/common-licenses") / text).read_text() for text in shared]
        parts.append(Part(
            name, version,
            f"pkg:deb/{system['ID']}/{name}@{version.replace('+', '%2B')}?arch={architecture}&distro={distribution}",
            licence, texts, source=f"https://snapshot.debian.org/package/{source}/{source_version}/"
            if system["ID"] == "debian" else f"https://packages.{system['ID']}.com/source/{source}"))
    return parts


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command[:2])}: {done.stderr.strip()}")
    return done.stdout


# ----------------------------------------------------------------------------------------------------------- the files


def bill_of_materials(version: str, own: list[str], parts: list[Part], program: Path) -> dict[str, Any]:
    """The bill of materials, in CycloneDX 1.6."""
    ours = f"pkg:github/cognito-authz/cognito-authz@{version}"
    with_std = own + [part.purl for part in parts if not part.purl.startswith("pkg:cargo/")]
    application = {
        "type": "application", "bom-ref": ours, "name": "cognito-authz", "version": version, "purl": ours,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(program.read_bytes()).hexdigest()}],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "externalReferences": [{"type": "vcs", "url": HOME}],
    }
    metadata: dict[str, Any] = {
        "lifecycles": [{"phase": "build"}], "component": application,
        "supplier": {"name": "cognito-authz", "url": [HOME]}}
    if os.environ.get("SOURCE_DATE_EPOCH"):
        when = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
        metadata["timestamp"] = when.isoformat().replace("+00:00", "Z")
    content: dict[str, Any] = {
        "metadata": metadata,
        "components": [component(part) for part in parts],
        "dependencies": [{"ref": ours, "dependsOn": sorted(with_std)}] + [
            {"ref": part.purl, "dependsOn": sorted(part.needs + [inner.purl for inner in part.parts])}
            for part in parts],
    }
    # Derived from the content, so that the same input gives the same file.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, HOME + json.dumps(content, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1,
            **content}


def component(part: Part) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "library", "bom-ref": part.purl, "name": part.name, "version": part.version, "purl": part.purl,
        "scope": "excluded" if part.macro else "required", "licenses": [{"expression": part.licence}]}
    if part.sha256:
        entry["hashes"] = [{"alg": "SHA-256", "content": part.sha256}]
    if part.source:
        kind = "vcs" if part.purl.startswith(("pkg:cargo/", "pkg:github/")) else "website"
        entry["externalReferences"] = [{"type": kind, "url": part.source}]
    if part.parts:
        entry["components"] = [component(inner) for inner in part.parts]
    return entry


def notices(version: str, target: str, parts: list[Part]) -> str:
    """Text of THIRD-PARTY-NOTICES: a list of all parts, then each licence text once, under the parts it applies to."""
    texts: dict[str, tuple[str, list[str]]] = {}  # keyed by the words only: line breaks differ between crates
    for part in parts:
        for text in part.texts:
            texts.setdefault(" ".join(text.split()), (text.strip("\n"), []))[1].append(f"{part.name} {part.version}")
    glibc = next(part for part in parts if part.licence.startswith("LGPL"))
    everything = [inner for part in parts for inner in [part, *part.parts]]
    lines = [
        f"Third-party software in cognito-authz {version} for {target}",
        "",
        "cognito-authz itself is licensed under the Apache License 2.0 (LICENSE).",
        "",
        f"It is linked statically with the GNU C Library ({glibc.name} {glibc.version}), which is licensed under the",
        "GNU Lesser General Public License 2.1 or later; its source is at",
        f"{glibc.source}. To use the program with another",
        "version of that library, link it again: the source of cognito-authz is at",
        f"{HOME}, and deploy/image/build in it is all that is needed.",
        "",
        "=" * 100,
    ]
    for part in everything:
        source = f" ({part.source})" if part.source else ""
        lines.append(f"{part.name} {part.version}: {part.licence}{source}")
    for text, of in texts.values():
        lines += ["", "=" * 100, *wrapped(sorted(set(of))), "-" * 100, "", text]
    return "\n".join(lines) + "\n"


def wrapped(names: list[str]) -> list[str]:
    """Comma-separated names that end with a colon, in lines of at most 100 characters."""
    lines = [""]
    for number, name in enumerate(names):
        word = name + ("," if number + 1 < len(names) else ":")
        if lines[-1] and len(lines[-1]) + len(word) + 1 > 100:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


if __name__ == "__main__":
    try:
        main()
    except (Failed, OSError) as failure:
        print(f"third_party.py: {failure}", file=sys.stderr)
        sys.exit(1)
