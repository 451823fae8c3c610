"""The documents match the project: links work, commands and options exist, tables are complete.

tests/it/reference writes the pages of docs/reference from the code, and compares them; test_document_commands.py and
test_document_yaml.py check the code blocks.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import pages
import web
from certificates import Authority
from commands import output
from document_commands import commands
from paths import ROOT
from stage import Stage

# Documents whose commands and options are checked: all of them.
GUIDES = pages.documents(ROOT)

# Options of other programs that the documents name, besides those of `aws` (test_document_commands.py).
OTHERS = {
    "aws": {"read-attributes", "secret-id", "write-attributes"},
    "cargo": {"bench", "lib", "locked", "release", "target-dir", "test"},
    # benches/load/main.rs has a text about its options.
    "cargo bench --bench load": {"oauth2-proxy", "opa", "program", "rounds", "seconds", "tokens"},
    "claude": {"callback-port", "transport"},
    "cosign": {"certificate-identity", "certificate-oidc-issuer"},
    "deploy/local/up": {"bin", "cookies", "passkeys", "tour"},
    "deploy/kind/up": {"delete", "port"},
    "curl": {"data"},
    "docker": {
        "build", "build-arg", "cap-drop", "detach", "force-recreate", "format", "platform", "profile", "read-only",
        "rm", "security-opt", "volumes",
    },
    "docs/site/build": {"serve"},
    "envoy": {"mode"},
    "gh": {"pattern", "repo"},
    "helm": {
        "create-namespace", "namespace", "reset-then-reuse-values", "reuse-values", "set", "values", "version", "wait",
    },
    "kubectl": {"for", "from-file", "tail", "timeout"},
    "sha256sum": {"check", "ignore-missing"},
    "of a typing error (docs/operations-upgrades.md)": {"leway"},
    "npm": {"ignore-scripts", "omit-lockfile-registry-resolved", "package-lock-only"},
    "oathtool": {"base32", "totp"},
    "openapi-python-client": {"url"},
    "prometheus": {"enable-feature"},
    "pytest (tests/packaging/conftest.py)": {"renew"},
    "sam": {"guided", "stack-name"},
    "tests/page": {"screenshots"},
    "tests/tools/setup": {"node", "promtool", "proxies", "redis", "shells"},
    "oauth2-proxy": {
        "allowed-group", "api-route", "client-secret", "code-challenge-method",
        "cookie-csrf-per-request", "cookie-domain", "cookie-expire", "cookie-refresh", "cookie-samesite",
        "cookie-secret", "email-domain", "oidc-audience-claim", "oidc-issuer-url", "pass-access-token", "provider",
        "redirect-url", "scope", "session-store-type", "set-xauthrequest", "skip-auth-route",
        "skip-jwt-bearer-tokens", "skip-provider-button", "whitelist-domain",
    },
}  # fmt: skip


def documents() -> list[Path]:
    """Every document of the project, including those that are not committed yet."""
    listed = output("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md")
    return [ROOT / name for name in sorted(set(listed.split())) if (ROOT / name).is_file()]


def without_code(text: str) -> str:
    """Replaces code by a placeholder: it contains no links."""
    return re.sub(r"`[^`\n]*`", "`code`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(document: Path) -> set[str]:
    """Anchors of the headings, as GitHub generates them, and those that the document writes itself."""
    found: dict[str, int] = {}
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    own = set(re.findall(r'<a id="([^"]+)"></a>', text))
    for heading in re.findall(r"^#{1,6} +(.*?) *$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return own | {
        slug + (f"-{number}" if number else "") for slug, count in found.items() for number in range(count + 1)
    }


def blocks(document: str, language: str) -> list[str]:
    """Code blocks of a document in a language."""
    return blocks_of((ROOT / document).read_text(), language)


def blocks_of(text: str, language: str) -> list[str]:
    """Code blocks of a text in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def cells(line: str) -> list[str]:
    """Cells of a row of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def section(document: str, heading: str) -> str:
    """Text between a heading and the next one of level 2."""
    text = (ROOT / document).read_text()
    assert f"\n{heading}\n" in text, f"{document} has no {heading}"
    return re.split(r"^## ", text.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def options(binary: Path) -> set[str]:
    """Every long option of the program and of its commands."""
    found: set[str] = set()
    listed = output(binary, "--help").partition("Commands:\n")[2].partition("\n\n")[0]
    commands = set(re.findall(r"^ {2}([a-z][a-z-]+)", listed, re.MULTILINE)) - {"help"}
    for command in [[], *([name] for name in sorted(commands))]:
        shown = output(binary, *command, "--help")
        found.update(re.findall(r"^ +(?:-\w, )?--([a-z][a-z0-9-]+)", shown, re.MULTILINE))
    assert {"user-pool-id", "config", "path", "admin", "origin-jti"} <= found
    return found


# ------------------------------------------------------------------------------------------------ links


def test_links_are_not_broken() -> None:
    everything = documents()
    assert len(everything) > 10
    wrong = []
    for document in everything:
        for target in re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text())):
            name, _, anchor = target.partition("#")
            path = (document.parent / name).resolve() if name else document
            if ours := re.match(r"https://github\.com/cognito-authz/cognito-authz/(?:blob|tree)/main/(.+)", name):
                path = ROOT / ours[1]
            elif re.match(r"[a-z]+:", target):
                continue
            link = f"{document.relative_to(ROOT)}: {target}"
            if not path.is_relative_to(ROOT):
                wrong.append(f"{link} points outside of the project")
            elif not path.exists():
                wrong.append(f"{link} does not exist")
            elif anchor and path.suffix == ".md" and anchor not in anchors(path):
                wrong.append(f"{link}: no such heading")
    assert not wrong, "\n".join(wrong)


def test_every_document_is_linked() -> None:
    linked = set()
    for document in documents():
        for target in re.findall(r"\]\(([^)\s#]+)", document.read_text()):
            linked.add((document.parent / target).resolve())
    # GitHub shows these itself.
    shown = {ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"}
    alone = [
        str(document.relative_to(ROOT))
        for document in documents()
        if document not in linked | shown and document.parent not in linked and "vendor" not in document.parts
    ]
    assert not alone, alone


# ------------------------------------------------------------------------------------------------ commands and options


def test_options_in_the_guides_exist(binary: Path) -> None:
    of_aws = {word.removeprefix("--") for command in commands("aws") for word in command.words if word[:2] == "--"}
    known = options(binary) | of_aws | set().union(*OTHERS.values())
    seen = set()
    for guide in GUIDES:
        # After a letter or another hyphen it is not an option; `---` separates the header of a table.
        for option in re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", (ROOT / guide).read_text()):
            assert option in known, f"{guide}: no program has --{option}"
            seen.add(option)
    unused = set().union(*OTHERS.values()) - seen
    assert not unused, f"no guide mentions {unused}: remove them from OTHERS"


def test_variables_in_the_guides_exist(binary: Path) -> None:
    shown = output(binary, "--help")
    known = set(re.findall(r"\b(?:COGNITO|AWS)_[A-Z_]+", re.sub(r"\n +", " ", shown))) | {"COGNITO_CLIENT_SECRET"}
    # A typing error that `doctor` finds, and what Kubernetes sets for a Service.
    known |= {"COGNITO_AUTHZ_LEWAY", "COGNITO_AUTHZ_SERVICE_HOST"}
    for guide in GUIDES:
        for variable in re.findall(r"\bCOGNITO_[A-Z_]+[A-Z]\b", (ROOT / guide).read_text()):
            assert variable in known, f"{guide}: {variable} is not an environment variable of the program"


def test_paths_in_commands_exist() -> None:
    seen = set()
    for guide in GUIDES:
        for block in blocks(guide, "sh"):
            for word in re.findall(r"(?<![\w./-])(?:deploy|tests|charts|docs|src)/[\w./-]*\w", block):
                seen.add(word)
                assert (ROOT / word).exists(), f"{guide}: {word} does not exist"
            for name in re.findall(r"cargo bench --bench (\w+)", block):
                assert is_benchmark(name), f"{guide}: there is no benchmark {name}"
    assert {"deploy/local/up", "tests/run", "deploy/envoy/envoy.yaml"} <= seen
    for guide in ["README.md", "docs/operations.md", "docs/performance.md", "docs/revocation.md"]:
        names = re.findall(r"cargo bench --bench (\w+)", (ROOT / guide).read_text())
        assert names, f"{guide} names no benchmark"
        assert all(map(is_benchmark, names)), f"{guide}: {names}"


def is_benchmark(name: str) -> bool:
    return any((ROOT / "benches" / path).is_file() for path in (f"{name}.rs", f"{name}/main.rs"))


@functools.cache
def values_of(chart: Path) -> Any:
    """The default values of a chart."""
    return yaml.safe_load((ROOT / chart / "values.yaml").read_text())


def about_values(guide: str) -> Iterator[tuple[str, str]]:
    """Parts of a guide, each with the name of the chart whose values it is about."""
    text = (ROOT / guide).read_text()
    if guide == "docs/reference/chart-values.md":
        # Each section is about the chart that its heading names.
        for part in text.split("\n## ")[1:]:
            chart, _, rest = part.partition("\n")
            yield chart, rest
    else:
        yield (Path(guide).parent.name if guide.startswith("charts/") else "cognito-authz"), text


def test_helm_values_in_commands_exist() -> None:
    used = set()
    for guide, (chart, text) in ((one, part) for one in GUIDES for part in about_values(one)):
        known = values_of(Path("charts") / chart)
        found = re.findall(r"--set ['\"]?([\w.]+)", "\n".join(blocks_of(text, "sh")))
        prose = r"`((?:metrics|istio|envoyGateway|userPool|grpc)\.(?!health\.|rs`)[\w.]+)`"
        for path in found + re.findall(prose, text):
            used.add(path)
            node: Any = known
            for name in path.split("."):
                assert isinstance(node, dict), f"{guide}: the chart has no value {path}"
                assert name in node, f"{guide}: the chart has no value {path}"
                node = node[name]
    assert "userPool.id" in used


def test_image_and_charts_have_one_name() -> None:
    for guide in GUIDES:
        for image in re.findall(r"ghcr\.io/[\w./-]*\w", (ROOT / guide).read_text()):
            assert re.fullmatch(r"ghcr\.io/cognito-authz/(cognito-authz|charts(/cognito-authz(-sidecar)?)?)", image), (
                f"{guide}: {image}"
            )


# ------------------------------------------------------------------------------------------------ tables


@pytest.fixture(scope="session")
def metrics(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The `/metrics` of a running program with the account API, a certificate, and a policy in shadow mode."""
    with Stage(binary, tmp_path_factory.mktemp("metrics")) as stage:
        for name, text in Authority().secret("authz.test").items():
            (stage.directory / name).write_text(text)
        certificate, key = stage.directory / "tls.crt", stage.directory / "tls.key"
        policy = stage.directory / "policy.yaml"
        policy.write_text("policies: {default: {mode: shadow}}\n")
        program = stage.authz(
            "authz",
            "--config",
            policy,
            "--grpc-listen",
            "tls:127.0.0.1:0",
            "--tls-cert-file",
            certificate,
            "--tls-key-file",
            key,
        )
        return web.get(f"http://{program.admin}/metrics").body.decode()


