//! The pages themselves: valid HTML, nothing of a request, the headers; requests that no route answers; the log.

use std::io::Write;
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use super::{ACCESS, Browser, CALLBACK, HOST, REFRESH, flags, with_fake_pages};
use crate::account::{QUICK, with_fake};
use crate::support::client::get;
use crate::support::fake_cognito::{FakeCognito, oauth_tokens};
use crate::support::jwks_server::Reply;
use crate::support::service::Program;
use crate::support::tool;

/// Parses a page strictly with Python's parser, and returns what it consists of.
fn parsed(html: &str) -> Value {
    const SCRIPT: &str = r#"
import html.parser, json, sys
VOID = {"meta", "link", "br"}
class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.text, self.doctype = [], [], {}, {}, None
    def handle_decl(self, decl):
        self.doctype = decl
    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"{tag}: repeated attribute"
        for name, value in attrs:
            assert value is not None and not name.startswith("on") and name != "style", (tag, name)
            self.attributes.setdefault(f"{tag}.{name}", []).append(value)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> does not end what is open"
    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        assert inside not in ("html", "head", "main", "body", "") or not data.strip(), f"text in {inside}: {data!r}"
        self.text[inside] = self.text.get(inside, "") + data
page = Page()
page.feed(sys.stdin.read())
page.close()
assert not page.open, page.open
print(json.dumps({"doctype": page.doctype, "tags": page.tags, "attributes": page.attributes, "text": page.text}))
"#;
    let mut python = Command::new(tool::program("python"));
    let mut python = python.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(html.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{html}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn pages_are_valid_and_guarded_and_repeat_nothing_of_the_request() {
    let (app, mut browser, fake) = with_fake_pages(&[]).await;
    let evil = "%22%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E";
    let state = browser.begin("/orders?a=\"><b>'&c=d").await;
    let hosted = format!("/auth/oauth/callback?state={state}&error={evil}&error_description={evil}");
    fake.answers(|_, _| Reply::status(503));
    let mut with_refresh = browser.clone();
    with_refresh.keep(REFRESH, "r");
    let mut pages = vec![
        browser.navigate(Method::GET, &hosted, &[]).await,
        browser.open(&format!("/auth/oauth/callback?state={evil}&code={evil}&iss={evil}")).await,
        browser
            .navigate(Method::GET, &format!("/auth/oauth/sign-out?x={evil}"), &[("sec-fetch-site", "cross-site")])
            .await,
        with_refresh.open(&format!("/auth/oauth/sign-in?return_to=/a{evil}&prompt={evil}")).await,
        with_refresh.navigate(Method::POST, "/auth/oauth/sign-out", &[("origin", "https://app.example.com")]).await,
    ];
    for headers in [
        [("sec-fetch-mode", "cors"), ("x", "y")],
        [("sec-fetch-mode", "navigate"), ("sec-purpose", "prefetch;prerender")],
    ] {
        for path in ["sign-in", "callback", "renew", "sign-out"] {
            let headers = [&[("host", HOST), ("sec-fetch-site", "same-origin")], &headers[..]].concat();
            let asked = fake.calls().len();
            let seen = with_refresh.send(Method::GET, &format!("/auth/oauth/{path}"), &headers).await;
            assert_eq!(seen.verdict(), (400, "invalid_request"), "{path} {headers:?}");
            assert!(with_refresh.set.is_empty() && fake.calls().len() == asked, "no effect");
            pages.push(seen);
        }
    }
    for seen in pages {
        assert!(seen.status >= 400, "{seen:?}");
        let text = seen.html.replace("&#38;", "&");
        for forbidden in ["onerror", "<img", "<b>", "<script", "http:", "https:", &state] {
            assert!(!text.contains(forbidden), "{forbidden}: {text}");
        }
        let page = parsed(&seen.html);
        let count = |tag: &str| page["tags"].as_array().unwrap().iter().filter(|other| *other == tag).count();
        assert_eq!((&page["doctype"], &page["attributes"]["html.lang"]), (&json!("DOCTYPE html"), &json!(["en"])));
        assert_eq!((count("h1"), count("title"), count("main"), count("style"), count("script")), (1, 1, 1, 1, 0));
        assert_eq!(page["text"]["h1"], page["text"]["title"]);
        assert!(page["text"]["style"].as_str().unwrap().contains("color-scheme:light dark"));
        assert!(page["attributes"]["meta.content"][0].as_str().unwrap().contains("width=device-width"));
        let policy = seen.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!((seen.header("x-frame-options"), seen.header("x-content-type-options")), ("DENY", "nosniff"));
        assert_eq!(
            (seen.header("cache-control"), seen.header("content-type")),
            ("no-store", "text/html; charset=utf-8")
        );
        let referrer = if count("form") == 1 { "same-origin" } else { "no-referrer" };
        assert_eq!(seen.header("referrer-policy"), referrer);
    }
    drop(app);
}

#[tokio::test]
async fn other_methods_are_refused_and_other_origins_get_no_cors_headers() {
    let listed = "https://partner.example.com";
    let (app, mut browser, _fake) = with_fake_pages(&["--cors-origins", listed]).await;
    for (path, allowed) in
        [("sign-in", "GET, HEAD"), ("renew", "GET, HEAD"), ("callback", "GET"), ("sign-out", "GET, POST")]
    {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
            let method: Method = method.parse().unwrap();
            let headers = [("host", HOST), ("origin", listed), ("access-control-request-method", "POST")];
            let seen = browser.send(method.clone(), &format!("/auth/oauth/{path}"), &headers).await;
            let is_allowed = allowed.split(", ").any(|allowed| allowed == method.as_str());
            assert_eq!(seen.status == 405, !is_allowed, "{method} {path}: {}", seen.status);
            assert_eq!(seen.header("allow"), if is_allowed { "" } else { allowed });
            assert!(!seen.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{method} {path}");
        }
    }
    let (_, document) = get(&app.admin, "/auth/openapi.json").await;
    let document: Value = serde_json::from_str(&document).unwrap();
    for (path, methods) in [("sign-in", 1), ("renew", 1), ("callback", 1), ("sign-out", 2)] {
        let operations = document["paths"][format!("/auth/oauth/{path}")].as_object().unwrap();
        assert_eq!(operations.len(), methods, "{path}");
        for operation in operations.values() {
            assert!(operation["responses"]["302"]["headers"]["Location"].is_object());
            assert!(operation["responses"]["503"]["content"]["text/html"].is_object(), "{path}");
        }
    }
}

#[tokio::test]
async fn the_document_with_these_routes_is_valid() {
    let (app, _, _fake) = with_fake_pages(&[]).await;
    crate::account::schema::document(&app);
}

#[tokio::test]
async fn the_routes_exist_only_with_cookies_the_hosted_pages_and_a_callback() {
    let fake = FakeCognito::start().await;
    let all = flags(&fake.url);
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let without_cookies: Vec<_> = all.iter().copied().filter(|flag| *flag != "--account-cookies").collect();
    let elsewhere: Vec<_> =
        all.iter().map(|flag| if *flag == CALLBACK { "https://app.example.com/callback" } else { flag }).collect();
    let no_pages = [&QUICK[..], &["--account-cookies"]].concat();
    for flags in [without_cookies, elsewhere, no_pages] {
        let (app, client, _fake) = with_fake(&flags).await;
        for path in ["/oauth/sign-in", "/oauth/callback", "/oauth/renew", "/oauth/sign-out"] {
            assert_eq!(client.raw(Method::GET, path, &[], "").await.verdict(), (404, "not_found"), "{path} {flags:?}");
        }
        assert!(!get(&app.admin, "/auth/openapi.json").await.1.contains("/oauth/sign-in"));
    }
}

#[tokio::test]
async fn an_address_with_too_many_requests_gets_a_page() {
    let (_app, mut browser, _fake) = with_fake_pages(&["--trusted-hops", "1"]).await;
    drop(browser.open("/auth/oauth/sign-in").await);
    let fake = FakeCognito::start().await;
    let flags = flags(&fake.url);
    let flags: Vec<_> = flags
        .iter()
        .map(|flag| if flag.starts_with("--limit-address") { "--limit-address=2/60s" } else { flag })
        .collect();
    let app = crate::support::service::TestApp::start(&[&flags[..], &["--cognito-endpoint", &fake.url]].concat());
    let mut browser = Browser::new(&app.admin);
    for _ in 0..2 {
        assert_eq!(browser.open("/auth/oauth/sign-in").await.status, 302);
    }
    for path in ["sign-in", "callback", "renew", "sign-out"] {
        let seen = browser.open(&format!("/auth/oauth/{path}")).await;
        assert_eq!(seen.verdict(), (429, "rate_limited"), "{path}");
        assert!(seen.header("retry-after").parse::<u64>().unwrap() > 0);
    }
}

#[tokio::test]
async fn the_log_has_no_secret_of_a_sign_in() {
    let fake = FakeCognito::start().await;
    fake.answers(|_, _| oauth_tokens(&json!({"refresh_token": "refresh-secret"})));
    let flags = flags(&fake.url);
    let more = ["--cognito-endpoint", &*fake.url, "--log-level", "debug"];
    let mut program = Program::start(&flags.iter().map(String::as_str).chain(more).collect::<Vec<_>>());
    crate::account::sign_in::ready(&program.admin).await;
    let mut browser = Browser::new(&program.admin);
    let state = browser.begin("/secret-page?token=secret-query").await;
    let (_, attempt) = browser.jar[0].clone();
    let verifier = attempt.split('.').nth(2).unwrap().to_owned();
    browser.come_back(&format!("code=secret-code&state={state}&iss=https://secret-issuer.example")).await;
    let seen = browser.come_back(&format!("code=secret-code&state={state}")).await;
    assert_eq!(seen.location(), "/secret-page?token=secret-query");
    let access = browser.cookie(ACCESS).to_owned();
    browser
        .come_back(&format!("code=secret-code&state={state}&error=secret-error&error_description=secret-words"))
        .await;
    let other = browser.begin_anew("/secret-page").await;
    fake.answers(|_, _| Reply {
        status: 400,
        ..Reply::ok(r#"{"error":"invalid_grant","error_description":"secret-answer"}"#)
    });
    browser.come_back(&format!("code=secret-code&state={other}")).await;
    browser.open("/auth/oauth/renew?return_to=/secret-page").await;
    browser.navigate(Method::POST, "/auth/oauth/sign-out", &[("origin", "https://app.example.com")]).await;
    program.signal("TERM");
    program.wait();
    let log = program.log.join("\n");
    assert!(log.contains("oauth-callback") && log.contains("oauth-sign-out"), "{log}");
    for secret in ["secret-", &*state, &*other, &*verifier, &*access, "refresh-secret", "someone@example.test"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}
