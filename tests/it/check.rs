//! Checks over a real gRPC connection: each reason of a denial, the headers for upstream, the cache, and the metrics.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use envoy_types::pb::google::protobuf::value::Kind;
use serde_json::json;

use crate::support::client::{Answer, bearer, check, connect, get, metric, request, verdict};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::service::TestApp;
use crate::support::token::{CLIENT, ISSUER, SUB, SigningKey, TokenBuilder, jwks, sign_raw};
use crate::support::{PATIENCE, eventually};

/// Starts a service, and waits until its keys are fetched.
async fn start(flags: &[&str]) -> (TestApp, JwksServer) {
    let server = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let app = TestApp::start(&[flags, &["--jwks-url", &server.url]].concat());
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    (app, server)
}

#[tokio::test]
async fn each_bad_credential_has_its_reason_for_a_401() {
    let (app, _server) = start(&[]).await;
    let channel = connect(&app.grpc[0]).await;
    let access = TokenBuilder::access;
    let sign = |token: TokenBuilder| token.sign(SigningKey::shared());
    for (token, reason) in [
        ("x".to_owned(), "malformed_token"),
        ("a".repeat(16_385), "token_too_large"),
        ("a".repeat(16_384), "malformed_token"),
        (sign(access().claim("exp", "1")), "malformed_token"),
        (sign(access().header("alg", "HS256")), "unsupported_algorithm"),
        (sign(access().header("crit", json!(["exp"]))), "unsupported_header"),
        (sign(access().header("kid", "")), "missing_kid"),
        (sign(access().claim("iss", "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Other")), "unknown_issuer"),
        (sign(access().claim("iss", "ABSENT")), "missing_claim"),
        (sign(TokenBuilder::id()), "wrong_token_use"),
        (sign(access().claim("sub", "ABSENT")), "missing_claim"),
        (sign(access().claim("client_id", "other")), "wrong_client"),
        (sign(access().expires_in(-31)), "expired"),
        (sign(access().claim("nbf", 32_503_680_000_i64)), "not_yet_valid"),
        (sign(access().header("kid", "unknown")), "unknown_kid"),
        (access().header("kid", "c2hhcmVk+/=").sign(SigningKey::other()), "bad_signature"),
    ] {
        assert_eq!(verdict(&channel, &token).await, (401, reason.to_owned()));
    }
    for (headers, reason) in [
        (&[][..], "missing_credential"),
        (&[("authorization", "")], "missing_credential"),
        (&[("authorization", "Basic dTpw")], "missing_credential"),
        (&[("authorization", "Bearer a,Bearer a")], "multiple_credentials"),
        (&[("authorization", "Bearer a"), ("Authorization", "Bearer b")], "multiple_credentials"),
        (&[("authorization", "\x0bBasic dTpw")], "malformed_token"),
    ] {
        let answer = check(&channel, request(headers)).await.unwrap();
        assert_eq!((answer.status, &*answer.reason), (401, reason));
        let challenge = &answer.headers["www-authenticate"];
        assert_eq!(challenge == "Bearer realm=\"api\"", reason == "missing_credential", "{challenge}");
    }
}

#[tokio::test]
async fn only_spaces_and_tabs_may_surround_a_credential() {
    let (app, _server) = start(&["--account-cookies"]).await;
    let channel = connect(&app.grpc[0]).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let cookie = format!("__Host-access_token={token}");
    for (before, after, reason) in [
        ("", "", ""),
        (" \t", "\t ", ""),
        ("\n", "", "malformed_token"),
        ("", "\n", "malformed_token"),
        ("", "\r", "malformed_token"),
        ("\r\n", "\r\n", "malformed_token"),
        ("\x0c", "", "malformed_token"),
        ("", "\x0c", "malformed_token"),
        ("\x0b", "", "malformed_token"),
        ("", "\x0b", "malformed_token"),
    ] {
        for (name, value) in [("authorization", format!("Bearer {token}")), ("cookie", cookie.clone())] {
            let answer = check(&channel, request(&[(name, &format!("{before}{value}{after}"))])).await.unwrap();
            let status = if reason.is_empty() { 200 } else { 401 };
            assert_eq!(answer.verdict(), (status, reason), "{name} {before:?} {after:?}");
        }
    }
}

