//! The status page of the admin port (`GET /`), and the same as JSON for scripts (`GET /status`).
//!
//! The page is one document without anything from elsewhere. It contains no state: its script reads `status` every few
//! seconds. So only the JSON needs the operators' token, in the header `Authorization` like every other route of this
//! port. The page asks for the token and keeps it in the memory of the tab. No browser sends it on its own, which rules
//! out forged requests of other sites, and it is gone with the tab.

mod findings;
mod history;
mod report;

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use prost::bytes::Bytes;

use self::history::History;
use self::report::Subject;
use super::refusal::Refusal;
use super::token::Gate;
use super::{Parts, json_answer, only_get};
use crate::check::refusals::Refusals;
use crate::clock::unix_now;
use crate::metrics::Metrics;
use crate::net::http_server::{Answer, Peer, RequestBody};

/// Path of the page, and path of the JSON.
const PAGE: &str = "/";
const JSON: &str = "/status";

/// `true` for the paths of this module.
pub(super) fn covers(path: &str) -> bool {
    [PAGE, JSON].contains(&path)
}

/// The routes.
#[derive(Debug)]
pub(super) struct StatusRoutes {
    subject: Subject,
    gate: Arc<Gate>,
    page: Bytes,
    /// `Content-Security-Policy` of the page.
    policy: Option<HeaderValue>,
}

impl StatusRoutes {
    /// Creates the routes. The history begins now.
    pub(super) fn new(metrics: &Metrics, refusals: Arc<Refusals>, gate: Arc<Gate>) -> Self {
        let (page, policy) = page();
        let subject = Subject::new(History::new(metrics), refusals, unix_now());
        Self { subject, gate, page: page.into(), policy: HeaderValue::from_str(&policy).ok() }
    }

    /// Takes samples for the history as long as the process runs. Does not return.
    pub(super) async fn follow(&self, metrics: &Metrics) {
        self.subject.history.follow(metrics).await;
    }

    /// Answers a request for one of the paths that this module [`covers`].
    pub(super) async fn answer(&self, parts: &Parts, request: &Request<RequestBody>, peer: &Peer) -> Answer {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return only_get();
        }
        let mut answer = if request.uri().path() == PAGE {
            self.page()
        } else {
            match self.gate.authorize_reader(request.headers(), peer).await {
                Ok(()) => json_answer(StatusCode::OK, &self.subject.report(parts)),
                Err(reason) => Refusal::from(reason).into_answer(),
            }
        };
        let headers = answer.headers_mut();
        let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
        set(header::CACHE_CONTROL, "no-store");
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
        answer
    }

    fn page(&self) -> Answer {
        let mut response = Response::new(Full::new(self.page.clone()));
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
        set(header::CONTENT_TYPE, "text/html; charset=utf-8");
        set(header::X_FRAME_OPTIONS, "DENY");
        set(header::REFERRER_POLICY, "no-referrer");
        set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
        headers.extend(self.policy.clone().map(|policy| (header::CONTENT_SECURITY_POLICY, policy)));
        response
    }
}

/// Returns the page, and its content security policy: it runs exactly its own style and script, and connects to nothing
/// but this port.
fn page() -> (String, String) {
    let (style, script) = (include_str!("page.css"), include_str!("page.js"));
    let page = include_str!("page.html");
    let page = page.replacen("/* page.css */", style, 1).replacen("/* page.js */", script, 1);
    let page = page.replacen("{{version}}", env!("CARGO_PKG_VERSION"), 1);
    let hash = |text: &str| STANDARD.encode(digest::digest(&digest::SHA256, text.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(style),
        hash(script)
    );
    (page, policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text between two texts that occur once.
    fn between<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
        let parts: Vec<&str> = text.split(begin).collect();
        assert_eq!(parts.len(), 2, "{begin}");
        parts[1].split_once(end).unwrap().0
    }

    #[test]
    fn the_policy_allows_exactly_the_style_and_the_script_of_the_page() {
        let (page, policy) = page();
        for (begin, end, directive) in [("<style>", "</style>", "style-src"), ("<script>", "</script>", "script-src")] {
            let content = between(&page, begin, end);
            let hash = STANDARD.encode(digest::digest(&digest::SHA256, content.as_bytes()));
            assert!(policy.contains(&format!("; {directive} 'sha256-{hash}'; ")), "{policy}");
        }
        assert!(!policy.contains("unsafe") && policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("base-uri 'none'"), "{policy}");
        assert!(!page.contains(" style=") && !page.contains(" onclick=") && !page.contains("/* page."));
        assert!(!page.contains("{{"), "every place is filled");
    }

    #[test]
    fn the_page_loads_nothing_and_writes_no_markup() {
        let (page, _) = page();
        assert!(!page.contains(" src=") && !page.contains("@import") && !page.contains("url("));
        let links: Vec<&str> = page.split("<link ").skip(1).map(|rest| rest.split('>').next().unwrap()).collect();
        assert_eq!(links.len(), 1, "{links:?}");
        assert!(links[0].contains("rel=\"icon\"") && links[0].contains("href=\"data:"), "{links:?}");
        let script = include_str!("page.js");
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Storage", "cookie"] {
            assert!(!script.contains(word), "{word}");
        }
    }
}
