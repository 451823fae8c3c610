//! Operations that end sessions: which tokens every check refuses afterwards, from which second on, and what happens if
//! something fails.

use std::time::{Duration, Instant, SystemTime};

use reqwest::Method;
use serde_json::json;
use tonic::transport::Channel;

use super::{QUICK, with_fake};
use crate::support::account::AccountClient;
use crate::support::client::{bearer, check, connect, metric, verdict};
use crate::support::fake_cognito::{FakeCognito, refusal, slowly, tokens};
use crate::support::jwks_server::Reply;
use crate::support::service::{Program, TestApp};
use crate::support::token::{SUB, SigningKey, TokenBuilder, unix_now};
use crate::support::{PATIENCE, eventually};

/// Service with a fake of Cognito, and its clients.
struct Case {
    app: TestApp,
    client: AccountClient,
    fake: FakeCognito,
    checks: Channel,
}

impl Case {
    async fn start(flags: &[&str]) -> Self {
        let (app, client, fake) = with_fake(&[&QUICK[..], flags].concat()).await;
        let checks = connect(&app.grpc[0]).await;
        Self { app, client, fake, checks }
    }

    /// `true` if a check lets the token pass, `false` if it was revoked.
    async fn passes(&self, token: &TokenBuilder) -> bool {
        match verdict(&self.checks, &sign(token)).await {
            (200, reason) if reason.is_empty() => true,
            (401, reason) if reason == "revoked" => false,
            other => panic!("{other:?}"),
        }
    }
}

fn sign(token: &TokenBuilder) -> String {
    token.sign(SigningKey::shared())
}

/// Token of a session that began at this time.
fn session(name: &str, since: i64) -> TokenBuilder {
    TokenBuilder::access().claim("origin_jti", name).claim("jti", format!("{name}-1")).claim("auth_time", since)
}

/// Response of Cognito whose clock differs from ours by this number of seconds.
fn answer_at(time: i64) -> Reply {
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time).unwrap());
    Reply { headers: vec![("date", httpdate::fmt_http_date(date))], ..Reply::ok("{}") }
}

#[tokio::test]
async fn a_sign_out_ends_all_sessions_up_to_cognitos_second() {
    for offset in [0, 30, -30] {
        let case = Case::start(&["--token-use", "any"]).await;
        let time = unix_now() + offset;
        let (old, other) = (session("old", time - 3600), session("other", time));
        let (later, stranger) = (session("later", time + 1), session("s", 0).claim("sub", "someone-else"));
        let id = TokenBuilder::id().claim("origin_jti", "old").claim("auth_time", time - 3600);
        let without_auth_time = session("old", 0).claim("auth_time", "ABSENT").claim("iat", time);
        for token in [&old, &other, &later, &stranger, &id, &without_auth_time] {
            assert!(case.passes(token).await, "and is cached from now on");
        }

        case.fake.answers(move |_, _| answer_at(time));
        let asked = Instant::now();
        let reply = case.client.bearer("/logout", &sign(&old), json!({})).await;
        assert_eq!((reply.status, reply.text("scope")), (200, "replica"));
        assert!(asked.elapsed() >= Duration::from_secs(1), "Cognito's clock has not passed the second: {offset}");
        for (token, expected) in [
            (&old, false),
            (&other, false),
            (&id, false),
            (&without_auth_time, false),
            (&later, true),
            (&stranger, true),
        ] {
            assert_eq!(case.passes(token).await, expected, "{offset}");
        }
        // A new token of the old session is not newer than the session. One that was never seen is refused as well.
        assert!(!case.passes(&old.clone().claim("jti", "fresh").claim("iat", time + 5)).await);
        let again = case.client.bearer("/logout", &sign(&old), json!({})).await;
        assert_eq!(again.verdict(), (401, "invalid_token"), "the account API asks as well");
        assert_eq!(case.client.call(Method::GET, "/me", &sign(&other), json!({})).await.status, 401);
        assert_eq!(case.fake.operations(), ["GlobalSignOut"]);
        assert_eq!(metric(&case.app.admin, "revocations{kind=\"sub\"}").await, 1.0);
        assert_eq!(metric(&case.app.admin, "revocation_writes_total{kind=\"sub\",result=\"success\"}").await, 1.0);
    }
}

