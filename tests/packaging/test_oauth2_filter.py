"""The statements of docs/browsers.md and docs/migrate.md about Envoy's oauth2 filter, tried with the real one.

A failure after an update of Envoy means that these documents have to be changed, not that something is broken.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
import yaml

import web
from hosted_pages import CALL, EMAIL, Browser, HostedPages, location, received
from paths import ROOT
from scratch import Port
from stage import Node, Stage, tcp

TYPES = "type.googleapis.com/envoy.extensions"
HTTP2: Node = {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}}


class Site:
    """Envoy with the oauth2 filter, in front of an application."""

    def __init__(self, stage: Stage, pages: HostedPages, name: str, settings: Node, *,  # noqa: PLR0913
                 after: list[Node] | None = None, token_seconds: int = 3600, routes: list[Node] | None = None,
                 addresses: dict[str, str] | None = None) -> None:
        self.pages = pages
        with Port() as port:
            self.host = f"http://localhost:{port.number}"
            client, secret = pages.client(
                [f"{self.host}/callback"], [f"{self.host}/", f"{self.host}/bye"], token_seconds=token_seconds)
            config = {
                "token_endpoint": {"cluster": "cognito", "uri": f"{pages.url}/oauth2/token", "timeout": "3s"},
                "authorization_endpoint": f"{pages.url}/oauth2/authorize",
                "redirect_uri": "http://%REQ(:authority)%/callback",
                "redirect_path_matcher": {"path": {"exact": "/callback"}},
                "signout_path": {"path": {"exact": "/signout"}},
                "credentials": {"client_id": client, "token_secret": {"name": "token"},
                                "hmac_secret": {"name": "hmac"}},
                "auth_scopes": ["openid", "email"],
                "forward_bearer_token": True,
                **settings,
            }
            filters = [{"name": "envoy.filters.http.oauth2", "typed_config": {
                "@type": f"{TYPES}.filters.http.oauth2.v3.OAuth2", "config": config}}, *(after or [])]
            app = stage.application()
            clusters = {"app": app, "account": app, "cognito": urlsplit(pages.url).netloc, **(addresses or {})}
            secrets = {"token": secret, "hmac": "k" * 32}
            routes = routes or [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]
            self.envoy = stage.envoy(bootstrap(port.number, filters, routes, clusters, secrets), name)

    def browser(self) -> Browser:
        return Browser(self.host, self.pages)


def bootstrap(port: int, filters: list[Node], routes: list[Node], addresses: dict[str, str],
              secrets: dict[str, str]) -> Node:
    router = {"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "site", "http_filters": [*filters, router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}}
    return {
        "admin": {"address": tcp("127.0.0.1:0")},
        "static_resources": {
            "listeners": [{"name": "site", "address": tcp(f"127.0.0.1:{port}"),
                           "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}]}],
            "clusters": [{"name": name, "type": "STATIC", "load_assignment": {
                "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": tcp(address)}}]}]},
                **(HTTP2 if name == "authz" else {})}
                for name, address in addresses.items()],
            "secrets": [{"name": name, "generic_secret": {"secret": {"inline_string": value}}}
                        for name, value in secrets.items()]}}


@pytest.fixture(scope="module")
def stage(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(binary, tmp_path_factory.mktemp("oauth2")) as running:
        yield running


@pytest.fixture(scope="module")
def pages(stage: Stage) -> HostedPages:
    return HostedPages(stage)


@pytest.fixture(scope="module")
def site(stage: Stage, pages: HostedPages) -> Site:
    """The filter with its default settings."""
    return Site(stage, pages, "plain", {})


@pytest.fixture(scope="module")
def strict(stage: Stage, pages: HostedPages) -> Site:
    """The filter with settings that the page mentions."""
    return Site(stage, pages, "strict", {
        "deny_redirect_matcher": [{"name": "sec-fetch-mode", "string_match": {"exact": "navigate"},
                                   "invert_match": True, "treat_missing_header_as_empty": True}],
        "pass_through_matcher": [{"name": "authorization", "string_match": {"prefix": "Bearer "}}],
        "allowed_redirect_domains": ["localhost"], "token_cookie_chunking": {},
        "end_session_endpoint": f"{pages.url}/logout"})


def test_a_visit_returns_to_the_page_and_gives_tokens_to_the_application(site: Site) -> None:
    browser = site.browser()
    answer, paths = browser.visit("/orders?status=open&page=2")
    assert paths == ["/orders?status=open&page=2", "hosted page", "/callback", "/orders"]
    assert answer.json()["path"] == "/orders?status=open&page=2"
    assert set(browser.cookies) == {"OauthHMAC", "OauthExpires", "BearerToken", "IdToken", "RefreshToken"}
    assert not browser.cookies["BearerToken"].startswith("eyJ"), "encrypted for the browser"
    cookies = dict(part.split("=", 1) for part in received(answer)["cookie"].split("; "))
    assert set(cookies) == {"BearerToken", "IdToken"}
    assert all(value.startswith("eyJ") for value in cookies.values()), "decrypted for the application"


def test_cookies_have_no_same_site_attribute_by_default(site: Site) -> None:
    browser = site.browser()
    browser.send("/orders")
    assert len(browser.set) == 4
    for line in browser.set:
        assert re.search(r"secure;HttpOnly$", line), line
        assert "samesite" not in line.lower(), line


def test_an_expired_session_is_renewed_within_the_request(stage: Stage, pages: HostedPages) -> None:
    browser = Site(stage, pages, "renewal", {}, token_seconds=1).browser()
    browser.visit("/orders")
    expired = float(browser.cookies["OauthExpires"])
    while time.time() <= expired:
        time.sleep(0.05)
    # The browser has deleted the cookies that last as long as the token.
    browser.cookies = {"RefreshToken": browser.cookies["RefreshToken"]}
    answer = browser.send("/orders", "POST", CALL, b"a=1")
    assert answer.json()["method"] == "POST"
    assert "BearerToken" in browser.cookies


def test_tabs_do_not_disturb_each_other_and_leave_two_cookies_each(site: Site) -> None:
    browser = site.browser()
    hosted = {path: location(browser.send(path)) for path in ("/a?x=1", "/b?y=2")}
    assert len(browser.cookies) == 2 + 2 * len(hosted)
    for path, page in hosted.items():
        answer = browser.send(browser.sign_in(page))
        assert location(answer) == site.host + path


def test_attempts_are_not_limited(site: Site) -> None:
    browser = site.browser()
    for number in range(50):
        assert browser.send(f"/{number}").status == 302
    assert len(browser.cookies) == 2 + 2 * 50


@pytest.mark.parametrize(("name", "leads_away"), [("site", True), ("strict", False)])
def test_the_address_in_the_state_is_not_signed(request: pytest.FixtureRequest, name: str, leads_away: bool) -> None:
    site: Site = request.getfixturevalue(name)
    browser = site.browser()
    page = urlsplit(location(browser.send("/orders")))
    query = dict(parse_qsl(page.query))
    state = json.loads(base64.urlsafe_b64decode(query["state"] + "=="))
    state["url"] = "https://evil.example/"
    query["state"] = base64.urlsafe_b64encode(json.dumps(state).encode()).decode().rstrip("=")
    answer = browser.send(browser.sign_in(page._replace(query=urlencode(query)).geturl()))
    if leads_away:
        assert location(answer) == "https://evil.example/"
    else:
        assert answer.status == 401


def test_a_callback_that_cannot_be_completed_is_a_line_of_text(site: Site) -> None:
    browser = site.browser()
    callback = browser.sign_in(location(browser.send("/orders")))
    assert browser.send(callback).status == 302
    for url in (callback, "/callback?error=access_denied&state=x"):
        answer = browser.send(url)
        assert (answer.status, answer.body) == (401, b"OAuth flow failed.")


def test_redirect_uri_and_return_address_come_from_the_host_header(site: Site) -> None:
    page = location(site.browser().send("/orders", headers=[("host", "evil.example")]))
    assert parse_qs(urlsplit(page).query)["redirect_uri"] == ["http://evil.example/callback"]


def test_calls_of_scripts_are_redirected_unless_they_are_denied(site: Site, strict: Site) -> None:
    assert site.browser().send("/api", headers=CALL).status == 302
    assert site.browser().send("/api", headers=[*CALL, ("authorization", "Bearer x")]).status == 302
    assert site.browser().send("/orders", "POST", body=b"a=1").status == 302
    assert strict.browser().send("/api", headers=CALL).status == 401


def test_a_token_that_passes_through_is_not_verified(strict: Site) -> None:
    assert strict.browser().send("/api", headers=[*CALL, ("authorization", "Bearer forged")]).status == 200


def test_requests_of_other_sites_are_accepted(site: Site) -> None:
    browser = site.browser()
    browser.visit("/orders")
    other = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")]
    assert browser.send("/orders", "POST", other, b"a=1").status == 200
    assert browser.send("/signout", headers=other).status == 302
    assert browser.cookies == {}, "signed out by another site"


def test_a_forged_identity_header_reaches_the_application(site: Site) -> None:
    browser = site.browser()
    browser.visit("/orders")
    assert received(browser.send("/orders", headers=[("x-auth-sub", "root")]))["x-auth-sub"] == "root"


def test_cookies_are_accepted_after_a_sign_out(site: Site) -> None:
    browser = site.browser()
    browser.visit("/orders")
    copy = dict(browser.cookies)
    browser.send("/signout")
    browser.cookies = copy
    assert browser.send("/orders").status == 200
    browser.cookies = {"RefreshToken": copy["RefreshToken"]}
    assert browser.send("/orders").status == 200
    assert "BearerToken" in browser.cookies, "renewed"
    browser.pages.manage("AdminUserGlobalSignOut", Username=EMAIL)
    browser.cookies = dict(copy)
    assert browser.send("/orders").status == 200, "signed out by an administrator"


def test_the_sign_out_does_not_fit_the_logout_endpoint_of_cognito(strict: Site) -> None:
    browser = strict.browser()
    browser.visit("/orders")
    target = location(browser.send("/signout"))
    assert {"client_id", "id_token_hint", "post_logout_redirect_uri"} == set(parse_qs(urlsplit(target).query))
    answer = web.get(target)
    assert (answer.status, answer.json()["error_description"]) == (400, "logout_uri is required.")


def test_nothing_counts_what_the_filter_refuses_by_reason(site: Site) -> None:
    shown = web.get(f"{site.envoy.admin}/stats?filter=oauth").body.decode()
    counters = set(re.findall(r"^http\.site\.(\w+):", shown, re.MULTILINE))
    assert {"oauth_success", "oauth_failure", "oauth_unauthorized_rq", "oauth_refreshtoken_success"} <= counters


def test_a_live_session_survives_an_outage_of_cognito_and_a_sign_in_does_not(stage: Stage) -> None:
    pages = HostedPages(stage)
    site = Site(stage, pages, "outage", {})
    browser = site.browser()
    browser.visit("/orders")
    pages.child.stop(5)
    assert browser.send("/orders").status == 200
    browser.cookies = {"RefreshToken": browser.cookies["RefreshToken"]}
    assert location(browser.send("/orders")).startswith(f"{pages.url}/oauth2/authorize?"), "a renewal"
    other = site.browser()
    state = parse_qs(urlsplit(location(other.send("/x"))).query)["state"]
    answer = other.send("/callback?" + urlencode({"code": "x", "state": state[0]}))
    assert (answer.status, answer.body) == (401, b"OAuth flow failed.")


def test_without_keys_jwt_authn_refuses_a_new_session(stage: Stage, pages: HostedPages) -> None:
    keys = {"http_uri": {"uri": f"{pages.url}/missing.json", "cluster": "cognito", "timeout": "1s"}}
    verify = {"name": "envoy.filters.http.jwt_authn", "typed_config": {
        "@type": f"{TYPES}.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"cognito": {"remote_jwks": keys}},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "cognito"}}]}}
    answer, paths = Site(stage, pages, "keys", {}, after=[verify]).browser().visit("/orders")
    assert paths[-1] == "/orders"
    assert (answer.status, answer.body) == (401, b"Jwks remote fetch is failed")


def test_large_tokens_are_split_only_on_request(site: Site, strict: Site, pages: HostedPages) -> None:
    pages.join_groups(120)
    sizes: dict[str, dict[str, int]] = {}
    for name, one in (("site", site), ("strict", strict)):
        browser = one.browser()
        answer, _ = browser.visit("/orders")
        assert answer.status == 200
        sizes[name] = {key: len(key) + 1 + len(value) for key, value in browser.cookies.items()}
    assert max(sizes["site"].values()) > 4096, "a browser drops it"
    assert max(sizes["strict"].values()) <= 4096
    assert "BearerToken_chunks" in sizes["strict"]


def routes_of_the_guide(marker: str) -> list[Node]:
    """Routes that docs/migrate.md shows in the one snippet that contains `marker`."""
    guide = (ROOT / "docs" / "migrate.md").read_text()
    snippets = re.findall(r"^```yaml\n(routes:.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    [shown] = [snippet for snippet in snippets if marker in snippet]
    routes: list[Node] = yaml.safe_load(shown)["routes"]
    return routes


def test_both_filters_can_be_in_one_envoy(stage: Stage, pages: HostedPages) -> None:
    program = stage.authz("authz", "--account-api=false")
    check = {"name": "envoy.filters.http.ext_authz", "typed_config": {
        "@type": f"{TYPES}.filters.http.ext_authz.v3.ExtAuthz", "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}}}}
    site = Site(stage, pages, "both", {}, after=[check], routes=routes_of_the_guide("FilterConfig"),
                addresses={"authz": program.bound("grpc")})
    assert site.browser().send("/auth/login").status == 200, "neither filter"
    answer = site.browser().send("/reports")
    assert (answer.status, answer.json()["reason"]) == (401, "missing_credential"), "cognito-authz"
    assert site.browser().send("/reports", headers=[*CALL, *stage.keys.bearer()]).status == 200
    answer, paths = site.browser().visit("/orders")
    assert (answer.status, paths) == (200, ["/orders", "hosted page", "/callback", "/orders"]), "the oauth2 filter"


def test_the_old_cookies_are_deleted(stage: Stage, pages: HostedPages, site: Site) -> None:
    [route] = routes_of_the_guide("response_headers_to_add")
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    route["typed_per_filter_config"] = {"envoy.filters.http.oauth2": off}
    old = site.browser()
    old.visit("/orders")
    browser = Site(stage, pages, "deletion", {}, routes=[route]).browser()
    browser.cookies = dict(old.cookies)
    assert len(browser.cookies) == 5
    assert browser.send("/orders").status == 200
    assert browser.cookies == {}
