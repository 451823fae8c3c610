"""Prints how many heap blocks each kind of check allocates in the whole program, and where.

    PYTHONPATH=deploy/local tests/tools/venv/bin/python tests/packaging/allocations.py [--bin PROGRAM] [CHECK]

CHECK is a part of a name in instructions.tsv. Without --bin it builds a release program with symbols, below
target/symbols. Valgrind replaces the allocator only in a dynamic program, so the static one of the image cannot be
measured. A program without symbols shows the numbers, but not the places.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections import Counter
from pathlib import Path

from check_cases import CASES, Case, runs
from paths import ROOT, TOOLS
from prepare import build
from stage import Stage

Place = tuple[str, str]  # crate, and function with file and line
# Frames that allocate for another one: those of valgrind, the standard library and crates of types, and inlined ones,
# whose names have no crate.
_INNER = re.compile(r"^(?:malloc|calloc|realloc|memalign|posix_memalign|__rust|\{|<\w+ as |\w+(?:<.*>)? \()"
                    r"|^<?&?(?:alloc|core|std|bytes|http)::")
_OWN = re.compile(r"^<?&?cognito_authz::")
# Less often than in one of these checks: housekeeping.
_RARELY = 50


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints how many heap blocks each kind of check allocates.")
    parser.add_argument("--bin", type=Path, help="a dynamic cognito-authz (default: build one with symbols)")
    parser.add_argument("check", nargs="?", default="", help="a part of the names of the checks")
    arguments = parser.parse_args()
    program = arguments.bin.resolve() if arguments.bin else build_with_symbols()
    for case in CASES:
        if arguments.check in case.name:
            report(program, case)


def build_with_symbols() -> Path:
    """A release program that says which line a frame belongs to."""
    os.environ |= {"CARGO_TARGET_DIR": str(ROOT / "target" / "symbols"), "CARGO_PROFILE_RELEASE_STRIP": "none",
                   "CARGO_PROFILE_RELEASE_DEBUG": "line-tables-only"}
    return build(ROOT, "release")


def report(program: Path, case: Case) -> None:
    with tempfile.TemporaryDirectory() as name, Stage(program, Path(name)) as stage:
        profile = stage.directory / "profile"
        command = [str(TOOLS / "valgrind"), "--tool=dhat", "--num-callers=40", f"--dhat-out-file={profile}"]
        short, long = (places(profile) for _ in runs(stage, case, command))
    # What the start allocates once is the same in both runs, or rare.
    each = {place: (blocks - short[place]) / case.count for place, blocks in long.items()}
    shown = {place: blocks for place, blocks in each.items() if blocks * _RARELY >= 1}
    crates: Counter[str] = Counter()
    for (crate, _), blocks in shown.items():
        crates[crate] += blocks  # type: ignore[assignment]
    summary = ", ".join(f"{crate} {blocks:.1f}" for crate, blocks in crates.most_common())
    print(f"\n{case.name}: {sum(shown.values()):.1f} heap blocks ({summary})")
    for (_, place), blocks in sorted(shown.items(), key=lambda item: -item[1]):
        print(f"{blocks:7.2f}  {place}")


def places(profile: Path) -> Counter[Place]:
    """Blocks by place, from DHAT's profile."""
    found: Counter[Place] = Counter()
    content = json.loads(profile.read_text())
    frames = [re.sub("^0x[0-9A-F]+: ", "", frame) for frame in content["ftbl"]]
    for point in content["pps"]:
        found[place([frames[index] for index in point["fs"]])] += point["tbk"]
    return found


def place(stack: list[str]) -> Place:
    """The innermost frame of a crate, and after it the first one of cognito-authz, if that is another."""
    outer = [frame for frame in stack if not _INNER.search(frame)] or stack[-1:]
    own = next((frame for frame in outer if _OWN.search(frame)), None)
    crate = re.sub(r"^<*&?(\w+)\b.*", r"\1", outer[0])
    via = f", in {own}" if own and own != outer[0] else ""
    return crate, outer[0] + via


if __name__ == "__main__":
    main()
