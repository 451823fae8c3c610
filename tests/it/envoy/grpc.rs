//! gRPC callers: a denial is a gRPC status, and an allowed call reaches the application.

use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{SeededKey, Stage, good_token, published_key, token_of_an_unknown_key};
use crate::support::client::connect;
use crate::support::envoy::LISTENERS;
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::token::{OTHER_ISSUER, SUB, SigningKey, TokenBuilder, unix_now};
use crate::support::upstream::Upstream;

#[tokio::test]
async fn a_denied_grpc_call_gets_a_grpc_status() {
    let keys = SeededKey::new().await;
    let upstream = Upstream::start_grpc().await;
    let stage = Stage::start(&keys.flags(), |bootstrap| {
        bootstrap.make_application_grpc(&upstream.address);
        for listener in LISTENERS {
            let admin = json!({"check_settings": {"context_extensions": {"policy": "admin"}}});
            bootstrap.add_route(listener, "/grpc.health.v1.Health/Watch", Some(admin), None);
        }
    })
    .await;
    for listener in LISTENERS {
        let caller = HealthClient::<Channel>::new(connect(stage.envoy.address(listener)).await);
        let request = |token: &str| {
            let mut request = Request::new(HealthCheckRequest::default());
            if !token.is_empty() {
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
                request.metadata_mut().insert("x-auth-sub", "root".parse().unwrap());
            }
            request
        };
        for (token, code, reason) in [
            ("", Code::Unauthenticated, "missing_credential"),
            ("garbage", Code::Unauthenticated, "malformed_token"),
            (&*token_of_an_unknown_key(), Code::Unavailable, "keys_unavailable"),
        ] {
            let status = caller.clone().check(request(token)).await.unwrap_err();
            assert_eq!(status.code(), code, "{status:?}");
            let message: Value = serde_json::from_str(status.message()).unwrap();
            assert_eq!(message["reason"], reason);
            // The status is in the header frame: the response has no body.
            assert_eq!(status.metadata().get("content-type").unwrap(), "application/grpc");
        }
        let status = caller.clone().watch(request(&good_token())).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        assert!(status.message().contains("unknown_policy"), "{status:?}");

        let before = upstream.seen().len();
        let answer = caller.clone().check(request(&good_token())).await.unwrap();
        assert_eq!(answer.into_inner().status, 1);
        let seen = upstream.seen();
        assert_eq!(seen.len(), before + 1);
        assert_eq!(seen[before].path, "/grpc.health.v1.Health/Check");
        assert_eq!(seen[before].header("x-auth-sub"), [SUB]);
    }
    assert_eq!(upstream.seen().len(), LISTENERS.len(), "a denied call has reached the application");
}

#[tokio::test]
async fn each_denial_of_a_policy_has_its_grpc_status() {
    let failing = JwksServer::start(Reply::status(500)).await;
    let keys = published_key().await;
    let file = PolicyFile::new(&format!(
        "default: calls\npools: {{partners: {{user_pool_id: eu-central-1_Other0002, client_ids: any, jwks_url: '{}'}}}}\n\
         policies:\n  calls: {{scopes: {{all: [calls]}}, groups: {{any: [staff]}}, max_auth_age: 5m, claims: [{{claim: level, equals: 7}}]}}\n  \
         open: {{public: true}}\nroutes: [{{path: /grpc.health.v1.Health/Watch, policy: open}}]\n",
        failing.url
    ));
    let upstream = Upstream::start_grpc().await;
    let stage = Stage::start_unready(&["--config", &file.path(), "--jwks-url", &keys.url], |bootstrap| {
        bootstrap.make_application_grpc(&upstream.address);
        for cluster in ["cognito_authz_uds", "cognito_authz_tcp"] {
            // A service without the keys of a pool is not ready, and Envoy would send it no checks.
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
        assert_eq!(upstream.seen().len(), before, "a denied call has reached the application");
        assert_eq!(caller.clone().check(request(&of(good.clone()))).await.unwrap().into_inner().status, 1);
        // A public method.
        let mut answers = caller.clone().watch(request("")).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().status, 1);
        assert_eq!(upstream.seen().len(), before + 2);
    }
}
