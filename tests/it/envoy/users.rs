//! Users of the emulator: their tokens pass, and changed or foreign tokens do not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::Stage;
use crate::support::emulator::Emulator;
use crate::support::envoy::LISTENERS;
use crate::support::http1::{bearer, fetch};

const INVALID_TOKEN: &str = "Bearer realm=\"api\", error=\"invalid_token\", error_description=\"";
const INVALID_REQUEST: &str = "Bearer realm=\"api\", error=\"invalid_request\", error_description=\"";

#[tokio::test]
async fn only_unchanged_tokens_of_signed_in_users_pass() {
    let cognito = Emulator::start().await;
    let pool = cognito.create_pool().await;
    let (client, other_client) = (cognito.create_client(&pool).await, cognito.create_client(&pool).await);
    let sub = cognito.create_user(&pool, &client, "ada@example.test", &["readers", "a,b"]).await;
    let user = cognito.sign_in(&client, "ada@example.test").await;
    let foreign = cognito.sign_in(&other_client, "ada@example.test").await;
    let groups: Vec<String> = (0..50).map(|number| format!("{number:0>102}")).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    cognito.create_user(&pool, &client, "bob@example.test", &groups).await;
    let member_of_many = cognito.sign_in(&client, "bob@example.test").await.access;
    assert!((7_900..9_000).contains(&member_of_many.len()), "{}", member_of_many.len());
    let flags = ["--user-pool-id", &pool, "--client-id", &client, "--cognito-endpoint", &cognito.url];
    let stage = Stage::start(&flags, |_| {}).await;

    let [header, payload, signature] = user.access.split('.').collect::<Vec<_>>()[..] else { panic!("no JWS") };
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let promoted = URL_SAFE_NO_PAD.encode(claims.replacen("readers", "admins_", 1));
    let unsigned = URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}");
    let other_letter = if signature[100..].starts_with('A') { "B" } else { "A" };
    let resigned = format!("{}{other_letter}{}", &signature[..100], &signature[101..]);
    let (good, id) = (bearer(&user.access), bearer(&user.id));
    let refused = [
        (vec![], "missing_credential", "Bearer realm=\"api\""),
        (vec!["authorization: Basic YTpi".to_owned()], "missing_credential", "Bearer realm=\"api\""),
        (vec![id], "wrong_token_use", INVALID_TOKEN),
        (vec![bearer(&foreign.access)], "wrong_client", INVALID_TOKEN),
        (vec![bearer(&format!("{header}.{promoted}.{signature}"))], "bad_signature", INVALID_TOKEN),
        (vec![bearer(&format!("{header}.{payload}.{resigned}"))], "bad_signature", INVALID_TOKEN),
        (vec![bearer(&format!("{unsigned}.{payload}."))], "unsupported_algorithm", INVALID_TOKEN),
        (vec![good.clone(), good.clone()], "multiple_credentials", INVALID_REQUEST),
        (vec![format!("{good},{good}")], "multiple_credentials", INVALID_REQUEST),
        (vec![good.clone(), "authorization: Basic YTpi".to_owned()], "multiple_credentials", INVALID_REQUEST),
    ];
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        for spelling in ["authorization: Bearer", "Authorization: bearer", "AUTHORIZATION: BEARER"] {
            let seen = fetch(envoy, "/orders", &[format!("{spelling} {}", user.access)]).await.seen();
            let expected = [
                ("x-auth-client-id", &*client),
                ("x-auth-groups", "readers,a%2Cb"),
                ("x-auth-scope", "aws.cognito.signin.user.admin"),
                ("x-auth-sub", &sub),
                ("x-auth-token-use", "access"),
                ("x-auth-username", &sub),
            ];
            assert_eq!(seen.identity(), expected, "{listener}");
            assert_eq!((&*seen.method, &*seen.path), ("GET", "/orders"));
            assert_eq!(seen.header("authorization").len(), 1, "the token reaches the application");
        }
        let seen = fetch(envoy, "/orders", &[bearer(&member_of_many)]).await.seen();
        assert_eq!(seen.header("x-auth-groups")[0].split(',').count(), groups.len());

        let before = stage.upstream.seen().len();
        for (lines, reason, challenge) in &refused {
            let response = fetch(envoy, "/orders", lines).await;
            assert_eq!(response.verdict(), (401, (*reason).to_owned()), "{listener}");
            let found = response.header("www-authenticate").unwrap();
            let is_bare = *reason == "missing_credential";
            assert!(if is_bare { found == *challenge } else { found.starts_with(challenge) }, "{reason}: {found}");
            assert_eq!(response.header("content-type"), Some("application/json"));
            assert_eq!(response.header("cache-control"), Some("no-store"));
            assert!(
                lines.iter().all(|line| !response.body.contains(&line[line.len() - 8..])),
                "the response contains a part of the token"
            );
        }
        let response = fetch(envoy, "/orders", &[""; 0]).await;
        let body = response.json();
        let expected = json!({"error": "missing_token", "reason": "missing_credential",
            "message": "A Bearer token is required.", "request_id": body["request_id"]});
        assert_eq!(body, expected);
        assert_eq!(stage.upstream.seen().len(), before, "a denied request has reached the application");
    }

    // The pool signs ID tokens with its other key.
    let stage = Stage::start(&[&flags[..], &["--token-use", "id"]].concat(), |_| {}).await;
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let seen = fetch(envoy, "/", &[bearer(&user.id)]).await.seen();
        assert_eq!((seen.header("x-auth-sub"), seen.header("x-auth-client-id")), (vec![&*sub], vec![&*client]));
        assert_eq!(seen.header("x-auth-token-use"), ["id"]);
        assert_eq!(fetch(envoy, "/", &[&good]).await.verdict(), (401, "wrong_token_use".into()));
    }
}
