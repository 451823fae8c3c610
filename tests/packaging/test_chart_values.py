"""Values of the chart cognito-authz: errors, warnings, notes. Also the package and generated files."""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

from commands import output, run
from helm_charts import CHART, CHARTS, CI, NEEDED, SIDECAR, merged, nested, render
from paths import ROOT, TOOLS
from stage import CLIENT, POOL

GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "ingress"}
PROXIES = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}
# Every namespace has this label.
ANY = {"key": "kubernetes.io/metadata.name", "operator": "Exists"}
# The account API as `trustedHops` requires it: only the proxies reach it.
ACCOUNT: dict[str, Any] = {"account": {"enabled": True, "trustedHops": 1}, "networkPolicy": {"accountFrom": [PROXIES]}}
# Wrong selectors for Istio: the API server drops unknown members, and an empty selector matches every pod.
SELECTORS: list[dict[str, Any]] = [{"istio": "ingress"}, {"matchLabels": {}}, {"matchLabels": {"istio": 1}},
                                   {"matchExpressions": []}, {"matchLabels": {"istio": "ingress"}, "istio": "ingress"}]
ROUTE = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "shop"}
# Settings of `networkPolicy` that open the account API's port to every pod of the cluster.
OPEN: list[dict[str, Any]] = [
    {},
    {"enabled": False},
    {"enabled": False, "accountFrom": [PROXIES]},
    {"accountFrom": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]},
    {"accountFrom": [{"ipBlock": {"cidr": "::/0"}}]},
    {"accountFrom": [{"namespaceSelector": {"matchExpressions": [ANY]}}]},
    {"accountFrom": [PROXIES, {"namespaceSelector": {"matchExpressions": [ANY, ANY]}}]},
]
# The same with selectors that the schema rejects.
EMPTY: list[dict[str, Any]] = [
    {"accountFrom": [{"namespaceSelector": {}}]},
    {"accountFrom": [PROXIES, {"namespaceSelector": {}, "podSelector": {}}]},
    {"accountFrom": [{"namespaceSelector": {"matchLabels": {}}}]},
]
# Contradictions in `revocation`, each with the error.
REVOCATION: list[tuple[dict[str, Any], str]] = [
    ({"existingSecret": {"name": "a"}}, "have no effect without revocation.url"),
    ({"caSecret": {"name": "a"}}, "have no effect without revocation.url"),
    ({"caConfigMap": {"name": "a"}}, "have no effect without revocation.url"),
    ({"required": True}, "have no effect without revocation.url"),
    ({"url": "redis://valkey", "caSecret": {"name": "a"}}, "revocation.url has no TLS"),
    ({"url": "rediss://authz@valkey"}, "revocation.existingSecret: required"),
    ({"url": "rediss://valkey", "caSecret": {"name": "a"}, "caConfigMap": {"name": "b"}}, "set only one of them"),
]
# A file of revocations, which only one process can use.
FILE: dict[str, Any] = {"extraArgs": ["--revocation-file=/state/revocations"]}
# A cluster that no test contacts.
KUBECONFIG = """{apiVersion: v1, kind: Config, current-context: x, clusters: [{name: x, cluster: {server: "http://127.0.0.1:1"}}],
users: [{name: x, user: {}}], contexts: [{name: x, context: {cluster: x, user: x}}]}"""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("userPol.id", POOL),
        ("userPool.ID", POOL),
        ("userPool.id", "AbC123xyz"),
        ("userPool.id", 1),
        ("userPool.clientIds", CLIENT),
        ("userPool.clientIds", ["a,b"]),
        ("userPool.clientIds", [""]),
        ("userPool.tokenUse", "refresh"),
        ("userPool.jwksUrl", "keys.example.com"),
        ("userPool.jwksRefreshInterval", "15 minutes"),
        ("userPool.allowInsecureEndpoints", "yes"),
        ("config.polices", {}),
        ("config.policies", {"a": {"token_use": "refresh"}}),
        ("config.policies", {"a": {"group": {"any": ["x"]}}}),
        ("config.routes", [{"path": "/"}]),
        ("config.pools", {"a": {"user_pool_id": POOL}}),
        ("config.default", 1),
        ("check.leeway", 30),
        ("check.headerPrefix", "X-Auth-"),
        ("check.tokenCache.capacity", "many"),
        ("check.tokenCache.maxBytes", "64MB"),
        ("grpc.port", 0),
        ("grpc.port", "9191"),
        ("grpc.threads", 0),
        ("account.prefix", "auth"),
        ("account.trustedHops", -1),
        ("account.limits.user", "15"),
        ("account.refreshFlow", "cookie"),
        ("account.clientSecret", "hunter2"),
        ("account.existingSecret", "name"),
        ("account.service.type", "ExternalName"),
        ("account.ingress.hosts", "shop.example.com"),
        ("revocation.url", "http://valkey:6379"),
        ("revocation.url", "rediss://authz:hunter2@valkey:6379"),
        ("revocation.url", "redis://valkey?db=1"),
        ("revocation.password", "hunter2"),
        ("revocation.existingSecret", "name"),
        ("revocation.capacity", 0),
        ("revocation.maxTokenLife", 3600),
        ("networkPolicy.revocationTo", [{}]),
        ("networkPolicy.revocationPorts", ["redis"]),
        ("shutdown.delay", "5"),
        ("log.level", "loud"),
        ("log.linesPerSecond", 0),
        ("log.allowedRatio", 2),
        ("extraArgs", ["realm=x"]),
        ("extraEnv", {"A": "b"}),
        ("image.digest", "sha256:abc"),
        ("image.pullPolicy", "Sometimes"),
        ("replicaCount", "3"),
        ("replicaCount", -1),
        ("autoscaling.minReplicas", 0),
        ("podSecurityContext", "restricted"),
        ("service.trafficDistribution", "Near"),
        ("service.ipFamilies", ["IPv5"]),
        ("networkPolicy.egressPorts", ["https"]),
        ("networkPolicy.grpcFrom", {}),
        ("metrics.enabled", True),
        ("metrics.serviceMonitor.enabled", "true"),
        ("metrics.prometheusRule.slo.objective", 100),
        ("metrics.prometheusRule.slo.seconds", "0.2"),
        ("metrics.prometheusRule.slo.seconds", 0.1),
        ("istio.authorizationPolicy.rules", []),
        ("envoyGateway.securityPolicy.failOpen", True),
        *(("istio.authorizationPolicy.selector", wrong) for wrong in SELECTORS),
        ("istio.authorizationPolicy.targetRefs", [{"kind": "Gateway"}]),
        ("istio.authorizationPolicy.targetRefs", [{"name": "ingress"}]),
        ("envoyGateway.securityPolicy.targetRefs", [{"kind": "Gateway", "name": "ingress"}]),
        ("envoyGateway.securityPolicy.targetRefs", ["ingress"]),
        ("networkPolicy.accountFrom", [{}]),
        ("networkPolicy.grpcFrom", [{"matchLabels": {"a": "b"}}]),
        ("account.callersLimitedElsewhere", "yes"),
        ("envoyGateway.securityPolicy.statusOnError", 200),
        ("commonLabels", {"a": 1}),
        ("nodeSelector", {"a": True}),
    ],
)
def test_the_schema_rejects(path: str, value: Any) -> None:
    with pytest.raises(helm.HelmValuesError):
        render(merged(NEEDED, nested(path, value)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "userPool.id: required"),
        ({"userPool": {"id": POOL}}, "userPool.clientIds: list the app clients"),
        (
            merged(NEEDED, {"config": {"policies": {"a": {}}}, "existingConfigMap": {"name": "a"}}),
            "set only one of them",
        ),
        (
            merged(NEEDED, {"userPool": {"clientIds": ["a", "b"]}, "account": {"enabled": True}}),
            "account.clientId: required",
        ),
        (
            merged(NEEDED, {"userPool": {"clientIds": ["any"]}, "account": {"enabled": True}}),
            "account.clientId: required",
        ),
        (
            merged(NEEDED, {"account": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}}}),
            "require account.enabled",
        ),
        (merged(NEEDED, {"account": {"enabled": True, "ingress": {"enabled": True}}}), "account.ingress.hosts"),
        (
            merged(NEEDED, {"account": {"enabled": True, "httpRoute": {"enabled": True}}}),
            "account.httpRoute.parentRefs",
        ),
        (merged(NEEDED, {"admin": {"port": 9191}}), "must differ"),
        (merged(NEEDED, {"http": {"port": 9191}}), "must differ"),
        (merged(NEEDED, {"http": {"enabled": True}}), "http.callers"),
        (
            merged(NEEDED, {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}),
            "enable only one of them",
        ),
        (
            merged(NEEDED, {"metrics": {"serviceMonitor": {"enabled": True}, "service": {"enabled": False}}}),
            "metrics.service.enabled",
        ),
        (
            merged(NEEDED, {"metrics": {"prometheusRule": {"enabled": True, "disabled": ["CognitoAuthzTypo"]}}}),
            "there is no alert or recording rule CognitoAuthzTypo",
        ),
        (merged(NEEDED, {"podDisruptionBudget": {"minAvailable": 1}}), "maxUnavailable: null"),
        (merged(NEEDED, {"autoscaling": {"enabled": True, "maxReplicas": 1}}), "minReplicas is greater"),
        (
            merged(
                NEEDED,
                {
                    "istio": {
                        "authorizationPolicy": {
                            "enabled": True,
                            "selector": {"matchLabels": {"a": "b"}},
                            "targetRefs": [GATEWAY],
                        }
                    }
                },
            ),
            "exclude each other",
        ),
        (merged(NEEDED, {"istio": {"authorizationPolicy": {"enabled": True}}}), "name the proxies that request checks"),
        (merged(NEEDED, {"envoyGateway": {"securityPolicy": {"enabled": True}}}), "name the Gateway"),
        *(
            (
                merged(NEEDED, {"account": {"enabled": True, "trustedHops": hops}, "networkPolicy": policy}),
                "account.trustedHops: X-Forwarded-For is trusted",
            )
            for hops in (1, 2)
            for policy in OPEN
        ),
        (merged(NEEDED, {"shutdown": {"delay": "20s"}}), "must be more than shutdown.delay"),
        *((merged(NEEDED, {"revocation": values}), said) for values, said in REVOCATION),
        *(
            (merged(NEEDED, merged({"strategy": {"type": "Recreate", "rollingUpdate": None}}, values)), said)
            for values, said in (
                (FILE, "for one process at a time"),
                (merged(FILE, {"replicaCount": 1, "strategy": {"type": "RollingUpdate"}}), "for one process at a time"),
                (
                    merged(FILE, {"replicaCount": 1, "autoscaling": {"enabled": True}}),
                    "for one process at a time",
                ),
                (
                    merged(FILE, {"replicaCount": 1, "revocation": {"url": "redis://valkey"}}),
                    "revocation.url: excludes",
                ),
                (
                    {"extraEnv": [{"name": "COGNITO_AUTHZ_REVOCATION_FILE", "value": "/state/revocations"}]},
                    "for one process at a time",
                ),
            )
        ),
    ],
)
def test_contradictory_values_are_rejected_with_a_reason(values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmRenderError) as refused:
        render(values)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"userPool": {"id": POOL, "clientIds": ["any"]}}, "EVERY app client"),
        (
            merged(NEEDED, {"config": {"pools": {"p": {"user_pool_id": "eu-west-1_Other123", "client_ids": "any"}}}}),
            "config.pools.p.client_ids",
        ),
        (merged(NEEDED, {"replicaCount": 1}), "single pod"),
        (merged(NEEDED, {"autoscaling": {"enabled": True, "minReplicas": 1}}), "single pod"),
        (merged(NEEDED, {"networkPolicy": {"enabled": False}}), "networkPolicy.enabled is off"),
        (NEEDED, "grpcFrom is empty"),
        (merged(NEEDED, {"metrics": {"serviceMonitor": {"enabled": True}}}), "metricsFrom is empty"),
        (merged(NEEDED, ACCOUNT), "put TLS in front"),
        (
            merged(
                NEEDED,
                {
                    "envoyGateway": {
                        "securityPolicy": {"enabled": True, "targetRefs": [ROUTE]},
                        "clientTrafficPolicy": {"gateways": [{"namespace": "ns", "name": "ingress"}]},
                    }
                },
            ),
            "requests to other routes are not checked",
        ),
        *(
            (
                merged(
                    NEEDED,
                    {
                        "istio": {
                            "authorizationPolicy": {
                                "enabled": True,
                                "targetRefs": [GATEWAY],
                                "rules": [{"to": [{"operation": operation}]}],
                            }
                        }
                    },
                ),
                "istio.authorizationPolicy.rules: notPaths",
            )
            for operation in (
                {"notPaths": ["/auth/login"]},
                {"hosts": ["shop.example.com"], "notPaths": ["/auth", "/auth/*"]},
                {"hosts": ["shop.example.com"], "notPaths": ["/auth/{**}"]},
                {"notHosts": ["a.example.com"], "notPaths": ["/healthz"]},
            )
        ),
        (merged(NEEDED, {"account": {"enabled": True, "ingress": {"enabled": True, "hosts": ["a.b"]}}}), "has no tls"),
        (
            merged(NEEDED, {"account": {"enabled": True, "service": {"type": "LoadBalancer"}}}),
            "account.service.type is LoadBalancer",
        ),
        (merged(NEEDED, {"account": {"enabled": True}}), "trustedHops is not set"),
        (merged(NEEDED, {"account": {"enabled": True}}), "revocation.url is not set"),
        (
            merged(NEEDED, {"account": {"enabled": True}, "autoscaling": {"enabled": True, "minReplicas": 1}}),
            "revocation.url is not set",
        ),
        (merged(NEEDED, {"revocation": {"url": "rediss://valkey"}}), "revocation.existingSecret is not set"),
        (merged(NEEDED, {"revocation": {"url": "redis://valkey"}}), "revocation.url has no TLS"),
        (merged(NEEDED, {"userPool": {"allowInsecureEndpoints": True}}), "an attacker on the network"),
        (merged(NEEDED, {"service": {"type": "NodePort"}}), "service.type is NodePort"),
        (
            merged(NEEDED, {"userPool": {"endpoint": "https://cognito.internal:8443"}}),
            "does not include port 8443 of userPool.endpoint",
        ),
        (
            merged(NEEDED, {"userPool": {"jwksUrl": "http://keys.internal/jwks.json"}}),
            "does not include port 80 of userPool.jwksUrl",
        ),
    ],
)
def test_dangerous_values_cause_a_warning(values: dict[str, Any], said: str) -> None:
    quiet = merged(NEEDED, {"networkPolicy": {"grpcFrom": [PROXIES]}, "userPool": {"endpoint": "https://vpce.example.com"}})
    assert render(quiet).warnings() == []
    warnings = render(values).warnings()
    assert sum(said in warning for warning in warnings) == 1, warnings