#[tokio::test]
async fn our_clock_is_the_edge_if_cognito_names_no_time() {
    let case = Case::start(&[]).await;
    let token = session("old", unix_now());
    case.fake.answers(|_, _| Reply { headers: vec![("date", String::new())], ..Reply::ok("{}") });
    assert_eq!(case.client.bearer("/logout", &sign(&token), json!({})).await.status, 200);
    assert!(!case.passes(&token).await);
    assert!(case.passes(&session("new", unix_now())).await, "after the response");
    // The caller's own token ends whatever the clocks say.
    let future = session("future", unix_now() + 100).claim("sub", "of-the-future");
    case.fake.answers(|_, _| answer_at(1_000_000_000));
    assert_eq!(case.client.bearer("/logout", &sign(&future), json!({})).await.status, 200);
    assert!(!case.passes(&future).await);
}

#[tokio::test]
async fn revoking_ends_the_callers_session_only() {
    let case = Case::start(&[]).await;
    let refresh = || json!({"refreshToken": "r"});
    let by_session = session("one", 0);
    let by_jti = by_session.clone().claim("origin_jti", "ABSENT").claim("jti", "a");
    let by_digest = by_jti.clone().claim("jti", "ABSENT");
    for (token, same, other) in [
        (&by_session, by_session.clone().claim("jti", "b"), session("two", 0)),
        (&by_jti, by_jti.clone().claim("scope", "x"), by_jti.clone().claim("jti", "b")),
        (&by_digest, by_digest.clone(), by_digest.clone().claim("scope", "x")),
    ] {
        let admin = "aws.cognito.signin.user.admin";
        let token = token.clone().claim("scope", admin);
        assert!(case.passes(&token).await && case.passes(&same).await && case.passes(&other).await);
        let reply = case.client.bearer("/revoke", &sign(&token), refresh()).await;
        assert_eq!((reply.status, reply.text("scope")), (200, "replica"));
        assert!(!case.passes(&token).await && !case.passes(&same).await && case.passes(&other).await);
    }
    for kind in ["origin_jti", "jti", "token"] {
        assert_eq!(metric(&case.app.admin, &format!("revocations{{kind=\"{kind}\"}}")).await, 1.0);
    }
}

#[tokio::test]
async fn a_new_password_ends_all_other_sessions_and_a_deleted_user_has_none() {
    let case = Case::start(&[]).await;
    let now = unix_now();
    let (own, other) = (session("own", now), session("other", now - 100));
    case.fake.answers(move |_, _| answer_at(now));
    let change = json!({"oldPassword": "o", "newPassword": "n"});
    assert_eq!(case.client.bearer("/change-password", &sign(&own), change).await.status, 200);
    assert!(case.passes(&own).await && !case.passes(&other).await && case.passes(&session("new", now + 1)).await);
    assert!(case.passes(&own.clone().claim("jti", "refreshed")).await);

    assert_eq!(case.client.call(Method::DELETE, "/me", &sign(&own), json!({})).await.status, 200);
    assert!(!case.passes(&own).await && !case.passes(&other).await);
}

#[tokio::test]
async fn nothing_is_revoked_unless_cognito_confirms() {
    let case = Case::start(&[]).await;
    let token = session("old", unix_now());
    for (reply, expected) in [
        (Reply::status(500), (503, "upstream_unavailable")),
        (refusal("InternalErrorException", ""), (503, "upstream_unavailable")),
        (Reply::ok("<html>"), (502, "upstream_error")),
        (refusal("TooManyRequestsException", ""), (429, "rate_limited")),
    ] {
        case.fake.answers(move |_, _| reply.clone());
        assert_eq!(case.client.bearer("/logout", &sign(&token), json!({})).await.verdict(), expected);
        assert!(case.passes(&token).await);
    }
    case.fake.refuses("NotAuthorizedException", "Incorrect username or password.");
    let change = json!({"oldPassword": "o", "newPassword": "n"});
    assert_eq!(case.client.bearer("/change-password", &sign(&token), change).await.status, 400);
    assert!(case.passes(&session("other", 0)).await);
    // For a verified token, this is a confirmation.
    case.fake.refuses("NotAuthorizedException", "Access Token has been revoked");
    assert_eq!(case.client.bearer("/logout", &sign(&token), json!({})).await.status, 200);
    assert!(!case.passes(&token).await);
}

#[tokio::test]
async fn a_sign_out_continues_when_its_client_leaves() {
    let case = Case::start(&[]).await;
    let token = session("old", unix_now());
    case.fake.answers(|_, _| slowly(Reply::ok("{}"), Duration::from_millis(300)));
    let (client, signed) = (case.client.clone(), sign(&token));
    let request = tokio::spawn(async move { client.bearer("/logout", &signed, json!({})).await });
    eventually("the call", PATIENCE, async || case.fake.calls().len() == 1).await;
    request.abort();
    eventually("the revocation", PATIENCE, async || !case.passes(&token).await).await;
}

