"""The workflows are valid, have few permissions, and use existing files; the scripts in `.ci` work.

The actions themselves cannot be tested here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import output, run
from paths import ROOT, TOOLS

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = sorted((ROOT / ".ci").iterdir())


def read(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return found


def package() -> dict[str, Any]:
    """The package as Cargo.toml describes it."""
    metadata = json.loads(output("cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"))
    found: dict[str, Any] = metadata["packages"][0]
    return found


def triggers(workflow: dict[Any, Any]) -> dict[str, Any]:
    on = workflow[True]  # YAML 1.1 reads the key `on` as a boolean
    return on if isinstance(on, dict) else {on: None}


def jobs() -> Iterator[tuple[str, dict[Any, Any]]]:
    for path in WORKFLOWS:
        for name, job in read(path)["jobs"].items():
            yield f"{path.name}: {name}", job


def commands() -> Iterator[tuple[str, str]]:
    for where, job in jobs():
        for step in job.get("steps", []):
            if "run" in step:
                yield where, step["run"]


def test_actionlint_finds_nothing() -> None:
    assert len(WORKFLOWS) >= 5
    done = run(TOOLS / "actionlint", "-shellcheck", TOOLS / "shellcheck", "-pyflakes", "", *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_errors(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n    - run: echo ${{ github.head_ref }}\n"
    )
    done = run(TOOLS / "actionlint", wrong)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "untrusted" in done.stdout, done.stdout + done.stderr


def test_scripts_pass_shellcheck() -> None:
    for script in SCRIPTS:
        assert os.access(script, os.X_OK), script
    done = run(TOOLS / "shellcheck", *SCRIPTS)
    assert done.returncode == 0, done.stdout


def test_each_job_has_its_own_permissions() -> None:
    for path in WORKFLOWS:
        workflow = read(path)
        assert "permissions" in workflow, (
            f"{path.name}: without it, the repository's settings decide what the token may do"
        )
        assert set(workflow["permissions"].items()) <= {("contents", "read")}, path.name
    writers = {where: {k for k, v in job.get("permissions", {}).items() if v == "write"} for where, job in jobs()}
    assert {where: may for where, may in writers.items() if may} == {
        "image.yml: image": {"packages", "id-token", "attestations"},
        "chart.yml: chart": {"packages", "id-token"},
        "release.yml: archives": {"id-token", "attestations"},
        "release.yml: image": {"packages", "id-token", "attestations"},
        "release.yml: chart": {"packages", "id-token"},
        "release.yml: notes": {"contents"},
        "docs.yml: publish": {"pages", "id-token"},
        "release.yml: site": {"pages", "id-token"},
    }


def test_workflows_limit_time_and_concurrency() -> None:
    for path in WORKFLOWS:
        assert "concurrency" in read(path), path.name
    for where, job in jobs():
        assert "uses" in job or 0 < job["timeout-minutes"] <= 90, where


def test_actions_are_pinned_by_commit() -> None:
    pins: dict[str, set[tuple[str, str]]] = {}
    for path in WORKFLOWS:
        for line in path.read_text().splitlines():
            if not (found := re.match(r"\s*(?:- )?uses: *(\S+)(.*)$", line)):
                continue
            action, comment = found.groups()
            if action.startswith("./"):
                assert (ROOT / action).is_file(), f"{path.name}: {action} does not exist"
                continue
            name, _, commit = action.partition("@")
            assert re.fullmatch(r"[0-9a-f]{40}", commit), f"{path.name}: {action} is not pinned by commit"
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{path.name}: no comment names the version of {action}"
            pins.setdefault(name, set()).add((commit, comment))
    assert "actions/checkout" in pins
    assert all(len(ways) == 1 for ways in pins.values()), pins


def test_checkouts_do_not_keep_credentials() -> None:
    for where, job in jobs():
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, where


def test_commands_contain_no_expressions() -> None:
    """GitHub inserts an expression into the script before the shell parses it, so foreign text would become code."""
    for where, command in commands():
        assert "${{" not in command, f"{where}: {command}"


def test_files_in_commands_exist() -> None:
    pinned = "".join((ROOT / "tests/tools" / name).read_text() for name in ("stack.txt", "requirements.txt", "setup"))
    seen = set()
    for where, command in commands():
        for word in re.findall(r"(?<![\w/$.\"}-])(?:\.ci|tests|deploy|charts)/[\w./-]+", command):
            seen.add(word)
            if word.startswith("tests/tools/venv/bin/"):
                assert Path(word).name in pinned, f"{where}: {word} is not a pinned tool"
            else:
                assert os.access(ROOT / word, os.X_OK), f"{where}: {word} does not exist or is not executable"
    assert {"tests/tools/setup", *(str(script.relative_to(ROOT)) for script in SCRIPTS)} <= seen


def test_ci_runs_the_command_in_the_readme() -> None:
    steps = read(ROOT / ".github/workflows/ci.yml")["jobs"]["tests"]["steps"]
    assert steps[-1] == {"run": ".ci/run"}
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("\nexec tests/run")
    assert re.search(r"^tests/run +# ", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {"push", "pull_request"} <= set(triggers(read(ROOT / ".github/workflows/ci.yml")))


def test_only_a_tag_publishes_and_only_after_the_tests() -> None:
    """Only the release workflow calls workflows that can write, and only a tag starts a release."""
    for path in WORKFLOWS:
        if path.name == "docs.yml":
            continue  # the site of main is published as well: see the next test
        if any("write" in job.get("permissions", {}).values() for job in read(path)["jobs"].values()):
            on = triggers(read(path))
            assert on in ({"workflow_call": None}, {"push": {"tags": ["v*"]}}), f"{path.name}: {on}"
    release = read(ROOT / ".github/workflows/release.yml")["jobs"]

    def before(job: str) -> set[str]:
        needs = release[job].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*map(before, direct))

    assert release["tests"]["uses"] == "./.github/workflows/ci.yml"
    for job in ["image", "chart", "notes"]:
        assert {"version", "tests"} <= before(job), job
    for name in ["image", "chart"]:
        job = read(ROOT / f".github/workflows/{name}.yml")["jobs"][name]
        assert job["if"] == "startsWith(github.ref, 'refs/tags/v')"
        # A called workflow cannot have more permissions than its caller.
        assert job["permissions"] == release[name]["permissions"]


def test_the_site_is_published_for_main_and_after_a_release() -> None:
    workflow = read(ROOT / ".github/workflows/docs.yml")
    assert triggers(workflow) == {"push": {"branches": ["main"]}, "pull_request": None, "workflow_call": None}
    publish = workflow["jobs"]["publish"]
    # What a pull request changes is built without a permission to write.
    assert publish["if"] == "github.event_name != 'pull_request'"
    assert workflow["jobs"]["build"]["permissions"] == {"contents": "read"}
    assert [step.get("run") for step in publish["steps"]] == [None]
    job = read(ROOT / ".github/workflows/release.yml")["jobs"]["site"]
    assert (job["uses"], job["needs"]) == ("./.github/workflows/docs.yml", "notes")
    assert job["permissions"] == {**workflow["jobs"]["build"]["permissions"], **publish["permissions"]}


def test_the_image_is_built_from_the_dockerfile_for_two_architectures() -> None:
    steps = read(ROOT / ".github/workflows/image.yml")["jobs"]["image"]["steps"]
    build = next(step["with"] for step in steps if step.get("id") == "build")
    assert build["platforms"] == "linux/amd64,linux/arm64"
    assert (build["provenance"], build["sbom"], build["push"]) == ("mode=max", True, True)
    dockerfile = ROOT / "Dockerfile"
    arguments = set(re.findall(r"^ARG (\w+)", dockerfile.read_text(), re.MULTILINE))
    given = {line.split("=")[0] for line in build["build-args"].splitlines()}
    assert given <= arguments, f"the Dockerfile does not take {given - arguments}"
    # The workflow has no emulator, so the compiler must run on the builder's architecture.
    assert "--platform=$BUILDPLATFORM" in dockerfile.read_text()


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The files that a release compares, for version 1.2.3 with a dated section in the changelog."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    manifest = (ROOT / "Cargo.toml").read_text()
    version = package()["version"]
    (tmp_path / "Cargo.toml").write_text(manifest.replace(f'version = "{version}"', 'version = "1.2.3"', 1))
    log = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n" in log
    (tmp_path / "CHANGELOG.md").write_text(
        log.replace("## [Unreleased]\n", "## [Unreleased]\n\n## [1.2.3] - 2026-12-24\n", 1)
    )
    for chart in ["one", "two"]:
        (tmp_path / "charts" / chart).mkdir(parents=True)
        text = 'apiVersion: v2\nname: one\nversion: 1.2.3\nappVersion: "1.2.3"\n'
        text += "dependencies:\n- name: a\n  version: 9.9.9\n"
        (tmp_path / "charts" / chart / "Chart.yaml").write_text(text)
    return tmp_path


def test_a_tag_passes_if_all_versions_agree(release: Path) -> None:
    done = run(".ci/check-version", "v1.2.3", cwd=release)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("Cargo.toml", 'version = "1.2.3"', 'version = "1.2.4"', 'Cargo.toml says "1.2.4"'),
        ("charts/two/Chart.yaml", "\nversion: 1.2.3", "\nversion: 1.2.4", 'Chart.yaml, version says "1.2.4"'),
        ("charts/two/Chart.yaml", 'appVersion: "1.2.3"', "appVersion: latest", 'appVersion says "latest"'),
        ("CHANGELOG.md", "[1.2.3] - 2026-12-24", "[1.2.3]", "no dated section [1.2.3]"),
    ],
)
def test_a_tag_fails_if_a_version_differs(release: Path, file: str, old: str, new: str, said: str) -> None:
    text = (release / file).read_text()
    assert old in text
    (release / file).write_text(text.replace(old, new, 1))
    done = run(".ci/check-version", "v1.2.3", cwd=release)
    assert done.returncode == 1, done.stderr
    assert said in done.stderr, done.stderr


@pytest.mark.parametrize("tag", ["1.2.3", "v1.2", "v1.2.3;id", "v1.2.3 ", "main"])
def test_a_tag_of_another_form_fails(release: Path, tag: str) -> None:
    done = run(".ci/check-version", tag, cwd=release)
    assert done.returncode == 1, done.stderr
    assert "is not v1.2.3" in done.stderr, done.stderr


def test_charts_and_program_have_the_same_version() -> None:
    charts = sorted((ROOT / "charts").glob("*/Chart.yaml"))
    assert charts
    version = package()["version"]
    for chart in charts:
        described = read(chart)
        assert described["version"] == version, chart
        assert str(described.get("appVersion", version)) == version, chart


def test_release_notes_come_from_the_changelog(release: Path) -> None:
    done = run(".ci/release-notes", "1.2.3", cwd=release)
    assert done.returncode == 0, done.stderr
    assert "### Added" in done.stdout
    assert "**Checks**" in done.stdout
    assert "## [" not in done.stdout
    assert "]: https" not in done.stdout
    for version in ["1.2.4", "1.2"]:
        done = run(".ci/release-notes", version, cwd=release)
        assert done.returncode == 1, version
        assert "says nothing" in done.stderr, version


def test_the_licence_is_the_official_text_of_apache() -> None:
    official = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # apache.org/licenses/LICENSE-2.0.txt
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == official
    described = package()
    assert described["license"] == "Apache-2.0"
    assert (ROOT / described["readme"]).is_file()
    assert described["repository"] == "https://github.com/cognito-authz/cognito-authz"
