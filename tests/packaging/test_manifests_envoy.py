"""deploy/envoy/envoy.yaml with the real program: the promises of its comments and README."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import final

import pytest
import yaml

import web
from bootstrap import ENVOY_YAML, EXT_AUTHZ, RBAC, Bootstrap, validate
from manifests import DEPLOY, folder
from network import NameServer
from paths import ROOT
from stage import PATIENCE, Envoy, Stage, eventually, named, tcp

LISTENERS = ["ingress_uds", "ingress_tcp"]
ORIGIN = "https://app.example.com"

# Two pods of a headless Service: same port, different addresses.
REPLICAS = ["127.0.0.2", "127.0.0.3"]
HEADLESS = "cognito-authz-headless.cognito-authz.svc.cluster.local"


@pytest.fixture(scope="module")
def stage(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(binary, tmp_path_factory.mktemp("envoy")) as running:
        yield running


@pytest.fixture(scope="module")
def envoy(stage: Stage) -> Envoy:
    """Both listeners of the file, with a service that has a policy file and the account API."""
    policy = stage.directory / "policy.yaml"
    policy.write_text("policies:\n  signed-in: {}\n  admin:\n    groups: {any: [admins]}\ndefault: signed-in\n"
                      "routes: [{path_prefix: /reports, policy: admin}]\n")
    socket = stage.directory / "authz.sock"
    authz = stage.authz("authz", "--grpc-listen", f"unix:{socket}", "--grpc-listen", "127.0.0.1:0",
                        "--account-listen", "127.0.0.1:0", "--trusted-hops", "1", "--config", policy)
    bootstrap = Bootstrap()
    bootstrap.point("cognito_authz_uds", {"pipe": {"path": str(socket)}})
    for cluster, listener in (("cognito_authz_tcp", "grpc"), ("account", "account")):
        bootstrap.point(cluster, tcp(authz.bound(listener)))
    bootstrap.point("app", tcp(stage.application()))
    for listener in LISTENERS:
        # Two misconfigurations that RBAC, the second line, must catch: ext_authz removed, and ext_authz failing open.
        bootstrap.copy_listener(listener, f"{listener}_unchecked")
        bootstrap.remove_filter(f"{listener}_unchecked", EXT_AUTHZ)
        for route in bootstrap.manager(f"{listener}_unchecked")["route_config"]["virtual_hosts"][0]["routes"]:
            route.get("typed_per_filter_config", {}).pop(EXT_AUTHZ, None)
        bootstrap.copy_listener(listener, f"{listener}_failing_open")
        failing = bootstrap.ext_authz(f"{listener}_failing_open")
        failing["failure_mode_allow"] = True
        failing["grpc_service"]["envoy_grpc"]["cluster_name"] = "nowhere"
    nowhere = json.loads(json.dumps(bootstrap.cluster("cognito_authz_tcp"))) | {"name": "nowhere"}
    nowhere["load_assignment"] = {"cluster_name": "nowhere", "endpoints": []}
    bootstrap.config["static_resources"]["clusters"].append(nowhere)
    running = stage.envoy(bootstrap.config)
    for cluster in ("cognito_authz_uds", "cognito_authz_tcp"):
        running.wait_for(cluster, 1)
    return running


def test_envoy_accepts_the_file_without_warnings() -> None:
    validate(ENVOY_YAML)


@pytest.mark.parametrize("listener", LISTENERS)
class TestListener:
    def test_only_a_valid_token_passes(self, stage: Stage, envoy: Envoy, listener: str) -> None:
        url = envoy.urls[listener]
        answer = web.get(f"{url}/orders", [*stage.keys.bearer(), ("x-auth-sub", "root"), ("X-Auth.Sub", "root")])
        headers = [header for header in answer.json()["headers"] if "auth" in header[0]]
        assert answer.status == 200
        assert [value for name, value in headers if name == "x-auth-sub"] == ["ada"]
        assert "root" not in json.dumps(headers)
        for bad in ([], [("authorization", "Bearer x")], stage.keys.bearer(client_id="other")):
            assert web.get(f"{url}/orders", bad).status == 401

    def test_a_page_of_an_allowed_origin_can_read_a_denial(self, stage: Stage, envoy: Envoy, listener: str) -> None:
        url = f"{envoy.urls[listener]}/orders"
        refused = web.get(url, [("origin", ORIGIN), ("sec-fetch-mode", "cors"), ("sec-fetch-site", "cross-site")])
        assert (refused.status, refused.json()["reason"]) == (401, "missing_credential")
        assert refused.header("access-control-allow-origin") == ORIGIN
        assert refused.header("access-control-expose-headers") == "www-authenticate, retry-after, x-request-id"
        assert refused.header("www-authenticate") == 'Bearer realm="api"'
        assert web.get(url, [*stage.keys.bearer(), ("origin", ORIGIN)]).header("access-control-allow-origin") == ORIGIN
        # A preflight carries no token; Envoy answers it.
        asks = [("access-control-request-method", "DELETE"), ("access-control-request-headers", "authorization")]
        preflight = web.request("OPTIONS", url, [("origin", ORIGIN), *asks])
        assert (preflight.status, preflight.header("access-control-allow-origin")) == (200, ORIGIN)
        assert "DELETE" in (preflight.header("access-control-allow-methods") or "")
        assert preflight.header("access-control-allow-headers") == "authorization, content-type"
        assert preflight.header("access-control-allow-credentials") is None

        for origin in ("https://evil.example", f"{ORIGIN}.evil.example", ORIGIN.replace("https", "http"), "null"):
            refused = web.get(url, [("origin", origin)])
            assert (refused.status, refused.header("access-control-allow-origin")) == (401, None), origin
            refused = web.request("OPTIONS", url, [("origin", origin), *asks])
            assert (refused.status, refused.header("access-control-allow-origin")) == (401, None), origin

    def test_a_route_can_name_its_policy(self, stage: Stage, envoy: Envoy, listener: str) -> None:
        admins = stage.keys.bearer(**{"cognito:groups": ["admins"]})
        for path in ("/admin", "/admin/users"):
            refused = web.get(envoy.urls[listener] + path, stage.keys.bearer())
            assert (refused.status, refused.json()["reason"]) == (403, "insufficient_group"), path
            assert web.get(envoy.urls[listener] + path, admins).status == 200
        # Without a name, the routes of the policy file choose.
        assert web.get(envoy.urls[listener] + "/administration", stage.keys.bearer()).status == 200
        assert web.get(envoy.urls[listener] + "/reports/1", stage.keys.bearer()).status == 403

    def test_rbac_rejects_requests_that_were_not_checked(self, stage: Stage, envoy: Envoy, listener: str) -> None:
        for name in (f"{listener}_unchecked", f"{listener}_failing_open"):
            for headers in ([], stage.keys.bearer(), [("x-auth-sub", "root")]):
                answer = web.get(f"{envoy.urls[name]}/orders", headers)
                assert (answer.status, answer.body) == (403, b"RBAC: access denied"), name
            assert web.get(f"{envoy.urls[name]}/healthz").status == 200
        allowed = f"http.{listener}_failing_open.ext_authz.cognito.failure_mode_allowed"
        assert envoy.stat(allowed) >= 3, "ext_authz did not fail open, so RBAC was not tested"

    def test_only_the_account_api_is_reachable_below_its_prefix(self, envoy: Envoy, listener: str) -> None:
        url = envoy.urls[listener]
        api = web.get(f"{url}/auth/openapi.json")
        assert (api.status, api.json()["openapi"][:3]) == (200, "3.1")
        assert web.request("POST", f"{url}/auth/login", [("content-type", "application/json")], b"{}").status == 400
        assert web.get(f"{url}/auth/openapi.json", [("origin", ORIGIN)]).header("access-control-allow-origin") == ORIGIN
        for path in ("/metrics", "/config", "/auth/../metrics", "/authentication"):
            assert web.get(url + path).status == 401, path


def test_a_route_is_closed_if_its_policy_does_not_exist(stage: Stage) -> None:
    authz = stage.authz("plain")
    bootstrap = Bootstrap()
    bootstrap.point("cognito_authz_tcp", tcp(authz.bound("grpc")))
    running = stage.envoy(bootstrap.config, "plain-envoy")
    running.wait_for("cognito_authz_tcp", 1)
    refused = web.get(running.urls["ingress_tcp"] + "/admin", stage.keys.bearer(**{"cognito:groups": ["admins"]}))
    assert (refused.status, refused.json()["reason"]) == (403, "unknown_policy")


@final
class Traffic:
    """Sends requests from four threads during the `with` block. `answers` has the start time and status of each."""

    def __init__(self, url: str, headers: web.Headers) -> None:
        self.answers: list[tuple[float, int]] = []
        self._url, self._headers = url, headers
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(4)]

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                status = web.get(self._url, self._headers, timeout=30).status
            except OSError:
                status = 0  # no response
            self.answers.append((began, status))

    def wait_for_more(self, count: int) -> None:
        wanted = len(self.answers) + count
        eventually(f"{count} more requests", lambda: len(self.answers) >= wanted)

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)


def test_requests_succeed_while_a_replica_is_killed(stage: Stage) -> None:
    """Standalone service: the name resolves to an address per pod, as with a headless Service.

    Requests that start after the kill succeed. Of those in flight, at most one per worker of Envoy (here: one) can
    fail: Envoy does not retry after it received the response headers.
    """
    dns = stage.cleanup.enter_context(NameServer({HEADLESS: REPLICAS}))
    first = stage.authz("replica-1", "--grpc-listen", f"{REPLICAS[0]}:0")
    port = int(first.bound("grpc").rpartition(":")[2])
    second = stage.authz("replica-2", "--grpc-listen", f"{REPLICAS[1]}:{port}")
    bootstrap = Bootstrap()
    cluster = bootstrap.cluster("cognito_authz_tcp")
    assert cluster["type"] == "STRICT_DNS"
    assert HEADLESS in ENVOY_YAML.read_text(), "the file must name the Service that this test resolves"
    bootstrap.point("cognito_authz_tcp", tcp(f"{HEADLESS}:{port}"))
    cluster["typed_dns_resolver_config"] = dns.resolver()
    bootstrap.point("app", tcp(stage.application()))
    running = stage.envoy(bootstrap.config, "replicas-envoy")
    running.wait_for("cognito_authz_tcp", 2)
    url = running.urls["ingress_tcp"] + "/orders"
    statuses = [web.get(url, stage.keys.bearer()).status for _ in range(40)]
    assert statuses == [200] * 40
    checks = [replica.metric("cognito_authz_checks_total") for replica in (first, second)]
    assert sum(checks) == 40, f"both replicas must get requests: {checks}"
    assert min(checks) >= 5, f"both replicas must get requests: {checks}"

    with Traffic(url, stage.keys.bearer()) as traffic:
        traffic.wait_for_more(20)
        os.kill(first.child.pid, signal.SIGKILL)
        killed = time.monotonic()
        traffic.wait_for_more(60)
        # First the health checks notice it, then DNS.
        gone = f"{REPLICAS[0]}:{port}"
        eventually("found unhealthy", lambda: running.hosts("cognito_authz_tcp")[gone] is False)
        traffic.wait_for_more(20)
        dns.addresses = {HEADLESS: REPLICAS[1:]}
        eventually("taken out", lambda: gone not in running.hosts("cognito_authz_tcp"))
        traffic.wait_for_more(20)
    failed = [(began, status) for began, status in traffic.answers if status != 200]
    assert [one for one in failed if one[0] > killed] == [], "a request failed that started after the kill"
    assert [status for _, status in failed] in ([], [503]), failed
    assert web.get(url).status == 401


def test_a_retry_goes_to_another_replica(stage: Stage) -> None:
    """The worst case for the retry, without health checks.

    The living replica is stopped, so the dead one, which refuses connections at once, has the fewest open requests, and
    LEAST_REQUEST prefers it.
    """
    alive = stage.authz("alive")
    bootstrap = Bootstrap()
    # Port 9 of the same host refuses connections at once.
    bootstrap.point("cognito_authz_tcp", tcp(alive.bound("grpc")), tcp("127.0.0.1:9"))
    for part in ("health_checks", "outlier_detection"):
        del bootstrap.cluster("cognito_authz_tcp")[part]
    running = stage.envoy(bootstrap.config, "retrying-envoy")
    url, headers, count = running.urls["ingress_tcp"], stage.keys.bearer(client_id="x"), 60
    assert web.get(url, headers).status == 401
    with ThreadPoolExecutor(count) as pool:
        os.kill(alive.child.pid, signal.SIGSTOP)
        try:
            answers = [pool.submit(web.get, url, headers, 30) for _ in range(count)]
            eventually(
                "done or waiting for the living replica",
                lambda: (
                    sum(answer.done() for answer in answers)
                    + running.stat("cluster.cognito_authz_tcp.upstream_rq_active")
                    >= count
                ),
            )
        finally:
            os.kill(alive.child.pid, signal.SIGCONT)
        assert [answer.result().status for answer in answers] == [401] * count
    assert running.stat("cluster.cognito_authz_tcp.upstream_rq_retry_success") >= 10


def test_time_limits_and_retries_are_the_same_in_all_files() -> None:
    """envoy.yaml gives the reasons; the other files have copies."""
    shipped = yaml.safe_load(ENVOY_YAML.read_text())["static_resources"]
    manager = named(shipped["listeners"], "ingress_tcp")["filter_chains"][0]["filters"][0]["typed_config"]
    grpc = named(manager["http_filters"], EXT_AUTHZ)["typed_config"]["grpc_service"]
    limits = named(shipped["clusters"], "cognito_authz_tcp")["circuit_breakers"]["thresholds"][0]

    def seconds(duration: str) -> float:
        return float(duration[:-2]) / 1000 if duration.endswith("ms") else float(duration[:-1])

    patches = [patch["patch"]["value"] for item in folder("istio") if item["kind"] == "EnvoyFilter"
               for patch in item["spec"]["configPatches"]]
    retries = [patch["typed_config"]["grpc_service"]["retry_policy"] for patch in patches
               if "grpc_service" in patch.get("typed_config", {})]
    assert retries == [grpc["retry_policy"]]
    pools = [
        item["spec"]["trafficPolicy"]["connectionPool"]["http"]
        for item in folder("istio")
        if item["kind"] == "DestinationRule"
    ]
    assert [pool["maxRetries"] for pool in pools if "maxRetries" in pool] == [limits["max_retries"]]
    mesh = yaml.safe_load((DEPLOY / "istio" / "mesh-config.yaml").read_text())["meshConfig"]["extensionProviders"]
    timeouts = [one["envoyExtAuthzGrpc"]["timeout"] for one in mesh]
    timeouts += [item["spec"]["extAuth"]["timeout"] for item in folder("envoy-gateway") if "extAuth" in item["spec"]]
    timeouts.append(
        yaml.safe_load((ROOT / "charts/cognito-authz/values.yaml").read_text())["envoyGateway"]["securityPolicy"][
            "timeout"
        ]
    )
    assert len(timeouts) == 6
    assert {seconds(timeout) for timeout in timeouts} == {seconds(grpc["timeout"])}


def test_names_of_clusters_filters_and_routes() -> None:
    """The Rust tests and deploy/local rely on these names; references must point to existing objects."""
    bootstrap = Bootstrap()
    clusters = {cluster["name"] for cluster in bootstrap.config["static_resources"]["clusters"]}
    assert clusters == {"cognito_authz_uds", "cognito_authz_tcp", "account", "app"}
    for listener in LISTENERS:
        filters = [entry["name"] for entry in bootstrap.manager(listener)["http_filters"]]
        assert filters == ["envoy.filters.http.cors", EXT_AUTHZ, RBAC, "envoy.filters.http.router"]
        routes = bootstrap.manager(listener)["route_config"]["virtual_hosts"][0]["routes"]
        assert {route["route"]["cluster"] for route in routes if "route" in route} <= clusters
        assert bootstrap.ext_authz(listener)["failure_mode_allow"] is False
        assert bootstrap.ext_authz(listener)["status_on_error"] == {"code": "ServiceUnavailable"}
        assert "with_request_body" not in bootstrap.ext_authz(listener)
        open_routes = {route["name"] for route in routes
                       if route.get("typed_per_filter_config", {}).get(EXT_AUTHZ, {}).get("disabled")}
        assert open_routes == {"health", "account", "resource_metadata", "server_metadata"}
        assert named(routes, "application")["match"] == {"prefix": "/"}
        assert routes[-1]["name"] == "application"