#[tokio::test]
async fn a_full_table_refuses_new_revocations_and_forgets_none() {
    let case = Case::start(&["--revocation-capacity", "1"]).await;
    let of = |sub: &str| session("x", unix_now()).claim("sub", sub);
    let (first, second) = (of("first"), of("second"));
    assert_eq!(case.client.bearer("/logout", &sign(&first), json!({})).await.status, 200);
    let refused = case.client.bearer("/logout", &sign(&second), json!({})).await;
    assert_eq!(refused.verdict(), (503, "upstream_unavailable"));
    assert!(!case.passes(&first).await && case.passes(&second).await);
    assert_eq!(metric(&case.app.admin, "revocation_writes_total{kind=\"sub\",result=\"full\"}").await, 1.0);
    // The one that is there can still reach further.
    let later = of("first").claim("auth_time", unix_now() + 1);
    assert!(case.passes(&later).await);
    assert_eq!(case.client.bearer("/logout", &sign(&later), json!({})).await.status, 200);
    assert!(!case.passes(&later).await);
}

#[tokio::test]
async fn a_refresh_of_a_session_that_was_revoked_here_hands_out_nothing() {
    let case = Case::start(&[]).await;
    assert_eq!(case.client.bearer("/logout", &sign(&session("o", unix_now())), json!({})).await.status, 200);
    case.fake.answers(|_, _| tokens(&json!({"AccessToken": sign(&session("o", unix_now() - 100))})));
    let reply = case.client.post("/refresh", json!({"refreshToken": "r"})).await;
    assert_eq!(reply.verdict(), (401, "invalid_token"));
    // A sign-in after the response counts.
    case.fake.answers(|_, _| tokens(&json!({})));
    let reply = case.client.post("/login", json!({"email": "a@b", "password": "p"})).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let answer = check(&case.checks, bearer(reply.text("accessToken"))).await.unwrap();
    assert_eq!((answer.status, &*answer.reason), (200, ""));
}

#[tokio::test]
async fn tokens_that_outlive_revocations_are_refused() {
    let case = Case::start(&["--max-token-life", "1h"]).await;
    let now = unix_now();
    let of = |life: i64| TokenBuilder::access().claim("iat", now).claim("exp", now + life);
    assert_eq!(verdict(&case.checks, &sign(&of(3600))).await, (200, String::new()));
    assert_eq!(verdict(&case.checks, &sign(&of(3601))).await, (401, "token_life_exceeded".to_owned()));
    let by_sign_in = of(3600).claim("iat", "ABSENT");
    assert_eq!(verdict(&case.checks, &sign(&by_sign_in.clone().claim("auth_time", now))).await.0, 200);
    let old = by_sign_in.claim("auth_time", now - 1);
    assert_eq!(verdict(&case.checks, &sign(&old)).await, (401, "token_life_exceeded".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_revocation_is_one_line_of_the_log_without_the_user_or_the_token() {
    let fake = FakeCognito::start().await;
    let mut program =
        Program::start(&[&QUICK[..], &["--cognito-endpoint", &fake.url, "--log-format", "json"]].concat());
    program.wait_for_line("\"ready\"");
    let token = sign(&session("old", unix_now()));
    let client = AccountClient::new(&program.admin);
    assert_eq!(client.bearer("/logout", &token, json!({})).await.status, 200);
    program.signal("TERM");
    program.wait();
    let lines: Vec<_> = program.log.iter().filter(|line| line.contains(r#""event":"revocation""#)).collect();
    assert_eq!(lines.len(), 1, "{:?}", program.log);
    for part in [r#""action":"revoke""#, r#""kind":"sub""#, r#""by":"logout""#, r#""result":"success""#] {
        assert!(lines[0].contains(part), "{part} {}", lines[0]);
    }
    let log = program.log.concat();
    assert!(!log.contains(SUB) && !log.contains(&token) && !log.contains(token.rsplit('.').next().unwrap()));
}

#[tokio::test]
async fn a_token_without_times_counts_as_older_than_every_revocation() {
    let case = Case::start(&[]).await;
    let timeless = session("x", 0).claim("auth_time", "ABSENT").claim("iat", "ABSENT");
    assert!(case.passes(&timeless).await);
    let broken = session("x", 0).claim("auth_time", "yesterday").claim("jti", 7).claim("origin_jti", 7);
    assert!(case.passes(&broken).await);
    assert_eq!(case.client.bearer("/logout", &sign(&session("y", 0)), json!({})).await.status, 200);
    assert!(!case.passes(&timeless).await && !case.passes(&broken).await);
}
