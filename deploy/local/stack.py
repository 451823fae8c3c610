"""The local stack: its processes, how each one starts, when it is ready, and how all of them are stopped.

Start from `Stack`. The kernel chooses the ports, and each process reports the one it got. Every wait is for a condition
and has a deadline.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, final

import envoy_config
import web
from account import Account
from emulator import REGION, SCOPES, Cognito, Tokens
from processes import Child, Failed, run_in_foreground

_PREFIX = "cognito-authz-local-"
_STOP_SECONDS = 15  # for all processes together; cognito-authz itself takes at most 10 to drain

# Lifetime of the demo page's access tokens, short enough to watch one expire. Cognito's minimum is five minutes.
TOKEN_SECONDS = 120
_DAY = 24 * 3600

DEMO_EMAIL = "ada@example.com"
DEMO_NAME = "Ada"
DEMO_GROUP = "readers"


def build(root: Path) -> Path:
    """Builds the program and returns its path, as reported by cargo: the target directory is configurable."""
    print("Building cognito-authz (cargo build --release --locked)")
    output = run_in_foreground(
        ["cargo", "build", "--release", "--locked", "--bin", "cognito-authz",
         "--message-format=json-render-diagnostics"], cwd=root)
    for line in reversed(output.splitlines()):
        message = json.loads(line)
        if message.get("executable"):
            return Path(message["executable"])
    raise Failed("cargo built no executable")


@final
class Stack:
    """The running stack, as a context manager.

    On exit it stops every process and removes every file, but keeps the logs if an error ended the block. Before it
    starts, `policy` (the policy file) and `application` (the program behind Envoy) can be replaced.
    """

    def __init__(self, root: Path, binary: Path, *, port: int, token_seconds: int = TOKEN_SECONDS,
                 options: Sequence[str] = ()) -> None:
        self._root = root
        self._binary = binary
        self._port = port
        self._token_seconds = token_seconds
        self._options = options
        self.policy = root / "deploy" / "local" / "policy.yaml"
        self.application = Path(__file__).with_name("upstream.py")
        self._children: list[Child] = []
        self._keep_logs = False
        self.tools = root / "tests" / "tools" / "venv" / "bin"

    def __enter__(self) -> Stack:
        _sweep()
        self._directory = _make_directory()
        self._lock = _hold(self._directory)
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
        """Stops cognito-authz only, with SIGTERM as an orchestrator does, and returns its exit code."""
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
        with _Port() as uds, _Port(self._port) as tcp:
            # The ports are reserved before Envoy starts, because the app client needs them in its callback URLs.
            self.over_uds, self.over_tcp = (f"http://127.0.0.1:{port.number}" for port in (uds, tcp))
            self._step("user pool, app clients, groups", self._create_pool)
            self._step("cognito-authz", self._start_authz)
            self._step("application", self._start_upstream)
            self._step("demo page, API reference", self._start_page)
            self._step("Envoy", lambda: self._start_envoy(uds.number, tcp.number))

    def _step(self, what: str, start: Callable[[], str]) -> None:
        since = time.monotonic()
        where = start()
        print(f"  {what:<30} {where}  ({time.monotonic() - since:.1f} s)")

    def _child(self, name: str, command: list[str | Path], env: dict[str, str] | None = None) -> Child:
        child = Child(name, command, log=self.logs / f"{name}.log", cwd=self._directory, env=env)
        self._children.append(child)
        return child

    def _start_emulator(self) -> str:
        """Starts ministack on a free port. It cannot choose one itself, so another port is tried if ours gets taken."""
        for attempt in range(3):
            port = _free_port()
            self.cognito = Cognito(f"http://127.0.0.1:{port}")
            child = self._child("ministack", [self.tools / "ministack"], {
                "GATEWAY_PORT": str(port),
                "BIND_HOST": "127.0.0.1",
                "MINISTACK_HOST": "127.0.0.1",
                # As strict as AWS. Without this, any code confirms an account, and revoked tokens still work.
                "AUTH": "true",
                "MINISTACK_REGION": REGION,
                "STATE_DIR": str(self._directory / "ministack"),
                # If it is killed, it leaves a pid file in TMPDIR.
                "TMPDIR": str(self._directory),
                # Other services would include a listener on *every* interface (port 8883).
                "SERVICES": "cognito-idp,ses",
                "IOT_MTLS_ENABLED": "0",
                "SFTP_ENABLED": "0",
            })
            try:
                child.wait_until("ready", lambda: web.is_ok(f"{self.cognito.url}/_ministack/health"), 30)
                return self.cognito.url
            except Failed:
                taken = child.ended() is not None and any("already in use" in line for line in child.lines())
                if attempt == 2 or not taken:
                    raise
                self._children.remove(child)
        raise AssertionError("unreachable")

    def _create_pool(self) -> str:
        self.pool = self.cognito.create_pool("local")
        self.callbacks = [f"{url.replace('127.0.0.1', host)}/" for url in (self.over_tcp, self.over_uds)
                          for host in ("127.0.0.1", "localhost")]
        self.client = self.cognito.create_client(
            self.pool, "web", token_seconds=self._token_seconds, callbacks=self.callbacks)
        # Issues the token that `welcome` prints, which works for a day.
        self.long_client = self.cognito.create_client(self.pool, "terminal", token_seconds=_DAY)
        # A client of the same pool that cognito-authz does not accept.
        self.other_client = self.cognito.create_client(self.pool, "other", token_seconds=_DAY)
        for group in ("admins", DEMO_GROUP):
            self.cognito.create_group(self.pool, group)
        return f"{self.pool}, client {self.client}"

    def _start_authz(self) -> str:
        """Starts cognito-authz, configured through the environment as in production, plus the emulator's address."""
        self.socket = self._directory / "authz.sock"
        # It runs in our private directory, so it does not read a `.env` of the user.
        self._authz = self._child(
            "cognito-authz",
            [self._binary, "--grpc-listen", "127.0.0.1:0", "--grpc-listen", f"unix:{self.socket}",
             "--admin-listen", "127.0.0.1:0", "--account-listen", "127.0.0.1:0", "--trusted-hops", "1",
             "--account-client-id", self.client,
             "--config", self.policy,
             "--hosted-ui-domain", self.cognito.url, *self._hosted_ui(),
             # One machine has one clock. Without leeway, an expired token is refused at once.
             "--leeway", "0s",
             "--log-format", "json", *self._options],
            self._authz_env())
        bound = self._authz.wait_until("listening", self._bound, 10)
        self._grpc_port = bound["grpc"]
        self._account_port = bound["account"]
        self.admin = f"http://127.0.0.1:{bound['admin']}"
        self._authz.wait_until("ready", lambda: web.is_ok(f"{self.admin}/readyz"), 20)
        return self.admin

    def _authz_env(self) -> dict[str, str]:
        return {"AWS_REGION": REGION, "COGNITO_USER_POOL_ID": self.pool,
                "COGNITO_CLIENT_ID": f"{self.client},{self.long_client}", "COGNITO_ENDPOINT": self.cognito.url}

    def _hosted_ui(self) -> list[str]:
        """Options for the hosted pages: redirect URIs, sign-out URIs and scopes."""
        options = [("--oauth-redirect-uris", self.callbacks), ("--oauth-logout-uris", self.callbacks),
                   ("--oauth-scopes", SCOPES)]
        return [part for name, values in options for value in values for part in (name, value)]

    def _bound(self) -> dict[str, int] | None:
        """Ports by listener, read from the log; `None` until all four listeners are bound."""
        ports: dict[str, int] = {}
        sockets = 0
        for line in self._authz.lines():
            fields = _fields(line)
            if fields.get("message") == "listening":
                address = str(fields.get("address"))
                if address.startswith("unix:"):
                    sockets += 1
                else:
                    ports[str(fields.get("listener"))] = int(address.rpartition(":")[2])
        return ports if sockets and {"grpc", "admin", "account"} <= ports.keys() else None

    def _start_upstream(self) -> str:
        child = self._child("upstream", [self.tools / "python", self.application])
        line = child.wait_until("listening", lambda: "".join(child.lines()), 10)
        self._upstream_port = int(line.rpartition(" ")[2])
        return f"http://127.0.0.1:{self._upstream_port}"

    def _start_page(self) -> str:
        child = self._child("page", [self.tools / "python", Path(__file__).with_name("page_server.py"),
                                     self.cognito.url])
        line = child.wait_until("listening", lambda: "".join(child.lines()), 10)
        self._page_port = int(line.rpartition(" ")[2])
        return f"http://127.0.0.1:{self._page_port}"

    def _start_envoy(self, uds_port: int, tcp_port: int) -> str:
        config = self._directory / "envoy.json"
        envoy_config.write(
            self._root / "deploy" / "envoy" / "envoy.yaml", config,
            listeners={"ingress_uds": envoy_config.tcp(uds_port), "ingress_tcp": envoy_config.tcp(tcp_port)},
            clusters={"cognito_authz_uds": envoy_config.unix(self.socket),
                      "cognito_authz_tcp": envoy_config.tcp(self._grpc_port),
                      "account": envoy_config.tcp(self._account_port),
                      "app": envoy_config.tcp(self._upstream_port)},
            page=envoy_config.tcp(self._page_port))
        address = self._directory / "envoy-admin"
        # Without hot restart Envoy uses no shared memory, so that several can run side by side.
        envoy = self._child("envoy", [
            self.tools / "envoy", "-c", config, "-l", "warn", "--concurrency", "2", "--disable-hot-restart",
            "--admin-address-path", address])
        host = envoy.wait_until("started", address.read_text, 20)
        self.envoy_admin = f"http://{host}"
        envoy.wait_until("ready", lambda: web.is_ok(f"{self.envoy_admin}/ready"), 20)
        envoy.wait_until("connected to a healthy cognito-authz", self._healthy, 20)
        return f"{self.over_uds} {self.over_tcp}"

    def _healthy(self) -> bool:
        """`True` once Envoy's health checks of cognito-authz pass over both the socket and TCP."""
        clusters = web.get(f"{self.envoy_admin}/clusters?format=json").json()["cluster_statuses"]
        states: list[dict[str, Any]] = [
            host["health_status"] for cluster in clusters if cluster["name"].startswith("cognito_authz_")
            for host in cluster.get("host_statuses", [])]
        return len(states) == 2 and all(state == {"eds_health_status": "HEALTHY"} for state in states)

    # ---------------------------------------------------------------------------- the demo user

    def demo_user(self) -> Tokens:
        """Signs the demo user up and in, with a random password that is then discarded."""
        password = make_password()
        account = Account(self.over_tcp)
        account.done("register", email=DEMO_EMAIL, password=password, name=DEMO_NAME)
        account.done("verify", email=DEMO_EMAIL, code=self.cognito.mailed_code(DEMO_EMAIL))
        self.cognito.add_to_group(self.pool, DEMO_EMAIL, DEMO_GROUP)
        return self.cognito.sign_in(self.long_client, DEMO_EMAIL, password)

    def welcome(self) -> None:
        token = self.demo_user().access
        print(f"""
The stack is up. In a browser:

  {self.over_tcp}/       demo page: create an account, sign in, call a protected route
  {self.over_tcp}/docs/  reference of the account API

Addresses:

  Envoy -> cognito-authz over TCP            {self.over_tcp}
  Envoy -> cognito-authz over a Unix socket  {self.over_uds}
  Envoy's admin port                         {self.envoy_admin}
  cognito-authz's admin port                 {self.admin}  (/readyz /metrics /config)
  Cognito emulator                           {self.cognito.url}
  Logs                                       {self.logs}

{DEMO_EMAIL} (group {DEMO_GROUP}) has signed up and in. Her access token is valid only for this emulator,
and only while it runs:

export TOKEN={token}

Try, in another terminal:

curl -i {self.over_tcp}/orders                                      # 401: no token
curl -i -H "Authorization: Bearer $TOKEN" {self.over_tcp}/orders    # 200, and what the application received
curl -i -H "Authorization: Bearer $TOKEN" -H 'x-auth-sub: root' {self.over_tcp}/orders  # 200, without the forged header
curl -i -H "Authorization: Bearer ${{TOKEN}}x" {self.over_tcp}/orders  # 401: invalid token
curl -s {self.admin}/metrics | grep checks_total
curl -i {self.over_tcp}/auth/register -H 'Content-Type: application/json' \\
  -d '{{"email": "you@example.com", "password": "Correct-horse-1-battery", "name": "You"}}'

Ctrl-C stops everything.""")


