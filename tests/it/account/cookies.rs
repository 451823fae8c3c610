//! Browser sessions in cookies: a whole session at the emulator, the origins that may use it, and errors.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::oauth::{REDIRECT, authorize_url, finish, hosted_client, hosted_flags, in_a_browser};
use super::sign_in::{flags, ready, sign_in};
use super::{QUICK, routes, with_fake};
use crate::support::account::{AccountClient, PASSWORD, Pool, Reply as Answer};
use crate::support::client::{get, metric};
use crate::support::emulator::Emulator;
use crate::support::fake_cognito::{refusal, tokens};
use crate::support::jwks_server::Reply;
use crate::support::service::{Program, TestApp};
use crate::support::token::{SigningKey, TokenBuilder};

const COOKIES: &str = "--account-cookies";
const IN_BODY: (&str, &str) = ("x-account-tokens", "body");

/// Browser that keeps cookies and sends the headers that name the origin of its page.
struct Browser {
    client: AccountClient,
    origin: String,
    jar: BTreeMap<String, String>,
}

impl Browser {
    fn new(address: &str) -> Self {
        Self { client: AccountClient::new(address), origin: format!("http://{address}"), jar: BTreeMap::new() }
    }

    fn cookie(&self) -> String {
        self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn kept(&self) -> Vec<&str> {
        self.jar.keys().map(String::as_str).collect()
    }

    /// Sends a request from a page of the same origin.
    async fn fetch(&mut self, method: Method, path: &str, body: &Value) -> Answer {
        let cookie = self.cookie();
        let origin = self.origin.clone();
        let mut headers = vec![("content-type", "application/json"), ("sec-fetch-site", "same-origin")];
        if !cookie.is_empty() {
            headers.push(("cookie", &cookie));
        }
        if ![Method::GET, Method::HEAD].contains(&method) {
            headers.push(("origin", &origin));
        }
        let text = if *body == Value::Null { String::new() } else { body.to_string() };
        let reply = self.client.raw(method, path, &headers, text).await;
        self.take(&reply);
        reply
    }

    async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.fetch(Method::POST, path, &body).await
    }

    /// Stores and removes cookies as `Set-Cookie` says. Checks their attributes.
    fn take(&mut self, reply: &Answer) {
        for cookie in reply.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            assert!(cookie.ends_with("; HttpOnly; Secure; SameSite=Strict"), "{cookie}");
            assert!(cookie.starts_with("__Host-") && cookie.contains("; Path=/;") && !cookie.contains("Domain"));
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            assert!(name.len() + value.len() <= 4096, "{name}");
            if cookie.contains("; Max-Age=0;") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.into(), value.into());
            }
        }
    }
}

const BOTH: [&str; 2] = ["__Host-access_token", "__Host-refresh_token"];

/// Fails if the body contains a token.
fn assert_no_tokens(reply: &Answer) {
    let text = reply.body.to_string();
    for name in ["accessToken", "idToken", "refreshToken", "eyJ"] {
        assert!(!text.contains(name), "{text}");
    }
}

