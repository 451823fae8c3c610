"""The installation pages: the GitOps files render with the chart, and names and versions are the same on all pages."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest
import yaml

from commands import output
from helm_charts import CHART, NEEDED, merged, render
from kubernetes_rules import VERSIONS, complaints
from manifests import DEPLOY, documents, find, is_builtin, pod_specs
from paths import ROOT
from stage import CLIENT, POOL, Node
from test_documents import documents as markdown

# Namespaces of the pages: ours, the gateway's, the application's, and those of other projects.
NAMESPACES = {"cognito-authz", "ingress", "shop", "argocd", "flux-system", "istio-system", "envoy-gateway-system"}


def argocd() -> Node:
    [application] = documents(DEPLOY / "argocd" / "application.yaml")
    return application


def flux() -> list[Node]:
    return documents(DEPLOY / "flux" / "cognito-authz.yaml")


def version() -> str:
    found = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_both_gitops_files_have_the_same_values_and_namespace() -> None:
    release = find(flux(), "HelmRelease", "cognito-authz")
    source = argocd()["spec"]["source"]
    assert source["helm"]["valuesObject"] == release["spec"]["values"]
    assert source["helm"]["releaseName"] == release["spec"]["releaseName"] == "cognito-authz"
    assert argocd()["spec"]["destination"]["namespace"] == release["metadata"]["namespace"] == "cognito-authz"
    namespace = find(flux(), "Namespace", "cognito-authz")
    managed = argocd()["spec"]["syncPolicy"]["managedNamespaceMetadata"]
    assert managed["labels"] == namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    repository = find(flux(), "OCIRepository", release["spec"]["chartRef"]["name"])
    assert release["spec"]["chartRef"]["kind"] == repository["kind"]
    address = f"oci://{source['repoURL']}/{source['chart']}"
    assert repository["spec"]["url"] == address == "oci://ghcr.io/cognito-authz/charts/cognito-authz"
    assert repository["spec"]["ref"] == {"tag": source["targetRevision"]} == {"tag": version()}


def test_the_gitops_values_render_to_valid_objects() -> None:
    values = argocd()["spec"]["source"]["helm"]["valuesObject"]
    assert values["userPool"] == {"id": POOL, "clientIds": [CLIENT]}
    rendered = render(values, name="cognito-authz", namespace="cognito-authz")
    assert len(list(pod_specs(rendered.objects))) == 1
    for item in filter(is_builtin, [*rendered.objects, *flux()]):
        for kubernetes in (VERSIONS[0], VERSIONS[-1]):
            assert not complaints(kubernetes, json.dumps(item))
    policy = yaml.safe_load(rendered.one("ConfigMap")["data"]["policy.yaml"])
    assert policy == values["config"]
    assert not [warning for warning in rendered.warnings() if "grpcFrom" in warning or "metricsFrom" in warning]


def test_the_verified_signature_is_that_of_the_release_workflow() -> None:
    [identity] = find(flux(), "OCIRepository", "cognito-authz")["spec"]["verify"]["matchOIDCIdentity"]
    guide = (ROOT / "docs" / "operations-upgrades.md").read_text()
    [issuer] = set(re.findall(r"--certificate-oidc-issuer (\S+)", guide))
    [subject] = re.findall(r"--certificate-identity (\S+/chart\.yml\S+)", guide)
    assert re.search(identity["issuer"], issuer)
    assert re.search(identity["subject"], subject)
    assert not re.search(identity["subject"], subject.replace("refs/tags/v", "refs/heads/"))
    assert not re.search(identity["subject"], subject.replace("cognito-authz/", "else/", 1))


def pages() -> list[Path]:
    """Documents and configuration that name namespaces and versions. The changelog names those of the past."""
    listed = output("git", "ls-files", "--cached", "--others", "--exclude-standard", "deploy", "charts").split()
    files = [ROOT / name for name in listed if name.endswith((".yaml", ".txt")) and (ROOT / name).is_file()]
    return [page for page in markdown() if page.name != "CHANGELOG.md"] + [
        file for file in files if "templates" not in file.parts and "ci" not in file.parts
    ]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_the_same_namespaces_and_the_version_of_the_chart(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"(?:kubectl|helm|istioctl)[^\n|]* (?:-n|--namespace)[ =]([a-z][\w-]*)", text)
    named += re.findall(r"\bcognito-authz[\w-]*\.([a-z][\w-]*)\.svc\b", text)
    assert set(named) <= NAMESPACES, f"namespaces {set(named) - NAMESPACES}"
    versions = re.findall(r"oci://ghcr\.io/cognito-authz/\S+(?: \\\n)? +--version (\S+)", text)
    versions += re.findall(r"ghcr\.io/cognito-authz/(?:charts/)?[\w-]+:(\d[\w.+-]*)", text)
    versions += re.findall(r"name: cognito-authz(?:-sidecar)?, version: ([\d.]+)", text)
    assert set(versions) <= {version()}


def test_every_directory_says_how_to_install_verify_and_remove() -> None:
    # An image is built, not installed. `local` has no README: `deploy/local/up --help` describes it.
    readmes = [page for page in sorted(DEPLOY.glob("*/README.md")) if page.parent.name != "image"]
    assert len(readmes) >= 11
    for readme in readmes:
        text = readme.read_text()
        assert len(text.split("\n\n")[1]) > 60, f"{readme.parent.name}: its first paragraph says what it is for"
        for word in ("verify", "remove"):
            assert re.search(rf"\b{word}\b", text, re.IGNORECASE), f"{readme.parent.name} does not say how to {word}"


def test_values_in_documents_render() -> None:
    """Blocks whose members are values of the chart."""
    known = yaml.safe_load((CHART / "values.yaml").read_text())
    seen = set()
    for page in markdown():
        for block in re.findall(r"^ *```yaml\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL):
            if "{{" in block or re.search(r"^apiVersion: ", block, re.MULTILINE):
                continue
            values = yaml.safe_load(textwrap.dedent(block))
            # `tests` of a test table, Envoy's `tracing` and a policy `admin` are not the chart's.
            if isinstance(values, dict) and values.keys() <= known.keys() - {"tests", "tracing", "admin"}:
                assert render(merged(NEEDED, values)).objects
                seen.add(str(page.relative_to(ROOT)))
    assert seen >= {"charts/cognito-authz/README.md", "docs/doctor.md"}
