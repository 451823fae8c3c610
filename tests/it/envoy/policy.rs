//! Policy files through a real Envoy: who chooses a policy, what reaches the application and what does not, and how gRPC
//! callers are told.

use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{Stage, published_key};
use crate::support::client::connect;
use crate::support::envoy::{Bootstrap, LISTENERS};
use crate::support::http1::{bearer, fetch, send};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::token::{OTHER_ISSUER, SUB, SigningKey, TokenBuilder, unix_now};
use crate::support::upstream::{Seen, Upstream};

/// Headers under the prefix, which the shipped Envoy lets us set, and others.
const FILE: &str = r#"default: members
claim_headers:
- {claim: "custom:tenant", header: x-tenant}
- {claim: "custom:tenant", header: x-auth-tenant}
- {claim: roles, header: x-auth-roles, list: repeated}
- {claim: roles, header: x-roles, list: repeated}
whole_claims_header: x-claims
policies:
  members: {}
  admin: {groups: {any: [admins]}}
  open: {public: true, headers: {x-gate: open, x-auth-gate: open}}
  guests: {optional: true, headers: {x-gate: guests}}
  pages: {cors_preflight: allow, headers: {x-gate: pages}}
  sealed: {remove_authorization: true}
routes:
- {path_prefix: /admin, policy: admin}
- {path_prefix: /open, policy: open}
- {path_prefix: /guests, policy: guests}
- {path_prefix: /pages, policy: pages}
- {path_prefix: /sealed, policy: sealed}
"#;

/// A regular expression of the headers that are ours and not under the prefix, in every spelling.
const OURS: &str = "x[-_.](tenant|roles|claims|gate)";

impl Stage {
    /// With an Envoy that lets the service change the headers of the file.
    async fn with_file(file: &PolicyFile, keys: &JwksServer, change: impl FnOnce(&mut Bootstrap)) -> Self {
        Self::as_shipped(file, keys, |bootstrap| {
            for listener in LISTENERS {
                bootstrap.let_change_headers(listener, OURS);
            }
            change(bootstrap);
        })
        .await
    }

    async fn as_shipped(file: &PolicyFile, keys: &JwksServer, change: impl FnOnce(&mut Bootstrap)) -> Self {
        Self::start(&["--config", &file.path(), "--jwks-url", &keys.url], change).await
    }
}

/// Every header of a request that some application would take for one of ours, in order.
fn ours(seen: &Seen) -> Vec<(String, String)> {
    let spelled = |name: &str| name.replace(['_', '.'], "-");
    let is_ours =
        |name: &str| name.starts_with("x-auth-") || ["x-tenant", "x-roles", "x-claims", "x-gate"].contains(&name);
    let mut ours: Vec<_> = seen.headers.iter().filter(|(name, _)| is_ours(&spelled(name))).cloned().collect();
    ours.sort_by(|(one, _), (other, _)| one.cmp(other));
    ours
}

fn sign(token: &TokenBuilder) -> String {
    token.sign(SigningKey::shared())
}

fn preflight() -> Vec<String> {
    vec!["Origin: https://app.test".into(), "Access-Control-Request-Method: PUT".into()]
}

