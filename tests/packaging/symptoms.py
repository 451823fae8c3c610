"""The symptoms of the pages of docs/troubleshooting.md that concern checks, each produced on real programs.

Each function returns the transcript of one symptom. test_troubleshooting.py compares it with the document.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import web
from bootstrap import Bootstrap
from stage import CLIENT, POOL, Keys, Node, Stage
from transcript import Site, Transcript

Produce = Callable[[Stage, Site], str]
SYMPTOMS: dict[str, Produce] = {}

POLICY: Node = {
    "default": "members",
    "policies": {
        "members": {},
        "admin": {"groups": {"any": ["admins"]}},
        "orders-write": {"scopes": {"all": ["orders/write"]}},
        "tenant": {"claims": [{"claim": "custom:tenant", "equals": {"segment": "tenant"}}]},
        "reports": {"groups": {"any": ["analysts"]}, "mode": "shadow"},
        "open": {"public": True},
    },
    "routes": [
        {"path_prefix": "/orders", "method": "POST", "policy": "orders-write"},
        {"path_prefix": "/tenants/{tenant}", "policy": "tenant"},
        {"path_prefix": "/reports", "policy": "reports"},
        {"path_prefix": "/status", "policy": "open"},
        {"path_prefix": "/backoffice", "policy": "admin"},
    ],
}


def shared(produce: Callable[[Site, Transcript], Any]) -> Callable[[Site, Transcript], Any]:
    """Registers a symptom of the site that these symptoms share: its policy is `POLICY`."""

    @functools.wraps(produce)
    def run(_: Stage, site: Site) -> str:
        to = site.transcript()
        produce(site, to)
        return to.text

    SYMPTOMS[produce.__name__.replace("_", "-")] = run
    return produce


def alone(produce: Callable[[Stage], Transcript]) -> Callable[[Stage], Transcript]:
    """Registers a symptom that needs programs of its own."""

    @functools.wraps(produce)
    def run(stage: Stage, _: Site) -> str:
        return produce(stage).text

    SYMPTOMS[produce.__name__.replace("_", "-")] = run
    return produce


def refused(site: Site, to: Transcript, token: str, reason: str, path: str = "/orders") -> None:
    """A request that is refused: what the client gets, the line of the log, and what `explain` says."""
    answer = site.curl(to, path, token)
    assert answer.json()["reason"] == reason, answer
    to.log(site.program, "check", reason=reason)
    site.explain(to, path, token)


# ------------------------------------------------------------------------------------------------ everyone gets 401


@shared
def another_pool(site: Site, to: Transcript) -> None:
    issuer = f"https://cognito-idp.eu-west-1.amazonaws.com/{POOL[:-1]}y"
    refused(site, to, site.stage.keys.token(iss=issuer), "unknown_issuer")
    to.json(site.admin, "/config", ["pools"])


@shared
def another_client(site: Site, to: Transcript) -> None:
    refused(site, to, site.stage.keys.token(client_id="5old4client3id2of1the0former"), "wrong_client")


@shared
def id_token(site: Site, to: Transcript) -> None:
    token = site.stage.keys.token(token_use="id", aud=CLIENT, client_id=None, scope=None)
    refused(site, to, token, "wrong_token_use")


@shared
def clock(site: Site, to: Transcript) -> None:
    """To a service whose clock is two hours ahead, a token that is valid for one hour has expired an hour ago."""
    then = int(time.time()) - 2 * 3600
    refused(site, to, site.stage.keys.token(iat=then, auth_time=then, exp=then + 3600), "expired")


@alone
def header_not_forwarded(stage: Stage) -> Transcript:
    """Envoy's `allowed_headers` lack `authorization`."""

    def forget(bootstrap: Bootstrap) -> None:
        allowed = bootstrap.ext_authz("ingress_tcp")["allowed_headers"]["patterns"]
        allowed[:] = [one for one in allowed if one.get("exact") != "authorization"]

    site = Site(stage, policy=POLICY, change=forget)
    to = site.transcript()
    answer = site.curl(to, "/orders", stage.keys.token())
    assert answer.json()["reason"] == "missing_credential"
    site.access_log(to, 401)
    to.metrics(site.admin, 'cognito_authz_checks_total.*decision="(allow|deny)"')
    return to


@shared
def forged_token(site: Site, to: Transcript) -> None:
    refused(site, to, Keys().token(), "bad_signature")


@shared
def other_environment(site: Site, to: Transcript) -> None:
    answer = site.curl(to, "/orders", site.stage.keys.token(kid="of-another-environment"))
    assert answer.json()["reason"] == "unknown_kid", answer
    to.log(site.program, "check", reason="unknown_kid")
    to.metrics(site.admin, "cognito_authz_jwks_unknown_kid_total")