#[tokio::test]
async fn a_browser_keeps_its_session_in_cookies() {
    let emulator = Emulator::start().await;
    let pool = Pool::create(&emulator, true, json!({})).await;
    let (flags, _directory) = flags(&emulator, &pool);
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(QUICK).chain([COOKIES]).collect();
    let app = TestApp::start(&flags);
    ready(&app.admin).await;
    let mut browser = Browser::new(&app.admin);
    let email = "ada@example.com";
    let register = json!({"email": email, "password": PASSWORD, "name": "Ada"});
    assert_eq!(browser.post("/register", register).await.status, 201);
    let code = crate::support::account::mailed_code(&emulator, email).await;
    assert_eq!(browser.post("/verify", json!({"email": email, "code": code})).await.status, 200);

    let login = json!({"email": email, "password": PASSWORD});
    let reply = browser.post("/login", login.clone()).await;
    assert_eq!((reply.status, reply.text("tokenType")), (200, "Bearer"), "{:?}", reply.body);
    assert_no_tokens(&reply);
    assert_eq!(browser.kept(), BOTH);
    let set: Vec<_> = reply.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap()).collect();
    let lives = reply.body["expiresIn"].as_i64().unwrap();
    assert!(set[0].contains(&format!("; Max-Age={lives};")), "the access cookie expires with its token");
    assert!(!set[1].contains("Max-Age"), "the refresh cookie ends with the browser session");

    let me = browser.fetch(Method::GET, "/me", &Value::Null).await;
    assert_eq!((me.status, &me.body["attributes"]["email"]), (200, &json!(email)), "{:?}", me.body);
    let rename = json!({"attributes": {"name": "Ada L."}});
    let renamed = browser.fetch(Method::PATCH, "/me", &rename).await;
    assert_eq!(renamed.status, 200, "{:?}", renamed.body);
    let before = browser.jar.clone();
    let refreshed = browser.post("/refresh", Value::Null).await;
    assert_eq!(refreshed.status, 200, "{:?}", refreshed.body);
    assert_no_tokens(&refreshed);
    assert_ne!(browser.jar[BOTH[0]], before[BOTH[0]]);
    assert_eq!(browser.jar[BOTH[1]], before[BOTH[1]], "it was not rotated");

    let reply = browser.post("/logout", Value::Null).await;
    assert_eq!((reply.status, browser.kept()), (200, vec![]), "{:?}", reply.body);
    browser.jar = before;
    assert_eq!(
        browser.post("/refresh", Value::Null).await.verdict(),
        (401, "invalid_token"),
        "the refresh token has been revoked"
    );

    // The access cookie has expired with its token. The user can still sign out.
    browser.jar.clear();
    browser.post("/login", login.clone()).await;
    let refresh = json!({"refreshToken": browser.jar[BOTH[1]]});
    browser.jar.remove(BOTH[0]);
    let reply = browser.post("/logout", json!({})).await;
    assert_eq!((reply.status, browser.kept()), (200, vec![]), "{:?}", reply.body);
    assert_eq!(browser.post("/refresh", refresh).await.verdict(), (401, "invalid_token"));
    let reply = browser.post("/logout", json!({})).await;
    assert_eq!((reply.verdict(), reply.text("message")), ((401, "invalid_token"), "No token provided"));

    browser.post("/login", login).await;
    assert_eq!(browser.fetch(Method::DELETE, "/me", &Value::Null).await.status, 200);
    assert!(browser.jar.is_empty(), "deleting the account removes its session");
}

#[tokio::test]
async fn every_route_rejects_requests_from_other_origins() {
    let listed = "https://app.example.com";
    let (app, client, fake) = with_fake(&[&QUICK[..], &[COOKIES, "--cors-origins", listed]].concat()).await;
    fake.answers(|_, _| tokens(&json!({"RefreshToken": "r"})));
    let access = TokenBuilder::access().sign(SigningKey::shared());
    let cookie = format!("{}={access}; {}=r", BOTH[0], BOTH[1]);
    let own = format!("http://{}", app.admin);
    let own_https = format!("https://{}", app.admin);
    for (headers, refused) in [
        (&[("origin", &*own)][..], false),
        (&[("origin", &own_https)], false),
        (&[("origin", listed)], false),
        (&[("origin", &own), ("sec-fetch-site", "cross-site")], false),
        (&[("sec-fetch-site", "same-origin")], false),
        (&[("sec-fetch-site", "none")], false),
        (&[], true),
        (&[("sec-fetch-site", "same-site")], true),
        (&[("sec-fetch-site", "cross-site")], true),
        (&[("origin", "https://evil.example")], true),
        (&[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], true),
        (&[("origin", "https://app.example.com.evil.example")], true),
        (&[("origin", "http://app.example.com")], true),
        (&[("origin", "null")], true),
        (&[("origin", &own), ("origin", listed)], true),
        // Browsers can send this header without a script.
        (&[("authorization", "Basic dTpw")], true),
    ] {
        for (method, path, body) in routes() {
            let headers = [headers, &[("content-type", "application/json"), ("cookie", &cookie)]].concat();
            let body = if method == Method::GET { String::new() } else { body.to_string() };
            let reply = client.raw(method.clone(), path, &headers, body).await;
            let is_refused = reply.verdict() == (403, "cross_site");
            assert_eq!(is_refused, refused && method != Method::GET, "{method} {path} {headers:?}: {:?}", reply.body);
            if is_refused {
                assert!(!reply.headers.contains_key("set-cookie"));
            }
        }
    }
    // A sign-in without cookies is checked, too, because its response sets them.
    let login = json!({"email": "a", "password": "p"});
    assert_eq!(client.post("/login", login.clone()).await.verdict(), (403, "cross_site"));
    assert!(metric(&app.admin, "account_requests_total{operation=\"login\",outcome=\"cross_site\"}").await > 1.0);
    let asked = fake.calls().len();
    assert_eq!(client.send("/login", &[("origin", "https://evil.example")], login.clone()).await.status, 403);
    assert_eq!(fake.calls().len(), asked, "Cognito is not called");

    // CORS headers allow cookies to pages of listed origins only.
    let reply = client.send("/login", &[("origin", listed)], login.clone()).await;
    assert_eq!((reply.status, &reply.headers["access-control-allow-credentials"]), (200, &"true".parse().unwrap()));
    let preflight = [("origin", listed), ("access-control-request-method", "POST")];
    let reply = client.raw(Method::OPTIONS, "/login", &preflight, "").await;
    assert_eq!((reply.status, &reply.headers["access-control-allow-credentials"]), (204, &"true".parse().unwrap()));
    assert_eq!(reply.headers["access-control-allow-headers"], "Authorization, Content-Type, X-Account-Tokens");
    let reply = client.send("/login", &[("origin", "https://evil.example")], login).await;
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{:?}", reply.headers);
}