#[tokio::test]
async fn the_identity_of_an_allowed_caller_reaches_upstream() {
    let (app, _server) = start(&["--token-use", "any"]).await;
    let channel = connect(&app.grpc[0]).await;
    let token = TokenBuilder::access()
        .claim("cognito:groups", json!(["admins", "a,b"]))
        .claim("scope", "openid orders/read")
        .claim("username", "zoë")
        .sign(SigningKey::shared());
    let answer = check(&channel, bearer(&token)).await.unwrap();
    let expected = [
        ("x-auth-client-id", CLIENT),
        ("x-auth-groups", "admins,a%2Cb"),
        ("x-auth-scope", "openid orders/read"),
        ("x-auth-sub", SUB),
        ("x-auth-token-use", "access"),
        ("x-auth-username", "zo%C3%AB"),
    ];
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(answer.removed, ["x-auth-email"]);
    assert_eq!(answer.metadata["decision"], Some(Kind::StringValue("allow".into())));

    let id = TokenBuilder::id().claim("aud", json!(["other", CLIENT])).sign(SigningKey::shared());
    let answer = check(&channel, bearer(&id)).await.unwrap();
    assert_eq!(answer.headers["x-auth-email"], "someone@example.test");
    assert_eq!((&*answer.headers["x-auth-token-use"], &*answer.headers["x-auth-client-id"]), ("id", CLIENT));

    let machine = TokenBuilder::access().claim("username", "ABSENT").claim("sub", CLIENT).sign(SigningKey::shared());
    let answer = check(&channel, bearer(&machine)).await.unwrap();
    assert_eq!(answer.status, 200, "client credentials");
    assert!(answer.removed.contains(&"x-auth-username".to_owned()));
}

#[tokio::test]
async fn forged_identity_headers_are_removed() {
    let (app, _server) = start(&[]).await;
    let channel = connect(&app.grpc[0]).await;
    let token = format!("Bearer {}", TokenBuilder::access().sign(SigningKey::shared()));
    let forged = [
        ("authorization", &*token),
        ("x-auth-sub", "forged"),
        ("x-auth-email", "forged"),
        ("x_auth_sub", "forged"),
        ("x.auth.sub", "forged"),
        ("x-auth-role", "forged"),
        ("x-authority", "not ours"),
    ];
    for _ in 0..2 {
        // The second time, the token is in the cache.
        let answer = check(&channel, request(&forged)).await.unwrap();
        assert_eq!(answer.headers["x-auth-sub"], SUB);
        for name in ["x-auth-email", "x_auth_sub", "x.auth.sub", "x-auth-role"] {
            assert!(answer.removed.contains(&name.to_owned()), "{name} stays: {:?}", answer.removed);
        }
        for name in ["x-auth-sub", "x-authority", "authorization"] {
            assert!(!answer.removed.contains(&name.to_owned()), "{name} is removed");
        }
    }
}

#[tokio::test]
async fn raw_headers_are_read_like_encoded_headers() {
    let (app, _server) = start(&[]).await;
    let channel = connect(&app.grpc[0]).await;
    let token = format!("Bearer {}", TokenBuilder::access().sign(SigningKey::shared()));
    let ask = async |headers: &[(&str, &[u8])]| -> Answer {
        let value = |(name, value): &(&str, &[u8])| HeaderValue {
            key: (*name).into(),
            raw_value: value.to_vec(),
            ..Default::default()
        };
        let mut message = request(&[]);
        let http = message.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
        http.header_map = Some(HeaderMap { headers: headers.iter().map(value).collect() });
        check(&channel, message).await.unwrap()
    };
    let good = ("authorization", token.as_bytes());
    assert_eq!(ask(&[good]).await.status, 200);
    assert_eq!(ask(&[good, good]).await.reason, "multiple_credentials");
    assert_eq!(ask(&[good, ("Authorization", b"Basic x")]).await.reason, "multiple_credentials");
    assert_eq!(ask(&[("authorization", b"Bearer \xff\xfe")]).await.reason, "malformed_token");
    assert_eq!(ask(&[]).await.reason, "missing_credential");
    let answer = ask(&[good, ("x_auth_sub", b"\xff")]).await;
    assert!(answer.removed.contains(&"x_auth_sub".to_owned()));
}