@pytest.mark.parametrize(
    "values",
    [
        {"account": {"enabled": False}},
        {"replicaCount": 1},
        {"revocation": {"url": "rediss://valkey"}},
        {"extraArgs": ["--revocation-url=redis://{{ .Release.Name }}-valkey"]},
        {"extraEnv": [{"name": "COGNITO_AUTHZ_REVOCATION_URL", "value": "redis://valkey"}]},
    ],
)
def test_sign_outs_that_take_effect_everywhere_cause_no_warning(values: dict[str, Any]) -> None:
    warnings = render(merged(merged(NEEDED, {"account": {"enabled": True}}), values)).warnings()
    assert not [one for one in warnings if "revocation.url is not set" in one]


def test_a_single_pod_may_keep_revocations_in_a_file() -> None:
    single = {"replicaCount": 1, "strategy": {"type": "Recreate", "rollingUpdate": None}}
    rendered = render(merged(merged(NEEDED, FILE), single))
    assert rendered.container()["args"][-1] == "--revocation-file=/state/revocations"
    assert rendered.one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_the_template_rejects_a_password_in_the_url_without_the_schema(tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "cognito-authz")
    (chart / "values.schema.json").unlink()
    values = merged(NEEDED, {"revocation": {"url": "rediss://authz:hunter2@valkey", "existingSecret": {"name": "a"}}})
    with pytest.raises(helm.HelmRenderError, match=r"revocation\.url: contains a password") as refused:
        render(values, chart)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("policy", EMPTY)
