//! Sign-in at the hosted pages. The helpers in this file are also used by [`super::cookies`] and [`super::browser`].

mod sign_in;
mod token_endpoint;

use reqwest::Method;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use crate::support::account::{AccountClient, PASSWORD, Reply as Answer};
use crate::support::emulator::Emulator;

pub(crate) const REDIRECT: &str = "https://app.example.com/callback";
const OTHER_REDIRECT: &str = "http://localhost:3000/callback?x=y";
const GOODBYE: &str = "https://app.example.com/goodbye";

/// Returns settings of an app client for the hosted pages.
pub(crate) fn hosted_client(scopes: &[&str], callbacks: &[&str]) -> Value {
    json!({"AllowedOAuthFlowsUserPoolClient": true, "AllowedOAuthFlows": ["code"], "AllowedOAuthScopes": scopes,
        "CallbackURLs": callbacks, "LogoutURLs": [GOODBYE], "SupportedIdentityProviders": ["COGNITO"]})
}

const SCOPES: [&str; 4] = ["openid", "email", "profile", "aws.cognito.signin.user.admin"];

/// Returns flags for the hosted pages at `domain`.
pub(crate) fn hosted_flags(domain: &str) -> Vec<String> {
    let flags = [
        ("--hosted-ui-domain", domain),
        ("--oauth-redirect-uris", REDIRECT),
        ("--oauth-redirect-uris", OTHER_REDIRECT),
        ("--oauth-logout-uris", GOODBYE),
    ];
    flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect()
}

/// Requests the URL at which a sign-in begins.
pub(crate) async fn authorize_url(client: &AccountClient, headers: &[(&str, &str)], query: &[(&str, &str)]) -> Answer {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    client.raw(Method::GET, &format!("/oauth/authorize-url?{query}"), headers, "").await
}

/// Signs a user in as a browser does. Returns the query parameters of the redirect URI.
pub(crate) async fn in_a_browser(emulator: &Emulator, url: &str, email: &str) -> Vec<(String, String)> {
    let location = at_the_hosted_pages(emulator, url, email).await;
    assert!(location.starts_with(REDIRECT), "{location}");
    Url::parse(&location).unwrap().query_pairs().into_owned().collect()
}

/// Fills in the form of the hosted pages, and follows redirects until they leave the emulator. Returns the URL where the
/// browser comes back.
pub(crate) async fn at_the_hosted_pages(emulator: &Emulator, url: &str, email: &str) -> String {
    let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let mut response = http.get(url).send().await.unwrap();
    for _ in 0..8 {
        if let Some(location) = response.headers().get("location") {
            let location = location.to_str().unwrap().to_owned();
            if !location.starts_with(&emulator.url) {
                return location;
            }
            response = http.get(location).send().await.unwrap();
            continue;
        }
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        let page = response.text().await.unwrap();
        let attribute = |tag: &str, name: &str| {
            let value = tag.split_once(&format!("{name}=\""))?.1.split_once('"')?.0;
            Some(value.replace("&amp;", "&").replace("&#x27;", "'"))
        };
        let hidden = page.split("<input").skip(1).filter(|tag| tag.contains("hidden"));
        let fields = hidden.filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value")?)));
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields).append_pair("username", email).append_pair("password", PASSWORD);
        let form = form.finish();
        response = http
            .post(format!("{}/login", emulator.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .unwrap();
    }
    panic!("too many redirects");
}

/// Returns the body of the request that finishes a sign-in.
pub(crate) fn finish(begun: &Answer, came_back: &[(String, String)]) -> Value {
    let parameter = |name: &str| came_back.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    assert_eq!(parameter("state").as_deref(), begun.body["state"].as_str(), "{came_back:?}");
    json!({"code": parameter("code"), "state": parameter("state"), "codeVerifier": begun.body["codeVerifier"],
        "redirectUri": REDIRECT})
}