# ------------------------------------------------------------------------------------------------ some get 403


@shared
def group_missing(site: Site, to: Transcript) -> None:
    token = site.stage.keys.token(**{"cognito:groups": ["readers"]})
    refused(site, to, token, "insufficient_group", "/backoffice/users")


@shared
def scope_missing(site: Site, to: Transcript) -> None:
    token = site.stage.keys.token(scope="openid orders/read")
    answer = site.curl(to, "/orders", token, method="POST")
    assert answer.json()["reason"] == "insufficient_scope"
    site.explain(to, "/orders", token, "--method", "POST")


@shared
def tenant_refused(site: Site, to: Transcript) -> None:
    refused(site, to, site.stage.keys.token(**{"custom:tenant": "acme"}), "claim_mismatch", "/tenants/Acme/bills")
    to.metrics(site.admin, 'cognito_authz_checks_total.*policy="tenant"')


@alone
def unsafe_path(stage: Stage) -> Transcript:
    """Envoy does not normalize paths."""

    def as_they_are(bootstrap: Bootstrap) -> None:
        manager = bootstrap.manager("ingress_tcp")
        for name in ("normalize_path", "merge_slashes", "path_with_escaped_slashes_action"):
            del manager[name]

    site = Site(stage, policy=POLICY, change=as_they_are)
    to = site.transcript()
    answer = site.curl(to, "/files/..%2Fbackoffice", stage.keys.token())
    assert answer.json()["reason"] == "unsafe_path", answer
    to.log(site.program, "check", reason="unsafe_path")
    return to


@alone
def unknown_policy(stage: Stage) -> Transcript:
    """Envoy's route `admin` names the policy `admin`, and the policy file has none with that name."""
    site = Site(stage, policy={"policies": {"administrators": {"groups": {"any": ["admins"]}}}})
    to = site.transcript()
    answer = site.curl(to, "/admin", stage.keys.token())
    assert answer.json()["reason"] == "unknown_policy"
    to.log(site.program, "check", reason="unknown_policy")
    return to


# ------------------------------------------------------------------------------------------------ requests that pass


@shared
def policy_not_applied(site: Site, to: Transcript) -> None:
    """The route is `/backoffice`, and the application also answers below `/backoffice2`."""
    token = site.stage.keys.token()
    assert site.curl(to, "/backoffice", token).status == 403
    answer = web.get(f"{site.url}/backoffice2", [("authorization", f"Bearer {token}")])
    assert answer.status == 200
    site.explain(to, "/backoffice2", token)


@shared
def shadow_mode(site: Site, to: Transcript) -> None:
    token = site.stage.keys.token()
    answer = web.get(f"{site.url}/reports", [("authorization", f"Bearer {token}")])
    assert answer.status == 200
    to.log(site.program, "check", policy="reports")
    to.metrics(site.admin, "cognito_authz_shadow_denials_total")
    site.explain(to, "/reports", token)


@alone
def forged_headers(stage: Stage) -> Transcript:
    """A listener without Envoy's first line of defence, and a route without the check."""

    def open_wide(bootstrap: Bootstrap) -> None:
        manager = bootstrap.manager("ingress_tcp")
        del manager["early_header_mutation_extensions"]
        [host] = manager["route_config"]["virtual_hosts"]
        health = next(route for route in host["routes"] if route["name"] == "health")
        route = {"match": {"path_separated_prefix": "/public"}, "route": {"cluster": "app"},
                 "typed_per_filter_config": health["typed_per_filter_config"]}
        host["routes"].insert(0, route)

    site = Site(stage, policy=POLICY, change=open_wide)
    to = site.transcript()
    forged = [("x-auth-sub", "mallory")]
    for path, token in (("/orders", stage.keys.token()), ("/public", "")):
        sent = [*forged, *([("authorization", f"Bearer {token}")] if token else [])]
        answer = web.get(f"{site.url}{path}", sent)
        seen = [f"{name}: {value}" for name, value in answer.json()["headers"] if name == "x-auth-sub"]
        bearer = ' -H "authorization: Bearer $TOKEN"' if token else ""
        # The application answers with the headers that it received.
        to.show(f"curl -s {site.url}{path}{bearer} -H 'x-auth-sub: mallory' | grep x-auth-sub", seen)
        assert seen == ["x-auth-sub: ada" if token else "x-auth-sub: mallory"]
    line = site.access_log(to, 200, "/public")
    assert line["decision"] is None, "nothing has decided this request"
    to.metrics(site.envoy.admin.removeprefix("http://"), "envoy_http_ext_authz_(ok|disabled).*ingress_tcp",
               "/stats/prometheus", zeros=True)
    return to
