"""A real Prometheus, and an installation that gives it something to scrape. Start from `Prometheus` and `Town`."""

from __future__ import annotations

import copy
import json
import re
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import web
from bootstrap import Bootstrap
from certificates import Authority
from hosted_pages import EMAIL, PASSWORD, HostedPages
from paths import TOOLS
from processes import Child, Failed
from scratch import free_port
from stage import CLIENT, PATIENCE, POOL, Node, Stage, tcp


class Prometheus:
    """A running Prometheus that scrapes and evaluates every second. `targets` are addresses and paths by job."""

    def __init__(self, stage: Stage, targets: dict[str, tuple[str, str]], groups: list[Node]) -> None:
        rules = stage.directory / "rules.json"
        rules.write_text(json.dumps({"groups": groups}))  # JSON is YAML
        jobs = [{"job_name": job, "metrics_path": path,
                 "static_configs": [{"targets": [address], "labels": {"namespace": "ns"}}]}
                for job, (address, path) in targets.items()]
        config = stage.directory / "prometheus.json"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)], "scrape_configs": jobs}))
        self._address = f"127.0.0.1:{free_port()}"
        self.child = stage.child("prometheus", [
            TOOLS / "prometheus", f"--config.file={config}", f"--web.listen-address={self._address}",
            f"--storage.tsdb.path={stage.directory / 'tsdb'}", "--log.level=warn"])
        self.child.wait_until("ready", lambda: web.is_ok(f"http://{self._address}/-/ready"), PATIENCE)

    def api(self, path: str, **parameters: str) -> Any:
        """`data` of a response of the API."""
        answer = web.get(f"http://{self._address}/api/v1/{path}?{urlencode(parameters)}")
        assert answer.status == 200, (parameters, answer)
        return answer.json()["data"]

    def targets(self) -> dict[str, str]:
        """Health of each target, by job."""
        return {target["labels"]["job"]: target["health"] for target in self.api("targets")["activeTargets"]}

    def query(self, expression: str) -> list[float]:
        """Current values of the series of an expression."""
        result = self.api("query", query=expression)
        assert result["resultType"] == "vector", expression
        return [float(series["value"][1]) for series in result["result"]]

    def rules(self) -> list[Node]:
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def alerts(self) -> dict[str, str]:
        """State of each alert that is `pending` or `firing`. An alert with several series fires if one of them does."""
        states: dict[str, str] = {}
        for alert in self.api("alerts")["alerts"]:
            name = alert["labels"]["alertname"]
            states[name] = "firing" if "firing" in (alert["state"], states.get(name)) else "pending"
        return states


