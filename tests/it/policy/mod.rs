//! Policy files over a gRPC connection: pools, policies, routes and metrics.
//!
//! - [`headers`]: headers for upstream; [`metadata`]: dynamic metadata; [`payloads`]: malformed payloads.
//! - [`shadow`]: shadow mode; [`cross_origin`]: refusals for pages of other origins; [`places`]: places of the credential.
//! - [`json_rpc`]: requirements for the messages in the body.
//! - [`form`]: the form of the file, and its JSON Schema; [`series`]: series of the metrics.

mod cross_origin;
mod form;
mod headers;
mod json_rpc;
mod metadata;
mod payloads;
mod places;
mod series;
mod shadow;
mod sign_in;

use serde_json::{Value, json};

use crate::support::client::{Answer, Ask, connect, get, metric};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::TestApp;
use crate::support::token::{CLIENT, OTHER_ISSUER, OTHER_POOL, SUB, SigningKey, TokenBuilder, jwks, unix_now};
use crate::support::{PATIENCE, eventually};
use tonic::transport::Channel;

/// File with two pools and most members. `KEYS` stands for the JWKS URL of the second pool, `CLIENT` for the default app
/// client.
pub(super) const FILE: &str = r#"
pools:
  partners:
    user_pool_id: eu-central-1_Other0002
    client_ids: [partner, guest]
    jwks_url: KEYS
    token_use: any
default: members
remove_authorization: false
claim_headers:
- {claim: "custom:tenant", header: x-tenant}
- {claim: [address, city], header: x-auth-city}
- {claim: roles, header: x-roles, list: repeated}
- {claim: limits, header: x-limits, list: json}
- {claim: "https://example.com/teams", header: x-teams}
- {claim: vip, header: x-vip}
whole_claims_header: x-claims
policies:
  members: {}
  own: {pools: [default]}
  orders:
    scopes: {any: [orders/read, orders/write], all: [openid]}
    resource_metadata: https://api.example.com/.well-known/oauth-protected-resource
  admin: {groups: {any: [admins]}, clients: [CLIENT]}
  fresh: {max_auth_age: 5m, acr: [mfa, phr]}
  open: {public: true, headers: {x-gate: open}, remove_authorization: true}
  guests: {optional: true, headers: {x-gate: guests}, remove_authorization: true}
  pages: {cors_preflight: allow, headers: {x-gate: pages}}
  tenant: {claims: [{claim: "custom:tenant", equals: {segment: tenant}}], token_use: id}
  direct: {allow_delegated: false, audiences: ["https://api.example.com"]}
routes:
- {path_prefix: /own, policy: own}
- {path_prefix: /orders, policy: orders}
- {path_prefix: /admin, policy: admin}
- {path: /admin/health, method: [GET, HEAD], policy: open}
- {path: /me/password, policy: fresh}
- {path_prefix: /open, policy: open}
- {path_prefix: /guests, policy: guests}
- {path_prefix: /pages, policy: pages}
- {path_prefix: "/tenants/{tenant}", policy: tenant}
- {path_prefix: /direct, policy: direct}
- {host: admin.test, policy: admin}
"#;

struct Stage {
    app: TestApp,
    channel: Channel,
    keys: JwksServer,
    other_keys: JwksServer,
    file: PolicyFile,
}

impl Stage {
    /// Starts a service, and waits until it has all keys. The default pool has the shared key, `partners` the other key.
    async fn new(text: &str) -> Self {
        Self::with(text, &[]).await
    }

    /// As [`Stage::new`], with more flags.
    async fn with(text: &str, more: &[&str]) -> Self {
        let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
        let other_keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::other()]))).await;
        let file = PolicyFile::new(&text.replace("KEYS", &other_keys.url).replace("CLIENT", CLIENT));
        let flags = ["--config", &file.path(), "--jwks-url", &keys.url, "--token-use", "any"];
        let app = TestApp::start(&[&flags, more].concat());
        eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
        let channel = connect(&app.grpc[0]).await;
        Self { app, channel, keys, other_keys, file }
    }

    async fn ask(&self, ask: Ask) -> Answer {
        ask.of(&self.channel).await
    }

    /// Value of `checks_total` with these labels.
    async fn counted(&self, decision: &str, policy: &str, pool: &str, reason: &str) -> f64 {
        let labels = format!("decision=\"{decision}\",policy=\"{policy}\",pool=\"{pool}\",reason=\"{reason}\"");
        metric(&self.app.admin, &format!("checks_total{{{labels}}}")).await
    }
}

