//! Pages to return to that must not lead away from the origin.

use serde_json::json;
use url::Url;

use super::{HOST, with_fake_pages};
use crate::support::fake_cognito::{oauth_tokens, tokens};

/// Values of `return_to` that try to lead to another origin, to a script, or to a route of the sign-in.
const HOSTILE: &[&str] = &[
    "https://evil.example/",
    "http://evil.example",
    "HTTPS://evil.example",
    "//evil.example",
    "///evil.example",
    "////evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "/\\/evil.example",
    "//\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r/evil.example",
    "\t//evil.example",
    "/\0/evil.example",
    "/\u{b}/evil.example",
    " //evil.example",
    "\u{a0}//evil.example",
    "/ /evil.example",
    "/.//evil.example",
    "/..//evil.example",
    "/x/..//evil.example",
    "/%2e//evil.example",
    "/./\\evil.example",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "blob:https://evil.example/x",
    "file:///etc/passwd",
    "about:blank",
    "evil.example",
    "evil.example/path",
    "www.evil.example",
    "?x=y",
    "#x",
    "",
    ".",
    "..",
    "orders",
    "@evil.example",
    ":443",
    "https:evil.example",
    "https:/evil.example",
    "https:\\evil.example",
    "https://app.example.com@evil.example/",
    "https://app.example.com.evil.example/",
    "https://app.example.com/",
    "https:///evil.example",
    "//app.example.com@evil.example",
    "//evil.example:443",
    "//[::1]/",
    "//evil%2eexample",
    "/\u{ff0f}evil.example",
    "/é",
    "/\r\nLocation: https://evil.example",
    "/\r\nSet-Cookie: a=b",
    "/x#//evil.example",
    "/auth/oauth/sign-out",
    "/auth/oauth/callback?code=c&state=s",
    "/auth/./oauth/sign-out",
    "/auth/%6fauth/sign-out?x=y",
];

/// Values that look suspicious and are paths of the origin.
const HARMLESS: &[&str] = &[
    "/@evil.example",
    "/:443",
    "/%2F%2Fevil.example",
    "/%5Cevil.example",
    "/?next=https://evil.example//x",
    "/https:evil.example",
    "/javascript:alert(1)",
    "/..;/x",
];

#[tokio::test]
async fn no_value_leads_a_browser_away_from_the_origin() {
    let (_app, mut browser, fake) = with_fake_pages(&[]).await;
    let origin = Url::parse(&format!("https://{HOST}/auth/oauth/callback")).unwrap();
    for (value, expected) in
        HOSTILE.iter().map(|value| (*value, "/")).chain(HARMLESS.iter().map(|value| (*value, *value)))
    {
        // After a sign-in.
        fake.answers(|_, _| oauth_tokens(&json!({})));
        browser.jar.clear();
        let state = browser.begin(value).await;
        let signed_in = browser.come_back(&format!("code=c&state={state}")).await;
        // After a renewal, without encoding where a client can send that.
        fake.answers(|_, _| tokens(&json!({})));
        let query = url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>();
        let renewed = browser.open(&format!("/auth/oauth/renew?return_to={query}")).await;
        for seen in [signed_in, renewed] {
            assert_eq!(seen.location(), expected, "{value:?}");
            // As a browser resolves the location.
            assert_eq!(origin.join(seen.location()).unwrap().origin(), origin.origin(), "{value:?}");
            assert_eq!(seen.headers.get_all("location").iter().count(), 1);
        }
    }
    assert!(HOSTILE.len() >= 60);
    // Repeated, over-long, not UTF-8, and not encoded.
    let long = format!("return_to=/{}", "a".repeat(2048));
    for query in ["return_to=/a&return_to=/b", &long, "return_to=/%ff", "return_to=/a+b", "RETURN_TO=/a", "return_to"] {
        assert_eq!(browser.open(&format!("/auth/oauth/renew?{query}")).await.location(), "/", "{query}");
        browser.lose("__Host-sign_in_rounds");
    }
    assert_eq!(browser.open("/auth/oauth/renew?return_to=/a/b").await.location(), "/a/b");
}
