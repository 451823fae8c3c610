"""The symptoms of docs/troubleshooting.md that concern sign-in, sign-out and browsers. Importing it registers them."""

from __future__ import annotations

import web
from hosted_pages import EMAIL, PASSWORD, HostedPages
from monitoring import Store
from scratch import free_port
from stage import CLIENT, POOL, Stage, eventually
from symptoms import POLICY, alone
from transcript import Site, Transcript

WRONG = "Wrong-battery-1-staple"


class Signed:
    """A site with the emulator, and what its users need to sign in."""

    def __init__(self, stage: Stage, *flags: str) -> None:
        self.emulator = HostedPages(stage)
        self.client = self.emulator.cognito.create_client(self.emulator.pool, "web", token_seconds=3600)
        keys = f"{self.emulator.url}/{self.emulator.pool}/.well-known/jwks.json"
        self.flags = ["--cognito-endpoint", self.emulator.url, *flags]
        self.site = Site(
            stage, *self.flags, policy=POLICY, pool=self.emulator.pool, client=self.client, keys=keys)
        self.site.names |= {self.emulator.pool: POOL, self.client: CLIENT}

    def token(self) -> str:
        return self.emulator.cognito.sign_in(self.client, EMAIL, PASSWORD).access


@alone
def cognito_down(stage: Stage) -> Transcript:
    """Nothing listens at the address of Cognito's API. The keys are known."""
    site = Site(stage, "--cognito-endpoint", f"http://127.0.0.1:{free_port()}", policy=POLICY)
    to = site.transcript()
    assert site.account(to, "login", email=EMAIL, password=PASSWORD).status == 503
    to.log(site.program, "a call to Cognito failed")
    to.metrics(site.admin, "cognito_authz_cognito_requests_total")
    assert web.get(f"{site.url}/orders", stage.keys.bearer()).status == 200, "checks do not need Cognito"
    return to


@alone
def rate_limit(stage: Stage) -> Transcript:
    signed = Signed(stage, "--limit-user", "3/1m")
    to = signed.site.transcript()
    statuses = [signed.site.account(signed.site.transcript(), "login", email=EMAIL, password=WRONG).status
                for _ in range(3)]
    assert statuses == [401] * 3
    assert signed.site.account(to, "login", email=EMAIL, password=PASSWORD).status == 429
    to.log(signed.site.program, "account request", outcome="rate_limited")
    to.metrics(signed.site.admin, "cognito_authz_(rate_limited_total|account_unknown_addresses_total)")
    return to


@alone
def sign_out_of_one_replica(stage: Stage) -> Transcript:
    """Two replicas without a shared store."""
    signed = Signed(stage)
    site = signed.site
    to = site.transcript()
    other = stage.program("other", [
        *site.options, *signed.flags, "--admin-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0",
        "--http-listen", "127.0.0.1:0", "--log-format", "json", "--shutdown-deadline", "200ms"])
    other.child.wait_until("ready", lambda: web.is_ok(f"http://{other.admin}/readyz"), 30)
    door = other.bound("http")
    site.names |= {other.admin: "127.0.0.1:9290", door: "127.0.0.1:9293"}
    token = signed.token()
    assert site.account(to, "logout", token).json()["scope"] == "replica"
    assert site.curl(to, "/orders", token).json()["reason"] == "revoked"
    answer = web.get(f"http://{door}/ext-authz/orders", [("authorization", f"Bearer {token}")])
    to.show("# the same request, checked by another replica", [])
    to.answer(f'curl -i http://{door}/ext-authz/orders -H "authorization: Bearer $TOKEN"', answer)
    assert answer.status == 200
    to.metrics(site.admin, "cognito_authz_revocations{")
    return to


@alone
def store_lost(stage: Stage) -> Transcript:
    store = Store(stage)
    signed = Signed(stage, "--revocation-url", store.url)
    site = signed.site
    site.names[store.url] = "redis://valkey:6379"
    to = site.transcript()
    token = signed.token()
    store.child.stop(1)
    eventually("lost", lambda: site.program.metric("cognito_authz_revocation_store_up") == 0)
    assert site.account(to, "logout", token).status == 503
    to.log(site.program, "the store of revocations is lost")
    to.metrics(site.admin, "cognito_authz_revocation_(writes_total|store_up)")
    assert web.get(f"{site.url}/orders", [("authorization", f"Bearer {token}")]).status == 401, "this replica knows"
    return to