/// Signs a token of the default pool.
#[expect(clippy::needless_pass_by_value, reason = "tables of tokens read better")]
fn ours(token: TokenBuilder) -> String {
    token.sign(SigningKey::shared())
}

/// Returns a token of `partners`, to be signed with the other key.
fn theirs() -> TokenBuilder {
    TokenBuilder::access().claim("iss", OTHER_ISSUER).claim("client_id", "partner")
}

#[tokio::test]
async fn a_token_selects_its_pool_by_its_issuer() {
    let stage = Stage::new(FILE).await;
    let (our, their) = (ours(TokenBuilder::access()), theirs().sign(SigningKey::other()));
    for (token, path, verdict, requirement) in [
        (&our, "/", (200, ""), ""),
        (&their, "/", (200, ""), ""),
        (&our, "/own", (200, ""), ""),
        (&their, "/own", (403, "claim_mismatch"), "pools"),
        (&their, "/owner", (200, ""), ""),
        // Each pool has its own keys, app clients and token uses.
        (&theirs().sign(SigningKey::shared()), "/", (401, "unknown_kid"), ""),
        (&TokenBuilder::access().sign(SigningKey::other()), "/", (401, "unknown_kid"), ""),
        (&theirs().header("kid", "c2hhcmVk+/=").sign(SigningKey::other()), "/", (401, "unknown_kid"), ""),
        (&theirs().claim("client_id", CLIENT).sign(SigningKey::other()), "/", (401, "wrong_client"), ""),
        (&ours(TokenBuilder::access().claim("client_id", "partner")), "/", (401, "wrong_client"), ""),
        (&theirs().claim("client_id", "guest").sign(SigningKey::other()), "/", (200, ""), ""),
        (
            &theirs().claim("iss", format!("{OTHER_ISSUER}/")).sign(SigningKey::other()),
            "/",
            (401, "unknown_issuer"),
            "",
        ),
        (&theirs().claim("iss", OTHER_POOL).sign(SigningKey::other()), "/", (401, "unknown_issuer"), ""),
    ] {
        let answer = stage.ask(Ask::get(path).bearer(token)).await;
        assert_eq!((answer.verdict(), answer.text("requirement")), (verdict, requirement), "{path}");
    }
    let updated = "https://issuer-cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Other0002";
    let token = theirs().claim("iss", updated).sign(SigningKey::other());
    assert_eq!(stage.ask(Ask::get("/").bearer(&token)).await.status, 200, "both formats of the issuer are accepted");
    assert_eq!(stage.counted("deny", "own", "partners", "claim_mismatch").await, 1.0);
    assert_eq!(stage.counted("allow", "members", "partners", "").await, 4.0);
    assert_eq!(stage.counted("allow", "own", "default", "").await, 1.0);
    assert_eq!((stage.keys.requests(), stage.other_keys.requests()), (1, 1), "no token causes a fetch");
}

