//! The HTML pages of the sign-in by redirect: for errors, and to confirm a sign-out. They contain no text of a request
//! but its id, and no script, and load nothing.

use std::fmt::Write;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::account::error::{AccountError, Code};
use crate::net::http_server::Answer;
use crate::request_id::RequestId;

/// Colours and type are those of the demo page.
const STYLE: &str = "
:root{color-scheme:light dark;--ground:#f5f6f4;--card:#fff;--ink:#1c2524;--soft:#55625f;--line:#d9dedb;--accent:#0f6b66;--on-accent:#fff}
@media(prefers-color-scheme:dark){:root{--ground:#121716;--card:#1b2221;--ink:#e6ebe9;--soft:#a5b1ae;--line:#323c3a;--accent:#63c7bf;--on-accent:#06201e}}
*{box-sizing:border-box}
body{margin:0;padding:1rem;background:var(--ground);color:var(--ink);font:1rem/1.55 system-ui,sans-serif}
main{max-width:34rem;margin:10vh auto 0;padding:1.5rem;background:var(--card);border:1px solid var(--line);border-radius:10px;overflow-wrap:anywhere}
h1{margin:0;font-size:1.5rem;line-height:1.25}
p,form{margin:1rem 0 0}
a,button{display:inline-block;min-height:2.75rem;padding:.55rem 1.1rem;border:1px solid transparent;border-radius:10px;background:var(--accent);color:var(--on-accent);font:inherit;text-decoration:none;cursor:pointer}
a:focus-visible,button:focus-visible{outline:3px solid var(--ink);outline-offset:2px}
small{color:var(--soft);font-size:.875rem}
";

/// The next step that a page offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Link to a path of this origin.
    Link { href: String, text: &'static str },
    /// Link that repeats the request, whose URL is not part of the page.
    Repeat,
    /// Button that signs out, with a POST to this path.
    SignOut { action: String, text: &'static str },
}

/// Page for a request that did not lead to a redirect.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) title: &'static str,
    /// Status, message, and `Retry-After`.
    pub(super) error: AccountError,
    /// Code to show, if it is not the one of the error.
    pub(super) hosted_code: Option<&'static str>,
    pub(super) step: Option<Step>,
}

/// Writes pages, with the headers that all of them have.
#[derive(Debug)]
pub(super) struct Pages {
    policy: Option<HeaderValue>,
    policy_with_form: Option<HeaderValue>,
}

impl Pages {
    pub(super) fn new() -> Self {
        let hash = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
        let policy = |form: &str| {
            let text =
                format!("default-src 'none'; style-src 'sha256-{hash}'; {form}base-uri 'none'; frame-ancestors 'none'");
            HeaderValue::from_str(&text).ok()
        };
        // The answer to the form is a redirect to the hosted pages and, from there, possibly to an identity provider.
        // Browsers apply `form-action` to these redirects, too, and their targets are not known here.
        Self { policy: policy("form-action 'none'; "), policy_with_form: policy("") }
    }

    /// Makes the response with a page, which shows the id of the request.
    pub(super) fn response(&self, page: &Page, id: &RequestId) -> Answer {
        let mut response = Response::new(Full::from(html(page, id)));
        *response.status_mut() = StatusCode::from_u16(page.error.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let has_form = matches!(page.step, Some(Step::SignOut { .. }));
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
        set(header::CONTENT_TYPE, "text/html; charset=utf-8");
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(header::X_FRAME_OPTIONS, "DENY");
        let policy = if has_form { &self.policy_with_form } else { &self.policy };
        headers.extend(policy.clone().map(|policy| (header::CONTENT_SECURITY_POLICY, policy)));
        if let Some(seconds) = page.error.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        guard(&mut response, has_form);
        response
    }
}

/// Adds the headers of pages and redirects: no cache may store them, and no other page learns their URL, which can
/// contain a code.
///
/// A browser sends `Origin: null` with the form of a page without referrer, and a sign-out needs the origin. So a page
/// with a form keeps the referrer for its own origin; its URL contains no code that is still valid.
pub(super) fn guard(response: &mut Answer, has_form: bool) {
    let referrer = if has_form { "same-origin" } else { "no-referrer" };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static(referrer));
}

fn html(page: &Page, id: &RequestId) -> String {
    let title = escaped(page.title);
    let text = escaped(&page.error.message);
    let code = escaped(page.hosted_code.unwrap_or(page.error.code.as_str()));
    let id = escaped(id.as_str());
    let step = match &page.step {
        None => String::new(),
        Some(Step::Link { href, text }) => format!("<p><a href=\"{}\">{}</a></p>\n", escaped(href), escaped(text)),
        Some(Step::Repeat) => "<p><a href=\"\">Try again</a></p>\n".to_owned(),
        Some(Step::SignOut { action, text }) => format!(
            "<form method=\"post\" action=\"{}\"><button type=\"submit\">{}</button></form>\n",
            escaped(action),
            escaped(text)
        ),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n<p>{text}</p>\n{step}<p><small>Code: {code}<br>Request: {id}</small></p>\n</main>\n</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '<' | '>' | '"' | '\'' => drop(write!(safe, "&#{};", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

/// Codes of RFC 6749 section 4.1.2.1 and of `OpenID` Connect Core section 3.1.2.6. A page names no other code.
const HOSTED_CODES: [&str; 16] = [
    "access_denied",
    "account_selection_required",
    "consent_required",
    "interaction_required",
    "invalid_request",
    "invalid_request_object",
    "invalid_request_uri",
    "invalid_scope",
    "login_required",
    "registration_not_supported",
    "request_not_supported",
    "request_uri_not_supported",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_response_type",
];

/// Returns the code to show for the parameter `error` of the hosted pages.
pub(super) fn hosted_code(error: &str) -> &'static str {
    HOSTED_CODES.into_iter().find(|code| *code == error).unwrap_or("unknown_error")
}

impl Page {
    /// Page for a sign-in that did not succeed.
    pub(super) fn sign_in(error: AccountError, step: Option<Step>) -> Self {
        let title = match error.code {
            Code::RateLimited => "Too many requests",
            Code::UpstreamUnavailable => "Signing in is not possible at the moment",
            Code::SignInLoop => "Signing in does not help here",
            _ => "You are not signed in",
        };
        Self { title, error, hosted_code: None, step }
    }

    /// Page for a sign-out that did not succeed, or that the user has to confirm.
    pub(super) fn sign_out(error: AccountError, step: Option<Step>) -> Self {
        let title = match error.code {
            Code::RateLimited => "Too many requests",
            Code::CrossSite => "Do you want to sign out?",
            _ => "You are still signed in",
        };
        Self { title, error, hosted_code: None, step }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn text(answer: Answer) -> String {
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn pages_contain_no_markup_from_outside() {
        let evil = "\"><script>alert('1')</script>&";
        let error = AccountError::invalid_request(evil);
        for step in [
            Step::Link { href: evil.into(), text: "Sign in again" },
            Step::SignOut { action: evil.into(), text: "Sign out" },
        ] {
            let page = Page::sign_in(error.clone(), Some(step));
            let html = text(Pages::new().response(&page, &RequestId::random())).await;
            assert!(!html.contains("<script") && !html.contains("'1'"), "{html}");
            assert_eq!(html.matches("&#34;&#62;&#60;script&#62;alert(&#39;1&#39;)&#60;/script&#62;&#38;").count(), 2);
        }
    }

    #[tokio::test]
    async fn the_policy_allows_exactly_the_style_of_the_page() {
        let page = Page::sign_in(AccountError::unavailable(), Some(Step::Repeat));
        let response = Pages::new().response(&page, &RequestId::random());
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        let html = text(response).await;
        let style = html.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let hash = STANDARD.encode(digest::digest(&digest::SHA256, style.as_bytes()));
        assert!(policy.contains(&format!("style-src 'sha256-{hash}'")), "{policy}");
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(policy.contains("form-action 'none'") && policy.contains("base-uri 'none'"), "{policy}");
        assert!(!html.contains("style=") && html.matches("<style>").count() == 1);
    }

    #[test]
    fn only_listed_codes_are_shown() {
        assert_eq!(hosted_code("access_denied"), "access_denied");
        for other in ["", "Access_denied", "access_denied ", "<b>", "unknown_error"] {
            assert_eq!(hosted_code(other), "unknown_error");
        }
    }
}
