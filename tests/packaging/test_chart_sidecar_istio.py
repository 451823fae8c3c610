"""The sidecar chart's objects for Istio: those of deploy/istio/sidecar, and a real Envoy does what they say.

Istio itself does not run here; istio.py does its part.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

import helm_charts
import web
from bootstrap import EXT_AUTHZ, validate
from helm_charts import (
    NEEDED,
    SIDECAR,
    Mounts,
    Rendered,
    config_maps,
    merged,
    pods,
    render,
    rendered_istio_example,
    start,
)
from istio import ISTIO, generated_bootstrap, provider
from kubernetes_rules import VERSIONS, complaints, restricted
from manifests import WITHOUT_SCHEMA, authz_container, documents, find, is_builtin, validate_crds
from scratch import free_port
from stage import PATIENCE, Envoy, Node, Stage, named, tcp
from test_chart_istio import SELECTED, patches

OWN = SIDECAR.name
EXAMPLE = ISTIO / "sidecar"
KINDS = {"ServiceEntry", "DestinationRule", "EnvoyFilter", "AuthorizationPolicy", "PeerAuthentication"}
SELECTOR: Node = {"matchLabels": {"app": "application"}}
# The settings of deploy/istio/sidecar.
SAME: Node = {"admin": {"listen": "[::]:9190"}, "istio": {"enabled": True, "selector": SELECTOR}}
MOUNT = "sidecar.istio.io/userVolumeMount"
# Wrong selectors: the API server drops unknown members, and an empty selector matches every pod.
WRONG: list[Any] = [[], "app=shop", {"app": "shop"}, {"matchLabels": {}}, {"matchLabels": {"app": 1}},
                    {"matchLabels": {"app": "a b"}}, {"matchLabels": "app"}, {"matchExpressions": []}]
# Values that change what the patches of the EnvoyFilter name.
HEADERS: Node = {
    "check": {"headerPrefix": "x-shop-", "identityHeaders": ["x-plan"]},
    "config": {
        "policies": {
            "signed-in": {},
            "tenants": {"from": {"header": "X-Token"}, "headers": {"x-tier": "1"}},
            "sockets": {"from": {"websocket_protocol": "bearer"}},
        },
        "default": "tenants",
        "claim_headers": [{"claim": "custom:tenant", "header": "x-tenant"}],
    },
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example chart without a selector: Helm would merge the example's label with those of a test."""
    chart = helm_charts.consumer("istio", tmp_path_factory.mktemp("sidecar"))
    values = yaml.safe_load((chart / "values.yaml").read_text())
    del values[OWN]["istio"]["selector"]
    (chart / "values.yaml").write_text(yaml.safe_dump(values))
    return chart


def rendered(shop: Path, *values: Node) -> Rendered:
    everything: Node = {"istio": {"selector": SELECTOR}}
    for one in values:
        everything = merged(everything, one)
    return render({OWN: everything}, shop, namespace="shop")


def of_istio(objects: list[Node]) -> list[tuple[str, str, str, str]]:
    """Version, kind, namespace and specification of the objects for Istio, without their names."""
    return sorted(
        (one["apiVersion"], one["kind"], one["metadata"]["namespace"], json.dumps(keyed(one["spec"]), sort_keys=True))
        for one in objects if one["kind"] in KINDS)


def keyed(value: Any) -> Any:
    """The value with texts as keys: YAML has numbers as keys, too."""
    if isinstance(value, dict):
        return {str(key): keyed(inner) for key, inner in value.items()}
    return [keyed(inner) for inner in value] if isinstance(value, list) else value


def policies(found: Rendered) -> list[Node]:
    both = [find(found.objects, "AuthorizationPolicy", name)
            for name in ("rel-cognito-authz", "rel-cognito-authz-second-line")]
    assert [one["spec"]["action"] for one in both] == ["CUSTOM", "DENY"]
    return both


def annotations_of(found: Rendered) -> Node:
    template: Node = found.one("Deployment")["spec"]["template"]
    return template["metadata"]["annotations"] or {}