#[tokio::test]
async fn a_check_without_a_request_or_with_an_unknown_policy_is_denied() {
    let (app, _server) = start(&[]).await;
    let channel = connect(&app.grpc[0]).await;
    for message in [CheckRequest::default(), CheckRequest { attributes: Some(AttributeContext::default()) }] {
        let answer = check(&channel, message).await.unwrap();
        assert_eq!((answer.status, &*answer.reason), (403, "no_http_request"));
    }
    for (policy, status) in [("default", 200), ("admin", 403), ("", 403)] {
        let mut message = bearer(&TokenBuilder::access().sign(SigningKey::shared()));
        message.attributes.as_mut().unwrap().context_extensions.insert("policy".into(), policy.into());
        let answer = check(&channel, message).await.unwrap();
        assert_eq!(answer.status, status, "{policy}");
        assert_eq!(answer.reason, if status == 200 { "" } else { "unknown_policy" });
    }
}

#[tokio::test]
async fn an_identity_that_is_too_large_for_headers_is_denied() {
    let (app, _server) = start(&[]).await;
    let channel = connect(&app.grpc[0]).await;
    // The header has three bytes for each of the two bytes of `é` in the token.
    for (letters, status) in [(2_700, 200), (2_800, 403)] {
        let token = TokenBuilder::access().claim("username", "é".repeat(letters)).sign(SigningKey::shared());
        let answer = check(&channel, bearer(&token)).await.unwrap();
        assert_eq!((answer.status, answer.reason.is_empty()), (status, status == 200), "{letters}");
    }
}

#[tokio::test]
async fn a_cached_token_is_checked_again_for_its_expiry_and_key() {
    let (app, server) = start(&["--leeway", "0s", "--jwks-refresh-interval", "1s"]).await;
    let channel = connect(&app.grpc[0]).await;
    let short = TokenBuilder::access().expires_in(2).sign(SigningKey::shared());
    let long = TokenBuilder::access().sign(SigningKey::shared());
    for token in [&short, &long, &short, &long] {
        assert_eq!(verdict(&channel, token).await.0, 200);
    }
    assert_eq!(metric(&app.admin, "token_cache_hits_total").await, 2.0);
    assert_eq!(metric(&app.admin, "token_cache_entries").await, 2.0);
    eventually("the token has expired", PATIENCE, async || verdict(&channel, &short).await == (401, "expired".into()))
        .await;
    assert_eq!(verdict(&channel, &long).await.0, 200);

    server.answers(Reply::ok(jwks(&[SigningKey::other()])));
    eventually("the key is gone", PATIENCE, async || verdict(&channel, &long).await.0 == 401).await;
    assert_eq!(verdict(&channel, &long).await.1, "unknown_kid");
}

#[tokio::test]
async fn urls_in_a_token_are_not_fetched() {
    let (app, server) = start(&[]).await;
    let channel = connect(&app.grpc[0]).await;
    let evil = JwksServer::start(Reply::ok(jwks(&[SigningKey::other()]))).await;
    let before = server.requests();
    for name in ["jku", "x5u"] {
        let token = TokenBuilder::access()
            .header("kid", "c2hhcmVk+/=")
            .header(name, evil.url.clone())
            .sign(SigningKey::other());
        assert_eq!(verdict(&channel, &token).await, (401, "bad_signature".into()));
    }
    let token = TokenBuilder::access()
        .header("kid", "c2hhcmVk+/=")
        .header("jwk", SigningKey::other().jwk())
        .sign(SigningKey::other());
    assert_eq!(verdict(&channel, &token).await, (401, "bad_signature".into()));
    let issuer = TokenBuilder::access().claim("iss", evil.url.clone()).sign(SigningKey::other());
    assert_eq!(verdict(&channel, &issuer).await, (401, "unknown_issuer".into()));
    assert_eq!((evil.requests(), server.requests()), (0, before));
}

