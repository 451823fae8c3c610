"""values.schema.json of both charts: every value is described, and selectors and references are checked."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate.utils as schemas
import pytest
import yaml

from helm_charts import CHART, CI, NEEDED, SIDECAR, merged, nested, render
from paths import ROOT
from stage import Node

BOTH = pytest.mark.parametrize("chart", [CHART, SIDECAR], ids=lambda chart: chart.name)
PUBLISHED = "https://raw.githubusercontent.com/cognito-authz/cognito-authz/main/"
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "ingress"}
ROUTE: Node = {"name": "a", "namespace": "b", "hostnames": ["c.example.com"], "paths": ["/d"],
               "backend": {"name": "e", "port": 1}}
# Members that make it wrong.
ROUTES: list[Node] = [{"hostnames": []}, {"hostnames": ["*.example.com"]}, {"paths": ["/a/*"]}, {"paths": []},
                      {"hostnames": ["c.example.com:8443"]}, {"name": "A"}, {"backend": {"namespace": "f"}}]
SPREAD = {"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway"}
# Objects of Kubernetes that the schemas describe completely, by the name of the definition or the path of the value.
KUBERNETES = {
    "core.v1.Toleration": "definitions.toleration",
    "core.v1.TopologySpreadConstraint": "definitions.topologySpreadConstraint",
    "core.v1.EnvVar": "definitions.envVar",
    "core.v1.EnvFromSource": "definitions.envFrom",
    "core.v1.VolumeMount": "definitions.volumeMount",
    "core.v1.Probe": "definitions.probe",
    "core.v1.ResourceRequirements": "definitions.resources",
    "core.v1.PodSecurityContext": "definitions.podSecurityContext",
    "core.v1.SecurityContext": "definitions.securityContext",
    "core.v1.Affinity": "properties.affinity",
    "core.v1.PodDNSConfig": "properties.dnsConfig",
    "core.v1.Lifecycle": "properties.lifecycle",
    "core.v1.HostAlias": "properties.hostAliases.items",
    "apps.v1.DeploymentStrategy": "properties.strategy",
    "autoscaling.v2.HorizontalPodAutoscalerBehavior": "properties.autoscaling.properties.behavior",
    "autoscaling.v2.MetricSpec": "properties.autoscaling.properties.metrics.items",
    "networking.v1.NetworkPolicyPeer": "definitions.peer",
    "networking.v1.NetworkPolicyPort": "definitions.networkPort",
    "networking.v1.NetworkPolicyIngressRule": "properties.networkPolicy.properties.extraIngress.items",
    "networking.v1.NetworkPolicyEgressRule": "properties.networkPolicy.properties.extraEgress.items",
    "networking.v1.IngressTLS": "properties.account.properties.ingress.properties.tls.items",
}
# Selectors that match everything or nothing.
WRONG: list[Any] = [
    {},
    None,
    [],
    "app=envoy",
    {"app": "envoy"},
    {"matchLabel": {"app": "envoy"}},
    {"matchLabels": {}},
    {"matchLabels": {"app": 1}},
    {"matchLabels": {"app": "envoy proxy"}},
    {"matchLabels": {"app:": "envoy"}},
    {"matchLabels": {"app": "envoy"}, "app": "envoy"},
    {"matchExpressions": []},
    {"matchExpressions": [{"key": "app", "operator": "Is", "values": ["envoy"]}]},
    {"matchExpressions": [{"key": "app", "op": "Exists"}]},
]


def loaded(chart: Path) -> Node:
    schema: Node = json.loads((chart / "values.schema.json").read_text())
    return schema


def comments(chart: Path) -> dict[str, str]:
    """Comments `# --` of values.yaml by the path of the value, read independently of charts/sync."""
    found: dict[str, str] = {}
    path: list[str] = []
    said = ""
    for line in (chart / "values.yaml").read_text().splitlines():
        if match := re.fullmatch(r" *# -- (.*)", line):
            said = match[1]
        elif match := re.match(r"( *)([A-Za-z]\w*):(?: |$)", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if said:
                found[".".join(path)], said = said, ""
    return found


def properties(schema: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Values in a schema with their paths."""
    for name, value in schema.get("properties", {}).items():
        yield path + name, value
        yield from properties(value, f"{path}{name}.")


