"""deploy/eventbridge: the Lambda function with sample events against a real cognito-authz, and the template."""

from __future__ import annotations

import importlib.util
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import web
from paths import ROOT
from stage import PATIENCE, POOL, Program, Stage

FOLDER = ROOT / "deploy" / "eventbridge"
EVENTS = sorted((FOLDER / "events").glob("*.json"))
SUB = "6d8d0a2e-3f2b-4c55-9a80-0d1f5d2f0b11"
TOKEN = "token-of-the-operators-1"


@pytest.fixture
def stage(binary: Path, tmp_path: Path) -> Iterator[Stage]:
    with Stage(binary, tmp_path) as running:
        yield running


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the function, with the environment that it needs besides ADMIN_URLS, and with short pauses."""
    monkeypatch.setenv("ADMIN_TOKEN", f"{TOKEN}\n")
    for name in ("TOKEN_SECRET_ARN", "USER_POOL_IDS"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("revoke", FOLDER / "function" / "revoke.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PAUSES", (0.01, 0.01, 0.01, 0.01))
    return module


def event(path: Path, **detail: Any) -> dict[str, Any]:
    sample: dict[str, Any] = json.loads(path.read_text())
    sample["detail"].update(detail)
    return sample


def authz(stage: Stage, name: str = "authz", *flags: str) -> Program:
    token = stage.directory / "token"
    token.write_text(TOKEN)
    return stage.authz(name, "--admin-token-file", token, "--account-api=false", *flags)


def revocations(program: Program, query: str = "") -> list[dict[str, Any]]:
    answer = web.request("GET", f"http://{program.admin}/revocations{query}", [("authorization", f"Bearer {TOKEN}")])
    assert answer.status == 200, answer
    found: list[dict[str, Any]] = answer.json()["revocations"]
    return found


@contextmanager
def answering(*answers: tuple[int, str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that gives these answers one after the other, and the last one ever after. It records the requests."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append({"path": self.path, "headers": dict(self.headers), "body": json.loads(body)})
            status, text = answers[min(len(seen), len(answers)) - 1]
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.send_header("location", "/elsewhere")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_each_call_of_an_administrator_revokes(
    path: Path, stage: Stage, function: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = authz(stage)
    monkeypatch.setenv("ADMIN_URLS", f"http://{program.admin}/")
    # A minute ago, so that a sign-in of now comes after the administrator's call.
    acted = int(time.time()) - 60
    sample = event(path, eventTime=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(acted)))
    assert sample["detail"]["eventName"] == path.stem
    assert function.handler(sample) == {"revoked": True}
    assert function.handler(sample) == {"revoked": True}, "the same event again"
    [revocation] = revocations(program)
    assert (revocation["kind"], revocation["before"], revocation["causes"]) == ("sub", acted, ["operator"])
    assert revocations(program, f"?sub={SUB}&pool={POOL}") == [revocation]
    # A thread of its own writes the log, perhaps after the response.
    audited = f'"reason":"{path.stem}, {sample["detail"]["eventID"]}"'
    program.child.wait_until("logging the revocation", lambda: audited in "".join(program.child.lines()), PATIENCE)
    log = "".join(program.child.lines())
    assert TOKEN not in log
    assert SUB not in log


def test_without_a_shared_store_every_replica_is_asked(
    stage: Stage, function: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = authz(stage, "one"), authz(stage, "two")
    monkeypatch.setenv("ADMIN_URLS", f"http://{one.admin} http://127.0.0.1:9 http://{two.admin}")
    with pytest.raises(function.NotRevoked, match=r"^http://127\.0\.0\.1:9: .*refused") as failure:
        function.handler(event(EVENTS[0]))
    assert TOKEN not in str(failure.value)
    assert SUB not in str(failure.value)
    assert len(revocations(one)) == len(revocations(two)) == 1, "the one that fails does not keep it from the others"


def test_events_that_ask_for_nothing(function: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_URLS", "http://127.0.0.1:9")
    sample = EVENTS[0]
    for nothing in (
        {},
        {"detail": None},
        event(sample, eventName="AdminGetUser"),
        event(sample, eventSource="signin.amazonaws.com"),
        event(sample, errorCode="UserNotFoundException"),
    ):
        assert function.handler(nothing) == {"revoked": False}
    monkeypatch.setenv("USER_POOL_IDS", "eu-west-1_Other0001 eu-west-1_Other0002")
    assert function.handler(event(sample)) == {"revoked": False}
    monkeypatch.setenv("USER_POOL_IDS", f"eu-west-1_Other0001 {POOL}")
    assert function.revocation(event(sample, errorCode=""))["pool"] == POOL


@pytest.mark.parametrize("data", [None, {}, {"sub": ""}, {"sub": "HIDDEN_DUE_TO_SECURITY_REASONS"}])
def test_an_event_without_a_sub_is_a_failure(data: Any, function: ModuleType) -> None:
    sample = event(EVENTS[0], additionalEventData=data)
    with pytest.raises(function.NotRevoked, match=sample["detail"]["eventID"]):
        function.handler(sample)


def test_a_failure_for_a_while_is_tried_again(function: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [(503, '{"message":"busy"}'), (429, "{}"), (502, "x"), (504, "[]")]
    with answering(*failures, (200, "{}")) as (url, seen):
        monkeypatch.setenv("ADMIN_URLS", url)
        assert function.handler(event(EVENTS[0])) == {"revoked": True}
        assert len(seen) == 5
        assert seen[0]["body"] == seen[4]["body"]
        assert seen[0]["path"] == "/revocations"
        assert seen[0]["headers"]["authorization".title()] == f"Bearer {TOKEN}"
    with answering((503, '{"message":"still busy"}')) as (url, seen):
        monkeypatch.setenv("ADMIN_URLS", url)
        with pytest.raises(function.NotRevoked, match="status 503: still busy"):
            function.handler(event(EVENTS[0]))
        assert len(seen) == 5


@pytest.mark.parametrize("status", [302, 307, 400, 401, 403, 404])
def test_a_refusal_is_not_tried_again(status: int, function: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering((status, '{"message":"no"}')) as (url, seen):
        monkeypatch.setenv("ADMIN_URLS", url)
        with pytest.raises(function.NotRevoked, match=f"status {status}: no"):
            function.handler(event(EVENTS[0]))
        assert len(seen) == 1, "redirects are not followed either: they would send the token elsewhere"


def test_a_wrong_token_and_an_unknown_pool_are_reported(
    stage: Stage, function: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = authz(stage)
    monkeypatch.setenv("ADMIN_URLS", f"http://{program.admin}")
    with pytest.raises(function.NotRevoked, match="status 400: There is no such pool"):
        function.handler(event(EVENTS[0], requestParameters={"userPoolId": "eu-west-1_Other0001"}))
    monkeypatch.setenv("ADMIN_TOKEN", "another-token-of-operators")
    with pytest.raises(function.NotRevoked, match="status 401"):
        function.handler(event(EVENTS[0]))
    assert revocations(program) == []


class _Tagged(yaml.SafeLoader):
    """Reads CloudFormation's short forms, such as `!Ref X`, as {"Ref": "X"}."""