def test_the_template_rejects_empty_selectors_without_the_schema(policy: dict[str, Any], tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "cognito-authz")
    (chart / "values.schema.json").unlink()
    values = merged(NEEDED, {"account": {"enabled": True, "trustedHops": 1}, "networkPolicy": policy})
    with pytest.raises(helm.HelmRenderError, match=r"account\.trustedHops: X-Forwarded-For is trusted"):
        render(values, chart)
    with pytest.raises(helm.HelmValuesError, match="networkPolicy/accountFrom"):
        render(values)


@pytest.mark.parametrize("selector", SELECTORS)
def test_the_template_rejects_wrong_selectors_without_the_schema(selector: dict[str, Any], tmp_path: Path) -> None:
    """`helm --skip-schema-validation` renders without the schema."""
    chart = shutil.copytree(CHART, tmp_path / "cognito-authz")
    (chart / "values.schema.json").unlink()
    values = merged(NEEDED, {"istio": {"authorizationPolicy": {"enabled": True, "selector": selector}}})
    with pytest.raises(helm.HelmRenderError, match=r"istio\.authorizationPolicy\.selector: needs matchLabels"):
        render(values, chart)
    values["istio"]["authorizationPolicy"]["selector"] = {"matchLabels": {"istio": "ingress"}}
    for policy in render(values, chart).of("AuthorizationPolicy"):
        assert policy["spec"]["selector"] == {"matchLabels": {"istio": "ingress"}}