#[tokio::test]
async fn envoys_routes_and_those_of_the_file_choose() {
    let (file, keys) = (PolicyFile::new(FILE), published_key().await);
    let stage = Stage::with_file(&file, &keys, |bootstrap| {
        for listener in LISTENERS {
            for policy in ["admin", "open", "guests", "default", "nonsense"] {
                let settings = json!({"check_settings": {"context_extensions": {"policy": policy}}});
                bootstrap.add_route(listener, &format!("/named/{policy}"), Some(settings), None);
            }
        }
    })
    .await;
    let user = bearer(&sign(&TokenBuilder::access()));
    let admin = bearer(&sign(&TokenBuilder::access().claim("cognito:groups", json!(["admins"]))));
    let bad = bearer(&sign(&TokenBuilder::access().expires_in(-60)));
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let before = stage.upstream.seen().len();
        let mut reached = Vec::new();
        for (path, none, with_user, with_admin, with_bad) in [
            ("/", "missing_credential", "", "", "expired"),
            ("/admin/x?y", "missing_credential", "insufficient_group", "", "expired"),
            ("/administrators", "missing_credential", "", "", "expired"),
            ("/open", "", "", "", ""),
            ("/guests", "", "", "", "expired"),
            ("/named/default", "missing_credential", "", "", "expired"),
            ("/named/admin", "missing_credential", "insufficient_group", "", "expired"),
            ("/named/open", "", "", "", ""),
            ("/named/guests", "", "", "", "expired"),
            ("/named/nonsense", "unknown_policy", "unknown_policy", "unknown_policy", "unknown_policy"),
            // Envoy resolves this one before anybody is asked.
            ("/open/../admin", "missing_credential", "insufficient_group", "", "expired"),
            ("//admin", "missing_credential", "insufficient_group", "", "expired"),
        ] {
            for (lines, reason, sub) in
                [(&[][..], none, ""), (&[&user], with_user, SUB), (&[&admin], with_admin, SUB), (&[&bad], with_bad, "")]
            {
                let response = fetch(envoy, path, lines).await;
                let status = match reason {
                    "" => 200,
                    "insufficient_group" | "unknown_policy" => 403,
                    _ => 401,
                };
                assert_eq!(response.verdict(), (status, reason.to_owned()), "{listener} {path}");
                if status == 200 {
                    let seen = response.seen();
                    let sub = if path.ends_with("/open") { "" } else { sub };
                    assert_eq!(seen.header("x-auth-sub").join("+"), sub, "{path}");
                    reached.push(seen.path);
                }
            }
        }
        let arrived: Vec<_> = stage.upstream.seen()[before..].iter().map(|seen| seen.path.clone()).collect();
        assert_eq!(arrived, reached, "a refused request has reached the application");
    }
}

/// Envoy joins two `Host` lines; an application may take either of them for the host.
#[tokio::test]
async fn two_host_lines_do_not_pass_by_a_route_of_one() {
    let file = "default: open\npolicies: {open: {public: true}, admin: {groups: {any: [admins]}}}\n\
                routes: [{host: api.test, policy: admin}, {host: admin.test, policy: admin}]\n";
    let (file, keys) = (PolicyFile::new(file), published_key().await);
    let stage = Stage::as_shipped(&file, &keys, |_| ()).await;
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        assert_eq!(fetch(envoy, "/", &[""; 0]).await.verdict(), (401, "missing_credential".into()));
        for host in ["admin.test", "other.test", "api.test"] {
            let response = fetch(envoy, "/", &[format!("Host: {host}")]).await;
            assert_eq!(response.verdict(), (403, "no_http_request".into()), "{listener} {host}: {response:?}");
        }
    }
    assert!(stage.upstream.seen().is_empty(), "{:?}", stage.upstream.seen());
}

/// One line for each header that a client would like to be believed, in the spellings of applications.
const FORGED: [&str; 18] = [
    "x-auth-sub: root",
    "x-auth-tenant: root",
    "x_auth_tenant: root",
    "X.Auth-Tenant: root",
    "x-auth-roles: root",
    "x_auth_roles: root",
    "x-auth-gate: root",
    "X_AUTH_GATE: root",
    "x-tenant: root",
    "X-TENANT: root",
    "x_tenant: root",
    "x.tenant: root",
    "x-roles: root",
    "x_roles: root",
    "x-claims: root",
    "x_claims: root",
    "x-gate: root",
    "X_Gate: root",
];

/// A method, a path, lines of a request, and the headers of ours that the application gets.
type Case = (&'static str, &'static str, Vec<String>, Vec<(&'static str, &'static str)>);

/// Listeners that show the service everything, and let it change everything.
const ALL_HEADERS: [&str; 2] = ["all_headers_uds", "all_headers_tcp"];