# ------------------------------------------------------------------------------------------- the same as deploy/istio

def test_the_objects_are_those_of_the_example(shop: Path) -> None:
    theirs = documents(*sorted(EXAMPLE.glob("*.yaml")))
    assert {one["kind"] for one in theirs} == KINDS | {"Deployment", "Service"}
    assert of_istio(rendered(shop, SAME).objects) == of_istio(theirs)


def test_the_pod_is_that_of_the_example(shop: Path) -> None:
    template = find(documents(EXAMPLE / "application.yaml"), "Deployment", "application")["spec"]["template"]
    theirs = authz_container(template["spec"])
    probes = {name: copy.deepcopy(theirs[name]) for name in ("startupProbe", "livenessProbe")}
    for probe in probes.values():
        probe["httpGet"]["port"] = named(theirs["ports"], probe["httpGet"]["port"])["containerPort"]
    # Null removes the library's defaults.
    found = rendered(shop, SAME, {"startupProbe": {"exec": None, "timeoutSeconds": None}}, probes)
    [(_, pod)] = pods(found.objects)
    ours = authz_container(pod)
    for name, probe in probes.items():
        assert ours[name] == probe
    assert [one for one in theirs["args"] if one not in ours["args"]] == []
    assert ours["restartPolicy"] == theirs["restartPolicy"] == "Always"
    # The annotations differ in the name of the volume.
    [wanted] = json.loads(template["metadata"]["annotations"][MOUNT]).values()
    assert json.loads(annotations_of(found)[MOUNT]) == {"cognito-authz-socket": wanted}
    assert named(pod["volumes"], "cognito-authz-socket")["emptyDir"] == template["spec"]["volumes"][0]["emptyDir"]
    assert pod["securityContext"]["fsGroup"] == template["spec"]["securityContext"]["fsGroup"]


def test_both_charts_have_the_same_patches(shop: Path) -> None:
    """The standalone service has several pods, so its check is retried. There is only one socket."""
    cors: Node = {"istio": {"envoyFilter": {"corsOrigins": ["https://app.example.com"]}}}
    for values in ({}, cors, merged(HEADERS, cors)):
        standalone = patches(render(merged(SELECTED, values)).of("EnvoyFilter"), "SIDECAR_INBOUND")
        retries = [patch["patch"]["value"].get("typed_config", {}).pop("grpc_service", None) for patch in standalone]
        assert any(retries)
        # Null replaces the policy file of the example.
        own = values if "config" in values else merged({"config": None}, values)
        assert patches(rendered(shop, SAME, own).of("EnvoyFilter"), "SIDECAR_INBOUND") == standalone


def test_the_provider_of_the_mesh_is_the_default(shop: Path) -> None:
    found = rendered(shop)
    name = policies(found)[0]["spec"]["provider"]["name"]
    entry = found.one("ServiceEntry")["spec"]
    assert provider(name)["service"] in entry["hosts"]
    assert provider(name)["port"] in {port["number"] for port in entry["ports"]}
    assert found.one("DestinationRule")["spec"]["host"] in entry["hosts"]


# ------------------------------------------------------------------------------------------------ values

def test_without_istio_nothing_changes(shop: Path) -> None:
    on, off = rendered(shop), rendered(shop, {"istio": {"enabled": False}})
    assert {one["kind"] for one in on.objects} - {one["kind"] for one in off.objects} == KINDS
    assert annotations_of(off) == {}
    assert set(annotations_of(on)) == {MOUNT}
    [(_, with_it)], [(_, without)] = pods(on.objects), pods(off.objects)
    assert with_it == without