@alone
def cors_refused(stage: Stage) -> Transcript:
    """The page is at another origin than those in `--cors-origins` and in Envoy's filter `cors`."""
    site = Site(stage, "--cors-origins", "https://app.example.com", policy=POLICY)
    to = site.transcript()
    for origin in ("https://www.example.com", "https://app.example.com"):
        preflight = [("origin", origin), ("access-control-request-method", "POST")]
        answer = site.curl(to, "/auth/login", method="OPTIONS", headers=preflight)
        allowed = answer.header("access-control-allow-origin")
        assert allowed == (origin if "app" in origin else None), answer
    preflight = [("origin", "https://www.example.com"), ("access-control-request-method", "GET")]
    assert site.curl(to, "/orders", method="OPTIONS", headers=preflight).status == 401
    return to


@alone
def cookies_not_sent(stage: Stage) -> Transcript:
    signed = Signed(stage, "--account-cookies")
    site = signed.site
    to = site.transcript()
    origin = [("content-type", "application/json"), ("origin", site.url), ("sec-fetch-site", "same-origin")]
    body = f'{{"email":"{EMAIL}","password":"{PASSWORD}"}}'.encode()
    answer = web.request("POST", f"{site.url}/auth/login", origin, body)
    assert answer.status == 200, answer
    to.answer(f"curl -i -X POST {site.url}/auth/login -H 'origin: {site.url}' -d …", answer)
    cookie = "; ".join(value.partition(";")[0] for name, value in answer.headers if name.lower() == "set-cookie")
    # The browser left the cookie out: another site's page, or no TLS.
    assert site.curl(to, "/orders").json()["reason"] == "missing_credential"
    assert web.get(f"{site.url}/orders", [("cookie", cookie)]).status == 200
    # A page of another site that sends it nevertheless.
    sent = [("cookie", cookie), ("sec-fetch-site", "cross-site")]
    answer = web.request("POST", f"{site.url}/carts", sent, b"x")
    assert answer.json()["reason"] == "cross_site"
    to.answer(f"curl -i -X POST {site.url}/carts -H 'cookie: …' -H 'sec-fetch-site: cross-site' -d …", answer)
    to.log(site.program, "check", reason="cross_site")
    return to


@alone
def mcp_without_metadata(stage: Stage) -> Transcript:
    """`protected_resources` list the policy of one of the two routes."""
    policy = {
        "default": "members", "policies": {"members": {}, "mcp": {}, "mcp-write": {"scopes": {"all": ["mcp/write"]}}},
        "routes": [{"path": "/mcp", "policy": "mcp"}, {"path": "/mcp", "method": "POST", "policy": "mcp-write"}],
        "protected_resources": [{"resource": "https://mcp.example.com/mcp", "policy": "mcp"}]}
    site = Site(stage, "--hosted-ui-domain", "example.auth.eu-west-1.amazoncognito.com",
                "--oauth-redirect-uris", "https://app.example.com/", policy=policy)
    to = site.transcript()
    for method in ("POST", "GET"):
        answer = site.curl(to, "/mcp", method=method)
        assert ("resource_metadata" in (answer.header("www-authenticate") or "")) == (method == "GET"), answer
    to.log(site.program, "check", policy="mcp-write")
    return to


@alone
def caller_not_listed(stage: Stage) -> Transcript:
    """nginx, Traefik or Caddy at an address that is not in `--http-callers`."""
    site = Site(stage, "--http-listen", "127.0.0.1:0", "--http-callers", "10.0.0.0/8")
    door = site.program.bound("http")
    site.names[door] = "127.0.0.1:9193"
    to = site.transcript()
    url = f"http://{door}/auth-request"
    assert to.answer(f"curl -i {url}", web.get(url)).status == 403
    to.log(site.program, "connections refused")
    return to