class Town:
    """A program with everything on, behind the Envoy of deploy/envoy, with an emulator and a store of revocations.

    Envoy reaches the program over TLS (listener `ingress_tcp`) and over its socket (`ingress_uds`). It also has a
    listener `fails_open`, whose checks go to an address without a program.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.emulator = HostedPages(stage)
        self.client = self.emulator.cognito.create_client(self.emulator.pool, "web", token_seconds=3600)
        self.store = Store(stage)
        for name, text in Authority().secret("authz.test").items():
            (stage.directory / name).write_text(text)
        self._policy: Node = {
            "pools": {"second": {"user_pool_id": POOL, "client_ids": [CLIENT], "jwks_url": stage.jwks_url}},
            "default": "members",
            "policies": {
                "members": {},
                "admin": {"groups": {"any": ["admins"]}},
                "trial": {"groups": {"any": ["testers"]}, "mode": "shadow"},
            },
            "routes": [{"path_prefix": "/trial", "policy": "trial"}],
        }
        self.file = stage.directory / "policy.yaml"
        self.file.write_text(json.dumps(self._policy))
        socket_path = stage.directory / "authz.sock"
        options: dict[str, str | Path] = {
            "--user-pool-id": self.emulator.pool, "--client-id": self.client, "--account-client-id": self.client,
            "--cognito-endpoint": self.emulator.url, "--config": self.file, "--revocation-url": self.store.url,
            "--tls-cert-file": stage.directory / "tls.crt", "--tls-key-file": stage.directory / "tls.key",
            "--admin-listen": "127.0.0.1:0", "--account-listen": "127.0.0.1:0", "--trusted-hops": "1",
            "--log-format": "json", "--shutdown-deadline": "200ms"}
        self.program = stage.program("authz", [
            *(part for pair in options.items() for part in pair),
            "--grpc-listen", "tls:127.0.0.1:0", "--grpc-listen", f"unix:{socket_path}"])
        self.program.child.wait_until("ready", lambda: web.is_ok(f"http://{self.program.admin}/readyz"), PATIENCE)
        self.envoy = stage.envoy(self._envoy(socket_path))
        for cluster in ("cognito_authz_uds", "cognito_authz_tcp"):
            self.envoy.wait_for(cluster, 1)

    def _envoy(self, socket_path: Path) -> Node:
        bootstrap = Bootstrap()
        bootstrap.copy_listener("ingress_uds", "fails_open")
        nowhere = copy.deepcopy(bootstrap.cluster("cognito_authz_uds"))
        nowhere["name"] = bootstrap.ext_authz("fails_open")["grpc_service"]["envoy_grpc"]["cluster_name"] = "nowhere"
        bootstrap.ext_authz("fails_open")["failure_mode_allow"] = True
        bootstrap.config["static_resources"]["clusters"].append(nowhere)
        bootstrap.point("nowhere", {"pipe": {"path": str(self.stage.directory / "none.sock")}})
        bootstrap.point("cognito_authz_uds", {"pipe": {"path": str(socket_path)}})
        bootstrap.point("cognito_authz_tcp", tcp(self.program.bound("grpc").removeprefix("tls:")))
        bootstrap.point("account", tcp(self.program.bound("account")))
        bootstrap.point("app", tcp(self.stage.application()))
        bootstrap.cluster("cognito_authz_tcp")["transport_socket"] = {
            "name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "authz.test", "common_tls_context": {"validation_context": {
                    "trusted_ca": {"filename": str(self.stage.directory / "ca.crt")}}}}}
        return bootstrap.config

    @property
    def targets(self) -> dict[str, tuple[str, str]]:
        return {"cognito-authz": (self.program.admin, "/metrics"),
                "envoy": (self.envoy.admin.removeprefix("http://"), "/stats/prometheus")}

    def get(self, path: str, token: str = "", listener: str = "ingress_tcp") -> int:
        """Status of a request through Envoy."""
        headers = [("authorization", f"Bearer {token}")] if token else []
        return web.get(self.envoy.urls[listener] + path, headers).status

    def account(self, operation: str, token: str = "", **members: str) -> int:
        headers = [("content-type", "application/json"), *([("authorization", f"Bearer {token}")] if token else [])]
        url = f"{self.envoy.urls['ingress_tcp']}/auth/{operation}"
        return web.request("POST", url, headers, json.dumps(members).encode()).status

    def sign_in(self) -> str:
        """An access token of the emulator."""
        return self.emulator.cognito.sign_in(self.client, EMAIL, PASSWORD).access

    def work(self) -> None:
        """What happens on a normal day: requests that pass, users who sign in and out, and some refusals."""
        token, other = self.sign_in(), self.stage.keys.token()
        for listener in ("ingress_tcp", "ingress_uds"):
            assert [self.get("/", each, listener) for each in (token, token, other)] == [200, 200, 200]
        assert self.get("/healthz") == 200
        assert self.account("login", email=EMAIL, password=PASSWORD) == 200
        assert self.account("logout", token) == 200
        refused = {"": 401, "no.token.": 401, token: 401, self.stage.keys.token(client_id="another"): 401,
                   self.stage.keys.token(exp=int(time.time()) - 3600): 401}
        assert {each: self.get("/", each) for each in refused} == refused
        assert self.get("/admin", other) == 403
        assert self.get("/trial", other) == 200, "a policy in shadow mode refuses nothing"

    def reload(self, change: Callable[[Node], None]) -> None:
        """Changes the policy file, and waits until the program has read it."""
        counter = "cognito_authz_config_reloads_total"
        before = self.program.metric(counter)
        change(self._policy)
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self._policy))
        new.rename(self.file)
        self.program.child.wait_until(
            "reading the policy file", lambda: self.program.metric(counter) > before, PATIENCE)


class Store:
    """A running Valkey. `url` is where the program finds it."""

    child: Child
    url: str

    def __init__(self, stage: Stage) -> None:
        for attempt in range(3):
            port = free_port()
            self.url = f"redis://127.0.0.1:{port}"
            self.child = stage.child(f"store-{attempt}", [
                TOOLS / "valkey-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no",
                "--dir", stage.directory])
            try:
                self.child.wait_until("answering", partial(answers, port), PATIENCE)
                return
            except Failed:
                # Another process can take the port before the store does.
                if attempt == 2 or not any("already in use" in line for line in self.child.lines()):
                    raise


def answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16) == b"+PONG\r\n"


def series(text: str) -> dict[str, list[dict[str, str]]]:
    """Labels of the series in Prometheus' text format, by metric."""
    found: dict[str, list[dict[str, str]]] = {}
    for line in text.splitlines():
        if match := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            found.setdefault(match[1], []).append(dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")))
    return found
