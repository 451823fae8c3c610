"""The Kubernetes manifests of deploy/: schemas of all objects, and deploy/kustomize as it is built."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from commands import run
from manifests import (
    DEPLOY,
    IMAGE,
    VERSIONS,
    WITHOUT_SCHEMA,
    assert_restricted,
    authz_container,
    build_kustomization,
    check_builtin,
    environment_of,
    find,
    folder,
    is_builtin,
    patched_envoy_deployment,
    pod_specs,
    validate_crds,
)
from paths import ROOT
from stage import CLIENT, POOL, Node


def test_schemas_of_builtin_kinds(production: list[Node]) -> None:
    assert VERSIONS[0] == "1.29", VERSIONS
    assert len(VERSIONS) >= 5, VERSIONS
    check_builtin(production + folder("istio") + folder("envoy-gateway"), VERSIONS)
    with pytest.raises(kubernetes_validate.ValidationError):
        check_builtin([{**production[0], "sepc": {}}], VERSIONS)


@pytest.mark.parametrize("name", ["istio", "envoy-gateway"])
def test_schemas_of_custom_kinds(name: str, crd_validator: Path, tmp_path: Path) -> None:
    custom = [item for item in folder(name) if not is_builtin(item) and item["kind"] not in WITHOUT_SCHEMA]
    assert len(custom) >= 5
    manifest = tmp_path / "custom.yaml"
    manifest.write_text(yaml.safe_dump_all(custom))
    validate_crds(crd_validator, manifest)


def test_every_namespaced_object_has_a_namespace() -> None:
    for item in folder("istio") + folder("envoy-gateway"):
        if item["kind"] != "GatewayClass":
            assert item["metadata"].get("namespace"), item["metadata"]["name"]


def test_links_in_readmes_are_not_broken() -> None:
    readmes = sorted(DEPLOY.glob("*/README.md"))
    assert {readme.parent.name for readme in readmes} >= {"envoy", "istio", "envoy-gateway", "compose", "kustomize"}
    for readme in readmes:
        text = readme.read_text()
        for target in re.findall(r"\]\(([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            if "://" in target:
                continue
            linked = (readme.parent / path) if path else readme
            assert linked.exists(), f"{readme.parent.name} links to {target}"
            if anchor and linked.suffix == ".md":
                headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{readme.parent.name} links to {target}: {slugs}"
        # Paths in commands exist, too.
        for path in re.findall(r"-[fk] (deploy/[\w./-]+)", text):
            assert (ROOT / path).exists(), f"{readme.parent.name}: {path}"


def test_all_manifests_use_the_same_version_of_the_image() -> None:
    text = "".join(path.read_text() for path in DEPLOY.rglob("*.yaml"))
    tags = set(re.findall(rf"{re.escape(IMAGE)}:([\w.]+)", text)) | set(re.findall(r"newTag: (\S+)", text))
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version
    assert tags == {version[1]}


def test_examples_use_the_same_ids(production: list[Node]) -> None:
    for pod in pod_specs(production + folder("istio")):
        environment = environment_of(authz_container(pod), production)
        assert (environment["COGNITO_USER_POOL_ID"], environment["COGNITO_CLIENT_ID"]) == (POOL, CLIENT)


# ------------------------------------------------------------------------------------------------ kustomize

def test_the_base_names_no_pool() -> None:
    base = build_kustomization(DEPLOY / "kustomize" / "base")
    check_builtin(base, VERSIONS[:1])
    container = authz_container(next(pod_specs(base)))
    config_maps = {item["metadata"]["name"] for item in base if item["kind"] == "ConfigMap"}
    assert container["envFrom"] == [{"configMapRef": {"name": "cognito-authz-env"}}]
    assert "cognito-authz-env" not in config_maps, "the base must not contain ids"


@pytest.mark.parametrize(
    "components",
    [
        [],
        ["account-api"],
        ["client-secret"],
        ["revocation-store"],
        ["account-api", "client-secret", "revocation-store"],
    ],
)
def test_components_can_be_combined(components: list[str], tmp_path: Path) -> None:
    kustomize = tmp_path / "kustomize"
    shutil.copytree(DEPLOY / "kustomize", kustomize)
    overlay = kustomize / "overlays" / "production" / "kustomization.yaml"
    config = yaml.safe_load(overlay.read_text())
    config["components"] = [f"../../components/{name}" for name in components]
    overlay.write_text(yaml.safe_dump(config))
    objects = build_kustomization(overlay.parent)
    check_builtin([find(objects, "Deployment", "cognito-authz")], VERSIONS[:1])
    pod = next(pod_specs(objects))
    assert_restricted(pod)
    environment = {entry["name"]: entry["value"] for entry in authz_container(pod)["env"]}
    assert environment["COGNITO_AUTHZ_ACCOUNT_API"] == ("true" if "account-api" in components else "false")
    assert ("COGNITO_AUTHZ_CLIENT_SECRET_FILE" in environment) == ("client-secret" in components)
    assert ("COGNITO_AUTHZ_REVOCATION_URL" in environment) == ("revocation-store" in components)


def test_the_component_for_the_store_lets_the_pods_reach_it_and_configures_the_program(
    binary: Path, tmp_path: Path
) -> None:
    kustomize = tmp_path / "kustomize"
    shutil.copytree(DEPLOY / "kustomize", kustomize)
    overlay = kustomize / "overlays" / "production" / "kustomization.yaml"
    # As a user does: removes the mark of the comment.
    commented = re.compile(r"^# (- ../../components/revocation-store) .*$", re.MULTILINE)
    text, uncommented = commented.subn(r"\1", overlay.read_text())
    assert uncommented == 1
    overlay.write_text(text)
    objects = build_kustomization(overlay.parent)
    policy = find(objects, "NetworkPolicy", "cognito-authz-revocation-store")
    check_builtin([policy], VERSIONS[:1])
    pod = next(pod_specs(objects))
    labels = find(objects, "Deployment", "cognito-authz")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    environment = environment_of(authz_container(pod), objects)
    port = re.search(r":(\d+)$", environment["COGNITO_AUTHZ_REVOCATION_URL"])
    assert port
    assert policy["spec"]["egress"][0]["ports"] == [{"port": int(port[1])}]
    [mount] = [one for one in authz_container(pod)["volumeMounts"] if one["name"] == "revocation-store"]
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "password").write_text("d" * 32)
    (secret / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n")
    ours = {name: value.replace(mount["mountPath"], str(secret)) for name, value in environment.items()
            if name.startswith(("COGNITO_AUTHZ_REVOCATION_", "COGNITO_USER_", "COGNITO_CLIENT_"))}
    done = run(binary, "check-config", env=ours, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\nthe configuration is right\n")


def test_the_production_overlay_is_consistent(production: list[Node]) -> None:
    deployment = find(production, "Deployment", "cognito-authz")
    template = deployment["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    container = authz_container(pod)
    assert_restricted(pod)
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    find(production, "ServiceAccount", pod["serviceAccountName"])
    assert {item["metadata"].get("namespace", "cognito-authz") for item in production} == {"cognito-authz"}
    namespace = find(production, "Namespace", "cognito-authz")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"

    for reference in container["envFrom"]:
        find(production, "ConfigMap", reference["configMapRef"]["name"])
    for volume in pod["volumes"]:
        find(production, "ConfigMap", volume["configMap"]["name"])
    assert not any("subPath" in mount for mount in container["volumeMounts"]), (
        "a file mounted with subPath is never updated"
    )

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 9191, "admin": 9190, "account": 9192}
    for service in (item for item in production if item["kind"] == "Service"):
        assert service["spec"]["selector"].items() <= labels.items(), service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    assert find(production, "Service", "cognito-authz-headless")["spec"]["clusterIP"] == "None"
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        spec = find(production, kind, "cognito-authz")["spec"]
        selector = spec.get("selector") or spec["podSelector"]
        assert selector["matchLabels"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for spread in pod["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
    allowed = {port["port"] for rule in find(production, "NetworkPolicy", "cognito-authz")["spec"]["ingress"]
               for port in rule["ports"]}
    assert allowed == set(ports.values())
    assert all(rule["from"] for rule in find(production, "NetworkPolicy", "cognito-authz")["spec"]["ingress"])

    scaler = find(production, "HorizontalPodAutoscaler", "cognito-authz")["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaler["minReplicas"] >= 2
    assert "replicas" not in deployment["spec"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert ports[container[probe]["httpGet"]["port"]] == 9190
    delay = next(int(argument.removeprefix("--shutdown-delay=").rstrip("s")) for argument in container["args"]
                 if argument.startswith("--shutdown-delay="))
    assert pod["terminationGracePeriodSeconds"] > delay + 10, "10 s is the default of --shutdown-deadline"


def test_the_program_accepts_the_settings_of_every_pod(production: list[Node], binary: Path, tmp_path: Path) -> None:
    """Runs `check-config` with the arguments, environment and files of every pod."""
    pods = list(pod_specs([*production, *folder("istio"), patched_envoy_deployment(tmp_path)]))
    assert len(pods) == 3
    for pod in pods:
        container = authz_container(pod)
        directory = tmp_path / "etc"
        directory.mkdir(exist_ok=True)
        policy = find(production, "ConfigMap", "cognito-authz-policy")["data"]["policy.yaml"]
        (directory / "policy.yaml").write_text(policy)
        arguments = [argument.replace("/etc/cognito-authz", str(directory)) for argument in container["args"]]
        done = run(binary, "check-config", *arguments, env=environment_of(container, production), cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert done.stdout.endswith("\nthe configuration is right\n"), arguments
        broken = run(binary, "check-config", *arguments, env={}, cwd=tmp_path)
        assert broken.returncode == 64, "without its environment it must not start"
