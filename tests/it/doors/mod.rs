//! The HTTP form of the check.
//!
//! - [`port`]: its port, with clients that send exactly the given bytes.
//! - [`same_answers`]: the same requests over gRPC, over each endpoint and in `explain`.
//! - [`proxies`]: behind a real nginx, Traefik, Caddy and Envoy; [`advisories`]: what such proxies got wrong before;
//!   [`sign_in`]: redirects to the sign-in.

mod advisories;
mod port;
mod proxies;
mod same_answers;
mod sign_in;

use crate::support::client::get;
use crate::support::http1::Response;
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::proxies::{Kind, Proxy, Replica};
use crate::support::service::TestApp;
use crate::support::token::{CLIENT, SUB, SigningKey, TokenBuilder, jwks};
use crate::support::upstream::{Seen, Upstream};
use crate::support::{PATIENCE, eventually};

/// Policies with a strict default, a public path and a public policy that only a proxy can name.
const POLICIES: &str = "
default: members
policies:
  members: {}
  open: {public: true}
  admin: {groups: {any: [admins]}}
  scoped: {scopes: {all: [reports/read]}}
routes:
- {path_prefix: /open, policy: open}
- {path_prefix: /admin, policy: admin}
- {path_prefix: /scoped, policy: scoped}
- {path_prefix: /hosted, host: [open.test], policy: open}
";

/// A proxy, the service, and the application.
struct Stage {
    proxy: Proxy,
    upstream: Upstream,
    keys: JwksServer,
    _service: TestApp,
    _policies: PolicyFile,
}

impl Stage {
    /// Starts all three with [`POLICIES`]. `change` gets the text of the proxy's file.
    async fn start(kind: Kind, change: impl FnOnce(String) -> String) -> Self {
        Self::with(kind, POLICIES, &[], change).await
    }

    /// As [`Stage::start`], with this policy file and more flags.
    async fn with(kind: Kind, policies: &str, more: &[&str], change: impl FnOnce(String) -> String) -> Self {
        let keys = published_key().await;
        let policies = PolicyFile::new(policies);
        let flags = ["--jwks-url", &keys.url, "--config", &policies.path(), "--http-listen", "127.0.0.1:0"];
        let service = ready(TestApp::start(&[&flags, more].concat())).await;
        let upstream = Upstream::start().await;
        let replica = Replica { http: service.http.clone(), admin: service.admin.clone() };
        let proxy = Proxy::start(kind, &[replica], &upstream.address, change).await;
        Self { proxy, upstream, keys, _service: service, _policies: policies }
    }
}

/// Waits until the service has its keys.
async fn ready(service: TestApp) -> TestApp {
    eventually("ready", PATIENCE, async || get(&service.admin, "/readyz").await.0 == 200).await;
    service
}

async fn published_key() -> JwksServer {
    JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await
}

fn good_token() -> String {
    TokenBuilder::access().sign(SigningKey::shared())
}

/// Identity headers with a value, as the application received them.
fn identity(seen: &Seen) -> Vec<(&str, &str)> {
    seen.identity().into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// Identity headers of [`good_token`].
const IDENTITY: [(&str, &str); 5] = [
    ("x-auth-client-id", CLIENT),
    ("x-auth-scope", "aws.cognito.signin.user.admin"),
    ("x-auth-sub", SUB),
    ("x-auth-token-use", "access"),
    ("x-auth-username", SUB),
];

/// Asserts that a response is a refusal of the service, with its body and its headers.
#[track_caller]
fn assert_refused(response: &Response, status: u16, reason: &str, challenge: Option<&str>, what: &str) {
    assert_eq!(response.verdict(), (status, reason.to_owned()), "{what}: {response:?}");
    let body = response.json();
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["error", "message", "reason", "request_id"], "{what}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{what}");
    assert_eq!(response.header("cache-control"), Some("no-store"), "{what}");
    assert_eq!(response.header("www-authenticate"), challenge, "{what}");
    assert_eq!(response.header("retry-after"), (status == 503).then_some("5"), "{what}");
    assert!(response.headers.iter().all(|(name, _)| !name.starts_with("x-auth")), "{what}: {response:?}");
}