/// Compares our verdicts with those of jsonwebtoken, an independent implementation. Both accept good tokens. The rows in
/// which only the library accepts a token show what it does not check by itself; unit tests cover why we must.
#[tokio::test]
async fn another_library_accepts_good_tokens_and_some_that_we_deny() {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
    let (app, _server) = start(&[]).await;
    let channel = connect(&app.grpc[0]).await;
    let jwk = SigningKey::shared().jwk();
    let key = DecodingKey::from_rsa_components(jwk["n"].as_str().unwrap(), jwk["e"].as_str().unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_aud = false;
    validation.set_issuer(&[ISSUER]);
    let by_library = |token: &str| decode::<serde_json::Value>(token, &key, &validation).is_ok();
    let sign = |token: TokenBuilder| token.sign(SigningKey::shared());
    let access = TokenBuilder::access;
    for (token, library, ours) in [
        (sign(access()), true, 200),
        (sign(access().expires_in(-3600)), false, 401),
        (sign(access().claim("iss", "https://evil.test")), false, 401),
        (access().header("kid", "c2hhcmVk+/=").sign(SigningKey::other()), false, 401),
        (sign(access().claim("iss", "ABSENT")), true, 401),
        (sign(access().claim("iss", json!([ISSUER, "https://evil.test"]))), true, 401),
        (sign(access().claim("nbf", "soon")), true, 401),
        (sign(access().claim("client_id", "ABSENT")), true, 401),
    ] {
        assert_eq!((by_library(&token), verdict(&channel, &token).await.0), (library, ours), "{token}");
    }
}

#[tokio::test]
async fn a_token_may_use_any_json_spelling_but_no_name_twice() {
    let (app, _server) = start(&[]).await;
    let channel = connect(&app.grpc[0]).await;
    let exp = crate::support::token::unix_now() + 60;
    let payload = format!(
        " {{\"exp\":{exp}.75,\"x\":{{\"exp\":1}},\"token_us\\u0065\":\"\\u0061ccess\",\n\"client_id\":\"{CLIENT}\",\"sub\":\"s\",\"iss\":\"{}\"}}",
        ISSUER.replace('/', "\\/")
    );
    let header = "{\"alg\":\"RS256\",\"\\u006bid\":\"c2hhcmVk\\u002b\\/=\"}";
    let token = sign_raw(header, &payload, SigningKey::shared());
    assert_eq!(verdict(&channel, &token).await, (200, String::new()));
    let twice = payload.replacen("\"sub\"", "\"sub\":\"admin\",\"sub\"", 1);
    assert_eq!(verdict(&channel, &sign_raw(header, &twice, SigningKey::shared())).await.1, "malformed_token");
}

#[tokio::test]
async fn checks_are_counted_and_the_series_exist_from_the_start() {
    let (app, _server) = start(&[]).await;
    let (_, metrics) = get(&app.admin, "/metrics").await;
    for series in [
        "checks_total{decision=\"allow\",policy=\"default\",pool=\"default\",reason=\"\"} 0",
        "checks_total{decision=\"deny\",policy=\"default\",pool=\"\",reason=\"missing_credential\"} 0",
        "checks_total{decision=\"deny\",policy=\"default\",pool=\"default\",reason=\"expired\"} 0",
        "checks_total{decision=\"error\",policy=\"default\",pool=\"default\",reason=\"keys_unavailable\"} 0",
        "jwks_keys{pool=\"default\"} 1",
        "jwks_fetches_total{pool=\"default\",result=\"success\"} 1",
        "jwks_fetches_total{pool=\"default\",result=\"timeout\"} 0",
        "jwks_skipped_keys{pool=\"default\"} 0",
        "token_cache_entries 0",
        "checks_in_flight 0",
    ] {
        assert!(metrics.contains(&format!("cognito_authz_{series}\n")), "{series} is not in\n{metrics}");
    }
    let channel = connect(&app.grpc[0]).await;
    for token in [TokenBuilder::access(), TokenBuilder::access(), TokenBuilder::access().expires_in(-100)] {
        verdict(&channel, &token.sign(SigningKey::shared())).await;
    }
    check(&channel, request(&[])).await.unwrap();
    check(&channel, CheckRequest::default()).await.unwrap();
    for (series, value) in [
        ("checks_total{decision=\"allow\",policy=\"default\",pool=\"default\",reason=\"\"}", 2.0),
        ("checks_total{decision=\"deny\",policy=\"default\",pool=\"default\",reason=\"expired\"}", 1.0),
        ("checks_total{decision=\"deny\",policy=\"default\",pool=\"\",reason=\"missing_credential\"}", 1.0),
        ("checks_total{decision=\"deny\",policy=\"\",pool=\"\",reason=\"no_http_request\"}", 1.0),
        ("check_duration_seconds_count{decision=\"allow\"}", 2.0),
    ] {
        assert_eq!(metric(&app.admin, series).await, value, "{series}");
    }
    tokio::time::timeout(Duration::from_secs(1), get(&app.admin, "/livez")).await.unwrap();
}
