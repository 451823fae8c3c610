"""A check needs about as many instructions as instructions.tsv says.

Instructions do not depend on how busy the machine is. They are those of the release program, without the kernel's,
counted by valgrind. This renews the table:

    tests/tools/venv/bin/python -m pytest -c tests/packaging/pytest.ini tests/packaging/test_instructions.py --renew

The numbers are for x86-64 and for the CPU that valgrind emulates: it has AVX2 if the real one has, but never AVX-512 or
SHA-NI. So verification and SHA-256 take more instructions here than in production. Runs on a busy machine differed by
up to 4 %.
"""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from check_cases import CASES, Case, cost
from paths import ROOT, TOOLS
from stage import Stage

TABLE = Path(__file__).with_name("instructions.tsv")
# Part of the recorded number by which a count may differ. It has to allow for other CPUs and versions of valgrind.
TOLERANCE = 0.25
RENEW = "If that is intended, renew the table: tests/packaging/test_instructions.py says how."


@pytest.fixture(scope="session")
def valgrind() -> Path:
    """Path of valgrind; skips the test if there is none."""
    if platform.machine() != "x86_64":
        pytest.skip(f"the instructions of a check are recorded for x86_64, not for {platform.machine()}")
    path = TOOLS / "valgrind"
    if not path.exists():
        pytest.skip("no valgrind: tests/tools/setup --valgrind installs it")
    return path


def test_a_check_needs_as_many_instructions_as_recorded(
        valgrind: Path, binary: Path, tmp_path: Path, pytestconfig: pytest.Config,
        capsys: pytest.CaptureFixture[str]) -> None:
    # Cachegrind counts the same instructions as callgrind, in half the time.
    command = [str(valgrind), "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]

    def count(case: Case) -> int:
        directory = tmp_path / str(CASES.index(case))
        directory.mkdir()
        with Stage(binary, directory) as stage:
            return cost(stage, case, command, r"I +refs: +([\d,]+)")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip((case.name for case in CASES), pool.map(count, CASES), strict=True))
    if pytestconfig.getoption("--renew"):
        rows = ("check\tinstructions", *(f"{name}\t{round(value, -3)}" for name, value in counts.items()))
        TABLE.write_text("\n".join(rows) + "\n")
    recorded = read_table()
    with capsys.disabled():
        print("\n\ninstructions of a check, counted and recorded")
        for name, value in counts.items():
            print(f"{value:>9,} {recorded.get(name, 0):>9,}  {name}")
    assert list(recorded) == list(counts), f"{TABLE.relative_to(ROOT)} has other rows. {RENEW}"
    wrong = [f"{name}: {value:,}, recorded {recorded[name]:,} ({value / recorded[name] - 1:+.0%})"
             for name, value in counts.items() if abs(value / recorded[name] - 1) > TOLERANCE]
    # Fewer fail as well: otherwise a later change could add as many again, and pass.
    assert not wrong, "\n".join([f"more than {TOLERANCE:.0%} more or fewer instructions than recorded:", *wrong, RENEW])


def read_table() -> dict[str, int]:
    """The recorded number of instructions of each case."""
    rows = (line.split("\t") for line in TABLE.read_text().splitlines()[1:])
    return {name: int(value) for name, value in rows}