#[tokio::test]
async fn a_long_token_is_split_into_several_cookies() {
    let (app, _, fake) = with_fake(&[&QUICK[..], &[COOKIES, "--account-cookie-max-age=30d"]].concat()).await;
    let long = TokenBuilder::access().claim("cognito:groups", vec!["g".repeat(100); 70]).sign(SigningKey::shared());
    assert!(long.len() > 9_000);
    let (access, refresh) = (long.clone(), "r".repeat(4_000));
    fake.answers(move |_, _| tokens(&json!({"AccessToken": access, "RefreshToken": refresh})));
    let mut browser = Browser::new(&app.admin);
    let reply = browser.post("/login", json!({"email": "a", "password": "p"})).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert_eq!(browser.kept().len(), 5, "{:?}", browser.kept());
    let lasting = reply.headers.get_all("set-cookie").iter().filter(|cookie| {
        cookie.to_str().unwrap().contains("__Host-refresh") && cookie.to_str().unwrap().contains("Max-Age=2592000;")
    });
    assert_eq!(lasting.count(), 2);

    // The service joins the pieces.
    fake.answers(|call, _| match &*call.operation {
        "GetUser" => Reply::ok(json!({"Username": "u", "UserAttributes": [{"Name": "sub", "Value": "s"}]}).to_string()),
        _ => tokens(&json!({"RefreshToken": "short"})),
    });
    assert_eq!(browser.fetch(Method::GET, "/me", &Value::Null).await.status, 200);
    assert_eq!(fake.calls()[0].body["AccessToken"], long.as_str());
    assert_eq!(browser.post("/refresh", Value::Null).await.status, 200);
    assert_eq!(fake.calls()[1].body["RefreshToken"], "r".repeat(4_000));
    assert_eq!(browser.kept(), BOTH, "pieces of the longer tokens are removed");
    assert_eq!(browser.jar[BOTH[1]], "short");

    fake.answers(|_, _| tokens(&json!({"RefreshToken": "r".repeat(17_000)})));
    let reply = browser.post("/login", json!({"email": "a", "password": "p"})).await;
    assert_eq!(reply.verdict(), (502, "session_too_large"));
    assert!(!reply.headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn a_client_that_asks_for_tokens_in_the_body_gets_no_cookies() {
    let (_app, client, fake) = with_fake(&[&QUICK[..], &[COOKIES]].concat()).await;
    fake.answers(|_, _| tokens(&json!({"RefreshToken": "r"})));
    let login = json!({"email": "a", "password": "p"});
    let reply = client.send("/login", &[IN_BODY], login).await;
    assert_eq!((reply.status, reply.text("refreshToken")), (200, "r"), "{:?}", reply.body);
    assert!(!reply.text("accessToken").is_empty() && !reply.headers.contains_key("set-cookie"));
    assert_eq!(client.send("/refresh", &[IN_BODY], json!({"refreshToken": "r"})).await.status, 200);

    // A script in the page cannot use this header to read a token from a cookie.
    let asked = fake.calls().len();
    let access = TokenBuilder::access().sign(SigningKey::shared());
    let cookie = format!("{}={access}; {}=r", BOTH[0], BOTH[1]);
    let reply = client.send("/refresh", &[IN_BODY, ("cookie", &cookie)], json!({})).await;
    assert_eq!((reply.verdict(), reply.text("message")), ((400, "invalid_request"), "refreshToken is required"));
    let reply = client.raw(Method::GET, "/me", &[IN_BODY, ("cookie", &cookie)], "").await;
    assert_eq!(reply.verdict(), (401, "invalid_token"));
    assert_eq!(fake.calls().len(), asked);
}

#[tokio::test]
async fn a_bearer_token_takes_precedence_over_cookies() {
    let (app, client, fake) = with_fake(&[&QUICK[..], &[COOKIES]].concat()).await;
    fake.answers(|_, _| Reply::ok("{}"));
    let token = |user: &str| TokenBuilder::access().claim("username", user).sign(SigningKey::shared());
    let (bearer, cookie) = (token("bearer"), token("cookie"));
    let authorization = format!("Bearer {bearer}");
    let cookies = format!("{}={cookie}; {}=of-the-cookie", BOTH[0], BOTH[1]);
    let headers = [("authorization", &*authorization), ("cookie", &*cookies)];
    let reply = client.send("/logout", &headers, json!({})).await;
    assert_eq!(reply.status, 200, "a page of another site cannot send a Bearer token: {:?}", reply.body);
    let calls = fake.calls();
    assert_eq!(
        (calls.len(), &calls[0].body["AccessToken"]),
        (1, &json!(bearer)),
        "the token of the cookie is not revoked"
    );
    assert_eq!(client.send("/refresh", &headers, json!({})).await.verdict(), (400, "invalid_request"));
    let bad = [("authorization", "Bearer x"), ("cookie", &*cookies)];
    assert_eq!(
        client.send("/logout", &bad, json!({})).await.verdict(),
        (401, "invalid_token"),
        "the cookie does not replace a bad Bearer token"
    );

    // Repeated and malformed cookies are not credentials.
    let own = format!("http://{}", app.admin);
    for cookies in [
        format!("{}={cookie}; {}={cookie}", BOTH[0], BOTH[0]),
        format!("{}=3~{cookie}", BOTH[0]),
        format!("{}=\"{cookie}\"", BOTH[0]),
    ] {
        let reply =
            client.send("/revoke", &[("origin", &own), ("cookie", &cookies)], json!({"refreshToken": "r"})).await;
        assert_eq!(reply.verdict(), (401, "invalid_token"), "{cookies}");
    }
    let twice = format!("{}=r; {}=s", BOTH[1], BOTH[1]);
    let reply = client.send("/refresh", &[("origin", &own), ("cookie", &twice)], json!({})).await;
    assert_eq!(reply.verdict(), (401, "invalid_token"));
    assert_eq!(fake.calls().len(), 1, "Cognito is called for none of these");

    // During a sign-in, `session` takes precedence over the cookies of an older session.
    fake.answers(|_, _| Reply::ok(json!({"SecretCode": "ABC", "Session": "next"}).to_string()));
    let older = format!("{}={cookie}", BOTH[0]);
    let reply = client.send("/mfa/totp", &[("origin", &own), ("cookie", &older)], json!({"session": "s"})).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert!(fake.calls()[0].body.get("AccessToken").is_none() && fake.calls()[0].body["Session"] == "s");
}

#[tokio::test]
async fn a_failed_sign_out_keeps_the_cookies() {
    let (app, _, fake) = with_fake(&[&QUICK[..], &[COOKIES]].concat()).await;
    let mut browser = Browser::new(&app.admin);
    fake.answers(|_, _| tokens(&json!({"RefreshToken": "r"})));
    browser.post("/login", json!({"email": "a", "password": "p"})).await;
    fake.answers(|_, _| Reply { status: 500, ..Reply::ok("") });
    assert_eq!(browser.post("/logout", Value::Null).await.verdict(), (503, "upstream_unavailable"));
    assert_eq!(browser.kept(), BOTH, "another attempt needs them");
    fake.answers(|_, _| refusal("NotAuthorizedException", "Refresh Token has been revoked"));
    assert_eq!(browser.post("/refresh", Value::Null).await.verdict(), (401, "invalid_token"));
    assert_eq!(browser.kept(), BOTH, "another tab may have newer tokens");

    // A token without the scope and without a refresh token: there is no session to end, so the cookie is removed.
    let narrow = TokenBuilder::access().claim("scope", "openid").sign(SigningKey::shared());
    browser.jar = BTreeMap::from([(BOTH[0].to_owned(), narrow)]);
    assert_eq!(browser.post("/logout", Value::Null).await.verdict(), (400, "scope_missing"));
    assert!(browser.jar.is_empty());
    browser.jar = BTreeMap::from([(BOTH[0].to_owned(), "nonsense".to_owned())]);
    assert_eq!(browser.post("/logout", Value::Null).await.verdict(), (401, "invalid_token"));
    assert!(browser.jar.is_empty());
}

#[tokio::test]
async fn a_hosted_sign_in_ends_only_in_the_browser_that_began_it() {
    let emulator = Emulator::start().await;
    let pool = Pool::create(&emulator, true, hosted_client(&["openid", "email", "profile"], &[REDIRECT])).await;
    let (flags, _directory) = flags(&emulator, &pool);
    let flags = [flags, hosted_flags(&emulator.url)].concat();
    let flags: Vec<&str> =
        flags.iter().map(String::as_str).chain(QUICK).chain([COOKIES, "--log-level", "trace"]).collect();
    let mut program = Program::start(&flags);
    ready(&program.admin).await;
    let mut browser = Browser::new(&program.admin);
    let email = "very.private@example.com";
    // A client that is not a browser gets tokens in the body.
    let native = AccountClient::new(&program.admin).always(IN_BODY);
    let native = sign_in(&emulator, &native, email).await;

    let first = authorize_url(&browser.client, &[], &[("redirectUri", REDIRECT)]).await;
    browser.take(&first);
    let cookie = browser.cookie();
    let second = authorize_url(&browser.client, &[("cookie", &cookie)], &[("redirectUri", REDIRECT)]).await;
    browser.take(&second);
    assert_eq!(browser.cookie(), cookie, "another tab");
    // A request from another site must not replace the cookie that binds the sign-in to this browser.
    for (headers, status) in [
        (&[("sec-fetch-site", "cross-site")][..], 403),
        (&[("sec-fetch-site", "same-site")], 403),
        (&[("origin", "https://evil.example")], 403),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("sec-fetch-site", "cross-site"), IN_BODY], 200),
    ] {
        let reply = authorize_url(&browser.client, headers, &[("redirectUri", REDIRECT)]).await;
        assert_eq!(
            (reply.status, reply.headers.contains_key("set-cookie")),
            (status, status == 200 && headers.len() == 1)
        );
    }
    let came_back = in_a_browser(&emulator, first.text("url"), email).await;
    let body = finish(&first, &came_back);
    let mut other = Browser::new(&program.admin);
    assert_eq!(other.post("/oauth/token", body.clone()).await.verdict(), (400, "invalid_state"), "no cookie");
    other.take(&authorize_url(&other.client, &[], &[("redirectUri", REDIRECT)]).await);
    assert_eq!(other.post("/oauth/token", body.clone()).await.verdict(), (400, "invalid_state"), "another browser");

    let reply = browser.post("/oauth/token", body.clone()).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert_no_tokens(&reply);
    let jar = browser.jar.clone();
    assert_eq!(browser.post("/refresh", Value::Null).await.status, 200);
    let reply = browser.post("/logout", Value::Null).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert!(reply.text("hostedUiLogoutUrl").starts_with(&emulator.url));
    assert_eq!(browser.kept(), ["__Host-oauth_browser"]);
    let came_back = in_a_browser(&emulator, second.text("url"), email).await;
    assert_eq!(browser.post("/oauth/token", finish(&second, &came_back)).await.status, 200, "the other tab");

    // The log, the metrics and the configuration contain no secret.
    let (_, metrics) = get(&program.admin, "/metrics").await;
    let (_, config) = get(&program.admin, "/config").await;
    program.signal("TERM");
    assert!(program.wait().success());
    let log = program.log.join("\n");
    assert!(log.contains("\"operation\":\"oauth-token\""), "nothing was logged");
    let texts = ["code", "state", "codeVerifier"].map(|name| body[name].as_str().unwrap());
    let tail = |text: &str| text[text.len().saturating_sub(40)..].to_owned();
    let secrets =
        texts.into_iter().chain(jar.values().map(String::as_str)).chain([native["accessToken"].as_str().unwrap()]);
    let secrets = secrets.chain([PASSWORD, email, pool.secret.as_deref().unwrap()]);
    for secret in secrets.map(tail) {
        for (place, output) in [("log", &log), ("metrics", &metrics), ("config", &config)] {
            assert!(!output.contains(&secret), "{secret} is in the {place}");
        }
    }
}
