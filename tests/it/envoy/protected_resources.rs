//! Protected resources behind Envoy: a client that knows only a URL follows the refusal to the metadata, registers, and gets
//! in with a token for the resource.

use serde_json::{Value, json};

use super::Stage;
use crate::support::envoy::LISTENERS;
use crate::support::fake_cognito::FakeCognito;
use crate::support::http1::{Response, bearer, exchange_bytes, fetch, request, send};
use crate::support::policy_file::PolicyFile;
use crate::support::server::Reply;
use crate::support::token::{CLIENT, SigningKey, TokenBuilder};

const HOST: &str = "host: mcp.example";

#[tokio::test]
async fn a_refusal_leads_to_the_sign_in() {
    let file = PolicyFile::new(
        &json!({
            "default": "members",
            "policies": {"members": {}, "mcp": {"scopes": {"all": ["orders/read"]}}},
            "routes": [{"path_prefix": "/mcp", "policy": "mcp"}],
            "protected_resources": [{
                "resource": "https://mcp.example/mcp", "policy": "mcp", "scopes_supported": ["orders/read"],
                "client_id": CLIENT, "redirect_uris": ["http://localhost:3118/callback"], "audience": "required",
            }],
        })
        .to_string(),
    );
    let cognito = FakeCognito::start().await;
    let pages = json!({
        "authorization_endpoint": "https://pages.example/oauth2/authorize",
        "token_endpoint": "https://pages.example/oauth2/token",
    });
    cognito.answers(move |_, _| Reply::ok(pages.to_string()));
    let stage =
        Stage::start(&["--config", &file.path(), "--cognito-endpoint", &cognito.url, "--trusted-hops=1"], |_| {}).await;
    let path_of = |url: &Value| url.as_str().unwrap().strip_prefix("https://mcp.example").unwrap().to_owned();
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let refused = send(envoy, "POST", "/mcp", &[HOST]).await;
        let challenge = refused.header("www-authenticate").unwrap();
        let metadata = challenge.split_once("resource_metadata=\"").unwrap().1.split('"').next().unwrap();
        let json = |response: Response| {
            assert_eq!(response.status, 200, "{listener}: {response:?}");
            assert_eq!(response.header("access-control-allow-origin"), Some("*"));
            response.json()
        };
        let resource = json(fetch(envoy, &path_of(&metadata.into()), &[HOST]).await);
        assert_eq!(resource["resource"], json!("https://mcp.example/mcp"));
        let issuer = &resource["authorization_servers"][0];
        let server =
            json(fetch(envoy, &format!("{}/.well-known/oauth-authorization-server", path_of(issuer)), &[HOST]).await);
        assert_eq!((&server["issuer"], &server["code_challenge_methods_supported"]), (issuer, &json!(["S256"])));
        assert_eq!(server["token_endpoint"], json!("https://pages.example/oauth2/token"));

        let registration = path_of(&server["registration_endpoint"]);
        for (uri, status) in [("http://localhost:3118/callback", 201), ("http://localhost:3119/callback", 400)] {
            let body = json!({"redirect_uris": [uri]}).to_string();
            let length = format!("content-length: {}", body.len());
            let head = request("POST", &registration, &[HOST, "content-type: application/json", &length]);
            let registered = exchange_bytes(envoy, &[&head, body.as_bytes()].concat()).await;
            assert_eq!(registered.status, status, "{registered:?}");
            assert_eq!(registered.json()["client_id"].as_str(), (status == 201).then_some(CLIENT));
        }

        let key = SigningKey::shared();
        let token =
            |aud: &str| bearer(&TokenBuilder::access().claim("scope", "orders/read").claim("aud", aud).sign(key));
        let get = async |lines: &[&str]| fetch(envoy, "/mcp", lines).await;
        assert_eq!(get(&[HOST, &token("https://mcp.example/mcp")]).await.status, 200);
        let elsewhere = get(&[HOST, &token("https://b.example/mcp")]).await;
        assert_eq!(elsewhere.verdict(), (403, "claim_mismatch".to_owned()));
        let no_scope = bearer(&TokenBuilder::access().claim("aud", "https://mcp.example/mcp").sign(key));
        let refused = get(&[HOST, &no_scope]).await;
        let challenge = refused.header("www-authenticate").unwrap();
        assert!(challenge.contains("scope=\"orders/read\"") && challenge.contains(metadata), "{challenge}");
        // Paths beside the metadata are checked, and other routes have no metadata.
        for path in
            ["/.well-known/oauth-protected-resourcex", "/.well-known/oauth-authorization-server/x", "/.well-known/x"]
        {
            let refused = fetch(envoy, path, &[HOST]).await;
            assert_eq!(refused.verdict(), (401, "missing_credential".to_owned()), "{path}");
            assert!(!refused.header("www-authenticate").unwrap().contains("resource_metadata"), "{path}");
        }
        assert_ne!(fetch(envoy, "/.well-known/oauth-protected-resource/..%2f..%2fmetrics", &[HOST]).await.status, 200);
    }
}
