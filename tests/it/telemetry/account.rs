//! Spans of the account API, and of the calls of Cognito and the revocations below them.

use serde_json::json;

use super::{SPAN, TRACE, end, traceparent};
use crate::account::QUICK;
use crate::support::account::AccountClient;
use crate::support::client::get;
use crate::support::collector::{Collected, Collector, Protocol};
use crate::support::fake_cognito::{FakeCognito, tokens};
use crate::support::service::TestApp;
use crate::support::token::{SUB, SigningKey, TokenBuilder};
use crate::support::{PATIENCE, eventually};

async fn start(collector: &Collector, flags: &[&str]) -> (TestApp, AccountClient, FakeCognito) {
    let fake = FakeCognito::start().await;
    let flags = [&QUICK[..], flags, &["--cognito-endpoint", &fake.url]].concat();
    let app = TestApp::start_with(&collector.variables(), &flags);
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    let client = AccountClient::new(&app.admin);
    (app, client, fake)
}

fn with_name<'c>(spans: &'c [Collected], name: &str) -> Vec<&'c Collected> {
    spans.iter().filter(|collected| collected.span.name == name).collect()
}

#[tokio::test]
async fn a_request_and_its_calls_are_one_trace() {
    let collector = Collector::start(Protocol::Grpc).await;
    let (app, client, fake) = start(&collector, &["--trace-trust-headers"]).await;
    fake.answers(|_, _| tokens(&json!({"RefreshToken": "refresh-secret"})));
    let context = traceparent("01");
    let context = [("traceparent", &*context)];
    let login = json!({"email": "ada@example.test", "password": "password-secret"});
    assert_eq!(client.send("/login", &context, login).await.status, 200);
    fake.refuses("NotAuthorizedException", "ada@example.test is not right");
    let login = json!({"email": "ada@example.test", "password": "wrong-secret"});
    assert_eq!(client.send("/login", &context, login).await.status, 401);
    fake.answers(|_, _| crate::support::server::Reply::ok("{}"));
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let bearer = format!("Bearer {token}");
    let headers = [context[0], ("authorization", &*bearer)];
    assert_eq!(client.send("/logout", &headers, json!({"refreshToken": "refresh-secret"})).await.status, 200);
    assert_eq!(client.send("/nowhere/ada@example.test", &context, json!({})).await.status, 404);
    // Not sampled.
    assert_eq!(client.bearer("/logout", &token, json!({"refreshToken": "refresh-secret"})).await.status, 401);
    end(app).await;

    let spans = collector.spans();
    let of_trace: Vec<Collected> = spans.iter().filter(|collected| collected.trace() == TRACE).cloned().collect();
    let requests: Vec<&Collected> = of_trace.iter().filter(|collected| collected.parent() == SPAN).collect();
    let names: Vec<&str> = requests.iter().map(|collected| &*collected.span.name).collect();
    assert_eq!(names, ["POST /auth/login", "POST /auth/login", "POST /auth/logout", "POST"]);
    assert!(requests.iter().all(|collected| collected.span.kind == 2 && collected.status() == 0));
    let login = requests[0];
    assert_eq!(
        login.attributes("http."),
        ["http.request.method=POST", "http.response.status_code=200", "http.route=/auth/login"]
    );
    assert_eq!(login.attributes("cognito_authz."), ["cognito_authz.operation=login", "cognito_authz.outcome=success"]);
    assert_eq!(requests[1].attribute("cognito_authz.outcome").as_deref(), Some("invalid_credentials"));
    assert_eq!(requests[3].attribute("http.route"), None);

    let calls = with_name(&of_trace, "CognitoIdentityProvider.InitiateAuth");
    assert_eq!(calls.iter().map(|call| call.parent()).collect::<Vec<_>>(), [login.id(), requests[1].id()]);
    let rpc = ["rpc.method=InitiateAuth", "rpc.service=CognitoIdentityProvider", "rpc.system=aws-api"];
    assert_eq!((calls[0].attributes("rpc."), calls[0].span.kind), (rpc.map(str::to_owned).to_vec(), 3));
    assert_eq!(calls[0].attribute("server.address").as_deref(), Some("127.0.0.1"));
    assert_eq!((calls[0].status(), calls[1].status()), (0, 2));
    assert_eq!(calls[1].attribute("cognito_authz.error").as_deref(), Some("NotAuthorizedException"));
    // The sign-out goes on in a task of its own, and records what it has revoked.
    for name in ["CognitoIdentityProvider.GlobalSignOut", "CognitoIdentityProvider.RevokeToken", "record revocation"] {
        let found = with_name(&of_trace, name);
        assert_eq!(found.iter().map(|span| span.parent()).collect::<Vec<_>>(), [requests[2].id()], "{name}");
    }
    let recorded = with_name(&of_trace, "record revocation")[0].attributes("cognito_authz.");
    assert_eq!(recorded, ["cognito_authz.revocation.kind=sub", "cognito_authz.revocation.scope=replica"]);

    let others: Vec<&str> =
        spans.iter().filter(|collected| collected.trace() != TRACE).map(|collected| &*collected.span.name).collect();
    assert!(others.iter().all(|name| *name == "fetch keys"), "{others:?}");
    let text = format!("{spans:?}");
    for secret in ["secret", "ada@", "eyJ", SUB, "is not right"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn a_client_cannot_switch_traces_on() {
    let collector = Collector::start(Protocol::Http).await;
    let (app, client, fake) = start(&collector, &[]).await;
    fake.answers(|_, _| tokens(&json!({})));
    let context = traceparent("01");
    let login = json!({"email": "ada@example.test", "password": "p"});
    assert_eq!(client.send("/login", &[("traceparent", &context)], login).await.status, 200);
    end(app).await;
    let names: Vec<String> = collector.spans().into_iter().map(|collected| collected.span.name).collect();
    assert!(names.iter().all(|name| name == "fetch keys"), "{names:?}");
}