@pytest.mark.parametrize(
    "values",
    [
        ACCOUNT,
        {"account": {"enabled": True}},
        {"account": {"enabled": True, "trustedHops": 0}},
        {
            "account": {"enabled": True, "trustedHops": 1},
            "networkPolicy": {"accountFrom": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]},
        },
        {
            "account": {"enabled": True, "trustedHops": 1},
            "networkPolicy": {"accountFrom": [{"podSelector": {"matchLabels": {"app": "envoy"}}}]},
        },
        {
            "account": {"enabled": True, "trustedHops": 1, "callersLimitedElsewhere": True},
            "networkPolicy": {"enabled": False},
        },
    ],
)
def test_trusted_hops_are_accepted_where_only_proxies_reach_the_port(values: dict[str, Any]) -> None:
    rendered = render(merged(NEEDED, values))
    wanted = values.get("networkPolicy", {}).get("accountFrom")
    if wanted:
        [rule] = [
            rule
            for rule in rendered.one("NetworkPolicy")["spec"]["ingress"]
            if rule["ports"] == [{"protocol": "TCP", "port": 9192}]
        ]
        assert rule["from"] == wanted


def test_notes_name_the_services_and_the_istio_provider() -> None:
    rendered = render(NEEDED, namespace="cognito-authz", name="cognito-authz")
    domain = "cognito-authz.svc.cluster.local"
    for service in (f"cognito-authz-headless.{domain}", f"service: cognito-authz.{domain}"):
        assert service in rendered.notes
    begin = rendered.notes.index("     meshConfig:")
    snippet = yaml.safe_load(rendered.notes[begin:rendered.notes.index("WARNING")])
    [provider] = snippet["meshConfig"]["extensionProviders"]
    assert provider["envoyExtAuthzGrpc"] == {
        "service": "cognito-authz.cognito-authz.svc.cluster.local",
        "port": 9191,
        "timeout": "0.25s",
        "failOpen": False,
        "statusOnError": "503",
    }
    readme = (CHART / "README.md").read_text()
    [block] = [part.split("```")[0] for part in readme.split("```yaml\n") if part.startswith("extensionProviders:")]
    assert yaml.safe_load(block)["extensionProviders"] == [provider], (
        "the README and the notes must show the same provider"
    )


