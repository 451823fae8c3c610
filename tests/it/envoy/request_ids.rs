//! Request ids behind Envoy: the id that a user sees is the one in Envoy's access log and in the service's log.

use serde_json::Value;

use crate::account::QUICK;
use crate::support::envoy::{Bootstrap, Envoy, LISTENERS};
use crate::support::fake_cognito::FakeCognito;
use crate::support::http1::{Response, bearer, exchange_bytes, fetch, request};
use crate::support::service::Program;
use crate::support::token::{SigningKey, TokenBuilder};
use crate::support::upstream::Upstream;

/// Envoy, the program with its log, and a fake Cognito that refuses every call.
struct Stage {
    envoy: Envoy,
    program: Program,
    upstream: Upstream,
    _fake: FakeCognito,
    _directory: tempfile::TempDir,
}

impl Stage {
    async fn start(change: impl Fn(&mut Bootstrap)) -> Self {
        let fake = FakeCognito::start().await;
        fake.refuses("NotAuthorizedException", "Incorrect username or password.");
        let directory = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}", directory.path().join("authz.sock").display());
        let flags =
            ["--cognito-endpoint", &fake.url, "--grpc-listen", &socket, "--trusted-hops=1", "--log-level=debug"];
        let program = Program::start(&[&QUICK[..], &flags].concat());
        let upstream = Upstream::start().await;
        let mut bootstrap = Bootstrap::new(&program.grpc, &upstream.address);
        bootstrap.serve_account(&program.admin);
        change(&mut bootstrap);
        let envoy = Envoy::start(bootstrap).await;
        envoy.finds_the_service_healthy().await;
        Self { envoy, program, upstream, _fake: fake, _directory: directory }
    }

    /// Fields of the log line of the service with this message and id.
    fn logged(&mut self, message: &str, id: &str) -> Value {
        let is_it = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            Some(line["fields"].clone()).filter(|fields| fields["message"] == message && fields["request_id"] == id)
        };
        if let Some(fields) = self.program.log.iter().find_map(|line| is_it(line)) {
            return fields;
        }
        loop {
            if let Some(fields) = is_it(&self.program.wait_for_line(id)) {
                return fields;
            }
        }
    }

    /// `true` if Envoy's access log has a line about this path with this id.
    async fn envoy_logged(&self, path: &str, lines: usize, id: &str) -> bool {
        self.envoy.access_log(path, lines).await.iter().any(|line| line["request_id"] == id)
    }
}

/// Id in the body of an error.
fn quoted(response: &Response) -> String {
    let body = response.json();
    body["request_id"].as_str().unwrap_or_else(|| panic!("{response:?} has no id")).to_owned()
}

async fn log_in<L: AsRef<[u8]>>(envoy: &str, lines: &[L]) -> Response {
    let body = br#"{"email":"ada@example.test","password":"wrong"}"#;
    let mut all =
        vec![b"content-type: application/json".to_vec(), format!("content-length: {}", body.len()).into_bytes()];
    all.extend(lines.iter().map(|line| line.as_ref().to_vec()));
    exchange_bytes(envoy, &[request("POST", "/auth/login", &all), body.to_vec()].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_id_that_a_user_sees_is_in_envoys_log_and_in_ours() {
    let mut stage = Stage::start(|_| {}).await;
    let good = bearer(&TokenBuilder::access().sign(SigningKey::shared()));
    for (number, listener) in LISTENERS.into_iter().enumerate() {
        let envoy = stage.envoy.address(listener).to_owned();
        let path = format!("/refused/{listener}");
        let refused = fetch(&envoy, &path, &[""; 0]).await;
        assert_eq!(refused.verdict(), (401, "missing_credential".into()));
        let id = quoted(&refused);
        assert!(stage.envoy_logged(&path, 1, &id).await, "{listener} {id}");
        assert_eq!(stage.logged("check", &id)["reason"], "missing_credential");

        let refused = log_in(&envoy, &[""; 0]).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("invalid_credentials")));
        let id = quoted(&refused);
        assert_eq!(refused.header("x-request-id"), Some(&*id));
        assert!(stage.envoy_logged("/auth/login", number + 1, &id).await, "{listener} {id}");
        assert_eq!(stage.logged("account request", &id)["outcome"], "invalid_credentials");
        assert_eq!(stage.logged("Cognito refused a call", &id)["name"], "NotAuthorizedException");

        let document = fetch(&envoy, "/auth/openapi.json", &[""; 0]).await;
        let id = document.header("x-request-id").unwrap();
        assert!(document.status == 200 && stage.envoy_logged("/auth/openapi.json", number + 1, id).await);

        // The application gets the same id, and the line of the check has it.
        let seen = fetch(&envoy, "/orders", &[&good]).await.seen();
        let id = seen.header("x-request-id")[0].to_owned();
        assert!(stage.envoy_logged("/orders", number + 1, &id).await);
        assert_eq!(stage.logged("check", &id)["decision"], "allow");
    }
    assert_eq!(stage.upstream.seen().len(), LISTENERS.len());
}

/// Envoy at the edge replaces the id of a client, unless it is configured to keep it. The service repeats what Envoy sends
/// it, if that is an id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_decides_about_the_id_of_a_client() {
    let [edge, keeps] = LISTENERS;
    let mut stage = Stage::start(|bootstrap| {
        let manager = bootstrap.manager(keeps);
        manager["preserve_external_request_id"] = true.into();
    })
    .await;
    let [edge, keeps] = [edge, keeps].map(|listener| stage.envoy.address(listener).to_owned());
    for (number, id) in ["4a8f0f61-2f5b-4c0e-9d53-0d3f6f5b7c11", "chosen-by-the-client"].into_iter().enumerate() {
        let line = format!("x-request-id: {id}");
        let kept = [quoted(&fetch(&keeps, "/", &[&line]).await), quoted(&log_in(&keeps, &[&line]).await)];
        assert_eq!(kept, [id, id]);
        let replaced = [quoted(&fetch(&edge, "/", &[&line]).await), quoted(&log_in(&edge, &[&line]).await)];
        assert!(!replaced.iter().any(|other| other == id), "{replaced:?}");
        assert!(stage.envoy_logged("/", 2 * number + 2, &replaced[0]).await);
    }
    for bad in ["a b", "\"level\":\"ERROR\"", "a.b", "\u{e4}"] {
        let line = format!("x-request-id: {bad}");
        for response in [fetch(&keeps, "/", &[&line]).await, log_in(&keeps, &[&line]).await] {
            let id = quoted(&response);
            assert_eq!(id.len(), 36, "{bad}");
            let message = if response.json().get("reason").is_some() { "check" } else { "account request" };
            stage.logged(message, &id);
        }
    }
}
