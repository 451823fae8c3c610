"""The commands of the documents are commands: the program accepts its own, and the account API the requests.

test_documents.py checks options, variables and paths by their names, test_troubleshooting.py compares outputs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

from certificates import Authority
from commands import output, run
from document_commands import (
    ACCOUNT,
    TROUBLESHOOTING,
    Block,
    Command,
    aws_members,
    blocks,
    commands,
    commands_of,
    functions,
    shell_blocks,
)
from paths import ROOT
from processes import environment
from stage import CLIENT, POOL, Stage, eventually
from symptoms_account import Signed

PROGRAM = "cognito-authz"
# Programs that commands of the documents start with, besides our own and files of the repository.
KNOWN = {
    "aws", "base64", "cargo", "cat", "cd", "chmod", "claude", "cosign", "cp", "curl", "docker", "echo", "envoy",
    "export", "flux", "gh", "git", "grep", "head", "helm", "istioctl", "jq", "kind", "kubectl", "mkdir", "npm", "npx",
    "openapi-python-client", "openssl", "printf", "python", "python3", "read", "sam", "sed", "sha256sum", "source",
    "tail", "tar", "tr",
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ form


def test_shell_blocks_are_valid() -> None:
    seen = list(shell_blocks())
    assert len(seen) > 60
    for block in seen:
        done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}: {done.stderr}"


def test_commands_start_with_programs_that_exist() -> None:
    for block in shell_blocks():
        own = set(functions(block.document))
        for command in commands_of(block):
            word = command.words[0]
            name = word.rpartition("/")[2]
            ours = name == PROGRAM or (ROOT / word).is_file() or word.startswith("tests/tools/venv/bin/")
            assert ours or word in KNOWN | own | {"{", "}", "$EDITOR"}, f"{command}: what is {word}?"


def test_calls_of_aws_exist() -> None:
    """With AWS's own description of its API."""
    session = botocore.session.get_session()
    seen = 0
    for command in commands("aws"):
        service, name, *words = command.words[1:]
        model = session.get_service_model(service)
        operations = {xform_name(each, "-"): each for each in model.operation_names}
        assert name in operations, f"{command}: AWS has no call {name}"
        shape = model.operation_model(operations[name]).input_shape
        assert shape is not None, command
        try:
            members = aws_members(shape, words)
        except KeyError as unknown:
            pytest.fail(f"{command}: {name} has no option {unknown}")
        if "…" not in words:
            missing = set(shape.required_members) - members.keys()
            assert not missing, f"{command}: {missing}"
        seen += 1
    assert seen > 10


# ------------------------------------------------------------------------------------------------ our own program


@pytest.fixture(scope="module")
def help_of(binary: Path) -> dict[str, set[str]]:
    """The options of each command of the program; "" has those of the service."""
    listed = output(binary, "--help").partition("Commands:\n")[2].partition("\n\n")[0]
    names = set(re.findall(r"^ {2}([a-z][a-z-]+)", listed, re.MULTILINE)) - {"help"}
    shown = {name: output(binary, *filter(None, [name]), "--help") for name in ["", *names]}
    return {name: set(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z0-9-]+)", text, re.MULTILINE)) | {"--help", "--version"}
            for name, text in shown.items()}


def own_commands() -> list[Command]:
    """Commands of our own program, without those that need something in place of `…`."""
    # test_troubleshooting.py runs those of its pages.
    found = [command for command in commands(PROGRAM)
             if command.block.document not in TROUBLESHOOTING and "…" not in " ".join(command.words)]
    assert len(found) > 15
    return found


