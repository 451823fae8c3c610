//! Protected resources: the two documents, and registration, as clients such as MCP clients read them.
//!
//! - [`documents`]: members, hosts, reloads, methods, ports; [`upstream`]: Cognito's own metadata and its faults;
//!   [`registration`]; [`audience`]: the checks of the policies.

mod audience;
mod documents;
mod registration;
mod upstream;

use http::HeaderMap;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::QUICK;
use crate::support::fake_cognito::{Call, FakeCognito};
use crate::support::policy_file::PolicyFile;
use crate::support::server::Reply;
use crate::support::service::TestApp;
use crate::support::token::CLIENT;
use crate::support::{PATIENCE, client, eventually};

/// Path of the metadata of a resource.
const RESOURCE: &str = "/.well-known/oauth-protected-resource";
/// Path of the metadata of the authorization server.
const SERVER: &str = "/.well-known/oauth-authorization-server";
/// Host of the resource of [`file`].
const HOST: &str = "mcp.example";

/// Redirect URIs that clients register: Claude, Claude Code, Cursor.
const URIS: [&str; 3] = [
    "https://claude.ai/api/mcp/auth_callback",
    "http://localhost:3118/callback",
    "cursor://anysphere.cursor-mcp/oauth/callback",
];

/// Returns a file with the policies `mcp` (default) and `other`, and a resource of the former.
fn file() -> Value {
    json!({
        "default": "mcp",
        "policies": {"mcp": {"scopes": {"all": ["orders/read"]}}, "other": {}},
        "protected_resources": [{
            "resource": "https://mcp.example/mcp", "name": "Orders", "policy": "mcp",
            "scopes_supported": ["openid", "orders/read"], "client_id": CLIENT, "redirect_uris": URIS,
        }],
    })
}

/// Metadata as Cognito has it, with these endpoints.
fn cognitos(base: &str) -> Value {
    json!({
        "issuer": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Test",
        "authorization_endpoint": format!("{base}/oauth2/authorize"),
        "token_endpoint": format!("{base}/oauth2/token"),
        "revocation_endpoint": format!("{base}/oauth2/revoke"),
        "end_session_endpoint": format!("{base}/logout"),
        "userinfo_endpoint": format!("{base}/oauth2/userInfo"),
        "jwks_uri": format!("{base}/jwks.json"),
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "token"],
        "scopes_supported": ["openid", "email", "phone", "profile"],
        "subject_types_supported": ["public"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    })
}

/// Service with a policy file, in front of a fake Cognito.
struct Stage {
    app: TestApp,
    fake: FakeCognito,
    file: PolicyFile,
}

impl Stage {
    /// Starts a service with this file and these flags. The fake server has metadata at `https://pages.example`.
    async fn new(file: &Value, flags: &[&str]) -> Self {
        let fake = FakeCognito::start().await;
        fake.answers(|_, _| Reply::ok(cognitos("https://pages.example").to_string()));
        let file = PolicyFile::new(&file.to_string());
        let path = file.path();
        let ours = ["--config", &path, "--cognito-endpoint", &fake.url];
        let app = TestApp::start(&[&ours[..], flags].concat());
        eventually("ready", PATIENCE, async || client::get(&app.admin, "/readyz").await.0 == 200).await;
        Self { app, fake, file }
    }

    /// Sends a GET for this host.
    async fn get(&self, host: &str, path: &str) -> Answer {
        send(&self.app.admin, Method::GET, path, &[("host", host)], "").await
    }

    /// Registers a client at [`HOST`].
    async fn register(&self, body: &Value) -> Answer {
        let headers = [("host", HOST), ("content-type", "application/json")];
        send(&self.app.admin, Method::POST, "/auth/oauth/register", &headers, &body.to_string()).await
    }

    async fn metric(&self, series: &str) -> f64 {
        client::metric(&self.app.admin, series).await
    }

    /// Calls for Cognito's metadata so far.
    fn fetches(&self) -> Vec<Call> {
        self.fake.calls()
    }
}

/// Response.
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
    body: Value,
}

impl Answer {
    /// Status, and code of the error.
    fn verdict(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }
}

/// Sends a request. Checks that every page may read the response, that it is JSON that no cache may store, and that it has
/// an id, which an error repeats.
async fn send(address: &str, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let url = Url::parse(&format!("http://{address}{path}")).unwrap();
    let mut request = reqwest::Client::new().request(method.clone(), url).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    if status != 204 {
        assert_eq!(headers["content-type"], "application/json", "{path}: {text}");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers.contains_key("retry-after"), matches!(status, 429 | 503), "{path}: {text}");
    }
    assert!(!headers.contains_key("set-cookie") && !headers.contains_key("access-control-allow-credentials"));
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let id = headers["x-request-id"].to_str().unwrap();
    let quoted = (status >= 400 && method != Method::HEAD).then_some(id);
    assert_eq!(body.get("request_id").and_then(Value::as_str), quoted, "{path}: {text}");
    Answer { status, headers, text, body }
}

/// The metadata of a resource at its path.
fn at(path: &str) -> String {
    format!("{RESOURCE}{path}")
}

/// Flags without limits and with the default prefix.
fn quick() -> Vec<&'static str> {
    QUICK.to_vec()
}
