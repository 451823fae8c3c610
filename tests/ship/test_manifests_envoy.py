"""deploy/envoy/envoy.yaml, started with the program: what its comments and its README promise."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from manifests_stage import (
    ENVOY_YAML, EXT_AUTHZ, PATIENCE, RBAC, Bootstrap, Envoy, NameServer, Stage, eventually, named, tcp,
    validate,
)

import web

LISTENERS = ["ingress_uds", "ingress_tcp"]
ORIGIN = "https://app.example.com"

# Two pods of a headless Service: one port, two addresses.
REPLICAS = ["127.0.0.2", "127.0.0.3"]
HEADLESS = "cognito-authz-headless.cognito-authz.svc.cluster.local"


@pytest.fixture(scope="module")
def stage(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(binary, tmp_path_factory.mktemp("envoy")) as running:
        yield running


@pytest.fixture(scope="module")
def envoy(stage: Stage) -> Envoy:
    """Both listeners as they are in the file, before a service with a policy file and the account API."""
    policy = stage.directory / "policy.yaml"
    policy.write_text("policies:\n  signed-in: {}\n  admin:\n    groups: {any: [admins]}\ndefault: signed-in\n"
                      "routes: [{path_prefix: /reports, policy: admin}]\n")
    socket = stage.directory / "authz.sock"
    authz = stage.authz("authz", "--grpc-listen", f"unix:{socket}", "--grpc-listen", "127.0.0.1:0",
                        "--account-listen", "127.0.0.1:0", "--trusted-hops", "1", "--config", policy)
    bootstrap = Bootstrap()
    bootstrap.point("cognito_authz_uds", {"pipe": {"path": str(socket)}})
    for cluster, listener in (("cognito_authz_tcp", "grpc"), ("account", "account")):
        host, _, port = authz.bound(listener).rpartition(":")
        bootstrap.point(cluster, tcp(host, int(port)))
    bootstrap.point("app", tcp("127.0.0.1", stage.application()))
    for listener in LISTENERS:
        # Somebody takes the question out, and somebody else tells it to fail open: what is behind must hold.
        bootstrap.copy_listener(listener, f"{listener}_unasked")
        bootstrap.remove_filter(f"{listener}_unasked", EXT_AUTHZ)
        for route in bootstrap.manager(f"{listener}_unasked")["route_config"]["virtual_hosts"][0]["routes"]:
            route.get("typed_per_filter_config", {}).pop(EXT_AUTHZ, None)
        bootstrap.copy_listener(listener, f"{listener}_failing_open")
        failing = bootstrap.ext_authz(f"{listener}_failing_open")
        failing["failure_mode_allow"] = True
        failing["grpc_service"]["envoy_grpc"]["cluster_name"] = "nobody"
    nobody = json.loads(json.dumps(bootstrap.cluster("cognito_authz_tcp"))) | {"name": "nobody"}
    nobody["load_assignment"] = {"cluster_name": "nobody", "endpoints": []}
    bootstrap.config["static_resources"]["clusters"].append(nobody)
    running = stage.envoy(bootstrap)
    for cluster in ("cognito_authz_uds", "cognito_authz_tcp"):
        running.wait_for(cluster, 1)
    return running


def test_envoy_takes_the_file_without_a_warning() -> None:
    validate(ENVOY_YAML)


@pytest.mark.parametrize("listener", LISTENERS)
class TestListener:
    def test_a_good_token_passes_and_nothing_else(self, stage: Stage, envoy: Envoy, listener: str) -> None:
        url = envoy.urls[listener]
        answer = web.get(f"{url}/orders", stage.keys.bearer() + [("x-auth-sub", "root"), ("X-Auth.Sub", "root")])
        headers = [header for header in answer.json()["headers"] if "auth" in header[0]]
        assert answer.status == 200
        assert [value for name, value in headers if name == "x-auth-sub"] == ["ada"]
        assert "root" not in json.dumps(headers)
        for bad in ([], [("authorization", "Bearer x")], stage.keys.bearer(client_id="other")):
            assert web.get(f"{url}/orders", bad).status == 401

    def test_a_page_of_another_origin_can_read_the_refusal(self, stage: Stage, envoy: Envoy, listener: str) -> None:
        url = f"{envoy.urls[listener]}/orders"
        refused = web.get(url, [("origin", ORIGIN), ("sec-fetch-mode", "cors"), ("sec-fetch-site", "cross-site")])
        assert (refused.status, refused.json()["reason"]) == (401, "missing_credential")
        assert refused.header("access-control-allow-origin") == ORIGIN
        assert refused.header("access-control-expose-headers") == "www-authenticate, retry-after"
        assert refused.header("www-authenticate") == 'Bearer realm="api"'
        assert web.get(url, stage.keys.bearer() + [("origin", ORIGIN)]).header("access-control-allow-origin") == ORIGIN
        # The question that a browser asks first carries no token, and gets its answer.
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

    def test_a_route_names_its_policy(self, stage: Stage, envoy: Envoy, listener: str) -> None:
        admins = stage.keys.bearer(**{"cognito:groups": ["admins"]})
        for path in ("/admin", "/admin/users"):
            refused = web.get(envoy.urls[listener] + path, stage.keys.bearer())
            assert (refused.status, refused.json()["reason"]) == (403, "insufficient_group"), path
            assert web.get(envoy.urls[listener] + path, admins).status == 200
        # No policy named: the routes of the policy file choose.
        assert web.get(envoy.urls[listener] + "/administration", stage.keys.bearer()).status == 200
        assert web.get(envoy.urls[listener] + "/reports/1", stage.keys.bearer()).status == 403

    def test_the_second_line_holds_where_nobody_was_asked(self, stage: Stage, envoy: Envoy, listener: str) -> None:
        for name in (f"{listener}_unasked", f"{listener}_failing_open"):
            for headers in ([], stage.keys.bearer(), [("x-auth-sub", "root")]):
                answer = web.get(f"{envoy.urls[name]}/orders", headers)
                assert (answer.status, answer.body) == (403, b"RBAC: access denied"), name
            assert web.get(f"{envoy.urls[name]}/healthz").status == 200
        allowed = f"http.{listener}_failing_open.ext_authz.cognito.failure_mode_allowed"
        assert envoy.stat(allowed) >= 3, "it was the second line, not the first"

    def test_the_account_api_and_nothing_beside_it(self, envoy: Envoy, listener: str) -> None:
        url = envoy.urls[listener]
        api = web.get(f"{url}/auth/openapi.json")
        assert (api.status, api.json()["openapi"][:3]) == (200, "3.1")
        assert web.request("POST", f"{url}/auth/login", [("content-type", "application/json")], b"{}").status == 400
        assert web.get(f"{url}/auth/openapi.json", [("origin", ORIGIN)]).header("access-control-allow-origin") == ORIGIN
        for path in ("/metrics", "/config", "/auth/../metrics", "/authentication"):
            assert web.get(url + path).status == 401, path


def test_without_a_policy_file_the_named_policy_closes_the_route(stage: Stage) -> None:
    authz = stage.authz("plain")
    bootstrap = Bootstrap()
    host, _, port = authz.bound("grpc").rpartition(":")
    bootstrap.point("cognito_authz_tcp", tcp(host, int(port)))
    running = stage.envoy(bootstrap, "plain-envoy")
    running.wait_for("cognito_authz_tcp", 1)
    refused = web.get(running.urls["ingress_tcp"] + "/admin", stage.keys.bearer(**{"cognito:groups": ["admins"]}))
    assert (refused.status, refused.json()["reason"]) == (403, "unknown_policy")


class Traffic:
    """Requests, four at a time, for as long as the block lasts."""

    def __init__(self, url: str, headers: web.Headers) -> None:
        self.statuses: list[int] = []
        self._request = lambda: web.get(url, headers, timeout=30).status
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(4)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.statuses.append(self._request())
            except OSError:
                self.statuses.append(0)  # Envoy has not answered at all

    def wait_for_more(self, count: int) -> None:
        wanted = len(self.statuses) + count
        eventually(f"{count} more requests", lambda: len(self.statuses) >= wanted)

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)


def test_a_replica_is_killed_and_nobody_notices(stage: Stage) -> None:
    """The standalone form: a name with an address for every pod, as a headless Service has it."""
    dns = NameServer(HEADLESS)
    stage.children.callback(dns.close)
    dns.addresses = REPLICAS
    first = stage.authz("replica-1", "--grpc-listen", f"{REPLICAS[0]}:0")
    port = int(first.bound("grpc").rpartition(":")[2])
    second = stage.authz("replica-2", "--grpc-listen", f"{REPLICAS[1]}:{port}")
    bootstrap = Bootstrap()
    cluster = bootstrap.cluster("cognito_authz_tcp")
    assert cluster["type"] == "STRICT_DNS"
    assert HEADLESS in ENVOY_YAML.read_text(), "the file names what is resolved here"
    bootstrap.point("cognito_authz_tcp", tcp(HEADLESS, port))
    cluster["typed_dns_resolver_config"] = dns.resolver()
    bootstrap.point("app", tcp("127.0.0.1", stage.application()))
    running = stage.envoy(bootstrap, "replicas-envoy")
    running.wait_for("cognito_authz_tcp", 2)
    url = running.urls["ingress_tcp"] + "/orders"
    statuses = [web.get(url, stage.keys.bearer()).status for _ in range(40)]
    assert statuses == [200] * 40
    checks = [replica.metric("cognito_authz_checks_total") for replica in (first, second)]
    assert sum(checks) == 40 and min(checks) >= 5, f"both get requests: {checks}"

    with Traffic(url, stage.keys.bearer()) as traffic:
        traffic.wait_for_more(20)
        os.kill(first.child.pid, signal.SIGKILL)
        traffic.wait_for_more(60)
        # Health checks then find out, and DNS after them.
        gone = f"{REPLICAS[0]}:{port}"
        eventually("found unhealthy", lambda: running.hosts("cognito_authz_tcp")[gone] is False)
        traffic.wait_for_more(20)
        dns.addresses = REPLICAS[1:]
        eventually("taken out", lambda: gone not in running.hosts("cognito_authz_tcp"))
        traffic.wait_for_more(20)
    assert set(traffic.statuses) == {200}, "a request failed"
    assert web.get(url).status == 401


def test_a_retry_goes_to_another_replica(stage: Stage) -> None:
    """The retry alone, without health checks that would help it: half of the first tries meet a closed door."""
    alive = stage.authz("alive")
    host, _, port = alive.bound("grpc").rpartition(":")
    bootstrap = Bootstrap()
    # Port 9 of the same host: refused at once. (The DNS name of a pod that is gone has nobody to refuse.)
    bootstrap.point("cognito_authz_tcp", tcp(host, int(port)), tcp(host, 9))
    for part in ("health_checks", "outlier_detection"):
        del bootstrap.cluster("cognito_authz_tcp")[part]
    bootstrap.cluster("cognito_authz_tcp")["lb_policy"] = "ROUND_ROBIN"  # so that the dead one has its turn
    running = stage.envoy(bootstrap, "retrying-envoy")
    statuses = [web.get(running.urls["ingress_tcp"], stage.keys.bearer(client_id="x")).status for _ in range(30)]
    assert statuses == [401] * 30
    assert running.stat("cluster.cognito_authz_tcp.upstream_rq_retry") >= 10
    assert running.stat("cluster.cognito_authz_tcp.upstream_rq_retry_success") >= 10


def test_what_is_listed_is_what_is_there() -> None:
    """Names that the Rust tests and deploy/local rely on, and that nothing points at what does not exist."""
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
        assert open_routes == {"health", "account"}
        assert named(routes, "application")["match"] == {"prefix": "/"} and routes[-1]["name"] == "application"