@pytest.mark.parametrize(
    ("switch", "kinds"),
    [
        ("secondLine", ["AuthorizationPolicy"]),
        ("envoyFilter", ["EnvoyFilter"]),
        ("serviceEntry", ["DestinationRule", "ServiceEntry"]),
        ("peerAuthentication", ["PeerAuthentication"]),
    ],
)
def test_each_object_can_be_switched_off(shop: Path, switch: str, kinds: list[str]) -> None:
    def counted(found: Rendered) -> list[str]:
        return [one["kind"] for one in found.objects if one["kind"] in KINDS]

    everything, rest = (counted(rendered(shop, *values)) for values in ([], [{"istio": {switch: {"enabled": False}}}]))
    assert len(everything) == 6
    for kind in rest:
        everything.remove(kind)
    assert sorted(everything) == kinds


def test_every_object_selects_the_same_pods(shop: Path) -> None:
    labels = {"app": "application", "tier": "web"}
    found = rendered(shop, {"istio": {"selector": {"matchLabels": {"tier": "web"}}}})
    specs = [one["spec"] for one in found.objects if one["kind"] in KINDS - {"ServiceEntry", "DestinationRule"}]
    assert len(specs) == 4
    for spec in specs:
        selected = spec.get("workloadSelector", {}).get("labels") or spec["selector"]["matchLabels"]
        assert selected == labels


def test_a_chart_can_compute_the_labels(shop: Path, tmp_path: Path) -> None:
    chart = shutil.copytree(shop, tmp_path / "shop")
    template = chart / "templates" / "istio.yaml"
    given = '(dict "root" . "matchLabels" (dict "app.kubernetes.io/instance" .Release.Name))'
    template.write_text(template.read_text().replace('(dict "root" .)', given))
    own = {"app.kubernetes.io/instance": "rel"}
    assert render({}, chart).one("EnvoyFilter")["spec"]["workloadSelector"] == {"labels": own}
    with pytest.raises(helm.HelmRenderError, match="set only one of them"):
        rendered(chart)
    template.write_text(template.read_text().replace("(dict \"app.kubernetes.io/instance\" .Release.Name)", "dict"))
    with pytest.raises(helm.HelmRenderError, match=r"istio\.selector: name the pods"):
        render({}, chart)


def test_the_dependency_can_have_an_alias(shop: Path, tmp_path: Path) -> None:
    chart = shutil.copytree(shop, tmp_path / "shop")
    manifest = yaml.safe_load((chart / "Chart.yaml").read_text())
    manifest["dependencies"][0]["alias"] = "authz"
    (chart / "Chart.yaml").write_text(yaml.safe_dump(manifest))
    (chart / "values.yaml").write_text(yaml.safe_dump({"authz": merged(SAME, NEEDED)}))
    for template in (chart / "templates").iterdir():
        template.write_text(template.read_text().replace('(dict "root" .)', '(dict "root" . "values" .Values.authz)'))
    found = render({}, chart, namespace="shop")
    assert of_istio(found.objects) == of_istio(documents(*EXAMPLE.glob("*.yaml")))
    assert set(annotations_of(found)) == {MOUNT}


def test_the_socket_has_the_same_path_everywhere(shop: Path) -> None:
    found = rendered(shop, {"socket": {"directory": "/run/authz"}})
    [endpoint] = found.one("ServiceEntry")["spec"]["endpoints"]
    assert endpoint["address"] == "unix:///run/authz/authz.sock"
    [(_, pod)] = pods(found.objects)
    assert "--grpc-listen=unix:/run/authz/authz.sock" in authz_container(pod)["args"]
    assert json.loads(annotations_of(found)[MOUNT]) == {"cognito-authz-socket": {"mountPath": "/run/authz"}}
    assert named(authz_container(pod)["volumeMounts"], "cognito-authz-socket")["mountPath"] == "/run/authz"