#[tokio::test]
async fn a_denial_names_the_requirement_that_fails() {
    let stage = Stage::new(FILE).await;
    let access = TokenBuilder::access;
    let tenant = |tenant: &str| TokenBuilder::id().claim("custom:tenant", tenant);
    let ago = |seconds: i64| unix_now() - seconds;
    for (path, token, verdict, requirement) in [
        ("/orders/7", access().claim("scope", "openid orders/write"), (200, ""), ""),
        ("/orders", access().claim("scope", "openid"), (403, "insufficient_scope"), "scopes"),
        ("/orders", access().claim("scope", "orders/read"), (403, "insufficient_scope"), "scopes"),
        ("/orders", access().claim("scope", "openid orders/reads"), (403, "insufficient_scope"), "scopes"),
        ("/admin", access().claim("cognito:groups", json!(["users", "admins"])), (200, ""), ""),
        ("/admin", access().claim("cognito:groups", json!(["Admins"])), (403, "insufficient_group"), "groups"),
        ("/admin", access(), (403, "insufficient_group"), "groups"),
        ("/tenants/acme", tenant("acme"), (200, ""), ""),
        ("/tenants/acme/orders?tenant=other", tenant("acme"), (200, ""), ""),
        ("/tenants/acme%20inc/", tenant("acme inc"), (200, ""), ""),
        ("/tenants/other/acme", tenant("acme"), (403, "claim_mismatch"), "claims.custom:tenant"),
        ("/tenants/Acme", tenant("acme"), (403, "claim_mismatch"), "claims.custom:tenant"),
        ("/tenants/acme", tenant("ABSENT"), (403, "claim_mismatch"), "claims.custom:tenant"),
        ("/tenants/acme", access().claim("custom:tenant", "acme"), (403, "claim_mismatch"), "token_use"),
        ("/direct", access().claim("aud", json!(["https://api.example.com"])), (200, ""), ""),
        ("/direct", access().claim("aud", "https://api.example.org"), (403, "claim_mismatch"), "audiences"),
        ("/direct", access(), (403, "claim_mismatch"), "audiences"),
        (
            "/direct",
            access().claim("aud", "https://api.example.com").claim("act", json!({"sub": "agent"})),
            (403, "claim_mismatch"),
            "allow_delegated",
        ),
        ("/me/password", access().claim("acr", "mfa").claim("auth_time", ago(290)), (200, ""), ""),
        (
            "/me/password",
            access().claim("acr", "mfa").claim("auth_time", ago(310)),
            (401, "auth_too_old"),
            "max_auth_age",
        ),
        ("/me/password", access().claim("acr", "pwd"), (401, "auth_too_old"), "acr"),
    ] {
        let answer = stage.ask(Ask::get(path).bearer(&ours(token))).await;
        assert_eq!((answer.verdict(), answer.text("requirement")), (verdict, requirement), "{path}");
        assert!(!answer.text("policy").is_empty(), "{path}");
        assert_eq!(answer.text("decision"), if verdict.0 == 200 { "allow" } else { "deny" });
        // A denial contains no claim of the token.
        assert_eq!(answer.text("sub"), if verdict.0 == 200 { SUB } else { "" });
    }
    let partner = theirs().claim("cognito:groups", json!(["admins"])).sign(SigningKey::other());
    let answer = stage.ask(Ask::get("/admin").bearer(&partner)).await;
    assert_eq!((answer.text("requirement"), answer.text("policy")), ("clients", "admin"));
    // A policy that Envoy names has no route, and therefore no path segments to compare with.
    let answer = stage.ask(Ask::get("/tenants/acme").policy("tenant").bearer(&ours(tenant("acme")))).await;
    assert_eq!((answer.verdict(), answer.text("requirement")), ((403, "claim_mismatch"), "claims.custom:tenant"));
    assert_eq!(stage.counted("deny", "admin", "default", "insufficient_group").await, 2.0);
    assert_eq!(stage.counted("deny", "tenant", "default", "claim_mismatch").await, 5.0);
    assert_eq!(stage.counted("allow", "tenant", "default", "").await, 3.0);
}

#[tokio::test]
async fn a_challenge_names_what_the_client_needs() {
    let stage = Stage::new(FILE).await;
    let metadata = "resource_metadata=\"https://api.example.com/.well-known/oauth-protected-resource\"";
    let token = ours(TokenBuilder::access());
    let challenge = async |ask: Ask| stage.ask(ask).await.headers.get("www-authenticate").cloned();
    let expected = format!(
        "Bearer realm=\"api\", error=\"insufficient_scope\", error_description=\"The token lacks a scope that is \
         needed here.\", scope=\"openid orders/read orders/write\", {metadata}"
    );
    assert_eq!(challenge(Ask::get("/orders").bearer(&token)).await, Some(expected));
    assert_eq!(challenge(Ask::get("/orders")).await, Some(format!("Bearer realm=\"api\", {metadata}")));
    let bad = challenge(Ask::get("/orders").bearer("x")).await.unwrap();
    assert!(bad.contains("error=\"invalid_token\"") && bad.ends_with(metadata), "{bad}");
    assert_eq!(challenge(Ask::get("/")).await.unwrap(), "Bearer realm=\"api\"");
    let step_up = "Bearer realm=\"api\", error=\"insufficient_user_authentication\", error_description=\"A more recent \
                   or a stronger sign-in is needed here.\", acr_values=\"mfa phr\", max_age=\"300\"";
    assert_eq!(challenge(Ask::get("/me/password").bearer(&token)).await.unwrap(), step_up);
    // Another token would not help.
    for path in ["/admin", "/tenants/x", "/x/../admin"] {
        assert_eq!(challenge(Ask::get(path).bearer(&token)).await, None, "{path}");
    }
}