#[tokio::test]
async fn no_forged_copy_reaches_the_application_whoever_passes() {
    let (file, keys) = (PolicyFile::new(FILE), published_key().await);
    let stage = Stage::with_file(&file, &keys, |bootstrap| {
        for listener in LISTENERS {
            bootstrap.let_forged_headers_in(listener);
            bootstrap.add_route(listener, "/unasked", Some(json!({"disabled": true})), Some(json!({})));
        }
        for (listener, copy) in LISTENERS.into_iter().zip(ALL_HEADERS) {
            bootstrap.copy_listener(listener, copy);
            for setting in ["allowed_headers", "decoder_header_mutation_rules"] {
                assert!(!bootstrap.ext_authz(copy)[setting].take().is_null());
            }
            bootstrap.show_headers(listener, OURS);
        }
        bootstrap.ext_authz(ALL_HEADERS[1])["encode_raw_headers"] = true.into();
    })
    .await;
    let token =
        sign(&TokenBuilder::access().claim("custom:tenant", "acme").claim("roles", json!(["reader", "writer", "a,b"])));
    let poor = sign(&TokenBuilder::access());
    let payload = |token: &str| token.split('.').nth(1).unwrap().to_owned();
    let (rich_payload, poor_payload) = (payload(&token), payload(&poor));
    let identity = |payload: &'static str| -> Vec<(&str, &str)> {
        vec![
            ("x-auth-client-id", crate::support::token::CLIENT),
            ("x-auth-scope", "aws.cognito.signin.user.admin"),
            ("x-auth-sub", SUB),
            ("x-auth-token-use", "access"),
            ("x-auth-username", SUB),
            ("x-claims", payload),
        ]
    };
    // Envoy adds values to the line that is there. A comma within a member is encoded, so that it is none between two.
    let rich: [(&str, &str); 4] = [
        ("x-auth-roles", "reader,writer,a%2Cb"),
        ("x-auth-tenant", "acme"),
        ("x-roles", "reader,writer,a%2Cb"),
        ("x-tenant", "acme"),
    ];
    let (rich_payload, poor_payload): (&str, &str) = (rich_payload.leak(), poor_payload.leak());
    let gate = |gate: &'static str| vec![("x-gate", gate)];
    let open = vec![("x-auth-gate", "open"), ("x-gate", "open")];
    let cases: [Case; 9] = [
        ("GET", "/", vec![bearer(&token)], [identity(rich_payload), rich.to_vec()].concat()),
        ("GET", "/", vec![bearer(&poor)], identity(poor_payload)),
        ("GET", "/open", vec![], open.clone()),
        ("GET", "/open", vec![bearer(&token)], open.clone()),
        ("GET", "/open", vec![bearer("garbage")], open),
        ("GET", "/guests", vec![], gate("guests")),
        ("GET", "/guests", vec![bearer(&poor)], [identity(poor_payload), gate("guests")].concat()),
        ("OPTIONS", "/pages", preflight(), gate("pages")),
        ("OPTIONS", "/pages", vec![bearer(&poor)], [identity(poor_payload), gate("pages")].concat()),
    ];
    for listener in LISTENERS.into_iter().chain(ALL_HEADERS) {
        let envoy = stage.envoy.address(listener);
        for forged in FORGED {
            // Where the service is not asked they all arrive: the rest of this test proves something.
            let seen = fetch(envoy, "/unasked", &[forged]).await.seen();
            assert_eq!(ours(&seen).len(), 1, "{forged}");
        }
        for (method, path, lines, expected) in &cases {
            let mut expected: Vec<_> =
                expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            expected.sort_by(|(one, _), (other, _)| one.cmp(other));
            let all: Vec<String> =
                FORGED.iter().chain(&FORGED).map(|line| (*line).to_owned()).chain(lines.clone()).collect();
            let single = FORGED.iter().map(|forged| [lines.clone(), vec![(*forged).to_owned()]].concat());
            for lines in single.chain([all]) {
                let seen = send(envoy, method, path, &lines).await.seen();
                assert_eq!(ours(&seen), expected, "{listener} {method} {path} {:?}", lines.last());
                assert_eq!(&seen.method, method);
            }
        }
    }
}

