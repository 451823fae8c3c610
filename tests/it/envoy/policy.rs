//! Policy files behind Envoy: how a policy is selected, and which headers reach the application.

use serde_json::json;

use super::{Stage, published_key};
use crate::support::envoy::{Bootstrap, LISTENERS};
use crate::support::http1::{bearer, fetch, send};
use crate::support::jwks_server::JwksServer;
use crate::support::policy_file::PolicyFile;
use crate::support::token::{SUB, SigningKey, TokenBuilder};
use crate::support::upstream::Seen;

/// File with headers below `x-auth-`, which the shipped Envoy lets the service set, and with other headers.
pub(super) const FILE: &str = r#"default: members
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

/// Regular expression for the headers of [`FILE`] that are not below `x-auth-`, in every spelling.
const OURS: &str = "x[-_.](tenant|roles|claims|gate)";

impl Stage {
    /// Starts a service with a policy file, and an Envoy that lets it change the headers of [`OURS`].
    pub(super) async fn with_file(file: &PolicyFile, keys: &JwksServer, change: impl FnOnce(&mut Bootstrap)) -> Self {
        Self::as_shipped(file, keys, |bootstrap| {
            for listener in LISTENERS {
                bootstrap.let_change_headers(listener, OURS);
            }
            change(bootstrap);
        })
        .await
    }

    /// Starts a service with a policy file, and an Envoy that lets it change the shipped headers only.
    pub(super) async fn as_shipped(file: &PolicyFile, keys: &JwksServer, change: impl FnOnce(&mut Bootstrap)) -> Self {
        Self::start(&["--config", &file.path(), "--jwks-url", &keys.url], change).await
    }
}

/// Headers of a request that an application could take for a header of the service, in any spelling, sorted by name.
fn ours(seen: &Seen) -> Vec<(String, String)> {
    let spelled = |name: &str| name.replace(['_', '.'], "-");
    let is_ours =
        |name: &str| name.starts_with("x-auth-") || ["x-tenant", "x-roles", "x-claims", "x-gate"].contains(&name);
    let mut ours: Vec<_> = seen.headers.iter().filter(|(name, _)| is_ours(&spelled(name))).cloned().collect();
    ours.sort_by(|(one, _), (other, _)| one.cmp(other));
    ours
}

pub(super) fn sign(token: &TokenBuilder) -> String {
    token.sign(SigningKey::shared())
}

fn preflight() -> Vec<String> {
    vec!["Origin: https://app.test".into(), "Access-Control-Request-Method: PUT".into()]
}

#[tokio::test]
async fn routes_of_envoy_and_of_the_file_select_policies() {
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
            // Envoy normalizes these paths before the check.
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
        assert_eq!(arrived, reached, "a denied request has reached the application");
    }
}

/// Envoy joins two `Host` lines. An application may read either of them as the host.
#[tokio::test]
async fn a_second_host_line_does_not_bypass_a_route() {
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

/// Forged headers of a client, in spellings that applications treat as equal.
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

/// Method, path and lines of a request, and the headers of the service that the application gets.
type Case = (&'static str, &'static str, Vec<String>, Vec<(&'static str, &'static str)>);

/// Listeners that send the service every header, and let it change every header.
const ALL_HEADERS: [&str; 2] = ["all_headers_uds", "all_headers_tcp"];

#[tokio::test]
async fn no_forged_copy_of_a_header_reaches_the_application() {
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
    // Envoy joins repeated values with commas. A comma within a member is encoded, so it does not separate members.
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
            // The header reaches the application on a route without a check, so it is the service that removes it.
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
async fn only_a_complete_preflight_passes() {
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
    // If Envoy does not send the headers of a preflight, it is an ordinary request.
    let response = send(stage.envoy.address(blind), "OPTIONS", "/pages", &preflight()).await;
    assert_eq!(response.verdict(), (401, "missing_credential".into()));
    assert_eq!(stage.upstream.seen().len(), before, "a denied request has reached the application");
}

#[tokio::test]
async fn remove_authorization_hides_the_credential_from_the_application() {
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

/// Envoy must allow the service to set headers that are not below `x-auth-`. Otherwise it ignores them, and a forged
/// header of the client would reach the application. `disallow_is_error` turns that into a failed request.
#[tokio::test]
async fn a_header_that_envoy_does_not_let_the_service_set_fails_the_request() {
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
    // Without `disallow_is_error`, the forged header reaches the application.
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
