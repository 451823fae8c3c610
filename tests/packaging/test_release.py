"""The archives of a release: what `.ci/release-archives` packs is complete, verifiable and can be run."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import image_build
import prepare
from commands import output, run
from paths import ROOT
from processes import Failed
from test_workflows import package

VERSION: str = package()["version"]
Pack = Callable[[str], Path]


@pytest.fixture
def pack(static_build: image_build.Build, tmp_path: Path) -> Pack:
    """Packs the archives in a new folder and returns it.

    Only this machine's architecture is built here, so both platforms get its program: the script does not look inside.
    """
    builds = tmp_path / "builds"
    for platform in ("linux_amd64", "linux_arm64"):
        shutil.copytree(static_build.directory, builds / platform)

    def packed(name: str) -> Path:
        done = run(
            ROOT / ".ci" / "release-archives", VERSION, builds, tmp_path / name,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return tmp_path / name

    return packed


def test_archives_are_complete_and_the_same_each_time(pack: Pack) -> None:
    first, second = pack("first"), pack("second")
    names = [f"cognito-authz-{VERSION}-{machine}-linux" for machine in ("aarch64", "x86_64")]
    assert sorted(path.name for path in first.iterdir()) == ["SHA256SUMS", *(f"{name}.tar.gz" for name in names)]
    done = run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=first)
    assert done.returncode == 0, done.stdout
    for name in names:
        packed = first / f"{name}.tar.gz"
        assert packed.read_bytes() == (second / packed.name).read_bytes(), "not reproducible"
        with tarfile.open(packed) as archive:
            files = {member.name: member for member in archive if member.isfile()}
        assert {member.uid for member in files.values()} == {0}
        assert files[f"{name}/cognito-authz"].mode == 0o755
        assert {path.removeprefix(f"{name}/") for path in files} == {
            "cognito-authz", "completions/_cognito-authz", "completions/cognito-authz.bash",
            "completions/cognito-authz.fish", "licenses/LICENSE", "licenses/NOTICE", "licenses/THIRD-PARTY-NOTICES",
            "licenses/sbom.cdx.json", "man/cognito-authz.1",
        }  # fmt: skip
        assert all(member.size for member in files.values())


def test_the_local_stack_can_use_an_archive(pack: Pack) -> None:
    archive = next(pack("archives").glob(f"*-{os.uname().machine}-linux.tar.gz"))
    with prepare.unpacked(archive) as program:
        assert output(program, "--version").startswith(f"cognito-authz {VERSION}")
    assert not program.exists()


def test_the_local_stack_refuses_other_archives(tmp_path: Path) -> None:
    text = tmp_path / "notes.tar.gz"
    text.write_text("no archive")
    other = tmp_path / "other.tar.gz"
    with tarfile.open(other, "w:gz") as archive:
        archive.add(text, "other/notes")
    for path in (text, other):
        with pytest.raises(Failed, match="is not a release archive"), prepare.unpacked(path):
            pass


def test_a_release_has_one_version(static_build: image_build.Build, tmp_path: Path) -> None:
    shutil.copytree(static_build.directory, tmp_path / "builds" / "linux_amd64")
    shutil.copytree(static_build.directory, tmp_path / "builds" / "linux_arm64")
    done = run(ROOT / ".ci" / "release-archives", "99.0.0", tmp_path / "builds", tmp_path / "out")
    assert done.returncode == 1
    assert "not version 99.0.0" in done.stderr
    assert not (tmp_path / "out").exists()