def test_values_of_the_readme_work() -> None:
    readme = (CHART / "README.md").read_text()
    blocks = [block.split("```")[0] for block in readme.split("```yaml\n")[1:]]
    values = [loaded for block in blocks if "extensionProviders" not in (loaded := yaml.safe_load(block))]
    assert len(values) == 5
    for one in values:
        render(merged(NEEDED, one))
    for proxy, kinds in (("istio", {"AuthorizationPolicy", "EnvoyFilter"}),
                         ("envoyGateway", {"SecurityPolicy", "ClientTrafficPolicy"})):
        [complete] = [one for one in values if proxy in one]
        rendered = render(complete, name="cognito-authz", namespace="cognito-authz")
        assert kinds <= {one["kind"] for one in rendered.objects}
        assert rendered.warnings() == []
    given: dict[str, Any] = {}
    for setting in re.findall(r"--set '?([^' ]+\})'?|--set ([^'{ ]+) ", readme):
        given = merged(given, helm.parse_set_string("".join(setting)))
    assert given == NEEDED, "the README's command must set exactly the required values"
    render(given)


def test_values_of_a_parent_chart_are_accepted() -> None:
    render(merged(NEEDED, {"enabled": True, "global": {"imageRegistry": "", "somebodyElses": 1}}))


def test_helm_rejects_a_kubernetes_that_is_too_old(tmp_path: Path) -> None:
    with helm.Config(kubeconfig_content=KUBECONFIG, storage_driver="memory", namespace="ns") as cluster:
        release = cluster.install(str(CHART), "rel", NEEDED, dry_run="client")
        assert "is installed in ns" in release["notes"]
        too_new = shutil.copytree(CHART, tmp_path / "cognito-authz")
        manifest = (too_new / "Chart.yaml").read_text()
        assert 'kubeVersion: ">=1.29.0-0"' in manifest
        (too_new / "Chart.yaml").write_text(manifest.replace(">=1.29.0-0", ">=1.99.0-0"))
        with pytest.raises(helm.HelmError, match=r"1\.99\.0"):
            cluster.install(str(too_new), "other", NEEDED, dry_run="client")


