//! Cognito emulator (ministack). It validates requests as strictly as AWS does.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::tool::{Tool, free_port};

/// Emulator, running or stopped. It keeps its data while it is stopped.
pub(crate) struct Emulator {
    process: Option<Tool>,
    /// Base URL of the user-pool API and of the JWKS endpoints.
    pub(crate) url: String,
    port: u16,
    state: TempDir,
    client: reqwest::Client,
}

/// Tokens of a sign-in.
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) id: String,
}

/// `Authorization` header for operations of an administrator. The emulator requires the header but does not verify the
/// signature.
const SIGNED: &str =
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/cognito-idp/aws4_request, SignedHeaders=host, Signature=x";
/// Password of every user.
pub(crate) const PASSWORD: &str = "Correct-horse-1-battery";

impl Emulator {
    /// Starts the emulator and waits until it responds.
    pub(crate) async fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut emulator = Self { process: None, url: String::new(), port: 0, state, client: reqwest::Client::new() };
        // The emulator cannot choose a free port by itself, and another process may take the port before it listens.
        for _ in 0..3 {
            emulator.port = free_port();
            emulator.url = format!("http://127.0.0.1:{}", emulator.port);
            match emulator.resume().await {
                Ok(()) => return emulator,
                Err(log) => assert!(log.contains("already in use"), "{log}"),
            }
        }
        panic!("no free port");
    }

    /// Stops the emulator, to simulate an outage.
    pub(crate) async fn stop(&mut self) {
        self.process.take().unwrap().terminate().await;
    }

    /// Starts the emulator again, at the same address.
    ///
    /// # Errors
    /// The log of the emulator, if it ends before it responds.
    pub(crate) async fn resume(&mut self) -> Result<(), String> {
        let directory = self.state.path();
        let variables = [
            ("GATEWAY_PORT", &*self.port.to_string()),
            ("BIND_HOST", "127.0.0.1"),
            ("MINISTACK_HOST", "127.0.0.1"),
            ("AUTH", "true"),
            ("STATE_DIR", directory.to_str().unwrap()),
            ("PERSIST_STATE", "1"),
            // It writes a file with its process id into this directory.
            ("TMPDIR", directory.to_str().unwrap()),
            // Only the services that tests use. Others would listen on every interface.
            ("SERVICES", "cognito-idp,ses"),
            ("IOT_MTLS_ENABLED", "0"),
            ("SFTP_ENABLED", "0"),
        ];
        let mut process = Tool::start("ministack", &[""; 0], &variables, directory);
        let health = format!("{}/_ministack/health", self.url);
        process
            .comes_up("answers", async || {
                self.client.get(&health).send().await.is_ok_and(|answer| answer.status() == 200)
            })
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Calls an operation of the user-pool API as an administrator, and returns the response. Panics on an error.
    pub(crate) async fn call(&self, operation: &str, members: Value) -> Value {
        let response = self
            .client
            .post(&self.url)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("AWSCognitoIdentityProviderService.{operation}"))
            .header("authorization", SIGNED)
            .body(members.to_string())
            .send()
            .await
            .unwrap();
        let status = response.status();
        let body = response.text().await.unwrap();
        assert_eq!(status, 200, "{operation}: {body}");
        serde_json::from_str(&body).unwrap_or_default()
    }

    /// Creates a pool whose users sign in with an e-mail address, and returns its id.
    pub(crate) async fn create_pool(&self) -> String {
        let pool = self.call("CreateUserPool", json!({"PoolName": "tests", "UsernameAttributes": ["email"]})).await;
        pool["UserPool"]["Id"].as_str().unwrap().to_owned()
    }

    /// Creates an app client without a secret, and returns its id.
    pub(crate) async fn create_client(&self, pool: &str) -> String {
        let flows = ["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"];
        let client = json!({"UserPoolId": pool, "ClientName": "web", "ExplicitAuthFlows": flows});
        let client = self.call("CreateUserPoolClient", client).await;
        client["UserPoolClient"]["ClientId"].as_str().unwrap().to_owned()
    }

    /// Creates a confirmed user in these groups, and returns the `sub`.
    pub(crate) async fn create_user(&self, pool: &str, client: &str, email: &str, groups: &[&str]) -> String {
        let user = json!({"ClientId": client, "Username": email, "Password": PASSWORD,
            "UserAttributes": [{"Name": "email", "Value": email}]});
        let user = self.call("SignUp", user).await;
        self.call("AdminConfirmSignUp", json!({"UserPoolId": pool, "Username": email})).await;
        for group in groups {
            self.call("CreateGroup", json!({"UserPoolId": pool, "GroupName": group})).await;
            let membership = json!({"UserPoolId": pool, "Username": email, "GroupName": group});
            self.call("AdminAddUserToGroup", membership).await;
        }
        user["UserSub"].as_str().unwrap().to_owned()
    }

    /// Signs a user in with [`PASSWORD`].
    pub(crate) async fn sign_in(&self, client: &str, email: &str) -> Tokens {
        let request = json!({"ClientId": client, "AuthFlow": "USER_PASSWORD_AUTH",
            "AuthParameters": {"USERNAME": email, "PASSWORD": PASSWORD}});
        let result = self.call("InitiateAuth", request).await;
        let token = |name: &str| result["AuthenticationResult"][name].as_str().unwrap().to_owned();
        Tokens { access: token("AccessToken"), id: token("IdToken") }
    }
}
