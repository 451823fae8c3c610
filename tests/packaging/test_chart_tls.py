"""TLS of the chart cognito-authz: values, rendered objects, and the running program with a certificate that changes."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

import web
from certificates import Authority
from commands import Command, run
from helm_charts import CHART, NEEDED, Mounts, config_maps, envoy_config, merged, nested, render, rendered_ci, start
from paths import ROOT
from stage import PATIENCE, Node, Stage, tcp

SECRET: Node = {"tls": {"existingSecret": "certificate"}}
ISSUED: Node = {"tls": {"certManager": {"enabled": True, "issuerRef": {"name": "internal"}}}}
NAME = "rel-cognito-authz.ns.svc"


@pytest.fixture
def stage(binary: Path, tmp_path: Path) -> Iterator[Stage]:
    with Stage(binary, tmp_path) as running:
        yield running


# ------------------------------------------------------------------------------------------------ values

@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tls.grpc", "on"),
        ("tls.grpc", True),
        ("tls.admin", "mtls"),
        ("tls.clientNames", "envoy"),
        ("tls.certManager.issuerRef", "internal"),
        ("tls.certManager.duration", "90 days"),
        ("tls.enabled", True),
        ("envoyGateway.backendTlsPolicy.ca", "x"),
    ],
)
def test_the_schema_rejects(path: str, value: Any) -> None:
    with pytest.raises(helm.HelmValuesError):
        render(merged(NEEDED, nested(path, value)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (merged(SECRET, ISSUED), "set only one of them"),
        ({"tls": {"certManager": {"enabled": True}}}, "tls.certManager.issuerRef: name the issuer"),
        (merged(SECRET, {"tls": {"grpc": "plain"}}), "all plain"),
        ({"tls": {"grpc": "mtls"}}, "no listener is encrypted, because there is no certificate"),
        ({"tls": {"admin": "tls"}}, "no listener is encrypted, because there is no certificate"),
        ({"tls": {"clientNames": ["a"]}}, "no listener is encrypted, because there is no certificate"),
        (merged(SECRET, {"tls": {"clientNames": ["a"]}}), "no listener verifies clients"),
        (merged(SECRET, {"tls": {"account": "mtls", "clientCa": {"existingSecret": "a"}}}), "no listener verifies"),
        (merged(SECRET, {"envoyGateway": {"backendTlsPolicy": {"enabled": True}}}), "name the ConfigMap"),
        (
            {"envoyGateway": {"backendTlsPolicy": {"enabled": True, "caConfigMap": "a"}}},
            "envoyGateway.backendTlsPolicy: requires",
        ),
    ],
)
def test_contradictory_values_are_rejected_with_a_reason(values: Node, said: str) -> None:
    with pytest.raises(helm.HelmRenderError) as refused:
        render(merged(NEEDED, values))
    assert said in str(refused.value)


def test_warnings_about_unencrypted_ports_end_with_tls() -> None:
    exposed = {"service": {"type": "NodePort"}, "account": {"enabled": True, "service": {"type": "LoadBalancer"}}}
    about = ("service.type is NodePort", "account.service.type", "serves plain HTTP")

    def warnings(tls: Node) -> list[str]:
        said = render(merged(NEEDED, merged(exposed, tls))).warnings()
        return [one for one in said if any(text in one for text in about)]

    assert len(warnings({})) == 3
    assert len(warnings(SECRET)) == 3
    assert "open to every client" in warnings(SECRET)[-1]
    assert warnings(merged(SECRET, {"tls": {"grpc": "mtls", "account": "tls"}})) == []


# ------------------------------------------------------------------------------------------------ objects

def test_without_a_certificate_nothing_is_encrypted() -> None:
    rendered = render(NEEDED)
    assert not any("tls" in argument for argument in rendered.container()["args"])
    assert "volumes" not in rendered.one("Deployment")["spec"]["template"]["spec"]
    assert rendered.of("Certificate") == []


def test_every_port_follows_its_setting() -> None:
    rendered = rendered_ci(CHART / "ci" / "tls-values.yaml")
    listeners = [one for one in rendered.container()["args"] if "-listen=" in one]
    assert listeners == [
        "--grpc-listen=mtls:[::]:9191", "--admin-listen=tls:[::]:9190", "--account-listen=tls:[::]:9192"
    ]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert rendered.container()[probe]["httpGet"]["scheme"] == "HTTPS"
    protocols = {one["metadata"]["name"]: one["spec"]["ports"][0]["appProtocol"] for one in rendered.of("Service")}
    assert set(protocols.values()) == {"https"}, protocols
    [endpoint] = rendered.one("ServiceMonitor")["spec"]["endpoints"]
    assert (endpoint["scheme"], endpoint["tlsConfig"]["serverName"]) == ("https", "rel-cognito-authz-admin.ns.svc")
    own = merged(NEEDED, {"tls": {"existingSecret": "a", "admin": "tls"},
                          "metrics": {"podMonitor": {"enabled": True, "tlsConfig": {"insecureSkipVerify": True}}}})
    [endpoint] = render(own).one("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["tlsConfig"] == {"insecureSkipVerify": True}


def test_the_certificate_of_cert_manager_has_every_name_and_a_new_key_each_time() -> None:
    """cert-manager's schema is not at hand, so the test names the fields (cert-manager.io/v1)."""
    rendered = rendered_ci(CHART / "ci" / "cert-manager-values.yaml")
    certificate = rendered.one("Certificate")
    assert certificate["apiVersion"] == "cert-manager.io/v1"
    spec = certificate["spec"]
    assert set(spec) == {"secretName", "issuerRef", "dnsNames", "duration", "renewBefore", "usages", "privateKey"}
    assert spec["privateKey"] == {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"}
    volumes = rendered.one("Deployment")["spec"]["template"]["spec"]["volumes"]
    assert [one["secret"]["secretName"] for one in volumes] == [spec["secretName"]]
    services = {f"{one['metadata']['name']}.ns.svc" for one in rendered.of("Service")}
    assert services <= set(spec["dnsNames"])
    policy = rendered.one("BackendTLSPolicy")["spec"]
    assert policy["validation"]["hostname"] in spec["dnsNames"]
    assert [one["name"] for one in policy["targetRefs"]] == ["rel-cognito-authz"]
    own = merged(NEEDED, merged(ISSUED, {"tls": {"certManager": {"dnsNames": ["authz.example.com"]}}}))
    spec = render(own).one("Certificate")["spec"]
    assert (spec["dnsNames"], spec["issuerRef"]) == (["authz.example.com"], {"name": "internal"})


# ------------------------------------------------------------------------------------------------ running

def expiry(admin: str, context: ssl.SSLContext) -> float:
    with urllib.request.urlopen(f"https://{admin}/metrics", context=context) as answer:
        text = answer.read().decode()
    [line] = [one for one in text.splitlines() if "expiry_timestamp_seconds{listener=\"grpc\"}" in one]
    return float(line.rpartition(" ")[2])


def test_an_installation_with_mutual_tls_behind_envoy(stage: Stage) -> None:
    """The kubelet replaces the Secret of cert-manager, and Envoy's requests continue."""
    authority = Authority()
    admin_name = "rel-cognito-authz-admin.ns.svc"
    values = merged(NEEDED, merged(ISSUED, {"userPool": {"jwksUrl": stage.jwks_url}, "tls": {
        "grpc": "mtls", "admin": "tls", "clientNames": ["envoy.test"]}}))
    rendered = render(values)
    deployment = rendered.one("Deployment")["spec"]["template"]["spec"]
    secrets = {"rel-cognito-authz-tls": authority.secret(NAME, admin_name)}
    mounts = Mounts(deployment, rendered.container(), config_maps(rendered.objects) | secrets, stage.directory / "root")
    authz = start(stage, rendered.container(), mounts)
    assert authz.admin.startswith("tls:")
    admin, grpc = (authz.bound(one).split(":", 1)[1].replace("[::]", "127.0.0.1") for one in ("admin", "grpc"))

    # The pod of `helm test`: its arguments, but the address of the test.
    ca = stage.directory / "ca.crt"
    ca.write_text(authority.pem)
    arguments = rendered.one("Pod", "-test-ready")["spec"]["containers"][0]["args"]
    assert arguments == ["healthcheck", f"--admin=https://{admin_name}:9190",
                         "--admin-ca-file=/run/secrets/cognito-authz/tls/ca.crt"]
    ready: Command = [stage.binary, "healthcheck", f"--admin=https://{admin}", f"--admin-ca-file={ca}",
             f"--admin-server-name={admin_name}"]
    authz.child.wait_until("ready", lambda: run(*ready).returncode == 0, PATIENCE)

    # Envoy with the files of deploy/envoy/tls.
    folder = stage.directory / "envoy-tls"
    folder.mkdir()
    for name, text in authority.secret("envoy.test").items():
        (folder / name).write_text(text)
    shipped = ROOT / "deploy" / "envoy" / "tls"

    def adapted(name: str) -> str:
        text = (shipped / name).read_text().replace("/etc/envoy/tls", str(folder))
        return text.replace("cognito-authz.cognito-authz.svc", NAME)

    for name in ("identity.yaml", "authority.yaml"):
        (folder / name).write_text(adapted(name))
    config = envoy_config(tcp(grpc))
    config["static_resources"]["clusters"][0] |= yaml.safe_load(adapted("transport-socket.yaml"))
    site = stage.envoy(config).urls["in"]
    assert web.get(f"{site}/orders", stage.keys.bearer()).header("seen-sub") == "ada"
    assert web.get(f"{site}/orders").status == 401

    context = ssl.create_default_context(cadata=authority.pem)
    context.check_hostname = False  # the test asks at 127.0.0.1
    before = expiry(admin, context)
    mounts.volumes["/run/secrets/cognito-authz/tls"].write(authority.secret(NAME, admin_name, days=2))

    def is_renewed() -> bool:
        assert web.get(f"{site}/orders", stage.keys.bearer()).status == 200
        return expiry(admin, context) > before

    authz.child.wait_until("using the new certificate", is_renewed, PATIENCE)
    assert web.get(f"{site}/orders", stage.keys.bearer()).status == 200
