//! The two documents, made from the rules and from Cognito's metadata. Nothing of a request is in them.

use serde_json::{Map, Value, json};
use url::Url;

use super::REGISTRATION_PATH;
use crate::account::settings::Prefix;
use crate::authz::protected_resource::{ProtectedResource, ResourceOrigin};

/// Members of Cognito's metadata that are URLs and are passed on.
const URLS: [&str; 6] = [
    "authorization_endpoint",
    "token_endpoint",
    "revocation_endpoint",
    "end_session_endpoint",
    "userinfo_endpoint",
    "jwks_uri",
];
/// Members of Cognito's metadata that are lists of texts and are passed on.
const LISTS: [&str; 4] = [
    "scopes_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
    "token_endpoint_auth_methods_supported",
];

/// The members of Cognito's metadata that are passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoints(Map<String, Value>);

impl Endpoints {
    /// Selects the members. `None` if the document does not say where users sign in and where tokens come from: a pool
    /// without a domain has no sign-in pages.
    pub(super) fn of(mut document: Map<String, Value>) -> Option<Self> {
        let is_url = |value: &Value| {
            let url = value.as_str().and_then(|text| Url::parse(text).ok());
            url.is_some_and(|url| matches!(url.scheme(), "https" | "http"))
        };
        let is_list = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
        document.retain(|name, value| {
            URLS.contains(&name.as_str()) && is_url(value) || LISTS.contains(&name.as_str()) && is_list(value)
        });
        let has = |name| document.contains_key(name);
        (has("authorization_endpoint") && has("token_endpoint")).then_some(Self(document))
    }
}

/// Metadata of a protected resource (RFC 9728 section 2). This origin is its authorization server, because Cognito's own
/// metadata lacks what MCP clients require.
pub(super) fn resource(origin: &ResourceOrigin, resource: &ProtectedResource) -> Map<String, Value> {
    let mut document = Map::new();
    let mut set = |name: &str, value: Value| drop(document.insert(name.into(), value));
    set("resource", json!(resource.identifier));
    set("authorization_servers", json!([origin.origin]));
    set("bearer_methods_supported", json!(["header"]));
    if let Some(name) = &resource.name {
        set("resource_name", json!(name));
    }
    if !resource.scopes.is_empty() {
        set("scopes_supported", json!(resource.scopes));
    }
    document
}