def test_a_host_and_a_provider_of_its_own(shop: Path) -> None:
    limits = {"connectionPool": {"tcp": {"connectTimeout": "1s"}}}
    found = rendered(shop, {"istio": {"provider": "authz", "serviceEntry": {"host": "authz.internal"},
                                      "destinationRule": {"trafficPolicy": limits},
                                      "labels": {"team": "shop"}, "annotations": {"a": "b"}}})
    assert found.one("ServiceEntry")["spec"]["hosts"] == ["authz.internal"]
    rule = found.one("DestinationRule")["spec"]
    assert (rule["host"], rule["trafficPolicy"]["tls"]) == ("authz.internal", {"mode": "DISABLE"})
    assert rule["trafficPolicy"]["connectionPool"]["tcp"] == {"connectTimeout": "1s"}
    assert policies(found)[0]["spec"]["provider"] == {"name": "authz"}
    for one in (one for one in found.objects if one["kind"] in KINDS):
        assert one["metadata"]["labels"]["team"] == "shop"
        assert one["metadata"]["annotations"] == {"a": "b"}


@pytest.mark.parametrize(
    ("listen", "plaintext"),
    [
        ("[::]:9190", {9190: {"mode": "PERMISSIVE"}}),
        ("0.0.0.0:19190", {19190: {"mode": "PERMISSIVE"}}),
        ("tls:[::]:9190", {9190: {"mode": "PERMISSIVE"}}),
        ("127.0.0.1:9190", None),
        ("[::1]:9190", None),
        ("localhost:9190", None),
    ],
)
def test_only_an_open_admin_port_accepts_plaintext(shop: Path, listen: str, plaintext: Node | None) -> None:
    spec = rendered(shop, {"admin": {"listen": listen}}).one("PeerAuthentication")["spec"]
    assert spec["mtls"] == {"mode": "STRICT"}
    assert spec.get("portLevelMtls") == plaintext


def test_ports_can_be_excepted(shop: Path) -> None:
    first, second = policies(rendered(shop, {"istio": {"exceptPorts": [9190, 3001]}}))
    excepted = [{"operation": {"notPorts": ["9190", "3001"]}}]
    assert first["spec"]["rules"] == [{"to": excepted}]
    undecided = {"key": "experimental.envoy.filters.http.ext_authz[decision]", "notValues": ["allow"]}
    assert second["spec"]["rules"] == [{"to": excepted, "when": [undecided]}]


def test_the_patches_follow_the_prefix_and_the_policy_file(shop: Path) -> None:
    [remove, check] = patches(rendered(shop, HEADERS).of("EnvoyFilter"), "SIDECAR_INBOUND")
    [extension] = remove["patch"]["value"]["typed_config"]["early_header_mutation_extensions"]
    removed = [one["remove_on_match"]["key_matcher"]["safe_regex"]["regex"]
               for one in extension["typed_config"]["mutations"]]
    assert removed == ["(?i)x[-_.]shop[-_.].*", "(?i)x[-_.]plan", "(?i)x[-_.]tenant", "(?i)x[-_.]tier"]
    credentials = ["(?i)sec[-_.]websocket[-_.]protocol", "(?i)x[-_.]token"]
    settings = check["patch"]["value"]["typed_config"]
    sent = [one["safe_regex"]["regex"] for one in settings["allowed_headers"]["patterns"] if "safe_regex" in one]
    assert sent == removed + credentials
    changed = re.compile(settings["decoder_header_mutation_rules"]["allow_expression"]["regex"])
    for name in ("x-shop-sub", "x-tenant", "x-tier", "x-plan", "x-token", "authorization", "cookie"):
        assert changed.search(name), name
    assert not changed.search("x-auth-sub")


# ------------------------------------------------------------------------------------------------ wrong values

@pytest.mark.parametrize(
    ("istio", "said"),
    [
        ({"selector": {}}, r"istio\.selector: name the pods"),
        ({"selector": None}, "selector"),
        ({"selector": {"matchLabels": {"app": "a"}, "targetRefs": []}}, "targetRefs"),
        *(({"selector": selector}, "selector") for selector in WRONG),
        ({"provider": ""}, "provider"),
        ({"provider": None}, "provider"),
        ({"enabled": "yes"}, "enabled"),
        ({"selectors": {}}, "selectors"),
        ({"exceptPorts": ["9190"]}, "exceptPorts"),
        ({"exceptPorts": [0]}, "exceptPorts"),
        ({"exceptPorts": [9190, 9190]}, "exceptPorts"),
        ({"secondLine": False}, "secondLine"),
        ({"serviceEntry": {"host": "*.internal"}}, "host"),
        ({"serviceEntry": {"host": ""}}, "host"),
        ({"envoyFilter": {"corsOrigins": ["*"]}}, "corsOrigins"),
        ({"peerAuthentication": {"mode": "STRICT"}}, "mode"),
    ],
    ids=json.dumps,
)
def test_wrong_values_are_rejected(shop: Path, istio: Node, said: str) -> None:
    with pytest.raises((helm.HelmValuesError, helm.HelmRenderError), match=said):
        render({OWN: {"istio": {"selector": SELECTOR} | istio}}, shop)