#[tokio::test]
async fn a_policy_named_by_envoy_takes_precedence_over_routes() {
    let stage = Stage::new(FILE).await;
    let admin = ours(TokenBuilder::access().claim("cognito:groups", json!(["admins"])));
    let user = ours(TokenBuilder::access());
    for (ask, verdict, policy) in [
        (Ask::get("/admin"), (403, "insufficient_group"), "admin"),
        (Ask::get("/admin").policy("members"), (200, ""), "members"),
        (Ask::get("/admin").policy("default"), (200, ""), "members"),
        (Ask::get("/open").policy("admin"), (403, "insufficient_group"), "admin"),
        (Ask::get("/").policy("unheard-of"), (403, "unknown_policy"), "unheard-of"),
        (Ask::get("/").policy(""), (403, "unknown_policy"), "members"),
        (Ask::get("/open").policy("Open"), (403, "unknown_policy"), "Open"),
        // Envoy may have selected the policy by another reading of the path.
        (Ask::get("/x/../y").policy("members"), (403, "unsafe_path"), "members"),
        (Ask::get("/x/../y").policy("admin"), (403, "unsafe_path"), "admin"),
        (Ask::get("/x;/../y").policy("unheard-of"), (403, "unknown_policy"), "unheard-of"),
        // An unsafe path is denied before a policy is selected. The metadata names the default policy.
        (Ask::get("/x/../admin"), (403, "unsafe_path"), "members"),
        (Ask::get("//admin"), (403, "unsafe_path"), "members"),
        (Ask::get("/%61dmin"), (403, "unsafe_path"), "members"),
        (Ask::get("/open%2f..%2fadmin"), (403, "unsafe_path"), "members"),
        (Ask::get("/open;/../admin"), (403, "unsafe_path"), "members"),
        (Ask::get("/open/?next=/../admin;x//"), (200, ""), "open"),
        (Ask::get("/admins"), (200, ""), "members"),
        (Ask::get("/Admin"), (200, ""), "members"),
        (Ask::get("/x").host("ADMIN.test.:8443"), (403, "insufficient_group"), "admin"),
        (Ask::get("/open").host("admin.test"), (200, ""), "open"),
        (Ask::get("/x").host("sub.admin.test"), (200, ""), "members"),
    ] {
        let answer = stage.ask(ask.clone().bearer(&user)).await;
        assert_eq!((answer.verdict(), answer.text("policy")), (verdict, policy), "{}", ask.target());
        if verdict.1 == "insufficient_group" {
            assert_eq!(stage.ask(ask.bearer(&admin)).await.status, 200);
        }
    }
    assert_eq!(stage.counted("deny", "", "", "unsafe_path").await, 7.0);
    assert_eq!(stage.counted("deny", "", "", "unknown_policy").await, 4.0);
    let (_, metrics) = get(&stage.app.admin, "/metrics").await;
    assert!(!metrics.contains("unheard-of"), "an unknown name is a label");
    // All checks but two found their token in the cache.
    assert_eq!(metric(&stage.app.admin, "token_cache_entries").await, 2.0);
    assert_eq!(metric(&stage.app.admin, "token_cache_misses_total").await, 2.0);
}

