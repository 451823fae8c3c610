//! Decisions per route of Envoy, in Envoy's log and counters, and for large tokens.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{SeededKey, Stage, good_token, published_key, token_of_an_unknown_key};
use crate::support::client::get;
use crate::support::envoy::LISTENERS;
use crate::support::http1::{bearer, fetch};
use crate::support::token::{SUB, SigningKey, TokenBuilder};

#[tokio::test]
async fn routes_of_envoy_name_policies_and_rbac_rejects_unchecked_requests() {
    let keys = published_key().await;
    let stage = Stage::start(&["--jwks-url", &keys.url], |bootstrap| {
        for listener in LISTENERS {
            for policy in ["default", "admin"] {
                let settings = json!({"check_settings": {"context_extensions": {"policy": policy, "other": "x"}}});
                bootstrap.add_route(listener, &format!("/{policy}"), Some(settings), None);
            }
            // A route that disables ext_authz but not RBAC. `envoy.yaml` says that a route without a token disables both.
            bootstrap.add_route(listener, "/forgotten", Some(json!({"disabled": true})), None);
        }
    })
    .await;
    let token = bearer(&good_token());
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        assert_eq!(fetch(envoy, "/default", &[&token]).await.seen().header("x-auth-sub"), [SUB]);
        assert_eq!(fetch(envoy, "/default", &[""; 0]).await.verdict(), (401, "missing_credential".into()));
        for lines in [&[&*token][..], &[]] {
            let response = fetch(envoy, "/admin", lines).await;
            assert_eq!(response.verdict(), (403, "unknown_policy".into()));
            assert_eq!(response.header("www-authenticate"), None);
        }
        for lines in [&[&*token][..], &[], &["x-auth-sub: root"]] {
            let response = fetch(envoy, "/forgotten", lines).await;
            assert_eq!((response.status, &*response.body), (403, "RBAC: access denied"));
        }
        assert_eq!(fetch(envoy, "/healthz", &[""; 0]).await.status, 200);
    }
    assert!(stage.upstream.seen().iter().all(|seen| seen.path == "/default"), "{:?}", stage.upstream.seen());

    let columns = ["status", "flags", "details", "decision", "reason", "sub"];
    let allowed = json!([200, "-", "via_upstream", "allow", null, SUB]);
    let denied = |status: u16, reason| json!([status, "UAEX", "ext_authz_denied", "deny", reason, null]);
    let without_decision = json!([403, "-", "rbac_access_denied_matched_policy[none]", null, null, null]);
    for (path, lines) in [
        ("/default", vec![allowed, denied(401, "missing_credential")]),
        ("/admin", vec![denied(403, "unknown_policy"), denied(403, "unknown_policy")]),
        ("/forgotten", vec![without_decision; 3]),
    ] {
        let expected = [&lines[..], &lines[..]].concat();
        let log = stage.envoy.access_log(path, expected.len()).await;
        let found: Vec<Value> =
            log.iter().map(|line| columns.iter().map(|name| line[*name].clone()).collect()).collect();
        assert_eq!(found, expected, "{path}");
    }
}

#[tokio::test]
async fn the_counters_of_envoy_and_the_service_agree() {
    let keys = SeededKey::new().await;
    let stage = Stage::start(&keys.flags(), |_| {}).await;
    let (good, unknown_key) = (bearer(&good_token()), bearer(&token_of_an_unknown_key()));
    let round = [
        (200, &[&*good][..]),
        (200, &[&good]),
        (200, &[&good]),
        (401, &[]),
        (401, &["authorization: Bearer garbage"]),
        (503, &[&unknown_key]),
    ];
    for (listener, rounds) in LISTENERS.into_iter().zip([1, 2]) {
        for _ in 0..rounds {
            for (status, lines) in round {
                assert_eq!(fetch(stage.envoy.address(listener), "/", lines).await.status, status);
            }
        }
        // A 503 of the service counts as `denied`. `error` counts checks without a response.
        for (name, expected) in [("ok", 3), ("denied", 3), ("error", 0), ("failure_mode_allowed", 0)] {
            assert_eq!(stage.envoy.counter(listener, name).await, expected * rounds, "{listener} {name}");
        }
    }
    let mut ours: BTreeMap<String, f64> = BTreeMap::new();
    for line in get(&stage.service.admin, "/metrics").await.1.lines() {
        if let Some(series) = line.strip_prefix("cognito_authz_checks_total{decision=\"") {
            let decision = series.split('"').next().unwrap();
            *ours.entry(decision.into()).or_default() += series.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        }
    }
    assert_eq!(ours, [("allow", 9.0), ("deny", 6.0), ("error", 3.0)].map(|(name, count)| (name.into(), count)).into());
}

#[tokio::test]
async fn tokens_pass_up_to_16_kib() {
    let keys = published_key().await;
    let stage = Stage::start(&["--jwks-url", &keys.url], |bootstrap| {
        for (listener, raw) in LISTENERS.into_iter().zip([false, true]) {
            bootstrap.manager(listener)["max_request_headers_kb"] = 96.into();
            bootstrap.ext_authz(listener)["encode_raw_headers"] = raw.into();
        }
    })
    .await;
    let of_length = |least: usize| {
        let sign =
            |padding: usize| TokenBuilder::access().claim("padding", "p".repeat(padding)).sign(SigningKey::shared());
        let token = sign((least - sign(0).len()) * 3 / 4);
        assert!((least - 4..=least).contains(&token.len()), "{} is not {least}", token.len());
        token
    };
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        for length in [8_000, 16_384] {
            let token = of_length(length);
            let seen = fetch(envoy, "/", &[bearer(&token)]).await.seen();
            assert_eq!(seen.header("authorization"), [format!("Bearer {token}")]);
            assert_eq!(seen.header("x-auth-sub"), [SUB]);
        }
        for length in [16_389, 40_000, 90_000] {
            let response = fetch(envoy, "/", &[bearer(&of_length(length))]).await;
            assert_eq!(response.verdict(), (401, "token_too_large".into()), "{length}");
        }
        let garbage = bearer(&"a".repeat(16_385));
        assert_eq!(fetch(envoy, "/", &[garbage]).await.verdict(), (401, "token_too_large".into()));
    }
}
