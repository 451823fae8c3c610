"""The symptoms of docs/troubleshooting.md that concern outages and configuration. Importing it registers them."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from pathlib import Path

import web
from bootstrap import Bootstrap
from certificates import Authority
from commands import Command
from network import Authority as ServerAuthority
from network import documents, http_server
from scratch import free_port
from stage import CLIENT, POOL, Keys, Node, Stage, eventually
from symptoms import POLICY, alone
from transcript import ADMIN, GRPC, KEYS, Site, Transcript

# ------------------------------------------------------------------------------------------------ 503


def without_keys(stage: Stage, url: str, names: dict[str, str], error: str) -> Transcript:
    site = Site(stage, policy=POLICY, keys=url, is_ready=False)
    site.names |= names
    to = site.transcript()
    [line] = to.log(site.program, "keys could not be fetched")
    assert error in line, line
    to.json(site.admin, "/readyz")
    to.metrics(site.admin, "cognito_authz_jwks_fetches_total")
    return to


@alone
def keys_not_found(stage: Stage) -> Transcript:
    """The user pool id, or the region, is wrong: Cognito answers 404."""
    url = stage.jwks_url.replace("/jwks.json", f"/{POOL}x/.well-known/jwks.json")
    site = Site(stage, policy=POLICY, keys=url, is_ready=False)
    to = site.transcript()
    to.json(site.admin, "/readyz")
    to.log(site.program, "keys could not be fetched")
    to.metrics(site.admin, "cognito_authz_jwks_fetches_total")
    answer = site.curl(to, "/orders", stage.keys.token())
    assert answer.status == 503
    return to


@alone
def keys_without_dns(stage: Stage) -> Transcript:
    return without_keys(stage, "https://cognito-idp.eu-west-1.invalid/jwks.json", {}, "lookup")


@alone
def keys_without_trust(stage: Stage) -> Transcript:
    """A proxy that decrypts TLS: its CA is not among the trusted ones."""
    tls: ssl.SSLContext = ServerAuthority("A proxy").server("localhost", stage.directory)
    with http_server(("127.0.0.1", 0), documents({"/jwks.json": stage.keys.jwks}, []), tls) as address:
        port = address.rpartition(":")[2]
        return without_keys(stage, f"https://localhost:{port}/jwks.json", {f"localhost:{port}": KEYS}, "certificate")


@alone
def service_down(stage: Stage) -> Transcript:
    def notice_soon(bootstrap: Bootstrap) -> None:
        [check] = bootstrap.cluster("cognito_authz_tcp")["health_checks"]
        check["interval"] = "0.2s"

    site = Site(stage, policy=POLICY, change=notice_soon)
    to = site.transcript()
    site.program.child.stop(5)
    eventually("noticed", lambda: not any(site.envoy.hosts("cognito_authz_tcp").values()))
    assert site.curl(to, "/orders", stage.keys.token()).status == 503
    site.access_log(to, 503)
    address = site.envoy.admin.removeprefix("http://")
    to.metrics(address, 'envoy_http_ext_authz_error|envoy_cluster_membership_(healthy|total).*"cognito_authz_tcp"',
               "/stats/prometheus", zeros=True)
    return to


@alone
def envoys_timeout(stage: Stage) -> Transcript:
    """Envoy waits for 50 ms. The service gets no CPU for longer, as under a limit that it has used up."""

    def hurry(bootstrap: Bootstrap) -> None:
        grpc = bootstrap.ext_authz("ingress_tcp")["grpc_service"]
        grpc["timeout"] = "0.050s"
        del grpc["retry_policy"]

    site = Site(stage, policy=POLICY, change=hurry)
    to = site.transcript()
    pid = site.program.child.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        assert site.curl(to, "/orders", stage.keys.token()).status == 503
    finally:
        os.kill(pid, signal.SIGCONT)
    site.access_log(to, 503)
    address = site.envoy.admin.removeprefix("http://")
    to.metrics(address, 'envoy_http_ext_authz_error|envoy_cluster_upstream_rq_timeout.*"cognito_authz_tcp"',
               "/stats/prometheus")
    return to


@alone
def message_too_large(stage: Stage) -> Transcript:
    """Envoy sends bodies of up to 1 MiB, and the service accepts messages of 64 KiB."""

    def send_bodies(bootstrap: Bootstrap) -> None:
        bootstrap.ext_authz("ingress_tcp")["with_request_body"] = {
            "max_request_bytes": 1 << 20, "pack_as_bytes": True}

    site = Site(stage, "--grpc-max-message-bytes", "64KiB", policy=POLICY, change=send_bodies)
    to = site.transcript()
    token, body = stage.keys.token(scope="orders/write"), b"x" * 100_000
    assert site.curl(to, "/orders", token, method="POST", body=body, shown="@100-kB.bin").status == 503
    site.access_log(to, 503)
    to.metrics(site.envoy.admin.removeprefix("http://"), "envoy_http_ext_authz_error", "/stats/prometheus")
    return to


@alone
def body_too_large(stage: Stage) -> Transcript:
    """Envoy buffers bodies of up to 64 KiB for policies that read them."""

    def buffer_bodies(bootstrap: Bootstrap) -> None:
        bootstrap.ext_authz("ingress_tcp")["with_request_body"] = {"max_request_bytes": 65536, "pack_as_bytes": True}

    site = Site(stage, policy=POLICY, change=buffer_bodies)
    to = site.transcript()
    token = stage.keys.token(scope="orders/write")
    answer = site.curl(to, "/orders", token, method="POST", body=b"x" * 100_000, shown="@100-kB.bin")
    assert answer.status == 413
    site.access_log(to, 413)
    return to


@alone
def old_keys(stage: Stage) -> Transcript:
    """Two replicas. Cognito has a new key, and only one of them can fetch it."""
    old = Keys()
    old.jwks["keys"][0]["kid"] = "old"
    seed = stage.directory / "jwks.json"
    seed.write_text(json.dumps(old.jwks))
    unreachable = f"127.0.0.1:{free_port()}"
    site = Site(stage, "--jwks-file", seed, policy=POLICY, keys=f"http://{unreachable}/jwks.json")
    other = stage.authz("other", "--account-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    door = other.bound("http")
    site.names |= {other.admin: "127.0.0.1:9290", door: "127.0.0.1:9293", unreachable: KEYS}
    to = site.transcript()
    token = stage.keys.token()
    assert site.curl(to, "/orders", token).json()["reason"] == "keys_unavailable"
    to.show("# the same request, checked by another replica", [])
    answer = web.get(f"http://{door}/ext-authz/orders", [("authorization", f"Bearer {token}")])
    to.answer(f'curl -i http://{door}/ext-authz/orders -H "authorization: Bearer $TOKEN"', answer)
    assert answer.status == 200
    to.log(site.program, "keys could not be fetched")
    for admin in (site.admin, other.admin):
        to.metrics(admin, "cognito_authz_jwks_(last_success_timestamp_seconds|fetches_total)")
    return to


# ------------------------------------------------------------------------------------------------ configuration


@alone
def reload_failed(stage: Stage) -> Transcript:
    site = Site(stage, policy=POLICY)
    to = site.transcript()
    wrong: Node = {**POLICY, "policies": {**POLICY["policies"], "admin": {"group": {"any": ["admins"]}}}}
    site.write(wrong)
    os.kill(site.program.child.pid, signal.SIGHUP)
    to.log(site.program, "the policy file is not reloaded; the previous one stays in effect")
    to.json(site.admin, "/readyz")
    to.metrics(site.admin, "cognito_authz_config_reloads_total")
    assert to.run("cognito-authz check-config", [stage.binary, "check-config", *site.options]) == 64
    return to


def start(to: Transcript, stage: Stage, shown: str, *flags: str | Path) -> int:
    """Starts the program, which is expected to end by itself."""
    command: Command = [
        stage.binary, "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-url", stage.jwks_url,
        "--account-api=false", "--log-format", "json", "--log-level", "error", *flags]
    return to.run(f"cognito-authz {shown}", command)


@alone
def port_in_use(stage: Stage) -> Transcript:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        to = Transcript({address: GRPC})
        code = start(to, stage, f"--grpc-listen {address}", "--grpc-listen", address, "--admin-listen", "127.0.0.1:0")
    assert code == 69
    return to


@alone
def wrong_option(stage: Stage) -> Transcript:
    to = Transcript({})
    command: Command = [stage.binary, "--user-pool-id", "AbC123xyz", "--client-id", CLIENT]
    assert to.run(f"cognito-authz --user-pool-id AbC123xyz --client-id {CLIENT}", command) == 64
    return to


@alone
def certificate_expired(stage: Stage) -> Transcript:
    """The certificate on disk is replaced by one that has expired."""
    authority = Authority()
    certificate, key = stage.directory / "tls.crt", stage.directory / "tls.key"

    def issue(days: float) -> None:
        for name, text in authority.secret("authz.test", days=days).items():
            new = stage.directory / f"{name}.new"
            new.write_text(text)
            new.rename(stage.directory / name)

    issue(1)
    files: Command = ["--tls-cert-file", certificate, "--tls-key-file", key]
    program = stage.authz("authz", "--grpc-listen", "tls:127.0.0.1:0", "--account-listen", "127.0.0.1:0", *files)
    to = Transcript({program.admin: ADMIN, str(stage.directory): "/etc/cognito-authz"})
    issue(-1 / 48)
    os.kill(program.child.pid, signal.SIGHUP)
    to.log(program, "the TLS certificates are not reloaded; the previous ones stay in effect")
    to.json(program.admin, "/readyz")
    to.metrics(program.admin, "cognito_authz_(tls_certificate_expiry|config_last_reload)")
    # A second start, as after a restart of the pod.
    shown = "--grpc-listen 'tls:[::]:9191' --tls-cert-file … --tls-key-file …"
    flags: Command = ["--grpc-listen", "tls:127.0.0.1:0", "--admin-listen", "127.0.0.1:0", *files]
    assert start(to, stage, shown, *flags) == 64
    return to
