//! The metrics have every outcome that an operation can have from the start, and none that it cannot have.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use reqwest::Method;
use serde_json::json;

use super::{QUICK, routes, with_fake};
use crate::support::account::AccountClient;
use crate::support::client::{get, metric};
use crate::support::fake_cognito::{FakeCognito, refusal};
use crate::support::jwks_server::Reply;
use crate::support::service::SIGN_IN;
use crate::support::token::{SigningKey, TokenBuilder};
use crate::support::tool;

/// Messages that make a difference for the errors with many meanings.
const MESSAGES: [&str; 6] = [
    "Private.",
    "Unable to verify secret hash for client",
    "USER_PASSWORD_AUTH flow not enabled for this client",
    "Access Token has been revoked",
    "Invalid session for the user, session is expired.",
    "A client attempted to write unauthorized attribute",
];

/// Errors that AWS's description of the API lists for each operation.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let script = "import json, botocore.session\n\
        model = botocore.session.get_session().get_service_model('cognito-idp')\n\
        errors = lambda name: [shape.name for shape in model.operation_model(name).error_shapes]\n\
        print(json.dumps({name: errors(name) for name in model.operation_names}))";
    let output = Command::new(tool::program("python")).args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Series of requests and calls that the metrics have.
async fn series(admin: &str) -> BTreeSet<String> {
    let (_, metrics) = get(admin, "/metrics").await;
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("cognito_authz_")?.rsplit_once(' '));
    let is_counted =
        |name: &&str| ["account_requests_total{", "cognito_requests_total{"].iter().any(|f| name.starts_with(f));
    lines.map(|(name, _)| name).filter(is_counted).map(str::to_owned).collect()
}

/// Returns an access token of a user of its own: some operations end the sessions of their user.
fn token(number: usize, scope: &str) -> String {
    let own = format!("user-{number}");
    let token = TokenBuilder::access().claim("sub", &*own).claim("origin_jti", &*own).claim("jti", &*own);
    token.claim("scope", scope).sign(SigningKey::shared())
}

/// Makes Cognito answer each call that each operation makes with each documented error. Returns the number of requests.
async fn refuse_everything(client: &AccountClient, fake: &FakeCognito) -> usize {
    let documented = documented();
    let mut asked = 0;
    for (method, path, body) in routes() {
        for scope in ["aws.cognito.signin.user.admin", "openid"] {
            fake.answers(|_, _| Reply::ok("{}"));
            client.call(method.clone(), path, &token(asked, scope), body.clone()).await;
            asked += 1;
            for operation in fake.operations() {
                for name in &documented[&operation] {
                    let has_many_meanings = ["NotAuthorizedException", "InvalidParameterException"].contains(&&**name);
                    for message in MESSAGES.into_iter().take(if has_many_meanings { MESSAGES.len() } else { 1 }) {
                        let (refused, name) = (operation.clone(), name.clone());
                        fake.answers(
                            move |call, _| {
                                if call.operation == refused { refusal(&name, message) } else { Reply::ok("{}") }
                            },
                        );
                        client.call(method.clone(), path, &token(asked, scope), body.clone()).await;
                        asked += 1;
                    }
                }
            }
        }
    }
    asked
}

/// Sends requests that are refused without a call of Cognito.
async fn refuse_without_calls(client: &AccountClient, fake: &FakeCognito) {
    fake.answers(|_, _| Reply::ok("{}"));
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(20_000));
    let json_type = [("content-type", "application/json")];
    for (method, path, _) in routes() {
        let bearer = format!("Bearer {}", token(usize::MAX, "aws.cognito.signin.user.admin"));
        let bearer = [("content-type", "application/json"), ("authorization", &*bearer)];
        for (headers, body) in [
            (&bearer[..], "[]"),
            (&bearer[..], &*large),
            (&bearer[1..], "{}"),
            (&json_type[..], "{}"),
            (&[json_type[0], ("authorization", "Bearer x")], "{}"),
            (&[json_type[0], ("cookie", "__Host-access_token=x; __Host-refresh_token=y")], "{}"),
            (
                &[
                    json_type[0],
                    ("cookie", "__Host-access_token=x; __Host-refresh_token=y"),
                    ("origin", "https://x.test"),
                ],
                "{}",
            ),
            (&[json_type[0], ("cookie", "__Host-access_token=x; __Host-access_token=y")], "{}"),
        ] {
            client.raw(method.clone(), path, headers, body.to_owned()).await;
        }
        client.raw(Method::TRACE, path, &[], "").await;
    }
    for path in ["/openapi.json", "/nothing", "/oauth/authorize-url", "/oauth/authorize-url?redirectUri=x"] {
        for method in [Method::GET, Method::POST] {
            client.raw(method, path, &[], "").await;
        }
    }
}

/// Explores a service with these flags. `in_body` asks for tokens in the body, and not in cookies.
async fn explore(flags: &[&str], in_body: bool) {
    let (app, client, fake) = with_fake(&[&QUICK[..], flags].concat()).await;
    let client = if in_body { client.always(("x-account-tokens", "body")) } else { client };
    let before = series(&app.admin).await;
    assert!((200..700).contains(&before.len()), "{}", before.len());
    refuse_without_calls(&client, &fake).await;
    let asked = refuse_everything(&client, &fake).await;
    assert!(asked > 500, "{asked}");
    let new: Vec<_> = series(&app.admin).await.difference(&before).cloned().collect();
    assert!(new.is_empty(), "{flags:?}: {new:#?}");
}

#[tokio::test]
async fn every_outcome_of_an_operation_is_there_from_the_start() {
    tokio::join!(
        explore(&[], false),
        explore(&["--account-hide-users"], false),
        explore(&SIGN_IN, false),
        explore(&SIGN_IN, true),
    );
}

#[tokio::test]
async fn outcomes_that_an_operation_cannot_have_appear_when_they_happen() {
    let (app, client, fake) = with_fake(&QUICK).await;
    let before = series(&app.admin).await;
    let of = |operation: &str, outcome: &str| {
        format!("account_requests_total{{operation=\"{operation}\",outcome=\"{outcome}\"}}")
    };
    for (operation, outcome, exists) in [
        ("delete-me", "success", true),
        ("delete-me", "invalid_token", true),
        ("delete-me", "method_not_allowed", false),
        ("delete-me", "username_exists", false),
        ("delete-me", "challenge", false),
        ("me", "method_not_allowed", true),
        ("me", "scope_missing", true),
        ("login", "challenge", true),
        ("login", "scope_missing", false),
        ("login", "cross_site", false),
        ("refresh", "challenge", false),
        ("register", "username_exists", true),
        ("register", "invalid_token", false),
        ("none", "not_found", true),
        ("none", "success", false),
        // The routes do not exist without hosted pages and cookies.
        ("oauth-token", "success", false),
        ("oauth-sign-in", "success", false),
    ] {
        assert_eq!(before.contains(&of(operation, outcome)), exists, "{operation} {outcome}");
    }
    fake.refuses("UsernameExistsException", "not documented for this operation");
    let refused = client.call(Method::DELETE, "/me", &token(1, "aws.cognito.signin.user.admin"), json!({})).await;
    assert_eq!(refused.verdict(), (400, "username_exists"));
    assert_eq!(metric(&app.admin, &of("delete-me", "username_exists")).await, 1.0);
}
