//! A Cognito emulator (ministack), strict as AWS is, and what people and operators do with it.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::tool::{Tool, free_port};

/// The emulator. It remembers what it knew when it is stopped and started again.
pub(crate) struct Emulator {
    process: Option<Tool>,
    /// Base URL of the user-pool API and of the keys.
    pub(crate) url: String,
    port: u16,
    state: TempDir,
    client: reqwest::Client,
}

/// What a sign-in brings.
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) id: String,
}

/// Operations on pools are signed on AWS. The emulator wants the header and does not look at the signature.
const SIGNED: &str =
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/cognito-idp/aws4_request, SignedHeaders=host, Signature=x";
const PASSWORD: &str = "Correct-horse-1-battery";

impl Emulator {
    /// Starts one, and waits until it answers.
    pub(crate) async fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut emulator = Self { process: None, url: String::new(), port: 0, state, client: reqwest::Client::new() };
        // It cannot choose a port itself; one that is free now may be taken by the time it wants it.
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

    /// Ends it, as an outage does.
    pub(crate) async fn stop(&mut self) {
        self.process.take().unwrap().terminate().await;
    }

    /// Starts it again, at the same address. `Err` is its log when it has ended instead.
    pub(crate) async fn resume(&mut self) -> Result<(), String> {
        let directory = self.state.path();
        let variables = [
            ("GATEWAY_PORT", &*self.port.to_string()),
            ("BIND_HOST", "127.0.0.1"),
            ("MINISTACK_HOST", "127.0.0.1"),
            ("AUTH", "true"),
            ("STATE_DIR", directory.to_str().unwrap()),
            ("PERSIST_STATE", "1"),
            // It leaves a file with its process id there.
            ("TMPDIR", directory.to_str().unwrap()),
            // Only what is needed. The others include a listener on every interface.
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

    /// One operation.
    async fn call(&self, operation: &str, members: Value) -> Value {
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

    /// A pool whose people sign in with an e-mail address; its id.
    pub(crate) async fn create_pool(&self) -> String {
        let pool = self.call("CreateUserPool", json!({"PoolName": "tests", "UsernameAttributes": ["email"]})).await;
        pool["UserPool"]["Id"].as_str().unwrap().to_owned()
    }

    /// An app client without a secret; its id.
    pub(crate) async fn create_client(&self, pool: &str) -> String {
        let flows = ["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"];
        let client = json!({"UserPoolId": pool, "ClientName": "web", "ExplicitAuthFlows": flows});
        let client = self.call("CreateUserPoolClient", client).await;
        client["UserPoolClient"]["ClientId"].as_str().unwrap().to_owned()
    }

    /// A user who has signed up, confirmed and joined these groups; the `sub`.
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

    /// Signs a user in with the password.
    pub(crate) async fn sign_in(&self, client: &str, email: &str) -> Tokens {
        let request = json!({"ClientId": client, "AuthFlow": "USER_PASSWORD_AUTH",
            "AuthParameters": {"USERNAME": email, "PASSWORD": PASSWORD}});
        let result = self.call("InitiateAuth", request).await;
        let token = |name: &str| result["AuthenticationResult"][name].as_str().unwrap().to_owned();
        Tokens { access: token("AccessToken"), id: token("IdToken") }
    }
}
