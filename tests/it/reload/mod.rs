//! Reloads of the policy file by the program: changes on disk, and invalid files. [`load`] has reloads under load,
//! [`pools`] has changes of pools.
//!
//! Each version of the file sets a static header of its own, so a response shows which version is in effect.

mod load;
mod pools;

use serde_json::Value;
use tonic::transport::Channel;

use crate::support::client::{Answer, Ask, connect, get, metric};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::{Program, TestApp};
use crate::support::token::{OTHER_ISSUER, SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

/// Program with a policy file.
pub(crate) struct Stage {
    pub(crate) program: Program,
    channel: Channel,
    pub(crate) file: PolicyFile,
    /// JWKS server of the default pool.
    pub(crate) keys: JwksServer,
}

impl Stage {
    pub(crate) async fn new(file: PolicyFile) -> Self {
        let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
        let program = Program::start(&["--config", &file.path(), "--jwks-url", &keys.url]);
        eventually("ready", PATIENCE, async || get(&program.admin, "/readyz").await.0 == 200).await;
        let channel = connect(&program.grpc[0]).await;
        Self { program, channel, file, keys }
    }

    pub(crate) async fn ask(&self, token: &str) -> Answer {
        Ask::get("/").bearer(token).of(&self.channel).await
    }

    /// Returns the error of `/readyz` about the policy file; empty if there is none.
    pub(crate) async fn error(&self) -> String {
        let (status, body) = get(&self.program.admin, "/readyz").await;
        assert_eq!(status, 200, "the previous file is in effect");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["policy_file"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn metric(&self, series: &str) -> f64 {
        metric(&self.program.admin, series).await
    }

    /// Waits until this version of the file is in effect and reported as such, which happens a little later.
    pub(crate) async fn is_in_effect(&self, version: &str) {
        let is_successful = async || self.metric("config_last_reload_successful").await == 1.0;
        eventually(version, PATIENCE, async || {
            self.version().await == version && is_successful().await && self.error().await.is_empty()
        })
        .await;
    }

    /// Returns the version that is in effect.
    pub(crate) async fn version(&self) -> String {
        Ask::get("/version").of(&self.channel).await.headers["x-version"].clone()
    }

    /// Replaces the file, sends SIGHUP, and waits until the new version is in effect.
    pub(crate) async fn reload(&self, version: &str, more: &str) {
        self.file.replace(&text(version, more));
        self.program.signal("HUP");
        self.is_in_effect(version).await;
    }
}

/// Returns a file with a public route `/version` that sets the header `x-version`.
pub(crate) fn text(version: &str, more: &str) -> String {
    format!(
        "default: members\npolicies: {{members: {{}}, version: {{public: true, headers: {{x-version: '{version}'}}}}}}\n\
         routes: [{{path: /version, policy: version}}]\n{more}\n"
    )
}

fn our_token() -> String {
    TokenBuilder::access().sign(SigningKey::shared())
}

pub(crate) fn their_token(client: &str) -> String {
    TokenBuilder::access().claim("iss", OTHER_ISSUER).claim("client_id", client).sign(SigningKey::other())
}

pub(crate) async fn their_keys() -> JwksServer {
    JwksServer::start(Reply::ok(jwks(&[SigningKey::other()]))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_noticed_without_a_signal() {
    let mounted = Stage::new(PolicyFile::mounted(&text("1", ""))).await;
    let plain = Stage::new(PolicyFile::new(&text("1", ""))).await;
    for version in ["2", "3"] {
        mounted.file.mount(&text(version, ""));
        if version == "2" {
            plain.file.write(&text(version, ""));
        } else {
            plain.file.replace(&text(version, ""));
        }
        mounted.is_in_effect(version).await;
        plain.is_in_effect(version).await;
        let (_, config) = get(&mounted.program.admin, "/config").await;
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["policy_file"]["content"]["policies"]["version"]["headers"]["x-version"], version);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_file_changes_nothing() {
    let mut stage = Stage::new(PolicyFile::new(&text("1", ""))).await;
    let readyz = async |stage: &Stage| {
        let (status, body) = get(&stage.program.admin, "/readyz").await;
        (status, serde_json::from_str::<Value>(&body).unwrap()["policy_file"].clone())
    };
    assert_eq!(readyz(&stage).await, (200, Value::Null));
    assert_eq!(stage.metric("config_last_reload_successful").await, 1.0);
    let breaks: [(&str, &str); 6] = [
        ("", "the file is empty"),
        ("policies: {a: {]", "line 1"),
        ("default: nobody", "there is no policy nobody"),
        ("polices: {}", "unknown member"),
        (
            "policies: {m: {sign_in: redirect}}",
            "policies.m.sign_in: browsers are redirected to the sign-in of the account API",
        ),
        ("gone", "cannot be read"),
    ];
    for (number, (broken, why)) in (1..).zip(breaks) {
        if broken == "gone" {
            std::fs::remove_file(stage.file.path()).unwrap();
        } else {
            stage.file.replace(broken);
        }
        stage.program.signal("HUP");
        let failures = async || stage.metric("config_reloads_total{result=\"failure\"}").await;
        let last = async || readyz(&stage).await.1;
        eventually(why, PATIENCE, async || {
            failures().await >= f64::from(number) && last().await.to_string().contains(why)
        })
        .await;
        assert_eq!(stage.metric("config_last_reload_successful").await, 0.0);
        assert_eq!((readyz(&stage).await.0, stage.version().await), (200, "1".to_owned()));
        assert_eq!(stage.ask(&our_token()).await.status, 200);
        let line = stage.program.wait_for_line("the policy file is not reloaded");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["level"], "ERROR");
        let said = line["fields"]["error"].as_str().unwrap();
        assert!(said.starts_with(&stage.file.path()) && said.contains(why) && said.lines().count() == 1, "{said}");
    }
    stage.reload("2", "").await;
    assert_eq!(readyz(&stage).await, (200, Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_is_requested_from_one_of_two_services_in_a_process() {
    let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let files = [(); 2].map(|()| PolicyFile::new(&text("1", "")));
    let apps = [0, 1].map(|index: usize| TestApp::start(&["--config", &files[index].path(), "--jwks-url", &keys.url]));
    let reloads = async |app: &TestApp| metric(&app.admin, "config_reloads_total{result=\"success\"}").await;
    // The files do not change, so only a request reloads them. Had the first request reached both services, the second
    // would have reloaded twice.
    for app in &apps {
        app.reload_requests.notify_one();
        eventually("reloaded", PATIENCE, async || reloads(app).await > 0.0).await;
        assert_eq!(reloads(app).await, 1.0);
    }
    assert_eq!(reloads(&apps[0]).await, 1.0);
}
