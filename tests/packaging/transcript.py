"""A transcript of commands and what real programs answered, as the pages of docs/troubleshooting.md show it.

Start from `Site`.

Addresses, paths and values that differ from run to run are replaced, so that two transcripts of the same behaviour are
equal.
"""

from __future__ import annotations

import http
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import web
from bootstrap import Bootstrap
from paths import ROOT
from processes import environment
from stage import CLIENT, PATIENCE, POOL, Envoy, Node, Program, Stage, eventually, tcp

# Headers of a response that a transcript shows.
SHOWN = ("location", "retry-after", "www-authenticate", "access-control-allow-origin", "set-cookie")

ENVOY, ADMIN, GRPC, ACCOUNT, APPLICATION = (f"127.0.0.1:{port}" for port in (8081, 9190, 9191, 9192, 3000))
ENVOY_ADMIN = "127.0.0.1:9901"
KEYS = "keys.example"
DIRECTORY = "/etc/cognito-authz"

VARYING = (
    (r'"timestamp":"[^"]*",', ""),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "5e1b9a0c-6f0e-4c4e-9d5e-0d1f5d2f0b11"),
    (r'"duration_us":\d+', '"duration_us":41'),
    (r'"duration_ms":\d+(\.\d+)?', '"duration_ms":7'),
    (r"\b1[789]\d{8}(\.\d+)?\b", "1767323045"),
    (r"(__Host-\w+=)[^;]+", r"\1…"),
    # A limit, a lifetime and a number of attempts, at the time of the answer.
    (r"retry-after: (5\d|60)\b", "retry-after: 60"),
    (r'"expiresIn":3[56]\d\d', '"expiresIn":3600'),
    (r'(jwks_fetches_total\{[^}]*"(?:connect|status)"\}) \d+', r"\1 2"),
    (r'"failures":\d+', '"failures":2'),
    (r"\(36\d\d s ago\)", "(3600 s ago)"),
    # The words of the operating system, and the moment at which a connection breaks.
    (r'(failed to lookup address information): [^"]*', r"\1: Name or service not known"),
    (r'("store":"[^"]*","error":)"[^"]*"', r'\1"broken pipe"'),
    (r'"time":"[^"]*",', ""),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "2026-01-02T03:04:05Z"),
)


class Transcript:
    """The text of one symptom."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self._lines: list[str] = []

    @property
    def text(self) -> str:
        text = "\n".join(self._lines) + "\n"
        for real in sorted(self._names, key=len, reverse=True):
            text = text.replace(real, self._names[real])
        for pattern, replacement in VARYING:
            text = re.sub(pattern, replacement, text)
        return "".join(f"{line.rstrip()}\n" for line in text.splitlines())

    def show(self, command: str, lines: Iterable[str]) -> None:
        self._lines += [f"$ {command}", *lines]

    def answer(self, command: str, answer: web.Answer) -> web.Answer:
        """A response as `curl -i` prints it, without the headers that do not matter."""
        headers = [f"{name.lower()}: {value}" for name, value in answer.headers if name.lower() in SHOWN]
        body = answer.body.decode().rstrip("\n").split("\n") if answer.body else []
        self.show(command, [f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}", *headers,
                            *(["", *body] if body else [])])
        return answer

    def log(self, program: Program, message: str, count: int = 1, **fields: str) -> list[str]:
        """The last lines of the program's log with this message and these fields, once there are as many."""

        def found() -> list[str]:
            lines = [line for line in program.child.lines() if line.startswith("{") and line.endswith("}")]
            parsed = [(line, json.loads(line)["fields"]) for line in lines]
            return [line for line, each in parsed if each.get("message") == message
                    and all(each.get(name) == value for name, value in fields.items())][-count:]

        def enough() -> list[str] | None:
            return lines if len(lines := found()) == count else None

        lines: list[str] = program.child.wait_until(f"logging “{message}”", enough, PATIENCE)
        self.show(f"kubectl logs deployment/cognito-authz | grep '\"{message}\"' | tail -n {count}", lines)
        return lines

    def run(self, shown: str, command: Sequence[str | Path], stdin: str = "", without: str = "") -> int:
        """Runs a command to its end; shows its output and, unless lines are left out, an exit code other than 0."""
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False,
                              cwd=ROOT, env=environment())
        lines = (done.stdout + done.stderr).rstrip("\n").split("\n")
        if without:
            lines = [line for line in lines if without not in line]
        elif done.returncode:
            lines.append(f"(exit code {done.returncode})")
        self.show(shown, lines)
        return done.returncode

    def json(self, address: str, path: str, members: Sequence[str] = ()) -> None:
        """A JSON document of the admin port, or some of its members."""
        document = web.get(f"http://{address}{path}").json()
        if members:
            document = {name: document[name] for name in members if name in document}
        filtered = f" | jq '{{{', '.join(members)}}}'" if members else ""
        self.show(f"curl -s http://{address}{path}{filtered}", json.dumps(document, indent=2).split("\n"))

    def metrics(self, address: str, pattern: str, path: str = "/metrics", zeros: bool = False) -> list[str]:
        """Series that match and, unless `zeros` is set, are not zero."""
        shown = f"^({pattern})"
        lines = [line for line in web.get(f"http://{address}{path}").body.decode().splitlines()
                 if re.match(shown, line) and (zeros or not line.endswith(" 0"))]
        only = "" if zeros else " | grep -v ' 0$'"
        self.show(f"curl -s http://{address}{path} | grep -E '{shown}'{only}", lines)
        return lines