@pytest.mark.parametrize("chart", [CHART, SIDECAR], ids=lambda chart: chart.name)
def test_the_package_contains_every_file_and_no_others(chart: Path, tmp_path: Path) -> None:
    archive = helm.package(str(chart), destination=str(tmp_path))
    with tarfile.open(archive) as packed:
        names = {name.removeprefix(f"{chart.name}/") for name in packed.getnames()}
    tracked = output("git", "ls-files", ".", cwd=chart).split()
    wanted = {name for name in tracked if not name.startswith(("ci/", "examples/", "."))}
    assert names - {"Chart.lock"} == wanted
    with helm.Chart.load(archive) as packed_chart:
        if chart == CHART:
            assert packed_chart.render(values=NEEDED, name="rel", namespace="ns")


def test_generated_files_are_up_to_date() -> None:
    done = run(sys.executable, CHARTS / "sync", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "document",
    [
        "charts/cognito-authz/README.md",
        "charts/cognito-authz-sidecar/README.md",
        "docs/alerts.md",
        "charts/cognito-authz/values.yaml",
        "charts/cognito-authz/Chart.yaml",
    ],
)
def test_links_are_not_broken(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" not in target and path:
            assert ((ROOT / document).parent / path).exists(), target
        if not path:
            assert anchor in re.findall(r"^#+ (.*)$", text.lower(), re.MULTILINE), target
    for path in re.findall(
        r"github(?:usercontent)?\.com/cognito-authz/cognito-authz/(?:(?:blob|tree)/)?main/([\w./-]+)", text
    ):
        assert (ROOT / path).exists(), path


def test_versions_agree() -> None:
    program = next(
        line for line in (ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("version = ")
    ).split('"')[1]
    for chart in (CHART, SIDECAR):
        manifest = yaml.safe_load((chart / "Chart.yaml").read_text())
        assert manifest["appVersion"] == program
        assert f"version: {manifest['version']}" in (SIDECAR / "README.md").read_text()
        for lines in yaml.safe_load(manifest["annotations"].get("artifacthub.io/images", "[]")):
            assert lines["image"].endswith(f":{program}")
    assert f"--version {manifest['version']}" in (CHART / "README.md").read_text()
    for example in ("chart", "istio"):
        [dependency] = yaml.safe_load((SIDECAR / "examples" / example / "Chart.yaml").read_text())["dependencies"]
        assert dependency["version"] == manifest["version"]


def test_yaml_and_schemas_pass_their_linters() -> None:
    rules = "{extends: relaxed, rules: {line-length: disable, indentation: {indent-sequences: whatever}}}"
    files = [CHART / "Chart.yaml", CHART / "values.yaml", CHART / ".checkov.yaml", CHART / "files" / "rules.yaml", *CI]
    files += [SIDECAR / "Chart.yaml", SIDECAR / "values.yaml", *(SIDECAR / "examples").glob("*.yaml")]
    files += sorted((CHART / "examples").glob("*/*.yaml")) + sorted((SIDECAR / "examples").glob("*/*.yaml"))
    done = run(TOOLS / "yamllint", "--strict", "-d", rules, *files)
    assert done.returncode == 0, done.stdout
    schema_files = [CHART / "values.schema.json", SIDECAR / "values.schema.json"]
    done = run(TOOLS / "check-jsonschema", "--check-metaschema", *schema_files)
    assert done.returncode == 0, done.stdout + done.stderr