#[tokio::test]
async fn only_a_real_preflight_passes_where_the_service_is_shown_it() {
    let (file, keys) = (PolicyFile::new(FILE), published_key().await);
    let blind = "blind";
    let stage = Stage::with_file(&file, &keys, |bootstrap| {
        bootstrap.copy_listener(LISTENERS[1], blind);
        bootstrap.ext_authz(blind)["allowed_headers"]["patterns"] = json!([{"exact": "authorization"}]);
    })
    .await;
    let without = |at: usize| vec![preflight()[at].clone()];
    let with = |line: &str| [preflight(), vec![line.to_owned()]].concat();
    let envoy = stage.envoy.address(LISTENERS[0]);
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        assert_eq!(send(envoy, "OPTIONS", "/pages", &preflight()).await.seen().method, "OPTIONS");
    }
    assert_eq!(send(envoy, "OPTIONS", "/pages/7?x=1", &preflight()).await.seen().method, "OPTIONS");
    assert_eq!(
        send(envoy, "OPTIONS", "/pages", &with("Access-Control-Request-Headers: authorization")).await.status,
        200
    );
    let before = stage.upstream.seen().len();
    for (method, path, lines, reason) in [
        ("GET", "/pages", preflight(), "missing_credential"),
        ("PUT", "/pages", preflight(), "missing_credential"),
        ("OPTIONS", "/pages", without(0), "missing_credential"),
        ("OPTIONS", "/pages", without(1), "missing_credential"),
        ("OPTIONS", "/pages", with("cookie: session=1"), "missing_credential"),
        ("OPTIONS", "/pages", with("authorization: Bearer x"), "malformed_token"),
        ("OPTIONS", "/pages", with("Access-Control-Request-Method: GET"), "missing_credential"),
        ("OPTIONS", "/admin", preflight(), "missing_credential"),
        ("OPTIONS", "/", preflight(), "missing_credential"),
    ] {
        assert_eq!(
            send(envoy, method, path, &lines).await.verdict(),
            (401, reason.to_owned()),
            "{method} {path} {lines:?}"
        );
    }
    // An Envoy that does not show what makes it one: then it is a request like any other.
    let response = send(stage.envoy.address(blind), "OPTIONS", "/pages", &preflight()).await;
    assert_eq!(response.verdict(), (401, "missing_credential".into()));
    assert_eq!(stage.upstream.seen().len(), before, "a refused request has reached the application");
}

#[tokio::test]
async fn the_credential_stays_here_where_the_policy_says_so() {
    let (file, keys) = (PolicyFile::new(FILE), published_key().await);
    let stage = Stage::with_file(&file, &keys, |_| {}).await;
    let token = sign(&TokenBuilder::access());
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        for (path, expected) in [("/sealed", vec![]), ("/", vec![format!("Bearer {token}")])] {
            let seen = fetch(envoy, path, &[bearer(&token)]).await.seen();
            assert_eq!(
                (seen.header("authorization"), seen.header("x-auth-sub")),
                (expected.iter().map(String::as_str).collect(), vec![SUB])
            );
        }
    }
}

/// A trap: names outside the prefix have to be let through by Envoy, too. The shipped file drops what it does not know,
/// and with it our word against the client's. `disallow_is_error` turns that into a failure.
#[tokio::test]
async fn a_header_that_envoy_does_not_let_us_set() {
    let (file, keys) = (PolicyFile::new(FILE), published_key().await);
    let lenient = "lenient";
    let stage = Stage::as_shipped(&file, &keys, |bootstrap| {
        bootstrap.copy_listener(LISTENERS[1], lenient);
        let rules = &mut bootstrap.ext_authz(lenient)["decoder_header_mutation_rules"];
        assert_eq!(std::mem::replace(&mut rules["disallow_is_error"], false.into()), true);
    })
    .await;
    let token = bearer(&sign(&TokenBuilder::access().claim("custom:tenant", "acme")));
    let forged = "x-tenant: root";
    // What the shipped file's `disallow_is_error` is for.
    let seen = fetch(stage.envoy.address(lenient), "/", &[forged, &*token]).await.seen();
    assert_eq!((seen.header("x-tenant"), seen.header("x-auth-tenant")), (vec!["root"], vec!["acme"]));
    let before = stage.upstream.seen().len();
    for listener in LISTENERS {
        for lines in [&[forged, &*token][..], &[&*token]] {
            assert_eq!(fetch(stage.envoy.address(listener), "/", lines).await.status, 500);
        }
    }
    assert_eq!(stage.upstream.seen().len(), before);
}