def value_of(values: Node, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


@BOTH
def test_every_value_is_described_by_its_comment(chart: Path) -> None:
    known = comments(chart)
    assert len(known) > 60
    defaults = yaml.safe_load((chart / "values.yaml").read_text())
    described = dict(properties(loaded(chart)))
    for path, said in known.items():
        assert described[path].get("description") == said, path
        default = value_of(defaults, path)
        if default is not None and not isinstance(default, dict | list):
            assert described[path]["default"] == default, path
        assert "$ref" not in described[path], "draft 7 ignores what is beside a $ref"


@BOTH
def test_the_schema_has_the_values_of_the_file_and_no_others(chart: Path) -> None:
    defaults = yaml.safe_load((chart / "values.yaml").read_text())
    known = comments(chart)

    def missing(schema: Node, values: Node, path: str = "") -> Iterator[str]:
        members = schema.get("properties", {})
        for name in members.keys() | values.keys():
            here = f"{path}{name}"
            if here in known:
                yield from [] if name in members else [here]
            elif name not in members or name not in values:
                yield here
            else:
                yield from missing(members[name], values[name], f"{here}.")

    # Helm gives a dependency these two.
    of_helm = {"global", "enabled"} if chart == SIDECAR else set()
    assert set(missing(loaded(chart), defaults)) == of_helm


@BOTH
def test_a_schema_names_itself_and_the_files_name_the_schema(chart: Path) -> None:
    schema = chart / "values.schema.json"
    assert loaded(chart)["$id"] == PUBLISHED + str(schema.relative_to(ROOT))
    inner = json.dumps(loaded(chart)["definitions"])
    assert '"$id"' not in inner, "it would change what the references of the policy file refer to"
    files = [chart / "values.yaml", *sorted(chart.glob("ci/*.yaml")), *sorted(chart.glob("examples/*/values.yaml"))]
    assert len(files) >= 2
    for file in files:
        first = file.read_text().splitlines()[0]
        named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
        assert named, f"{file}: {first}"
        target = (file.parent / named[1]).resolve()
        if "examples" in file.parts:
            # Values of another chart, which has this one as a dependency.
            [(name, inside)] = json.loads(target.read_text())["properties"].items()
            assert name in yaml.safe_load(file.read_text())
            target = (target.parent / inside["$ref"]).resolve()
        assert target == schema


@BOTH
def test_objects_are_closed_except_those_of_others(chart: Path) -> None:
    """A member with a wrong name is rejected, not ignored."""
    def open_ones(schema: Any, path: str) -> Iterator[str]:
        if isinstance(schema, dict):
            if "properties" in schema and schema.get("additionalProperties") is not False:
                yield path
            for name, value in schema.items():
                yield from open_ones(value, f"{path}.{name}")
        elif isinstance(schema, list):
            for value in schema:
                yield from open_ones(value, path)

    found = {path for path in open_ones(loaded(chart), "") if ".policyFile" not in path}
    # Values for all charts of a release; containers, volumes and rules, of which only the name is checked.
    assert found <= {".properties.global", ".definitions.named",
                     ".properties.metrics.properties.prometheusRule.properties.extraGroups.items"}


def test_objects_of_kubernetes_have_exactly_the_members_of_the_newest_version() -> None:
    version = schemas.all_versions()[-1]
    contents = schemas.schema_contents(f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version)
    for kind, path in KUBERNETES.items():
        ours = value_of(loaded(CHART), path)
        wanted = contents["$defs"][f"io.k8s.api.{kind}"]
        assert set(ours["properties"]) == set(wanted["properties"]), kind
        assert set(ours.get("required", [])) >= set(wanted.get("required", [])), kind
    selector = contents["$defs"]["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"]
    assert set(loaded(CHART)["definitions"]["labelSelector"]["properties"]) == set(selector["properties"])


@pytest.mark.parametrize("selector", WRONG, ids=json.dumps)
def test_wrong_selectors_of_peers_are_rejected(selector: Any) -> None:
    for kind in ("namespaceSelector", "podSelector"):
        with pytest.raises(helm.HelmValuesError, match="networkPolicy/grpcFrom"):
            render(merged(NEEDED, {"networkPolicy": {"grpcFrom": [{kind: selector}]}}))


def test_all_lists_of_peers_have_one_definition() -> None:
    lists = loaded(CHART)["properties"]["networkPolicy"]["properties"]
    for name in ("grpcFrom", "httpFrom", "accountFrom", "metricsFrom", "revocationTo", "tracingTo"):
        assert lists[name]["allOf"] == [{"$ref": "#/definitions/peers"}], name
    for name, members in (("extraIngress", "from"), ("extraEgress", "to")):
        assert lists[name]["items"]["properties"][members] == {"$ref": "#/definitions/peers"}


@pytest.mark.parametrize("selector", [one for one in WRONG if one not in ({}, None)], ids=json.dumps)
def test_wrong_selectors_of_proxies_are_rejected(selector: Any) -> None:
    """`{}` and null are unset; an entry of `additionalTargets` has a selector or none."""
    for policy in ({"selector": selector}, {"additionalTargets": [{"namespace": "a", "selector": selector}]}):
        with pytest.raises(helm.HelmValuesError):
            render(merged(NEEDED, {"istio": {"authorizationPolicy": policy}}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("topologySpreadConstraints", [SPREAD | {"labelSelector": {}}]),
        ("topologySpreadConstraints", [SPREAD | {"labelSelectors": {"matchLabels": {"a": "b"}}}]),
        ("networkPolicy.grpcFrom", [{"ipBlock": {"cidr": "10.0.0.0"}}]),
        ("networkPolicy.extraIngress", [{"form": []}]),
        ("networkPolicy.extraEgress", [{"to": [{}]}]),
        ("tolerations", [{"key": "a", "operator": "Equals"}]),
        ("resources", {"request": {"cpu": 1}}),
        ("livenessProbe", {"httpGet": {"path": "/livez", "port": 1}, "periodSecond": 1}),
        ("podSecurityContext", {"runAsNonroot": True}),
        ("strategy", {"type": "Rolling"}),
        ("affinity", {"podAntiAffinities": {}}),
        ("extraEnv", [{"name": "A", "valuesFrom": {}}]),
        ("extraVolumeMounts", [{"name": "a", "path": "/a"}]),
        ("extraContainers", [{"image": "a"}]),
        ("account.ingress.tls", [{"secret": "a"}]),
        ("account.httpRoute.parentRefs", [{"name": "a", "section": "https"}]),
        ("istio.authorizationPolicy.targetRefs", [{**GATEWAY, "namespaces": "a"}]),
        ("istio.authorizationPolicy.additionalTargets", [{"selector": {"matchLabels": {"a": "b"}}}]),
        ("istio.authorizationPolicy.additionalTargets", [{"namespace": "a", "targetRefs": []}]),
        ("istio.authorizationPolicy.additionalTargets",
         [{"namespace": "a", "targetRefs": [GATEWAY], "selector": {"matchLabels": {"a": "b"}}}]),
        ("istio.authorizationPolicy.exceptions", [{"paths": ["/healthz"]}]),
        ("istio.authorizationPolicy.exceptions", [{"hosts": [], "paths": ["/healthz"]}]),
        ("istio.authorizationPolicy.exceptions", [{"hosts": ["*.example.com"], "paths": ["/healthz"]}]),
        ("istio.authorizationPolicy.exceptions", [{"hosts": ["*"], "paths": ["/healthz"]}]),
        ("istio.authorizationPolicy.exceptions", [{"hosts": ["a.example.com:*"], "paths": ["/healthz"]}]),
        ("istio.authorizationPolicy.exceptions", [{"hosts": ["A.example.com"], "paths": ["/healthz"]}]),
        *(
            ("istio.authorizationPolicy.exceptions", [{"hosts": ["a.example.com"], "paths": [path]}])
            for path in ("/a/*", "*", "healthz", "/{**}", "/a%2fb", "/a//b", "/a/../b", "/a/.", "/a?b", "/a b", "")
        ),
        ("istio.authorizationPolicy.accountHosts", ["*"]),
        ("istio.authorizationPolicy.rules", [{"too": []}]),
        ("istio.authorizationPolicy.rules", [{"to": [{"operations": {}}]}]),
        ("istio.envoyFilter.corsOrigins", ["app.example.com"]),
        ("istio.envoyFilter.corsOrigins", ["https://*.example.com"]),
        ("istio.mesh.caller", ["a"]),
        ("envoyGateway.securityPolicy.extraExtAuth", {"failOpen": True}),
        ("envoyGateway.securityPolicy.extraExtAuth", {"headersToExtAuth": ["a"]}),
        ("envoyGateway.securityPolicy.targetRefs", [{**GATEWAY, "sectionNames": "https"}]),
        ("envoyGateway.securityPolicy.additionalTargets", [{"targetRefs": [GATEWAY]}]),
        ("envoyGateway.securityPolicy.contextExtensions", [{"key": "policy", "value": "admin"}]),
        ("envoyGateway.clientTrafficPolicy.gateways", [{"name": "ingress"}]),
        ("envoyGateway.clientTrafficPolicy.extraSpec", {"targetRefs": []}),
        *(("envoyGateway.publicRoutes", [merged(ROUTE, wrong)]) for wrong in ROUTES),
        ("check.identityHeaders", ["x tenant"]),
        ("metrics.serviceMonitor.relabelings", [{"source_labels": ["a"]}]),
        ("metrics.prometheusRule.overrides", {"CognitoAuthzSlow": {"fro": "1m"}}),
    ],
    ids=str,
)
def test_the_schema_rejects_misspelled_or_open_settings(path: str, value: Any) -> None:
    with pytest.raises(helm.HelmValuesError):
        render(merged(NEEDED, nested(path, value)))


def test_a_parent_chart_can_use_the_schema(tmp_path: Path) -> None:
    """Helm resolves the references of a schema that has an `$id` inside the file, also in a dependency."""
    shutil.copytree(CHART, tmp_path / "cognito-authz")
    chart = tmp_path / "cognito-authz" / "examples" / "with-valkey"
    helm.dependency_update(str(chart))
    with pytest.raises(helm.HelmValuesError, match=r"grpc/port"):
        render({"cognito-authz": {"grpc": {"port": "x"}}}, chart)


def test_the_examples_use_every_value_for_proxies() -> None:
    """Each value of `istio` and `envoyGateway` is set in a file of `ci`, which other tests render and validate."""
    used: set[str] = set()

    def leaves(values: Any, path: str) -> None:
        used.add(path)
        if isinstance(values, dict):
            for name, value in values.items():
                leaves(value, f"{path}.{name}".lstrip("."))

    for file in CI:
        leaves(yaml.safe_load(file.read_text()), "")
    wanted = {path for path in comments(CHART) if path.split(".")[0] in ("istio", "envoyGateway")}
    unused = {path for path in wanted - used if path.rsplit(".", 1)[1] not in ("labels", "annotations")}
    assert unused == set()


def test_the_oldest_versions_in_the_readme_are_those_of_the_package() -> None:
    section = (CHART / "README.md").read_text().split("## Oldest supported versions")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| ([A-Z][\w ]+) \| (\d+\.\d+) \|", section, re.MULTILINE))
    manifest = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert yaml.safe_load(manifest["annotations"]["cognito-authz/oldest-versions"]) == rows
    assert manifest["kubeVersion"] == f">={rows['Kubernetes']}.0-0"
