//! `failure_mode_allow: true` without the RBAC filter that compensates for it.

use serde_json::json;

use super::{Stage, published_key};
use crate::support::envoy::LISTENERS;
use crate::support::http1::{bearer, fetch};
use crate::support::token::{SUB, SigningKey, TokenBuilder, sign_raw};

/// Returns the header lines of requests that have no valid token.
fn bad_headers() -> Vec<Vec<Vec<u8>>> {
    let access = TokenBuilder::access;
    let shared = SigningKey::shared();
    let good = access().sign(shared);
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("no JWS") };
    let tokens = [
        access().header("alg", "none").sign(shared),
        access().header("alg", "HS256").sign(shared),
        access().header("crit", json!(["exp"])).sign(shared),
        access().header("kid", "unknown").sign(shared),
        access().header("kid", "ABSENT").sign(shared),
        access().header("kid", "c2hhcmVk+/=").header("jwk", SigningKey::other().jwk()).sign(SigningKey::other()),
        access().sign(SigningKey::other()),
        access().expires_in(-3600).sign(shared),
        access().claim("exp", "ABSENT").sign(shared),
        access().claim("nbf", 32_503_680_000_i64).sign(shared),
        access().claim("iss", "https://evil.test").sign(shared),
        access().claim("client_id", "other").sign(shared),
        access().claim("sub", "ABSENT").sign(shared),
        access().claim("sub", json!(["root"])).sign(shared),
        access().claim("username", "é".repeat(2_700) + &"%".repeat(1_000)).sign(SigningKey::other()),
        TokenBuilder::id().sign(shared),
        sign_raw("", "", shared),
        sign_raw("{\"alg\":\"RS256\",\"kid\":\"c2hhcmVk+/=\"}", &"[".repeat(8_000), shared),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{good}."),
        format!("{good}="),
        format!("{good}A"),
        format!("{header}.{signature}.{payload}"),
        good.to_ascii_lowercase(),
        "..".into(),
        ".".repeat(16_000),
        "a".repeat(16_384),
        "a".repeat(16_385),
        "a".repeat(50_000),
    ];
    let mut bad: Vec<Vec<Vec<u8>>> = tokens.iter().map(|token| vec![bearer(token).into()]).collect();
    let good = bearer(&good);
    for lines in [
        &[][..],
        &["authorization:"],
        &["authorization: Bearer"],
        &["authorization: Basic YTpi"],
        &["cookie: token=x", "x-auth-sub: root"],
        &[&good, &good],
        &[&good, "authorization: Basic YTpi"],
        &["authorization: Basic YTpi", &good],
        &[&*format!("{good},"), &*format!("{good},x")],
    ] {
        bad.push(lines.iter().map(|line| line.as_bytes().to_vec()).collect());
    }
    bad.push(vec![b"authorization: Bearer \xff\xfe".to_vec()]);
    bad.push(vec![b"authorization: \x80".to_vec(), b"x-auth-sub: \xff".to_vec()]);
    let mut random = fastrand::Rng::with_seed(1);
    for length in 1..60 {
        let mut garbage = b"authorization: Bearer x".to_vec();
        garbage.extend((0..length).map(|_| random.u8(0x21..0x7f)));
        bad.push(vec![garbage]);
    }
    for headers in [
        (0..9_000).map(|number| format!("x-auth-{number}: root")).collect::<Vec<_>>(),
        (0..9_000).map(|number| format!("h{number}: {number}")).collect(),
        vec!["x-auth-sub: root".into(); 9_000],
        vec!["authorization: Bearer x".into(); 9_000],
        vec![format!("x-auth-sub: {}", "r".repeat(900_000))],
        vec![format!("authorization: {}", "Bearer ".repeat(100_000))],
    ] {
        bad.push(headers.into_iter().map(Into::into).collect());
    }
    bad
}

#[tokio::test]
async fn a_bad_token_never_fails_open_but_an_unreachable_service_does() {
    let keys = published_key().await;
    let mut stage = Stage::start(&["--jwks-url", &keys.url], |bootstrap| {
        for (listener, raw) in LISTENERS.into_iter().zip([false, true]) {
            let manager = bootstrap.manager(listener);
            manager["max_request_headers_kb"] = 1024.into();
            manager["common_http_protocol_options"]["max_headers_count"] = 10_000.into();
            let ext_authz = bootstrap.ext_authz(listener);
            ext_authz["failure_mode_allow"] = true.into();
            ext_authz["encode_raw_headers"] = raw.into();
            // Envoy sends the service every header, as some meshes do.
            assert!(!ext_authz["allowed_headers"].take().is_null());
        }
        bootstrap.copy_listener("ingress_tcp", "with_rbac");
        for listener in LISTENERS {
            bootstrap.remove_rbac(listener);
        }
    })
    .await;
    let good = bearer(&TokenBuilder::access().sign(SigningKey::shared()));
    let bad = bad_headers();
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        for lines in &bad {
            let response = fetch(envoy, "/", lines).await;
            assert_eq!(response.status, 401, "{listener}: {}", lines.concat().escape_ascii());
        }
        assert_eq!(stage.envoy.counter(listener, "denied").await, bad.len() as u64, "the service denied each request");
        let forged = (0..9_000).map(|number| format!("x-auth-{number}: root"));
        let seen = fetch(envoy, "/", &forged.chain([good.clone()]).collect::<Vec<_>>()).await.seen();
        assert_eq!((seen.identity().len(), seen.header("x-auth-sub")), (5, vec![SUB]));
        assert_eq!(stage.envoy.counter(listener, "error").await, 0);
    }
    assert_eq!(stage.upstream.seen().len(), LISTENERS.len());

    // Effect of the setting: if the service is unreachable, requests pass without a check.
    stage.service.stop();
    stage.service.join();
    for listener in LISTENERS {
        let seen = fetch(stage.envoy.address(listener), "/", &["x-auth-sub: root"]).await.seen();
        assert!(seen.identity().is_empty(), "{seen:?}");
        assert_eq!(stage.envoy.counter(listener, "failure_mode_allowed").await, 1);
    }
    // The shipped file rejects such requests with its RBAC filter.
    let response = fetch(stage.envoy.address("with_rbac"), "/", &[&good]).await;
    assert_eq!((response.status, &*response.body), (403, "RBAC: access denied"));
}