#[tokio::test]
async fn paths_that_mean_two_things_do_not_get_past_an_envoy_that_leaves_them_alone() {
    let (file, keys) = (PolicyFile::new(FILE), published_key().await);
    let stage = Stage::with_file(&file, &keys, |bootstrap| {
        for listener in LISTENERS {
            bootstrap.leave_paths_alone(listener);
            let named = json!({"check_settings": {"context_extensions": {"policy": "guests"}}});
            bootstrap.add_route(listener, "/named", Some(named), None);
        }
    })
    .await;
    let admin = bearer(&sign(&TokenBuilder::access().claim("cognito:groups", json!(["admins"]))));
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let before = stage.upstream.seen().len();
        for path in [
            "/open/../admin",
            "/open/./admin",
            "/open/%2e%2e/admin",
            "/open/.%2E/admin",
            "//admin",
            "/open//admin",
            "/open/..",
            "/open%2f..%2fadmin",
            "/open%5c..%5cadmin",
            "/open\\..\\admin",
            "/%61dmin",
            "/open/..;/admin",
            "/open;x/admin",
            "/open/%00",
            "/open/%",
            "/open/%zz",
            "/open/%252e%252e/admin",
            "/open/%c0%ae%c0%ae/admin",
            "/open/%E9",
        ] {
            for lines in [&[][..], &[&*admin]] {
                assert_eq!(fetch(envoy, path, lines).await.verdict(), (403, "unsafe_path".into()), "{listener} {path}");
            }
        }
        assert_eq!(stage.upstream.seen().len(), before, "an unsafe path has reached the application");
        assert_eq!(fetch(envoy, "/open/caf%C3%A9?next=/../admin", &[""; 0]).await.seen().path, "/open/caf%C3%A9");
        // Envoy's reading of a path is no better than ours: the application's counts.
        assert_eq!(fetch(envoy, "/named/../admin", &[""; 0]).await.verdict(), (403, "unsafe_path".into()));
        assert_eq!(fetch(envoy, "/named/admin", &[""; 0]).await.status, 200);
    }
}

/// Policies that Envoy's routes name, and no route in the file.
const NAMED_BY_ENVOY: &str = "default: members
policies:
  members: {}
  admin: {groups: {any: [admins]}}
  open: {public: true}
  objects: {unsafe_paths: allow}
";