def test_options_belong_to_the_command_that_they_are_given_to(help_of: dict[str, set[str]]) -> None:
    for command in own_commands():
        name = command.words[1] if len(command.words) > 1 and not command.words[1].startswith("-") else ""
        assert name in help_of, f"{command}: there is no command {name}"
        for option in (word.partition("=")[0] for word in command.words if word.startswith("--")):
            assert option in help_of[name], f"{command}: {name or PROGRAM} has no {option}"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that commands of the documents name."""
    found = tmp_path_factory.mktemp("files")
    for name, text in Authority().secret("cognito-authz.cognito-authz.svc").items():
        (found / name).write_text(text)
    (found / "policy.yaml").write_text("policies: {default: {}}\n")
    # Some pages name the examples by their path, some by their name.
    examples = shutil.copytree(ROOT / "docs" / "examples", found / "docs" / "examples")
    for example in examples.rglob("*.yaml"):
        shutil.copy(example, found)
    (found / "token").write_text("0123456789abcdef0123456789abcdef\n")
    return found


def test_the_service_accepts_its_options(binary: Path, directory: Path) -> None:
    """Those of commands that start the service are checked by `check-config`."""
    seen = 0
    for command in own_commands():
        words = command.words[1:]
        is_other = words and not words[0].startswith("-") and words[0] not in {"serve", "check-config"}
        if is_other or words == ["--version"]:
            continue
        # The tests of check-config fetch keys, from another endpoint.
        options = [word for word in words if word not in {"serve", "check-config", "--online"}]
        given = " ".join([*options, *command.variables])
        defaults: list[str] = []
        files = [directory / word for word in options if (directory / word).is_file()]
        has_pools = any(re.search(r"^pools:", file.read_text(), re.MULTILINE) for file in files)
        if not has_pools and "user-pool-id" not in given and "USER_POOL" not in given:
            defaults = ["--user-pool-id", POOL, "--client-id", CLIENT]
        done = run(binary, "check-config", *defaults, *options, cwd=directory, env=command.variables)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        seen += 1
    assert seen >= 6


def succeeds(ask: Callable[[], subprocess.CompletedProcess[str]]) -> bool:
    return ask().returncode == 0


def test_commands_of_operators_work(binary: Path, directory: Path, tmp_path: Path) -> None:
    """`revoke`, `revocations`, `log-level` and `healthcheck`, as the documents show them, at running instances."""
    with Stage(binary, tmp_path) as stage:
        plain = stage.authz("plain", "--admin-token-file", directory / "token")
        encrypted = stage.program("encrypted", [
            "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-url", stage.jwks_url, "--log-format", "json",
            "--grpc-listen", "127.0.0.1:0", "--admin-listen", "tls:127.0.0.1:0", "--tls-cert-file",
            directory / "tls.crt", "--tls-key-file", directory / "tls.key", "--account-api=false"])
        addresses = {"http": plain.admin, "https": encrypted.admin.removeprefix("tls:")}
        seen = set()
        revocation = ""
        for command in own_commands():
            name, *words = command.words[1:] or [""]
            if name not in {"revoke", "revocations", "log-level", "healthcheck"}:
                continue
            words = [revocation if re.fullmatch(r"[0-9a-f]{32}", word) else word for word in words]
            words = [re.sub(r"^(https?)://127\.0\.0\.1:9190$", lambda url: f"{url[1]}://{addresses[url[1]]}", word)
                     for word in words]
            if "--admin" not in words:
                words += ["--admin", f"http://{plain.admin}"]
            if name != "healthcheck" and "--admin-token-file" not in words:
                words += ["--admin-token-file", "token"]
            ask = partial(run, binary, name, *words, cwd=directory, env={})
            if name == "healthcheck":
                eventually(f"ready: {command}", partial(succeeds, ask))
            done = ask()
            assert done.returncode == 0, f"{command}: {done.stderr}"
            revocation = next(iter(re.findall(r"\b[0-9a-f]{32}\b", done.stdout)), revocation)
            seen.add(name)
        assert {"revoke", "revocations", "log-level", "healthcheck"} <= seen


# ------------------------------------------------------------------------------------------------ account API


@pytest.fixture(scope="module")
def signed(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    with Stage(binary, tmp_path_factory.mktemp("account")) as stage:
        limits = [part for name in ("address", "user", "sends") for part in (f"--limit-{name}", "1000/1m")]
        yield Signed(
            stage, *limits, "--account-min-failure-time", "0s", "--account-attributes", "email",
            "--hosted-ui-domain", "example.auth.eu-west-1.amazoncognito.com",
            "--oauth-redirect-uris", "https://app.example.com/callback")


def calls() -> list[Block]:
    """Blocks of the guide that call the API; last, those after which a password no longer signs in."""
    found = [block for block in blocks("sh") if block.document in ACCOUNT
             and re.search(r"^(post|own|curl) ", block.text, re.MULTILINE) and "mcp.example.com" not in block.text]
    return sorted(found, key=last)


def last(block: Block) -> int:
    """The place at the end of the blocks that change how the user signs in; 0 for the others."""
    changes = ["own PATCH me", "mfa/preference", "own DELETE me"]
    return max((number for number, call in enumerate(changes, 1) if call in block.text), default=0)


def test_the_account_api_understands_the_requests_of_its_guide(signed: Signed, tmp_path: Path) -> None:
    """Codes and sessions are examples, so not each call succeeds; but none is unknown or has a wrong body."""
    defined = "\n".join(functions(ACCOUNT[0]).values())
    token = ""
    answers = []
    for block in calls():
        # Blocks sign out; those at the end do not.
        token = token if last(block) > 1 else signed.token()
        # The status and the address follow each answer.
        script = [
            r"""curl() { command curl --max-time 20 -w '\n=%{http_code} %{method} %{url}\n' "$@"; }""",
            f"AUTH={signed.site.url}/auth", f"TOKEN={token}", defined, block.text]
        file = tmp_path / "block.sh"
        file.write_text("set -u\n" + "\n".join(script))
        done = run("bash", file, env=environment())
        assert done.returncode == 0, f"{block}: {done.stderr}"
        found = re.findall(r"(.*)\n=(\d+) (\w+) (\S+)", done.stdout)
        assert len(found) == len(re.findall(r"^(?:post|own|curl) ", block.text, re.MULTILINE)), f"{block}: {found}"
        for body, status, method, url in found:
            path = url.removeprefix(f"{signed.site.url}/auth/").partition("?")[0]
            where = f"{block}: {method} {path}: {status} {body if int(status) > 299 else 'with tokens'}"
            assert int(status) in {200, 201, 400, 401, 502}, where
            # A block that shows this answer sends such a body on purpose.
            assert '"code":"invalid_request"' not in body or '"code":"invalid_request"' in block.text, where
            answers.append((method, path, int(status)))
    succeeded = {(method, path) for method, path, status in answers if status < 300}
    assert len(answers) > 25
    assert {("POST", "login"), ("GET", "me"), ("PATCH", "me"), ("POST", "mfa/totp"), ("DELETE", "me")} <= succeeded
