"""Members of custom resources that `deploy/` and the charts use, with the first release that has each of them.

A release that lacks a member ignores it or refuses the object. So the table `custom_resources.tsv` says which releases
the files work with. `test_versions.py` compares it with the files and with docs/install.md. For new members, read the
table again from the resource definitions of the releases: run `test_versions.py` with `--clones DIRECTORY`. The
directory has clones, with their tags, of kubernetes-sigs/gateway-api, envoyproxy/gateway, istio/api, argoproj/argo-cd,
fluxcd/helm-controller and fluxcd/source-controller, each under the last part of its name. That fails for a member, or a
listed value, that the newest release does not have. Rules in CEL, patterns and lengths are not read.
"""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from helm_charts import CI, rendered_ci, rendered_istio_example
from manifests import folder
from stage import Node

TABLE = Path(__file__).with_name("custom_resources.tsv")


@dataclass(frozen=True)
class Project:
    """A project whose custom resources the files use, and where its releases have their definitions."""

    name: str
    group: str
    clone: str
    first: tuple[int, int]
    """The first minor version that is read. Members that it has are listed with it."""
    files: str
    row: str = ""
    """Row of the table in docs/install.md, if it is not the name."""
    releases_of_row: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    """Releases in that row, each with the release of this project that is part of it."""


PROJECTS = [
    Project("Gateway API", r"gateway\.networking\.k8s\.io", "gateway-api", (1, 0), r"config/crd/standard/.*\.yaml"),
    Project("Envoy Gateway", r"gateway\.envoyproxy\.io", "gateway", (1, 3),
            r"charts/gateway-helm/.*/gateway\.envoyproxy\.io_.*\.yaml"),
    Project("Istio", r".*\.istio\.io", "api", (1, 20), r"kubernetes/customresourcedefinitions\.gen\.yaml"),
    Project("Argo CD", r"argoproj\.io", "argo-cd", (2, 4), r"manifests/crds/application-crd\.yaml"),
    Project("Flux helm-controller", r"helm\.toolkit\.fluxcd\.io", "helm-controller", (0, 37),
            r"config/crd/bases/.*\.yaml", "Flux", (((2, 6), (1, 3)),)),
    Project("Flux source-controller", r"source\.toolkit\.fluxcd\.io", "source-controller", (1, 2),
            r"config/crd/bases/.*\.yaml", "Flux", (((2, 6), (1, 6)),)),
]
FOLDERS = ["argocd", "envoy-gateway", "flux", "istio", "kind"]


@dataclass(frozen=True, order=True)
class Member:
    """A member that an object uses. `path` ends with `=VALUE` for a value that the definition lists."""

    kind: str
    path: str


@dataclass(frozen=True)
class Known:
    """A row of the table: the type of a member, and the first release that has it."""

    type: str
    since: tuple[int, ...]

    def accepts(self, value: object) -> bool:
        """`True` if a value has the type. `value` is one of a list, `any` has no type."""
        types = {"string": "str", "integer": "int", "number": "int float", "object": "dict", "array": "list",
                 "boolean": "bool", "int-or-string": "int str", "value": "str int", "any": type(value).__name__}
        return type(value).__name__ in types[self.type].split()


def project_of(item: Node) -> Project | None:
    group = item["apiVersion"].rpartition("/")[0]
    return next((one for one in PROJECTS if re.fullmatch(one.group, group)), None)


def objects() -> list[Node]:
    """Custom resources of these projects: those of `deploy/`, and those that the charts render from their examples."""
    everything = [item for name in FOLDERS for item in folder(name)]
    everything += [item for values in CI for item in rendered_ci(values).objects]
    everything += rendered_istio_example().objects
    return [item for item in everything if project_of(item)]


def kind_of(item: Node) -> str:
    return f"{item['apiVersion']} {item['kind']}"


# ------------------------------------------------------------------------------------------------ the table


def table() -> dict[Member, Known]:
    found = {}
    for line in TABLE.read_text().splitlines():
        kind, path, kind_of_value, since = line.split("\t")
        found[Member(kind, path)] = Known(kind_of_value, version(since))
    return found


def version(tag: str) -> tuple[int, ...]:
    return tuple(int(part) for part in tag.removeprefix("v").split("."))


