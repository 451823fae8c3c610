//! Forged identity headers, through an Envoy whose own protection against them is off.

use serde_json::json;

use super::{Stage, published_key};
use crate::support::envoy::LISTENERS;
use crate::support::http1::{bearer, fetch};
use crate::support::token::{CLIENT, SUB, SigningKey, TokenBuilder};

/// Listeners without `allowed_headers`: Envoy sends the service every header.
const ALL_HEADERS: [&str; 2] = ["all_headers_uds", "all_headers_tcp"];

const FORGED: [&[u8]; 23] = [
    b"x-auth-sub: root",
    b"X-Auth-Sub: root",
    b"X-AUTH-SUB: root",
    b"x-auth-sub:",
    b"x_auth_sub: root",
    b"X_Auth_Sub: root",
    b"x.auth.sub: root",
    b"X.AUTH.SUB: root",
    b"x-auth_sub: root",
    b"x_auth-sub: root",
    b"x-auth.sub: root",
    b"x.auth-sub: root",
    b"x-auth-client_id: root",
    b"x_auth_token.use: root",
    b"x-auth-role: root",
    b"x-auth-: root",
    b"x_auth_: root",
    b"x-auth-groups: admins",
    b"x_auth_groups: admins",
    b"x-auth-email: root@example.test",
    b"x-auth-username: \xff\xfe",
    b"x_auth_sub: \xff\xfe",
    b"x-auth-sub: root,root",
];

const CONNECTION: [&[u8]; 6] = [
    b"Connection: close, x-auth-sub",
    b"Connection: x-auth-sub",
    b"Connection: keep-alive, X-Auth-Sub, x_auth_sub",
    b"connection: x-auth-sub, x-auth-username, x-auth-token-use, x-auth-scope",
    b"Connection: x-auth-sub\r\nConnection: close",
    b"Keep-Alive: x-auth-sub\r\nProxy-Connection: x-auth-sub",
];

#[tokio::test]
async fn no_spelling_of_a_forged_header_reaches_upstream() {
    let keys = published_key().await;
    let stage = Stage::start(&["--jwks-url", &keys.url], |bootstrap| {
        for (listener, raw) in LISTENERS.into_iter().zip([false, true]) {
            bootstrap.let_forged_headers_in(listener);
            bootstrap.ext_authz(listener)["encode_raw_headers"] = raw.into();
            bootstrap.add_route(listener, "/open", Some(json!({"disabled": true})), Some(json!({})));
        }
        for (listener, copy) in LISTENERS.into_iter().zip(ALL_HEADERS) {
            bootstrap.copy_listener(listener, copy);
            assert!(!bootstrap.ext_authz(copy)["allowed_headers"].take().is_null());
        }
    })
    .await;
    let token = bearer(&TokenBuilder::access().sign(SigningKey::shared()));
    let expected = [
        ("x-auth-client-id", CLIENT),
        ("x-auth-scope", "aws.cognito.signin.user.admin"),
        ("x-auth-sub", SUB),
        ("x-auth-token-use", "access"),
        ("x-auth-username", SUB),
    ];
    for listener in LISTENERS.into_iter().chain(ALL_HEADERS) {
        let envoy = stage.envoy.address(listener);
        for forged in FORGED {
            // The header reaches the application on a route without a check, so it is the service that removes it.
            let seen = fetch(envoy, "/open", &[forged]).await.seen();
            let forged_name = String::from_utf8_lossy(forged).split(':').next().unwrap().to_ascii_lowercase();
            assert_eq!(seen.header(&forged_name).len(), 1, "{forged_name}");

            let shown = String::from_utf8_lossy(forged);
            for lines in [&[forged, token.as_bytes()][..], &[token.as_bytes(), forged, forged]] {
                let seen = fetch(envoy, "/", lines).await.seen();
                assert_eq!(seen.identity(), expected, "{listener}: {shown}");
            }
            for connection in CONNECTION {
                let seen = fetch(envoy, "/", &[connection, forged, token.as_bytes()]).await.seen();
                let shown = format!("{listener}: {shown} {}", String::from_utf8_lossy(connection));
                assert_eq!(seen.identity(), expected, "{shown}");
                assert!(seen.header("connection").is_empty(), "{shown}");
            }
        }
        let all_at_once = [&FORGED[..], &[token.as_bytes()], &FORGED, &CONNECTION[..1]].concat();
        let seen = fetch(envoy, "/", &all_at_once).await.seen();
        assert_eq!(seen.identity(), expected, "{listener}");
    }
}