/// Metadata of the authorization server (RFC 8414 section 2): Cognito's endpoints under the issuer that the metadata of the
/// resources names, with what Cognito supports but does not announce.
pub(super) fn server(origin: &ResourceOrigin, prefix: &Prefix, endpoints: &Endpoints) -> Map<String, Value> {
    let Endpoints(mut document) = Endpoints(endpoints.0.clone());
    let mut scopes: Vec<&str> = Vec::new();
    for scope in origin.resources.iter().flat_map(|resource| &resource.scopes) {
        if !scopes.contains(&&**scope) {
            scopes.push(scope);
        }
    }
    // A public client authenticates with nothing but PKCE. The methods of other clients stay.
    let methods = endpoints.0.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
    let methods = methods.into_iter().flatten().filter_map(Value::as_str).filter(|method| *method != "none");
    let methods: Vec<&str> = ["none"].into_iter().chain(methods).collect();
    let mut set = |name: &str, value: Value| drop(document.insert(name.into(), value));
    set("issuer", json!(origin.origin));
    set("response_types_supported", json!(["code"]));
    set("grant_types_supported", json!(["authorization_code", "refresh_token"]));
    set("code_challenge_methods_supported", json!(["S256"]));
    set("token_endpoint_auth_methods_supported", json!(methods));
    if !scopes.is_empty() {
        set("scopes_supported", json!(scopes));
    }
    if origin.client.is_some() {
        set("registration_endpoint", json!(format!("{}{}{REGISTRATION_PATH}", origin.origin, prefix.as_str())));
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::protected_resource::PublicClient;

    fn origin(client: bool, scopes: &[&[&str]]) -> ResourceOrigin {
        let client =
            client.then(|| PublicClient { id: "c".parse().unwrap(), redirect_uris: vec!["http://localhost/".into()] });
        let mut origin = ResourceOrigin::new(&"https://mcp.example".parse().unwrap(), 0, client);
        origin.resources = (0..)
            .zip(scopes)
            .map(|(index, scopes)| ProtectedResource {
                identifier: format!("https://mcp.example/{index}").into(),
                path: format!("/{index}").into(),
                name: (index == 0).then(|| "Orders".into()),
                scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
            })
            .collect();
        origin
    }

    fn cognitos() -> Value {
        json!({
            "issuer": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Abc",
            "authorization_endpoint": "https://a.auth.eu-west-1.amazoncognito.com/oauth2/authorize",
            "token_endpoint": "https://a.auth.eu-west-1.amazoncognito.com/oauth2/token",
            "revocation_endpoint": "https://a.auth.eu-west-1.amazoncognito.com/oauth2/revoke",
            "end_session_endpoint": "https://a.auth.eu-west-1.amazoncognito.com/logout",
            "userinfo_endpoint": "https://a.auth.eu-west-1.amazoncognito.com/oauth2/userInfo",
            "jwks_uri": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Abc/.well-known/jwks.json",
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "token"],
            "scopes_supported": ["openid", "email", "phone", "profile"],
            "subject_types_supported": ["public"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "registration_endpoint": "https://elsewhere.example/register",
            "acr_values_supported": ["x"],
        })
    }

    fn endpoints(document: &Value) -> Option<Endpoints> {
        Endpoints::of(document.as_object().unwrap().clone())
    }

    #[test]
    fn a_resource_is_described_by_its_entry() {
        let origin = origin(true, &[&["openid", "orders/read"], &[]]);
        assert_eq!(
            Value::Object(resource(&origin, &origin.resources[0])),
            json!({
                "resource": "https://mcp.example/0",
                "resource_name": "Orders",
                "authorization_servers": ["https://mcp.example"],
                "bearer_methods_supported": ["header"],
                "scopes_supported": ["openid", "orders/read"],
            })
        );
        assert_eq!(
            Value::Object(resource(&origin, &origin.resources[1])),
            json!({
                "resource": "https://mcp.example/1",
                "authorization_servers": ["https://mcp.example"],
                "bearer_methods_supported": ["header"],
            })
        );
    }

    #[test]
    fn the_server_has_the_endpoints_of_cognito() {
        let endpoints = endpoints(&cognitos()).unwrap();
        let prefix = "/auth".parse().unwrap();
        let document = Value::Object(server(&origin(true, &[&["openid", "a"], &["b", "openid"]]), &prefix, &endpoints));
        let mut expected = cognitos();
        expected["issuer"] = json!("https://mcp.example");
        expected["response_types_supported"] = json!(["code"]);
        expected["grant_types_supported"] = json!(["authorization_code", "refresh_token"]);
        expected["code_challenge_methods_supported"] = json!(["S256"]);
        expected["token_endpoint_auth_methods_supported"] =
            json!(["none", "client_secret_basic", "client_secret_post"]);
        expected["scopes_supported"] = json!(["openid", "a", "b"]);
        expected["registration_endpoint"] = json!("https://mcp.example/auth/oauth/register");
        expected.as_object_mut().unwrap().remove("acr_values_supported");
        assert_eq!(document, expected);

        let document = Value::Object(server(&origin(false, &[&[]]), &prefix, &endpoints));
        assert_eq!(document.get("registration_endpoint"), None, "Cognito's is not passed on");
        assert_eq!(document["scopes_supported"], cognitos()["scopes_supported"]);
    }

    #[test]
    fn a_document_without_endpoints_is_not_used() {
        for (name, value, usable) in [
            ("authorization_endpoint", Value::Null, false),
            ("authorization_endpoint", json!(7), false),
            ("authorization_endpoint", json!("/oauth2/authorize"), false),
            ("authorization_endpoint", json!("javascript:alert(1)"), false),
            ("token_endpoint", Value::Null, false),
            ("token_endpoint", json!(["https://a.example"]), false),
            ("token_endpoint", json!("http://127.0.0.1:4566/oauth2/token"), true),
            ("jwks_uri", json!("ftp://a.example"), true),
            ("scopes_supported", json!(["a", 7]), true),
            ("token_endpoint_auth_methods_supported", json!("none"), true),
        ] {
            let mut document = cognitos();
            document[name] = value.clone();
            let found = endpoints(&document);
            assert_eq!(found.is_some(), usable, "{name} {value}");
            let is_kept = found.is_some_and(|Endpoints(members)| members.contains_key(name));
            assert_eq!(is_kept, name == "token_endpoint" && usable, "{name} {value}");
        }
        assert!(endpoints(&json!({})).is_none());
    }
}