def test_the_table_of_metrics_matches_the_program(metrics: str) -> None:
    shown: dict[str, tuple[str, set[str]]] = {
        name: (kind, set()) for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", metrics, re.MULTILINE)
    }
    for series, labels in re.findall(r"^([a-z_]+)\{([^}]*)\}", metrics, re.MULTILINE):
        name = series if series in shown else re.sub(r"_(bucket|sum|count)$", "", series)
        shown[name][1].update(set(re.findall(r'(\w+)="', labels)) - {"le"})
    documented = {}
    for line in (ROOT / "docs/reference/metrics.md").read_text().partition("\n## ")[0].splitlines():
        if line.startswith("| `"):
            described = re.match(r"`(\w+)`<br>(\w+)(.*)", cells(line)[0])
            assert described, line
            documented[described[1]] = (described[2], set(re.findall(r"`(\w+)`", described[3])))
    assert documented == shown


def test_failure_modes_name_existing_tests() -> None:
    rows = [
        line
        for line in section("docs/operations.md", "## Failure modes and their effect on users").splitlines()
        if line.startswith("| ")
    ]
    assert len(rows) > 20
    for row in rows[1:]:
        what, *_, evidence = cells(row)
        file = None
        for name in re.findall(r"`([^`]+)`", evidence):
            if "/" in name:
                file = ROOT / name
                assert file.is_file(), f"{what}: {name} does not exist"
            elif file is not None and file.is_file():
                assert f"fn {name}()" in file.read_text(), f"{what}: {file.name} has no {name}"
        assert file is not None or evidence in {"\N{EN DASH}", "shown by"}, f"{what}: {evidence}"


