"""Checks whose cost is counted under valgrind. Start from `CASES` and `runs`.

A check costs what two runs of the program differ by, divided by the number of checks that one of them answers more. So
neither the start nor the end of the program counts. One check is sent at a time, so that nothing is batched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import repeat
from pathlib import Path

from checks import Checker, message
from stage import CLIENT, PATIENCE, POOL, Keys, Stage

# A program is about 40 times as slow under valgrind.
PATIENCE_UNDER_VALGRIND = 4 * PATIENCE
# Checks that both runs answer, until caches and buffers are as large as they get.
_BEFORE = 50


@dataclass(frozen=True)
class Case:
    """A kind of check: its name, the tokens to send, a part of each answer, and options of the program."""

    name: str
    tokens: Callable[[Keys], Iterable[str | None]]
    answer: bytes
    options: Callable[[Stage], list[str | Path]] = field(default=lambda _: [])
    count: int = 400


def _same(**claims: object) -> Callable[[Keys], Iterable[str]]:
    return lambda keys: repeat(keys.token(**claims))


def _new(keys: Keys) -> Iterable[str]:
    return (keys.token(jti=str(number)) for number in range(1_000_000))


def _forged(keys: Keys) -> Iterable[str]:
    """Tokens whose signatures are those of other tokens."""
    other = keys.token(jti="other").rpartition(".")[2]
    return (f"{token.rpartition('.')[0]}.{other}" for token in _new(keys))


def _policy_file(stage: Stage) -> list[str | Path]:
    """A policy file with 1,000 routes; the checks match one of them."""
    path = stage.directory / "policy.json"  # JSON is YAML
    routes = [{"method": "GET", "path": "/v1/orders/{id}", "policy": "readers"}]
    for number in range(333):
        routes += [{"host": f"t{number}.example", "path_prefix": "/", "policy": "members"},
                   {"path_prefix": f"/tenants/t{number}", "policy": "members"},
                   {"method": "GET", "path": f"/v{number}/things/{{id}}", "policy": "members"}]
    policies = {"members": {}, "readers": {"scopes": {"any": ["openid"]}}}
    path.write_text(json.dumps({"default": "members", "policies": policies, "routes": routes}))
    return ["--config", path]


def _revocations(stage: Stage) -> list[str | Path]:
    """A file with 10,000 revoked users, which another run of the program writes."""
    file, secret = stage.directory / "revocations", stage.directory / "secret"
    secret.write_text("a-token-for-operators-of-this-test")
    program = stage.authz("writer", "--revocation-file", file, "--admin-token-file", secret)
    headers = {"authorization": f"Bearer {secret.read_text()}", "content-type": "application/json"}

    def revoke(numbers: range) -> None:
        connection = HTTPConnection(program.admin, timeout=PATIENCE)
        for number in numbers:
            connection.request("POST", "/revocations", json.dumps({"sub": f"revoked-{number}"}), headers)
            response = connection.getresponse()
            assert response.status == 200, response.read()
            response.read()
        connection.close()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(revoke, (range(start, start + 100) for start in range(0, 10_000, 100))))
    program.child.stop(PATIENCE)
    return ["--revocation-file", file]


CASES = [
    Case("cached token", _same(), b"x-auth-sub"),
    Case("cached token, policy file with 1,000 routes", _same(), b"x-auth-sub", _policy_file),
    Case("cached token, 10,000 revocations", _same(), b"x-auth-sub", _revocations),
    Case("cached token with 200 groups", _same(**{"cognito:groups": [f"group-{number}" for number in range(200)]}),
         b"group-199"),
    Case("new token", _new, b"x-auth-sub", count=200),
    Case("no token", lambda _: repeat(None), b"missing_credential"),
    Case("bad signature", _forged, b"bad_signature", count=200),
]


def cost(stage: Stage, case: Case, valgrind: list[str], pattern: str) -> int:
    """What one check of this case costs: a pattern finds the cost of a run in the log of this valgrind command."""
    short, long = (number(pattern, log) for log in runs(stage, case, valgrind))
    return round((long - short) / case.count)


def runs(stage: Stage, case: Case, valgrind: list[str]) -> Iterator[Path]:
    """Runs the program twice under valgrind, the second time with `case.count` more checks; yields valgrind's logs."""
    options = case.options(stage)
    for more in (0, case.count):
        yield _run(stage, case, valgrind, options, _BEFORE + more)


def _run(stage: Stage, case: Case, valgrind: list[str], options: list[str | Path], count: int) -> Path:
    """Runs the program under valgrind while it answers this many checks; returns valgrind's log."""
    name = f"{count}-checks"
    socket, log = (stage.directory / f"{name}.{kind}" for kind in ("sock", "valgrind"))
    tokens = iter(case.tokens(stage.keys))
    child = stage.child(name, [
        *valgrind, f"--log-file={log}", stage.binary, "--user-pool-id", POOL, "--client-id", CLIENT,
        "--jwks-url", stage.jwks_url, "--grpc-threads", "1", "--grpc-listen", f"unix:{socket}",
        "--admin-listen", "127.0.0.1:0", *options])
    # Once it is ready it has fetched the keys. The log says so; asking the admin port would cost instructions.
    child.wait_until("ready", lambda: '"ready"' in child.log.read_text(), PATIENCE_UNDER_VALGRIND)
    checker = Checker(socket, PATIENCE_UNDER_VALGRIND)
    for _ in range(count):
        answer = checker.check(message(next(tokens)))
        assert case.answer in answer, f"{case.name}: {answer!r}"
    checker.close()
    code = child.stop(PATIENCE_UNDER_VALGRIND)
    assert code == 0, child.failure(f"ended with {code}")
    return log


def number(pattern: str, log: Path) -> int:
    """The number that a pattern finds in valgrind's log, which groups digits by commas."""
    found = re.search(pattern, log.read_text())
    assert found, log.read_text()
    return int(found[1].replace(",", ""))
