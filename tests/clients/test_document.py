"""Every form of the document passes redocly's rules, with no exception but those of redocly.yaml.

The forms differ in the options of the service: hosted pages, cookies, protected resources.
"""

from __future__ import annotations

import json
from pathlib import Path

import web
from conftest import HERE, TOOLS, Tool
from processes import Child

REDOCLY = TOOLS / "node" / "node_modules" / ".bin" / "redocly"
POOL = ["--user-pool-id", "eu-west-1_Example01", "--client-id", "3n4b5urk1ft4fl3mg5e62d9ado"]
HOSTED = ["--hosted-ui-domain", "https://auth.example.com", "--oauth-redirect-uris",
          "https://app.example.com/auth/oauth/callback", "--oauth-logout-uris", "https://app.example.com/"]
POLICY = {"policies": {"mcp": {}}, "protected_resources": [
    {"resource": "https://mcp.example.com/mcp", "policy": "mcp", "client_id": "3n4b5urk1ft4fl3mg5e62d9ado",
     "redirect_uris": ["http://localhost:3118/callback"]}]}
FORMS = {
    "bodies": [],
    "attributes": ["--account-attributes", "locale", "--account-attributes", "custom:plan"],
    "hosted": HOSTED,
    "cookies": ["--account-cookies"],
    "everything": [*HOSTED, "--account-cookies", "--config", "policy.yaml"],
}


def listening(child: Child) -> str | None:
    """Address of the account API, from the log."""
    for line in child.lines():
        fields = json.loads(line).get("fields", {})
        if fields.get("message") == "listening" and fields.get("listener") == "account":
            return str(fields["address"])
    return None


def served(form: list[str], binary: Path, folder: Path) -> bytes:
    """The document of a service with these options. It does not depend on Cognito, in whose place nothing answers."""
    child = Child("cognito-authz", [
        binary, *POOL, "--cognito-endpoint", "http://127.0.0.1:9", "--grpc-listen", "127.0.0.1:0", "--admin-listen",
        "127.0.0.1:0", "--account-listen", "127.0.0.1:0", "--log-format", "json", *form],
        log=folder / "log", cwd=folder)
    try:
        address = child.wait_until("listening", lambda: listening(child), 20)
        return web.get(f"http://{address}/auth/openapi.json").body
    finally:
        child.stop(20)


def test_every_form_of_the_document_passes_the_rules_of_redocly(binary: Path, tool: Tool) -> None:
    for name, options in FORMS.items():
        folder = tool.folder / name
        folder.mkdir()
        (folder / "policy.yaml").write_text(json.dumps(POLICY))
        (folder / "openapi.json").write_bytes(served(options, binary, folder))
    # Without these variables, redocly looks for a newer version of itself, and reports its use.
    run = tool.run(REDOCLY, "lint", *(f"{name}/openapi.json" for name in FORMS), "--config", HERE / "redocly.yaml",
                   "--format", "json", env={"REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "REDOCLY_TELEMETRY": "off"})
    # One report for each file.
    reports = json.loads(f"[{run.stdout.replace('}{', '},{')}]")
    found = [(problem["ruleId"], problem["message"], problem["location"])
             for report in reports for problem in report["problems"]]
    assert found == []
    assert run.returncode == 0, run.stderr
    assert len(reports) == len(FORMS)