@pytest.mark.parametrize(
    "selector",
    ["app", {"app": "a"}, {"matchLabels": {"app": 1}}, {"matchLabels": "app"}, {"matchLabels": {"app": "a"}, "b": "c"}],
    ids=json.dumps,
)
def test_wrong_selectors_are_rejected_without_the_schema(tmp_path: Path, selector: Any) -> None:
    """`helm --skip-schema-validation` renders without the schema."""
    library = shutil.copytree(SIDECAR, tmp_path / "library")
    (library / "values.schema.json").unlink()
    chart = library / "examples" / "istio"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    values[OWN]["istio"]["selector"] = selector
    (chart / "values.yaml").write_text(yaml.safe_dump(values))
    helm.dependency_update(str(chart))
    with pytest.raises(helm.HelmRenderError, match=r"istio\.selector: needs matchLabels and nothing else"):
        render({}, chart)


# ------------------------------------------------------------------------------------------------ schemas

def test_helm_lint_accepts_the_example(tmp_path: Path) -> None:
    report = helm.lint(str(helm_charts.consumer("istio", tmp_path)), {}, strict=True, kube_version="v1.29.0")
    assert not report["errors"], report


def test_custom_resources_are_valid(crd_validator: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "custom.yaml"
    everything = rendered_istio_example().objects
    custom = [one for one in everything if not is_builtin(one) and one["kind"] not in WITHOUT_SCHEMA]
    assert {one["kind"] for one in custom} == KINDS - WITHOUT_SCHEMA
    manifest.write_text(yaml.safe_dump_all(custom))
    validate_crds(crd_validator, manifest)


def test_the_pod_of_the_example_is_valid_and_restricted(shop: Path) -> None:
    found = rendered(shop)
    for version in VERSIONS:
        for one in filter(is_builtin, found.objects):
            assert complaints(version, json.dumps(one)) == [], version
    [(_, pod)] = pods(found.objects)
    assert restricted(pod) == []


def test_the_readme_shows_how(shop: Path, tmp_path: Path) -> None:
    """Renders the values and the templates of the README's section."""
    section = (SIDECAR / "README.md").read_text().split("\n## Istio\n")[1].split("\n## ")[0]
    values, pod, objects = re.findall(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[:3]
    chart = shutil.copytree(shop, tmp_path / "shop")
    (chart / "templates" / "istio.yaml").write_text(objects)
    (chart / "templates" / "shop.yaml").write_text(f"kind: PodTemplate\n{pod}")
    found = render(merged({OWN: NEEDED}, yaml.safe_load(values)), chart)
    assert {one["kind"] for one in found.objects} == KINDS | {"PodTemplate"}
    [template] = found.of("PodTemplate")
    assert set(template["metadata"]["annotations"]) == {MOUNT}


# ------------------------------------------------------------------------------------------------ a real Envoy

@pytest.fixture
def stage(binary: Path, tmp_path: Path) -> Iterator[Stage]:
    with Stage(binary, tmp_path) as running:
        yield running


def test_envoy_accepts_the_patched_configuration(shop: Path, tmp_path: Path) -> None:
    for number, found in enumerate((rendered(shop), rendered(shop, HEADERS), rendered_istio_example())):
        bootstrap = generated_bootstrap(
            policies(found), found.of("EnvoyFilter"), "SIDECAR_INBOUND", provider("cognito-authz-sidecar"))
        validate(bootstrap.write(tmp_path / f"{number}.json"))


def seen(envoy: Envoy, listener: str, path: str, *sent: tuple[str, str]) -> tuple[int, Node]:
    """Status, and the headers that the application received."""
    answer = web.get(envoy.urls[listener] + path, list(sent))
    return answer.status, dict(map(tuple, answer.json()["headers"])) if answer.status == 200 else {}


def test_the_rendered_sidecar_checks_requests_on_its_socket(shop: Path, stage: Stage) -> None:
    """The container, the address of the ServiceEntry, the policies and the patches, with a prefix of its own."""
    port = free_port()
    public: Node = {"policies": {"public": {"public": True}}, "routes": [{"path": "/health", "policy": "public"}]}
    found = rendered(shop, HEADERS, {
        "config": public, "userPool": {"jwksUrl": stage.jwks_url}, "istio": {"exceptPorts": [port]}})
    [(_, pod)] = pods(found.objects)
    mounts = Mounts(pod, authz_container(pod), config_maps(found.objects), stage.directory)
    authz = start(stage, authz_container(pod), mounts)
    authz.child.wait_until("ready", lambda: web.is_ok(f"http://{authz.admin}/readyz"), PATIENCE)

    bootstrap = generated_bootstrap(
        policies(found), found.of("EnvoyFilter"), "SIDECAR_INBOUND", provider("cognito-authz-sidecar"))
    [endpoint] = found.one("ServiceEntry")["spec"]["endpoints"]
    path_of_socket = stage.directory / endpoint["address"].removeprefix("unix:///")
    bootstrap.ext_authz("ingress_tcp")["grpc_service"]["envoy_grpc"]["cluster_name"] = "cognito_authz_uds"
    bootstrap.point("cognito_authz_uds", {"pipe": {"path": str(path_of_socket)}})
    bootstrap.point("app", tcp(stage.application()))
    bootstrap.relax("ingress_tcp")
    bootstrap.copy_listener("ingress_tcp", "no_custom")
    bootstrap.remove_filter("no_custom", EXT_AUTHZ)
    bootstrap.copy_listener("ingress_tcp", "excepted")
    bootstrap.listener("excepted")["address"] = tcp(f"127.0.0.1:{port}")
    envoy = stage.envoy(bootstrap.config)

    forged = [("x-shop-sub", "root"), ("X-Shop-Forged", "1"), ("x.shop.sub", "root"), ("x-tenant", "other"),
              ("x-plan", "9")]
    bearer = dict(stage.keys.bearer(**{"custom:tenant": "acme"}))["authorization"].removeprefix("Bearer ")
    status, headers = seen(envoy, "ingress_tcp", "/orders", ("x-token", bearer), *forged)
    assert (status, headers["x-shop-sub"], headers["x-tenant"], headers["x-tier"]) == (200, "ada", "acme", "1")
    assert not {"x-shop-forged", "x.shop.sub", "x-plan"} & headers.keys()
    # Neither a route without a token nor a port without a check gets forged headers.
    for listener, path in (("ingress_tcp", "/health"), ("excepted", "/orders")):
        status, headers = seen(envoy, listener, path, *forged)
        assert status == 200
        assert not {name for name in headers if name.startswith(("x-shop", "x.shop", "x-tenant", "x-plan"))}
    refused = web.get(f"{envoy.urls['ingress_tcp']}/orders")
    assert (refused.status, refused.json()["reason"]) == (401, "missing_credential")
    assert web.get(f"{envoy.urls['ingress_tcp']}/orders", [("x_shop_sub", "root")]).status == 400
    # Without the first policy, the second one denies.
    assert seen(envoy, "no_custom", "/orders", ("x-token", bearer))[0] == 403
    # An outage gives 503, not a denial.
    authz.child.stop(10)
    assert seen(envoy, "ingress_tcp", "/orders", ("x-token", bearer))[0] == 503
