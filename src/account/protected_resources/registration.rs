//! Registration of a client (RFC 7591): every client gets the operator's public app client, if it uses only redirect URIs
//! that the operator lists.
//!
//! Nothing is stored, so any number of registrations cost nothing. Nothing in a request is fetched or repeated, except
//! redirect URIs that are on the list.

use serde_json::{Value, json};

use crate::account::answer::{Reply, SUCCESS};
use crate::account::error::Code;
use crate::authz::protected_resource::PublicClient;

/// Grants of the app client.
const GRANTS: [&str; 2] = ["authorization_code", "refresh_token"];
/// Response type of the app client.
const RESPONSE: &str = "code";

/// Error of a registration (RFC 7591 section 3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    error: &'static str,
    description: &'static str,
    /// Code that the metrics count it as.
    outcome: Code,
}

impl Refusal {
    fn metadata(description: &'static str) -> Self {
        Self { error: "invalid_client_metadata", description, outcome: Code::InvalidRequest }
    }

    fn redirect_uri(description: &'static str) -> Self {
        Self { error: "invalid_redirect_uri", description, outcome: Code::Rejected }
    }
}

/// Responds to the body of a registration.
pub(super) fn register(client: &PublicClient, body: &[u8]) -> Reply {
    let (status, outcome, body) = match judge(client, body) {
        // The server may replace values, and has to return those that apply (section 3.2.1). The secret that some clients
        // ask for would not be one: every client would know it.
        Ok(redirect_uris) => (
            201,
            SUCCESS,
            json!({
                "client_id": client.id.as_str(),
                "redirect_uris": redirect_uris,
                "token_endpoint_auth_method": "none",
                "grant_types": GRANTS,
                "response_types": [RESPONSE],
            }),
        ),
        Err(Refusal { error, description, outcome }) => {
            (400, outcome.as_str(), json!({"error": error, "error_description": description}))
        }
    };
    Reply { status, outcome, body, has_refresh_token: false, cookies: Vec::new() }
}