#[tokio::test]
async fn paths_are_judged_where_envoys_routes_alone_choose() {
    let (file, keys) = (PolicyFile::new(NAMED_BY_ENVOY), published_key().await);
    // As shipped: `/admin` names the policy `admin`, everything else has the default.
    let stage = Stage::as_shipped(&file, &keys, |bootstrap| {
        for listener in LISTENERS {
            for policy in ["open", "objects"] {
                let named = json!({"check_settings": {"context_extensions": {"policy": policy}}});
                bootstrap.add_route(listener, &format!("/{policy}"), Some(named), None);
            }
        }
    })
    .await;
    let member = bearer(&sign(&TokenBuilder::access()));
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let before = stage.upstream.seen().len();
        for path in [
            "/admin;x",
            "/;/admin",
            "/x;/admin",
            "/%2561dmin",
            "/admin%3Bx",
            "/admin%0a",
            "/admin%09",
            "/admin%3Fx",
            "/admin%23x",
            "/%25u0061dmin",
            "/admin%zz",
            "/%c1%a1dmin",
            "/open/%252e%252e/admin",
            "/open/..%3B/admin",
        ] {
            for lines in [&[][..], &[&*member]] {
                assert_eq!(fetch(envoy, path, lines).await.verdict(), (403, "unsafe_path".into()), "{listener} {path}");
            }
        }
        assert_eq!(stage.upstream.seen().len(), before, "an unsafe path has reached the application");
        for (path, verdict) in [
            ("/orders?x=;/../admin", (200, "")),
            ("/caf%C3%A9/100%25", (200, "")),
            ("/admin/users", (403, "insufficient_group")),
            ("/open/a", (200, "")),
            // Whoever switches it off trusts Envoy's reading, for this policy.
            ("/objects/a;b%3Fc", (200, "")),
        ] {
            let (status, reason) = verdict;
            let response = fetch(envoy, path, &[&member]).await;
            assert_eq!(response.status, status, "{listener} {path}: {response:?}");
            if status != 200 {
                assert_eq!(response.verdict().1, reason, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn grpc_callers_are_told_in_grpc() {
    let nobody = JwksServer::start(Reply::status(500)).await;
    let keys = published_key().await;
    let file = PolicyFile::new(&format!(
        "default: calls\npools: {{partners: {{user_pool_id: eu-central-1_Other0002, client_ids: any, jwks_url: '{}'}}}}\n\
         policies:\n  calls: {{scopes: {{all: [calls]}}, groups: {{any: [staff]}}, max_auth_age: 5m, claims: [{{claim: level, equals: 7}}]}}\n  \
         open: {{public: true}}\nroutes: [{{path: /grpc.health.v1.Health/Watch, policy: open}}]\n",
        nobody.url
    ));
    let upstream = Upstream::start_grpc().await;
    let stage = Stage::start_unready(&["--config", &file.path(), "--jwks-url", &keys.url], |bootstrap| {
        bootstrap.make_application_grpc(&upstream.address);
        for cluster in ["cognito_authz_uds", "cognito_authz_tcp"] {
            // A pool without keys is not ready; Envoy would not even ask.
            assert!(!bootstrap.cluster(cluster)["health_checks"].take().is_null());
        }
    })
    .await;
    let good =
        TokenBuilder::access().claim("scope", "calls").claim("cognito:groups", json!(["staff"])).claim("level", 7);
    let of = |token: TokenBuilder| token.sign(SigningKey::shared());
    let cases = [
        (String::new(), Code::Unauthenticated, "missing_credential"),
        ("garbage".into(), Code::Unauthenticated, "malformed_token"),
        (of(good.clone().claim("auth_time", unix_now() - 600)), Code::Unauthenticated, "auth_too_old"),
        (of(good.clone().claim("scope", "call")), Code::PermissionDenied, "insufficient_scope"),
        (of(good.clone().claim("cognito:groups", "ABSENT")), Code::PermissionDenied, "insufficient_group"),
        (of(good.clone().claim("level", 6)), Code::PermissionDenied, "claim_mismatch"),
        (of(good.clone().claim("username", "é".repeat(2_800))), Code::PermissionDenied, "identity_too_large"),
        (of(good.clone().claim("iss", OTHER_ISSUER)), Code::Unavailable, "keys_unavailable"),
    ];
    for listener in LISTENERS {
        let caller = HealthClient::<Channel>::new(connect(stage.envoy.address(listener)).await);
        let request = |token: &str| {
            let mut request = Request::new(HealthCheckRequest::default());
            if !token.is_empty() {
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            }
            request
        };
        let before = upstream.seen().len();
        for (token, code, reason) in &cases {
            let status = caller.clone().check(request(token)).await.unwrap_err();
            assert_eq!(status.code(), *code, "{reason}: {status:?}");
            let message: Value = serde_json::from_str(status.message()).unwrap();
            assert_eq!(message["reason"], *reason);
            assert_eq!(status.metadata().get("content-type").unwrap(), "application/grpc");
        }
        assert_eq!(upstream.seen().len(), before, "a refused call has reached the application");
        assert_eq!(caller.clone().check(request(&of(good.clone()))).await.unwrap().into_inner().status, 1);
        // A public method.
        let mut answers = caller.clone().watch(request("")).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().status, 1);
        assert_eq!(upstream.seen().len(), before + 2);
    }
}