def _tagged(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    assert isinstance(node, yaml.ScalarNode), node
    return {suffix: loader.construct_scalar(node)}


_Tagged.add_multi_constructor("!", _tagged)


def references(node: Any) -> Iterator[str]:
    """Names that `!Ref` and `!GetAtt` refer to."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("Ref", "GetAtt") and isinstance(value, str):
                yield value.split(".")[0]
            else:
                yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def test_the_template_fits_the_function(function: ModuleType) -> None:
    template = yaml.load((FOLDER / "template.yaml").read_text(), _Tagged)
    resources = template["Resources"]
    properties = resources["Revoke"]["Properties"]
    module, _, name = properties["Handler"].partition(".")
    assert (FOLDER / properties["CodeUri"] / f"{module}.py").is_file()
    assert callable(getattr(function, name))
    variables = set(properties["Environment"]["Variables"])
    source = (FOLDER / "function" / "revoke.py").read_text()
    assert variables == set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', source)) - {"ADMIN_TOKEN"}
    attempts = len(function.PAUSES) + 1
    assert properties["Timeout"] > 2 * attempts * function.TIMEOUT, "two admin ports, each with all attempts"
    rule = properties["Events"]["AdministratorActs"]["Properties"]
    assert set(rule["Pattern"]["detail"]["eventName"]) == function.ACTIONS == {path.stem for path in EVENTS}
    for path in EVENTS:
        sample = event(path)
        assert sample["detail-type"] in rule["Pattern"]["detail-type"]
        assert sample["detail"]["eventSource"] in rule["Pattern"]["detail"]["eventSource"]
    # SAM names the rule of an event by its function and its own name.
    known = set(template["Parameters"]) | set(resources) | {"RevokeAdministratorActs"}
    assert set(references(template)) <= known
    assert set(template["Parameters"]) <= set(references(template)), "each parameter is used"
    assert properties["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]["Destination"] == {"GetAtt": "Failed.Arn"}
    assert rule["DeadLetterConfig"]["Arn"] == {"GetAtt": "Failed.Arn"}
    [statement] = properties["Policies"][0]["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("secretsmanager:GetSecretValue", {"Ref": "TokenSecretArn"})