/// Returns the redirect URIs of the client.
fn judge<'c>(client: &'c PublicClient, body: &[u8]) -> Result<Vec<&'c str>, Refusal> {
    let Ok(Value::Object(metadata)) = serde_json::from_slice(body) else {
        return Err(Refusal::metadata("The body has to be a JSON object."));
    };
    let texts = |name: &str, fault: Refusal| match metadata.get(name) {
        None => Ok(None),
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect::<Option<Vec<_>>>().map(Some).ok_or(fault),
        Some(_) => Err(fault),
    };
    let uris = texts("redirect_uris", Refusal::metadata("redirect_uris has to be a list of texts."))?;
    let uris = uris.filter(|uris| !uris.is_empty()).ok_or(Refusal::redirect_uri("redirect_uris is required."))?;
    let grants = texts("grant_types", Refusal::metadata("grant_types has to be a list of texts."))?;
    if grants.is_some_and(|grants| !grants.contains(&"authorization_code")) {
        return Err(Refusal::metadata("grant_types has to contain authorization_code."));
    }
    let responses = texts("response_types", Refusal::metadata("response_types has to be a list of texts."))?;
    if responses.is_some_and(|responses| !responses.contains(&RESPONSE)) {
        return Err(Refusal::metadata("response_types has to contain code."));
    }
    if metadata.get("token_endpoint_auth_method").is_some_and(|method| !method.is_string()) {
        return Err(Refusal::metadata("token_endpoint_auth_method has to be a text."));
    }
    let listed = |uri: &str| client.redirect_uris.iter().map(|listed| &**listed).find(|listed| *listed == uri);
    let listed: Option<Vec<&str>> = uris.into_iter().map(listed).collect();
    listed.ok_or(Refusal::redirect_uri(
        "A redirect URI is not allowed here. The operator lists the allowed ones in `redirect_uris` of the protected resource.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_redirect_uris_are_registered() {
        let uris =
            ["http://localhost:3118/callback", "https://claude.ai/api/mcp/auth_callback", "cursor://mcp/callback"];
        let client = PublicClient {
            id: "public".parse().unwrap(),
            redirect_uris: uris.iter().map(|uri| (*uri).into()).collect(),
        };
        let local = json!([uris[0]]);
        let with = |name: &str, value: Value| {
            let mut body = json!({"redirect_uris": local});
            body[name] = value;
            body.to_string()
        };
        let uris_of = |value: Value| with("redirect_uris", value);
        let (good, metadata, uri) = ("", "invalid_client_metadata", "invalid_redirect_uri");
        for (body, expected) in [
            (json!({"redirect_uris": local}).to_string(), good),
            (uris_of(json!(uris)), good),
            (uris_of(json!([uris[2], uris[0], uris[0]])), good),
            (with("token_endpoint_auth_method", json!("none")), good),
            (with("token_endpoint_auth_method", json!("client_secret_post")), good),
            (with("grant_types", json!(["authorization_code", "refresh_token"])), good),
            (with("grant_types", json!(["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"])), good),
            (with("response_types", json!(["code"])), good),
            (with("client_name", json!("<script>")), good),
            (with("jwks_uri", json!("http://169.254.169.254/")), good),
            (with("client_id", json!("mine")), good),
            (String::new(), metadata),
            ("{".into(), metadata),
            ("[]".into(), metadata),
            ("null".into(), metadata),
            ("\u{feff}{}".into(), metadata),
            ("{}".into(), uri),
            (uris_of(json!([])), uri),
            (uris_of(json!(uris[0])), metadata),
            (uris_of(Value::Null), metadata),
            (uris_of(json!([7])), metadata),
            (uris_of(json!([uris[0], null])), metadata),
            (uris_of(json!([""])), uri),
            (uris_of(json!(["http://localhost:3118/callback/"])), uri),
            (uris_of(json!(["http://localhost:3118/callback?x"])), uri),
            (uris_of(json!(["http://localhost:3118/callback#"])), uri),
            (uris_of(json!(["http://LOCALHOST:3118/callback"])), uri),
            (uris_of(json!(["http://localhost:3119/callback"])), uri),
            (uris_of(json!(["http://127.0.0.1:3118/callback"])), uri),
            (uris_of(json!([" http://localhost:3118/callback"])), uri),
            (uris_of(json!([uris[0], "https://evil.example/"])), uri),
            (uris_of(json!(["https://claude.ai.evil.example/api/mcp/auth_callback"])), uri),
            (uris_of(json!(["javascript:alert(1)"])), uri),
            (with("grant_types", json!(["client_credentials"])), metadata),
            (with("grant_types", json!([])), metadata),
            (with("grant_types", json!("authorization_code")), metadata),
            (with("response_types", json!(["token"])), metadata),
            (with("response_types", json!({})), metadata),
            (with("token_endpoint_auth_method", json!(7)), metadata),
        ] {
            let reply = register(&client, body.as_bytes());
            let error = reply.body.get("error").and_then(Value::as_str).unwrap_or_default();
            assert_eq!((reply.status, error), (if expected.is_empty() { 201 } else { 400 }, expected), "{body}");
            let outcome = match expected {
                "" => SUCCESS,
                "invalid_redirect_uri" => "rejected",
                _ => "invalid_request",
            };
            assert_eq!(reply.outcome, outcome, "{body}");
            if expected.is_empty() {
                let asked: Value = serde_json::from_str(&body).unwrap();
                let expected = json!({
                    "client_id": "public",
                    "redirect_uris": asked["redirect_uris"],
                    "token_endpoint_auth_method": "none",
                    "grant_types": ["authorization_code", "refresh_token"],
                    "response_types": ["code"],
                });
                assert_eq!(reply.body, expected, "{body}");
            }
        }
    }
}