def test_metrics_in_the_guides_exist(metrics: str) -> None:
    # Settings of Envoy.
    others = {"max_request_bytes", "pack_as_bytes"}
    known = set(re.findall(r"^# TYPE (?:cognito_authz_)?(\S+) ", metrics, re.MULTILINE))
    seen = set()
    for guide in GUIDES:
        # The last column of a row can name a test; it is removed.
        text = re.sub(r"\| `(?:tests|src)/.*$", "", (ROOT / guide).read_text(), flags=re.MULTILINE)
        for name, label in re.findall(r"`(?:cognito_authz_)?([a-z_]+)(?:\{(\w+)[^`]*\})?`", text):
            if name in others:
                continue
            if label or name in known or re.search(r"_(total|seconds|bytes|entries|successful)$", name):
                assert name in known, f"{guide}: there is no metric {name}"
                labelled = rf'^cognito_authz_{name}(_bucket)?\{{[^}}]*\b{label}="'
                assert not label or re.search(labelled, metrics, re.MULTILINE), f"{guide}: {name} has no label {label}"
                seen.add(name)
    assert len(seen) > 20


def test_codes_of_pages_in_the_guide_exist() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "src" / "account").rglob("*.rs"))
    lines = section("docs/browsers.md", "## Pages that users see").splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) > 6
    for row in rows:
        for code in re.findall(r"`([a-z_]+)`", cells(row)[0]):
            assert f'"{code}"' in sources, f"the program has no code {code}"


def test_every_alert_has_a_runbook() -> None:
    rules = [path for path in (ROOT / "charts").glob("*/files/*.y*ml") if "alert:" in path.read_text()]
    assert rules
    base = "https://github.com/cognito-authz/cognito-authz/blob/main/"
    names = set()
    for path in rules:
        for rule in (rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]):
            if "alert" not in rule:
                continue
            names.add(rule["alert"])
            url = rule["annotations"]["runbook_url"]
            assert url.startswith(base), f"{rule['alert']}: {url}"
            document, _, anchor = url.removeprefix(base).partition("#")
            assert anchor, f"{rule['alert']}: {document} has no heading #{anchor}"
            assert anchor in anchors(ROOT / document), f"{rule['alert']}: {document} has no heading #{anchor}"
    assert len(names) >= 8
    # The guides name only alerts that exist.
    for guide in GUIDES:
        for name in re.findall(r"\bCognitoAuthz[A-Z]\w+", (ROOT / guide).read_text()):
            assert name in names, f"{guide}: there is no alert {name}"