def used(item: Node, rows: dict[Member, Known]) -> Iterator[tuple[Member, object]]:
    """Members of an object with their values, down to those that the table calls `any` (free form)."""
    kind = kind_of(item)

    def below(value: object, path: str) -> Iterator[tuple[Member, object]]:
        yield Member(kind, path), value
        row = rows.get(Member(kind, path))
        if row and row.type == "any":
            return
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from below(inner, f"{path}.{name}")
        elif isinstance(value, list):
            for inner in value:
                yield from below(inner, f"{path}[]")
        elif Member(kind, f"{path}={value}") in rows or (row and row.type == "value"):
            yield Member(kind, f"{path}={value}"), value

    yield from below(item["spec"], "spec")


# ------------------------------------------------------------------------------------------------ renewal


def git(clone: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", clone, *command], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def releases(project: Project, clones: Path) -> list[tuple[str, dict[str, Node]]]:
    """First release of each minor version, with its definitions: the schema of each version by `apiVersion Kind`."""
    clone = clones / project.clone
    minors: dict[tuple[int, ...], str] = {}
    for tag in git(clone, "tag").split():
        if re.fullmatch(r"v?\d+\.\d+\.\d+", tag) and version(tag)[:2] >= project.first:
            known = minors.get(version(tag)[:2])
            if known is None or version(tag) < version(known):
                minors[version(tag)[:2]] = tag
    found = []
    for _, tag in sorted(minors.items()):
        names = [name for name in git(clone, "ls-tree", "-r", "--name-only", tag).splitlines()
                 if re.fullmatch(project.files, name)]
        schemas = {}
        for document in itertools.chain.from_iterable(
            yaml.load_all(git(clone, "show", f"{tag}:{name}"), yaml.CSafeLoader) for name in names
        ):
            if not document or document["kind"] != "CustomResourceDefinition":
                continue
            spec = document["spec"]
            for served in (one for one in spec["versions"] if one["served"]):
                kind = f"{spec['group']}/{served['name']} {spec['names']['kind']}"
                schemas[kind] = served["schema"]["openAPIV3Schema"]
        found.append((tag, schemas))
    return found


def look_up(schema: Node, path: str) -> tuple[str, Node] | None:
    """Type and schema of a member; `None` if there is none."""
    here = schema
    for name in re.findall(r"\[\]|[^.\[\]]+", path):
        if name == "[]":
            here = here.get("items", {})
        elif name in here.get("properties", {}):
            here = here["properties"][name]
        else:
            return None
    if here.get("x-kubernetes-int-or-string"):
        return "int-or-string", here
    free = here.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in here
    if free or ("type" not in here) or (here["type"] == "object" and not here.get("properties")):
        return "any", here
    return ("value" if "enum" in here else here["type"]), here


class History:
    """The releases of a project."""

    def __init__(self, project: Project, clones: Path) -> None:
        self.project = project
        self.releases = releases(project, clones)

    def since(self, kind: str, path: str, value: object = None) -> str:
        """First release since which every release has a member, and accepts a value of a list."""
        first = None
        for tag, schemas in reversed(self.releases):
            found = look_up(schemas.get(kind, {}), path)
            if not found or (value is not None and value not in found[1].get("enum", [value])):
                break
            first = tag
        assert first, f"{kind}: {self.releases[-1][0]} of {self.project.name} has no {path} {value or ''}"
        return first

    def rows(self, kind: str, path: str, value: object) -> Iterator[tuple[Member, str, str]]:
        """Rows of the table for a member of an object, and for everything below it."""
        since = self.since(kind, path)
        found = look_up(self.releases[-1][1][kind], path)
        assert found
        yield Member(kind, path), found[0], since
        if found[0] == "any":
            return
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from self.rows(kind, f"{path}.{name}", inner)
        elif isinstance(value, list):
            for inner in value:
                yield from self.rows(kind, f"{path}[]", inner)
        elif found[0] == "value":
            yield Member(kind, f"{path}={value}"), "value", self.since(kind, path, value)


def renew(clones: Path) -> None:
    """Writes the table from clones of the projects."""
    rows = {}
    for project in PROJECTS:
        history = History(project, clones)
        for item in (one for one in objects() if project_of(one) is project):
            for member, of, since in history.rows(kind_of(item), "spec", item["spec"]):
                rows[member] = (of, since)
    lines = ["\t".join((member.kind, member.path, *row)) for member, row in sorted(rows.items())]
    TABLE.write_text("\n".join(lines) + "\n")
