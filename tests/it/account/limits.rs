//! Rate limits: per client address, per user, per recipient, and the address that counts behind proxies.

use serde_json::{Value, json};

use super::with_fake;
use crate::support::account::AccountClient;
use crate::support::client::metric;
use crate::support::fake_cognito::tokens;
use crate::support::jwks_server::Reply;
use crate::support::token::{SigningKey, TokenBuilder};

/// Returns the number of requests before the first 429; `most` if there is none. `from` and `body` return the client
/// address and the body of a request from its number.
async fn until_limited(
    client: &AccountClient,
    path: &str,
    most: usize,
    from: impl Fn(usize) -> Option<String>,
    body: impl Fn(usize) -> Value,
) -> usize {
    for n in 0..most {
        let address = from(n);
        let headers: Vec<_> = address.iter().map(|address| ("x-forwarded-for", &**address)).collect();
        let reply = client.send(path, &headers, body(n)).await;
        if reply.status == 429 {
            assert_eq!(reply.text("code"), "rate_limited");
            assert!(reply.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
            return n;
        }
    }
    most
}

const FAST: &str = "--account-min-failure-time=0s";

fn login(user: &str) -> Value {
    json!({"email": user, "password": "wrong"})
}

#[tokio::test]
async fn a_usual_session_passes_and_guesses_are_limited() {
    let (app, client, fake) = with_fake(&[FAST]).await;
    fake.answers(|_, _| tokens(&json!({"RefreshToken": "r"})));
    let token = TokenBuilder::access().sign(SigningKey::shared());
    for (path, body) in super::bodies().into_iter().chain(super::bodies().into_iter().skip(3)).take(15) {
        let reply = client.bearer(path, &token, body).await;
        assert_ne!(reply.status, 429, "{path}");
    }
    fake.refuses("NotAuthorizedException", "Incorrect username or password.");
    let from_here = |_| None;
    let attempts = until_limited(&client, "/login", 31, from_here, |_| login("victim")).await;
    assert!(attempts <= 30, "{attempts}");
    let asked = fake.calls().len();
    assert_eq!(client.post("/login", login(" VICTIM ")).await.status, 429, "another spelling is the same user");
    assert_eq!(fake.calls().len(), asked, "Cognito is not called");
    let unknown = until_limited(&client, "/login", 31, from_here, |_| login("nobody")).await;
    assert!(unknown <= 30, "unknown users are limited, too");
    let attempts = until_limited(&client, "/login", 151, from_here, |n| login(&format!("user{n}"))).await;
    assert!(attempts <= 150, "{attempts}");
    for limit in ["address_user", "address"] {
        assert!(metric(&app.admin, &format!("rate_limited_total{{limit=\"{limit}\"}}")).await > 0.0, "{limit}");
    }
}

#[tokio::test]
async fn the_client_address_is_the_one_that_the_trusted_proxy_added() {
    let flags = [FAST, "--trusted-hops=1", "--limit-address=10/1h", "--limit-user=6/1h", "--limit-sends=3/1h"];
    let (app, client, fake) = with_fake(&flags).await;
    fake.refuses("NotAuthorizedException", "Incorrect username or password.");
    // The client can only set the addresses on the left, which do not count.
    let forged = |n: usize| Some(format!("203.0.113.{n}, 192.0.2.1"));
    assert_eq!(until_limited(&client, "/login", 20, forged, |n| login(&format!("u{n}"))).await, 10);
    let everywhere = |n: usize| Some(format!("198.51.100.{n}"));
    assert_eq!(
        until_limited(&client, "/login", 20, everywhere, |_| login("victim")).await,
        8,
        "a third more from many addresses"
    );
    let one = |_| Some("198.51.101.1".to_owned());
    assert_eq!(until_limited(&client, "/login", 20, one, |_| login("other")).await, 6);
    let challenge = |_: usize| json!({"challenge": "SMS_MFA", "session": "s", "email": "other", "responses": {}});
    assert_eq!(until_limited(&client, "/challenge", 20, one, challenge).await, 0, "a challenge counts, too");
    let sends = |n: usize| Some(format!("198.51.102.{n}"));
    let forgot = |_: usize| json!({"email": "other"});
    assert_eq!(until_limited(&client, "/forgot-password", 20, sends, forgot).await, 3);
    for limit in ["address", "address_user", "user", "sends"] {
        assert!(metric(&app.admin, &format!("rate_limited_total{{limit=\"{limit}\"}}")).await > 0.0, "{limit}");
    }
}

#[tokio::test]
async fn password_changes_count_for_the_user_of_the_token() {
    let (_app, client, fake) = with_fake(&[FAST, "--limit-user=3/1h"]).await;
    fake.refuses("NotAuthorizedException", "Incorrect username or password.");
    let change = json!({"oldPassword": "guess", "newPassword": "n", "email": "somebody-else"});
    let token = |user: &str| TokenBuilder::access().claim("username", user).sign(SigningKey::shared());
    for (user, expected) in [("a", [400, 400, 400, 429]), ("b", [400, 400, 400, 429])] {
        for expected in expected {
            assert_eq!(
                client.bearer("/change-password", &token(user), change.clone()).await.status,
                expected,
                "{user}"
            );
        }
    }
}

#[tokio::test]
async fn requests_from_unknown_addresses_are_counted_and_share_one_limit() {
    let (app, client, fake) = with_fake(&[FAST, "--limit-address=2/1h"]).await;
    fake.answers(|_, _| Reply::ok("{}"));
    let anywhere = |n: usize| Some(format!("198.51.100.{n}"));
    let body = |n: usize| json!({"email": format!("u{n}")});
    assert_eq!(until_limited(&client, "/forgot-password", 40, anywhere, body).await, 2, "as many as one known address");
    assert!(metric(&app.admin, "account_unknown_addresses_total").await >= 2.0);
    assert!(metric(&app.admin, "rate_limited_total{limit=\"global\"}").await > 0.0);
}

#[tokio::test]
async fn the_client_address_reaches_cognito_only_with_the_option() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "1exampleclientsecret0123456789abcdefghijklmnopqrstu").unwrap();
    let forward = ["--forward-client-address", "--trusted-hops=1", "--client-secret-file", secret.to_str().unwrap()];
    for (flags, expected) in [(&forward[..], json!("192.0.2.7")), (&forward[1..], Value::Null)] {
        let (_app, client, fake) = with_fake(&[&[FAST], flags].concat()).await;
        fake.answers(|_, _| tokens(&json!({})));
        client.send("/login", &[("x-forwarded-for", "192.0.2.7")], login("a")).await;
        assert_eq!(fake.calls()[0].body["UserContextData"]["IpAddress"], expected);
    }
}