class Site:
    """cognito-authz behind the Envoy of deploy/envoy, in front of an application that echoes requests."""

    def __init__(self, stage: Stage, *flags: str | Path, policy: Node | None = None,  # noqa: PLR0913
                 change: Callable[[Bootstrap], None] = lambda _: None, pool: str = POOL, client: str = CLIENT,
                 keys: str = "", is_ready: bool = True) -> None:
        self.stage = stage
        self.file = stage.directory / "policy.yaml"
        jwks_url = keys or stage.jwks_url
        self.options: list[str | Path] = ["--user-pool-id", pool, "--client-id", client, "--jwks-url", jwks_url]
        if policy is not None:
            self.write(policy)
            self.options += ["--config", self.file]
        self.program = stage.program("authz", [
            *self.options, "--admin-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0",
            "--account-listen", "127.0.0.1:0", "--trusted-hops", "1", "--log-format", "json", "--shutdown-deadline",
            "200ms", *flags])
        self.admin = self.program.admin
        if is_ready:
            self.program.child.wait_until("ready", lambda: web.is_ok(f"http://{self.admin}/readyz"), PATIENCE)
        self.bootstrap = Bootstrap()
        grpc, account = self.program.bound("grpc").removeprefix("tls:"), self.program.bound("account")
        application = stage.application()
        self.bootstrap.point("cognito_authz_tcp", tcp(grpc))
        self.bootstrap.point("account", tcp(account))
        self.bootstrap.point("app", tcp(application))
        change(self.bootstrap)
        self.envoy: Envoy = stage.envoy(self.bootstrap.config)
        self.url = self.envoy.urls["ingress_tcp"]
        if is_ready:
            eventually("healthy for Envoy", lambda: all(self.envoy.hosts("cognito_authz_tcp").values()))
        self.names = {
            self.url.removeprefix("http://"): ENVOY, self.admin: ADMIN, grpc: GRPC, account: ACCOUNT,
            application: APPLICATION, self.envoy.admin.removeprefix("http://"): ENVOY_ADMIN,
            stage.jwks_url.removeprefix("http://").removesuffix("/jwks.json"): KEYS, str(stage.directory): DIRECTORY}

    def write(self, policy: Node) -> None:
        """Replaces the policy file."""
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(policy))
        new.rename(self.file)

    def transcript(self) -> Transcript:
        return Transcript(self.names)

    def curl(self, to: Transcript, path: str, token: str = "", *, method: str = "GET",  # noqa: PLR0913
             headers: Sequence[tuple[str, str]] = (), body: bytes = b"", shown: str | None = None) -> web.Answer:
        """Sends a request through Envoy, and shows it and its response."""
        sent = [*([("authorization", f"Bearer {token}")] if token else []), *headers]
        words = [f"-X {method}" if method != "GET" else "", f"{self.url}{path}",
                 '-H "authorization: Bearer $TOKEN"' if token else "",
                 *(f"-H '{name}: {value}'" for name, value in headers),
                 f"-d {shown or repr(body.decode())}" if body else ""]
        answer = web.request(method, self.url + path, sent, body)
        return to.answer(f"curl -i {' '.join(filter(None, words))}", answer)

    def account(self, to: Transcript, operation: str, token: str = "", **members: Any) -> web.Answer:
        """Calls the account API through Envoy. Passwords and codes are not shown."""
        secret = {name: "…" if name in {"password", "code"} else value for name, value in members.items()}
        return self.curl(to, f"/auth/{operation}", token, method="POST", headers=[("content-type", "application/json")],
                         body=json.dumps(members).encode(), shown=f"'{json.dumps(secret, ensure_ascii=False)}'")

    def access_log(self, to: Transcript, status: int, path: str = "/orders") -> Node:
        """The last line of Envoy's access log with this status and path, without members that do not matter here."""

        def found() -> Node | None:
            lines = [line for line in self.envoy.child.lines() if line.startswith("{") and line.endswith("}")]
            wanted = [line for line in map(json.loads, lines) if (line["status"], line["path"]) == (status, path)]
            return wanted[-1] if wanted else None

        line: Node = self.envoy.child.wait_until("logging the request", found, PATIENCE)
        line = {name: line[name] for name in ("method", "path", "status", "flags", "details", "decision", "reason")}
        to.show("kubectl logs deployment/envoy | tail -n 1", [json.dumps(line)])
        return line

    def explain(self, to: Transcript, path: str, token: str, *more: str) -> None:
        shown = " ".join(["cognito-authz explain", f"--path {path}", *more, '<<<"$TOKEN" | grep -v "not reached"'])
        command = [self.stage.binary, "explain", *self.options, "--path", path, *more]
        to.run(shown, command, token, without="not reached")