def make_password() -> str:
    """A random password that the pool's password policy accepts."""
    return f"{secrets.token_urlsafe(18)}aA1"


def _fields(line: str) -> dict[str, Any]:
    """The fields of a JSON log line; empty if the line has another form."""
    try:
        fields = json.loads(line)["fields"]
    except (ValueError, TypeError, KeyError):
        return {}
    return fields if isinstance(fields, dict) else {}


@final
class _Port:
    """Reserves a loopback port for Envoy while the block runs; port 0 chooses a free one.

    Envoy binds with SO_REUSEPORT, so it can bind the port that we hold. We do not listen, so Envoy gets every
    connection.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self._socket = socket.socket()

    def __enter__(self) -> _Port:
        try:
            with socket.socket() as probe:  # without SO_REUSEPORT: fails if another Envoy has the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", self.number))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind(("127.0.0.1", self.number))
        except OSError as error:
            self._socket.close()
            raise Failed(f"cannot bind port {self.number}: {error.strerror}") from error
        self.number = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()  # sharing works on Linux only; elsewhere the port is free until Envoy binds it
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _make_directory() -> Path:
    """Creates a private temporary folder. Its path must be short: a Unix socket's path has at most 108 bytes."""
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base if len(os.fsencode(base)) <= 60 else "/tmp"))


def _hold(directory: Path) -> int:
    """Marks the folder as in use until this process ends, and returns the descriptor of the lock.

    The file gets the name that `_sweep` looks for only after it is locked, so no other run can remove the folder.
    """
    lock = os.open(directory / "lock.new", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (directory / "lock.new").rename(directory / "lock")
    return lock


def _sweep() -> None:
    """Removes the folders of killed runs: those whose lock is free. Folders with kept logs have no lock."""
    for base in {Path(tempfile.gettempdir()), Path("/tmp")}:
        for lock in base.glob(f"{_PREFIX}*/lock"):
            try:
                handle = os.open(lock, os.O_RDWR)
            except OSError:
                continue  # another user's
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            except BlockingIOError:
                pass  # in use
            finally:
                os.close(handle)
