"""The local stack: its processes, how each one starts, when it is ready, and how all of them are stopped.

Start from `Stack`. The kernel chooses the ports, and each process reports the one it got. Every wait is for a condition
and has a deadline.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, final

import envoy_config
import web
from emulator import REGION, SCOPES, Cognito
from processes import Child, Failed
from scratch import Port, free_port, hold, make_directory, sweep

_STOP_SECONDS = 15  # for all processes together; cognito-authz itself takes at most 10 to drain

# Lifetime of the demo page's access tokens, short enough to watch one expire. Cognito's minimum is five minutes.
TOKEN_SECONDS = 120
_DAY = 24 * 3600

# Relying party id of passkeys. Browsers accept no IP address.
PASSKEY_HOST = "localhost"

DEMO_EMAIL = "ada@example.com"
DEMO_NAME = "Ada"
DEMO_GROUP = "readers"

# Authenticator apps show this name next to the account.
TOTP_ISSUER = "cognito-authz demo"


@final
class Stack:
    """The running stack, as a context manager.

    On exit it stops every process and removes every file, but keeps the logs if an error ended the block. Before it
    starts, `policy` (the policy file), `application` (the program behind Envoy) and `hosted_pages` (the command of a
    program that signs users in) can be replaced. If `passkeys` is set, a proxy adds Cognito's calls for passkeys to the
    emulator (passkeys.py).

    With `cookies`, browsers keep their sessions in cookies, and some pages send browsers to sign in.
    """

    # Tests set it: Envoy waits longer for a check than deploy/envoy/envoy.yaml says. The tour keeps the file's limits.
    busy_machine = False

    def __init__(self, root: Path, binary: Path, *, port: int, token_seconds: int = TOKEN_SECONDS,  # noqa: PLR0913
                 options: Sequence[str] = (), cookies: bool = False) -> None:
        self._root = root
        self._binary = binary
        self._port = port
        self._token_seconds = token_seconds
        self._options = options
        self.cookies = cookies
        self.policy = root / "deploy" / "local" / ("policy-cookies.yaml" if cookies else "policy.yaml")
        self.application = Path(__file__).with_name("upstream.py")
        self.passkeys = False
        # One machine has one clock. Without leeway, an expired token is refused at once.
        self.leeway = "0s"
        # Called once the pool exists, before cognito-authz starts. It can add app clients to `clients`, and set
        # `policy`.
        self.prepare: Callable[[Stack], None] | None = None
        # Called when the app client exists. The program issues the tokens; its URL is their issuer.
        self.hosted_pages: Callable[[Stack], Sequence[str | Path]] | None = None
        self._children: list[Child] = []
        self._keep_logs = False
        self._store: str | None = None
        # URLs of the replicas' admin ports.
        self.admins: list[str] = []
        # URL of Envoy's listener whose requests a second replica checks; `None` without a store.
        self.over_replica: str | None = None
        self.tools = root / "tests" / "tools" / "venv" / "bin"

    def __enter__(self) -> Stack:
        sweep()
        self._directory = make_directory()
        self._lock = hold(self._directory)
        self.logs = self._directory / "logs"
        self.logs.mkdir()
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None,
                 _trace: TracebackType | None) -> None:
        # A signal must not interrupt the clean-up, which has a time limit of its own.
        handlers = {number: signal.signal(number, signal.SIG_IGN)
                    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        deadline = time.monotonic() + _STOP_SECONDS
        for child in reversed(self._children):
            child.stop(max(0.0, deadline - time.monotonic()))
        if isinstance(error, Exception):
            self.keep_logs()
        if self._keep_logs:
            for path in self._directory.iterdir():  # sockets, the emulator's keys
                if path != self.logs:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            print(f"The logs are in {self.logs}")
        else:
            shutil.rmtree(self._directory, ignore_errors=True)
        os.close(self._lock)
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def keep_logs(self) -> None:
        self._keep_logs = True

    def wait(self) -> None:
        """Waits until a signal handler raises; raises `Failed` if a process ends before that."""
        while True:
            for child in self._children:
                child.check()
            time.sleep(0.5)

    def stop_authz(self) -> int:
        """Stops the first replica only, with SIGTERM as an orchestrator does, and returns its exit code."""
        return self._authz.stop(_STOP_SECONDS)

    def explain(self, token: str, path: str) -> tuple[bool, str]:
        """Runs `cognito-authz explain` for a request: `True` if it is allowed, and the output with the reasons."""
        run = subprocess.run(
            [self._binary, "explain", "--path", path, "--config", self.policy],
            input=token, capture_output=True, text=True, timeout=20, check=False, cwd=self._directory,
            env=self._authz_env())
        return run.returncode == 0, run.stdout

    # ---------------------------------------------------------------------------------- the parts

    def _start(self) -> None:
        print(f"Starting the stack (logs: {self.logs})")
        self._step("Cognito emulator", self._start_emulator)
        self._step("store of revocations", self._start_store)
        with Port() as uds, Port(self._port) as tcp, Port() as replica:
            # The ports are reserved before Envoy starts, because the app client needs them in its callback URLs.
            self.over_uds, self.over_tcp = (f"http://127.0.0.1:{port.number}" for port in (uds, tcp))
            self._step("user pool, app clients, groups", self._create_pool)
            self.hosted = self.cognito.url
            if self.passkeys:
                self._step("passkeys", self._start_passkeys)
            if self.hosted_pages is not None:
                self._step("other hosted pages", partial(self._start_hosted_pages, self.hosted_pages(self)))
            self._step("cognito-authz", self._start_authz)
            if self._store is not None:
                self._step("cognito-authz, second replica", self._start_replica)
                self.over_replica = f"http://127.0.0.1:{replica.number}"
            self._step("application", self._start_upstream)
            self._step("demo page, API reference", self._start_page)
            self._step("Envoy", lambda: self._start_envoy(uds.number, tcp.number, replica.number))

    def _step(self, what: str, start: Callable[[], str]) -> None:
        since = time.monotonic()
        where = start()
        print(f"  {what:<30} {where}  ({time.monotonic() - since:.1f} s)")

    def _child(self, name: str, command: list[str | Path], env: dict[str, str] | None = None) -> Child:
        child = Child(name, command, log=self.logs / f"{name}.log", cwd=self._directory, env=env)
        self._children.append(child)
        return child

    def _start_emulator(self) -> str:
        def start(port: int) -> Child:
            self.cognito = Cognito(f"http://127.0.0.1:{port}")
            self.emulator = self._child("ministack", [self.tools / "ministack"], {
                "GATEWAY_PORT": str(port),
                "BIND_HOST": "127.0.0.1",
                "MINISTACK_HOST": "127.0.0.1",
                # As strict as AWS. Without this, any code confirms an account, and revoked tokens still work.
                "AUTH": "true",
                "MINISTACK_REGION": REGION,
                "STATE_DIR": str(self.state),
                # If it is killed, it leaves a pid file in TMPDIR.
                "TMPDIR": str(self._directory),
                # Other services would include a listener on *every* interface (port 8883).
                "SERVICES": "cognito-idp,ses",
                "IOT_MTLS_ENABLED": "0",
                "SFTP_ENABLED": "0",
            })
            return self.emulator

        self._on_free_port(start, lambda _: web.is_ok(f"{self.cognito.url}/_ministack/health"))
        self._endpoint = self.cognito.url
        return self.cognito.url

    def _start_passkeys(self) -> str:
        """Starts the proxy, which is the endpoint of Cognito's API from now on."""
        origins = [url.replace("127.0.0.1", PASSKEY_HOST) for url in (self.over_tcp, self.over_uds)]
        child = self._child("passkeys", [
            self.tools / "python", Path(__file__).with_name("passkeys.py"), self.cognito.url,
            self.state, self.pool, PASSKEY_HOST, *origins])
        line = child.wait_until("listening", lambda: "".join(child.lines()), 20)
        self._endpoint = f"http://127.0.0.1:{line.rpartition(' ')[2]}"
        return self._endpoint

    def _start_store(self) -> str:
        """Starts Redis or Valkey for the revocations of two replicas, if one of them is installed."""
        installed = [path for name in ("redis-server", "valkey-server")
                     if os.access(path := self.tools / name, os.X_OK)]
        if not installed:
            return "none: no redis-server is installed, so there is one replica only"

        def start(port: int) -> Child:
            # Everything in it can be restored by the replicas, so nothing is written to disk.
            return self._child("store", [
                installed[0], "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no",
                "--dir", self._directory])

        port = self._on_free_port(start, _answers_ping)
        self._store = f"redis://127.0.0.1:{port}"
        return self._store

    def _on_free_port(self, start: Callable[[int], Child], is_ready: Callable[[int], bool]) -> int:
        """Starts a program that cannot choose a free port itself. If ours gets taken meanwhile, tries another one."""
        for attempt in range(3):
            port = free_port()
            child = start(port)
            try:
                child.wait_until("ready", partial(is_ready, port), 30)
                return port
            except Failed:
                taken = child.ended() is not None and any("already in use" in line for line in child.lines())
                if attempt == 2 or not taken:
                    raise
                self._children.remove(child)
        raise AssertionError("unreachable")

    def _create_pool(self) -> str:
        self.pool = self.cognito.create_pool("local")
        hosts = ("localhost", "127.0.0.1") if self.cookies else ("127.0.0.1", "localhost")
        origins = [url.replace("127.0.0.1", host) for url in (self.over_tcp, self.over_uds) for host in hosts]
        self.callbacks = [f"{origin}/" for origin in origins]
        self.logouts = list(self.callbacks)
        if self.cookies:
            self.callbacks += [f"{origin}/auth/oauth/callback" for origin in origins]
            self.logouts.insert(0, f"{self.site}/welcome")
        self.client = self.cognito.create_client(
            self.pool, "web", token_seconds=self._token_seconds, callbacks=self.callbacks, logouts=self.logouts)
        # Issues the token that `welcome` prints, which works for a day.
        self.long_client = self.cognito.create_client(self.pool, "terminal", token_seconds=_DAY)
        # A client of the same pool that cognito-authz does not accept.
        self.other_client = self.cognito.create_client(self.pool, "other", token_seconds=_DAY)
        # The app clients whose tokens cognito-authz accepts.
        self.clients = [self.client, self.long_client]
        for group in ("admins", DEMO_GROUP):
            self.cognito.create_group(self.pool, group)
        if self.prepare is not None:
            self.prepare(self)
        return f"{self.pool}, client {self.client}"

    def _start_authz(self) -> str:
        self.socket = self._directory / "authz.sock"
        self._authz, bound = self._run_authz("cognito-authz", "--grpc-listen", f"unix:{self.socket}")
        self._grpc_port = bound["grpc"]
        self._account_port = bound["account"]
        return self.admin

    def _start_replica(self) -> str:
        _, bound = self._run_authz("cognito-authz-2")
        self._replica_port = bound["grpc"]
        return self.admins[-1]

    def _run_authz(self, name: str, *listeners: str) -> tuple[Child, dict[str, int]]:
        """Starts cognito-authz, configured through the environment as in production, plus the emulator's address.

        Returns the process and its ports by listener.
        """
        # It runs in our private directory, so it does not read a `.env` of the user.
        child = self._child(
            name,
            [self._binary, "--grpc-listen", "127.0.0.1:0", *listeners,
             "--admin-listen", "127.0.0.1:0", "--account-listen", "127.0.0.1:0", "--trusted-hops", "1",
             "--account-client-id", self.client, "--totp-issuer", TOTP_ISSUER,
             "--config", self.policy,
             "--hosted-ui-domain", self.hosted, *self._hosted_ui(),
             *(["--account-cookies"] if self.cookies else []),
             *(["--revocation-url", self._store] if self._store is not None else []),
             "--leeway", self.leeway,
             "--log-format", "json", *self._options],
            self._authz_env())
        bound = child.wait_until("listening", lambda: _bound(child, len(listeners) // 2), 10)
        self.admins.append(f"http://127.0.0.1:{bound['admin']}")
        child.wait_until("ready", lambda: web.is_ok(f"{self.admins[-1]}/readyz"), 20)
        return child, bound

    @property
    def site(self) -> str:
        """URL of the site in a browser.

        With cookies it is another host than that of the hosted pages, because browsers keep one set of cookies for all
        ports of a host. To browsers they are two sites then, as on AWS.
        """
        return self.over_tcp.replace("127.0.0.1", "localhost") if self.cookies else self.over_tcp

    @property
    def state(self) -> Path:
        """Folder of the emulator's state, with the keys of its pools."""
        return self._directory / "ministack"

    @property
    def admin(self) -> str:
        """URL of the first replica's admin port."""
        return self.admins[0]

    def _authz_env(self) -> dict[str, str]:
        return {"AWS_REGION": REGION, "COGNITO_USER_POOL_ID": self.pool,
                "COGNITO_CLIENT_ID": ",".join(self.clients), "COGNITO_ENDPOINT": self._endpoint}

    def _hosted_ui(self) -> list[str]:
        """Options for the hosted pages: redirect URIs, sign-out URIs and scopes."""
        options: list[tuple[str, Sequence[str]]] = [
            ("--oauth-redirect-uris", self.callbacks), ("--oauth-logout-uris", self.logouts),
            ("--oauth-scopes", SCOPES)]
        if self.hosted != self.cognito.url:
            options += [("--issuer", [self.hosted]), ("--jwks-url", [f"{self.hosted}/.well-known/jwks.json"])]
        return [part for name, values in options for value in values for part in (name, value)]

    def _start_hosted_pages(self, command: Sequence[str | Path]) -> str:
        self.hosted = f"http://127.0.0.1:{self._start_listening('hosted-pages', command)}"
        return self.hosted

    def _start_upstream(self) -> str:
        self._upstream_port = self._start_listening("upstream", [self.tools / "python", self.application])
        return f"http://127.0.0.1:{self._upstream_port}"

    def _start_page(self) -> str:
        options = [("--cookies", self.cookies), ("--passkeys", self.passkeys)]
        self._page_port = self._start_listening("page", [
            self.tools / "python", Path(__file__).with_name("page_server.py"), self.cognito.url,
            *(name for name, is_on in options if is_on)])
        return f"http://127.0.0.1:{self._page_port}"

    def _start_listening(self, name: str, command: Sequence[str | Path]) -> int:
        """Starts a program that chooses a free port and prints `listening on N`, and returns the port."""
        child = self._child(name, list(command))
        line = child.wait_until("listening", lambda: next(
            (line for line in child.lines() if line.startswith("listening on ")), None), 20)
        return int(line.rpartition(" ")[2])

    def _start_envoy(self, uds_port: int, tcp_port: int, replica_port: int) -> str:
        config = self._directory / "envoy.json"
        envoy_config.write(
            self._root / "deploy" / "envoy" / "envoy.yaml", config,
            listeners={"ingress_uds": envoy_config.tcp(uds_port), "ingress_tcp": envoy_config.tcp(tcp_port)},
            clusters={"cognito_authz_uds": envoy_config.unix(self.socket),
                      "cognito_authz_tcp": envoy_config.tcp(self._grpc_port),
                      "account": envoy_config.tcp(self._account_port),
                      "app": envoy_config.tcp(self._upstream_port)},
            page=envoy_config.tcp(self._page_port), busy_machine=self.busy_machine,
            replica=None if self.over_replica is None else
            (envoy_config.tcp(replica_port), envoy_config.tcp(self._replica_port)))
        address = self._directory / "envoy-admin"
        # Without hot restart Envoy uses no shared memory, so that several can run side by side.
        envoy = self._child("envoy", [
            self.tools / "envoy", "-c", config, "-l", "warn", "--concurrency", "2", "--disable-hot-restart",
            "--admin-address-path", address])
        host = envoy.wait_until("started", address.read_text, 20)
        self.envoy_admin = f"http://{host}"
        envoy.wait_until("ready", lambda: web.is_ok(f"{self.envoy_admin}/ready"), 20)
        envoy.wait_until("connected to a healthy cognito-authz", self._healthy, 20)
        return " ".join(filter(None, (self.over_uds, self.over_tcp, self.over_replica)))

    def _healthy(self) -> bool:
        """`True` once Envoy's health checks of every way to cognito-authz pass."""
        clusters = web.get(f"{self.envoy_admin}/clusters?format=json").json()["cluster_statuses"]
        states: list[dict[str, Any]] = [
            host["health_status"] for cluster in clusters if cluster["name"].startswith("cognito_authz_")
            for host in cluster.get("host_statuses", [])]
        expected = 2 if self.over_replica is None else 3
        return len(states) == expected and all(state == {"eds_health_status": "HEALTHY"} for state in states)


def make_password() -> str:
    """A random password that the pool's password policy accepts."""
    return f"{secrets.token_urlsafe(18)}aA1"


def _bound(authz: Child, sockets: int) -> dict[str, int] | None:
    """Ports by listener, read from the log; `None` until all three and the given number of Unix sockets are bound."""
    ports: dict[str, int] = {}
    for line in authz.lines():
        fields = _fields(line)
        if fields.get("message") == "listening":
            address = str(fields.get("address"))
            if address.startswith("unix:"):
                sockets -= 1
            else:
                ports[str(fields.get("listener"))] = int(address.rpartition(":")[2])
    return ports if sockets <= 0 and {"grpc", "admin", "account"} <= ports.keys() else None


def _answers_ping(port: int) -> bool:
    """`True` if Redis or Valkey answers on the port."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16) == b"+PONG\r\n"


def _fields(line: str) -> dict[str, Any]:
    """The fields of a JSON log line; empty if the line has another form."""
    try:
        fields = json.loads(line)["fields"]
    except (ValueError, TypeError, KeyError):
        return {}
    return fields if isinstance(fields, dict) else {}