#[tokio::test]
async fn the_admin_port_shows_the_pools_and_the_policy_file() {
    let stage = Stage::new(FILE).await;
    let (_, readyz) = get(&stage.app.admin, "/readyz").await;
    assert_eq!(serde_json::from_str::<Value>(&readyz).unwrap(), json!({"status": "ready", "pending": []}));
    let (_, config) = get(&stage.app.admin, "/config").await;
    let config: Value = serde_json::from_str(&config).unwrap();
    let pools: Vec<_> = config["pools"].as_array().unwrap().iter().map(|pool| &pool["name"]).collect();
    assert_eq!(pools, ["default", "partners"]);
    assert_eq!(config["pools"][1]["id"], OTHER_POOL);
    assert_eq!(config["pools"][1]["jwks_urls"][0], format!("{}/", stage.other_keys.url));
    assert!(config["pools"][1]["issuers"].as_array().unwrap().contains(&OTHER_ISSUER.into()));
    assert_eq!(config["policy_file"]["path"], stage.file.path());
    assert_eq!(config["policy_file"]["content"]["policies"]["own"]["pools"], json!(["default"]));
    assert_eq!(config["policy_file"]["content"]["routes"].as_array().unwrap().len(), 11);
}

#[tokio::test]
async fn a_pool_without_keys_does_not_delay_other_pools() {
    let other_keys = JwksServer::start(Reply::status(500)).await;
    let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let file = PolicyFile::new(&FILE.replace("KEYS", &other_keys.url).replace("CLIENT", CLIENT));
    let app = TestApp::start(&["--config", &file.path(), "--jwks-url", &keys.url, "--token-use", "any"]);
    let channel = connect(&app.grpc[0]).await;
    let token = ours(TokenBuilder::access());
    eventually("keys", PATIENCE, async || Ask::get("/").bearer(&token).of(&channel).await.status == 200).await;
    let their = theirs().sign(SigningKey::other());
    let answer = Ask::get("/").bearer(&their).of(&channel).await;
    assert_eq!((answer.verdict(), &*answer.headers["retry-after"]), ((503, "keys_unavailable"), "5"));
    let (status, body) = get(&app.admin, "/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["pending"]), (503, &json!(["keys of the pool partners"])));
    other_keys.answers(Reply::ok(jwks(&[SigningKey::other()])));
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    assert_eq!(Ask::get("/").bearer(&their).of(&channel).await.status, 200);
}

#[tokio::test]
async fn two_hundred_pools_do_not_multiply_the_series() {
    let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let policies: Vec<String> = (0..20).map(|policy| format!("p{policy}: {{}}")).collect();
    let pool = |pool: usize| {
        let url = format!("{}/{pool}", keys.url);
        format!("t{pool}: {{user_pool_id: eu-west-1_Tenant{pool:03}, client_ids: c{pool}, jwks_url: '{url}'}}")
    };
    let pools: Vec<String> = (0..200).map(pool).collect();
    let (policies, pools) = (policies.join(", "), pools.join(", "));
    let file = PolicyFile::new(&format!("default: p0\npolicies: {{{policies}}}\npools: {{{pools}}}\n"));
    let app = TestApp::start(&["--config", &file.path(), "--jwks-url", &keys.url]);
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    let channel = connect(&app.grpc[0]).await;
    for pool in [0, 99, 199] {
        let token = |client: usize| {
            let issuer = format!("https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Tenant{pool:03}");
            ours(TokenBuilder::access().claim("iss", issuer).claim("client_id", format!("c{client}")))
        };
        assert_eq!(Ask::get("/").bearer(&token(pool)).of(&channel).await.status, 200);
        assert_eq!(Ask::get("/").bearer(&token(pool + 1)).of(&channel).await.verdict(), (401, "wrong_client"));
    }
    let (_, metrics) = get(&app.admin, "/metrics").await;
    let series = metrics.lines().filter(|line| !line.starts_with('#')).count();
    // 201 pools * 20 policies * 15 reasons would be sixty thousand.
    assert!((3_000..6_000).contains(&series), "{series}");
    let label = "decision=\"deny\",policy=\"p0\",pool=\"t99\",reason=\"wrong_client\"";
    assert_eq!(metric(&app.admin, &format!("checks_total{{{label}}}")).await, 1.0);
}
