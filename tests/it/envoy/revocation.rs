//! Two replicas behind Envoy that share a store: a sign-out at one of them takes effect at both, whatever happens to the
//! store, the network and the replicas.

use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::account::QUICK;
use crate::support::account::AccountClient;
use crate::support::emulator::{Emulator, PASSWORD};
use crate::support::envoy::{Bootstrap, Envoy, LISTENERS};
use crate::support::http1::{bearer, fetch};
use crate::support::redis::{Network, Proxy, Redis};
use crate::support::service::TestApp;
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, eventually};

/// A sign-out has to take effect at every replica within this time. One in ten may take longer, because the machine may be
/// busy now and then.
const WITHIN: Duration = Duration::from_secs(1);
/// Number of sign-outs that are timed.
const ROUNDS: usize = 100;

/// Envoy with two replicas: its first listener asks the first one, its second listener the other.
struct Stage {
    envoy: Envoy,
    flags: Vec<String>,
    _first: TestApp,
    second: Option<TestApp>,
    /// Network between the second replica and the store.
    proxy: Proxy,
    store: Redis,
    cognito: Emulator,
    client_id: String,
    pool: String,
    /// Account API of the first replica, through Envoy.
    account: AccountClient,
    _upstream: Upstream,
    _directory: TempDir,
}

impl Stage {
    async fn start() -> Self {
        let cognito = Emulator::start().await;
        let pool = cognito.create_pool().await;
        let client_id = cognito.create_client(&pool).await;
        let store = Redis::start().await;
        let proxy = Proxy::start(store.port).await;
        let directory = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}", directory.path().join("authz.sock").display());
        let flags = ["--user-pool-id", &pool, "--client-id", &client_id, "--cognito-endpoint", &cognito.url];
        let flags: Vec<String> = flags.iter().chain(&QUICK).map(ToString::to_string).collect();
        let first = replica(&flags, &[("--revocation-url", &store.url()), ("--grpc-listen", &socket)]);
        let second = replica(&flags, &[("--revocation-url", &proxy.url())]);
        let upstream = Upstream::start().await;
        // The Unix socket of the first replica, and the TCP port of the second.
        let unix = first.grpc.iter().find(|address| address.starts_with("unix:")).unwrap();
        let mut bootstrap = Bootstrap::new(&[unix.clone(), second.grpc[0].clone()], &upstream.address);
        bootstrap.serve_account(&first.admin);
        let envoy = Envoy::start(bootstrap).await;
        envoy.finds_the_service_healthy().await;
        let account = AccountClient::new(envoy.address(LISTENERS[0]));
        Self {
            envoy,
            flags,
            _first: first,
            second: Some(second),
            proxy,
            store,
            cognito,
            client_id,
            pool,
            account,
            _upstream: upstream,
            _directory: directory,
        }
    }

    /// Creates a user, signs in, and checks that both replicas let the token pass.
    async fn signed_in(&self, name: &str) -> String {
        let email = format!("{name}@example.test");
        self.cognito.create_user(&self.pool, &self.client_id, &email, &[]).await;
        self.sign_in(name).await
    }

    async fn sign_in(&self, name: &str) -> String {
        let login = json!({"email": format!("{name}@example.test"), "password": PASSWORD});
        let reply = self.account.post("/login", login).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        let token = reply.text("accessToken").to_owned();
        assert_eq!(self.verdicts(&token).await, [(200, String::new()), (200, String::new())]);
        token
    }

    /// Status and reason at each replica.
    async fn verdicts(&self, token: &str) -> [(u16, String); 2] {
        let lines = [bearer(token)];
        let ask = async |listener| fetch(self.envoy.address(listener), "/orders", &lines).await.verdict();
        [ask(LISTENERS[0]).await, ask(LISTENERS[1]).await]
    }

    async fn refuses(&self, token: &str) -> [bool; 2] {
        self.verdicts(token).await.map(|verdict| match verdict {
            (200, _) => false,
            (401, reason) if reason == "revoked" => true,
            other => panic!("{other:?}"),
        })
    }

    async fn both_refuse(&self, token: &str) -> bool {
        self.refuses(token).await == [true, true]
    }

    /// Ends the second replica and starts it again, at the same address.
    async fn restart_second(&mut self) {
        let address = self.second.as_ref().unwrap().grpc[0].clone();
        drop(self.second.take());
        self.second =
            Some(replica(&self.flags, &[("--revocation-url", &self.proxy.url()), ("--grpc-listen", &address)]));
        self.envoy.finds_the_service_healthy().await;
    }
}

fn replica(flags: &[String], more: &[(&str, &str)]) -> TestApp {
    let more = more.iter().flat_map(|(flag, value)| [*flag, *value]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more).collect();
    TestApp::start(&flags)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_out_takes_effect_at_both_replicas_within_a_second() {
    let stage = Stage::start().await;
    let mut tokens = Vec::new();
    for round in 0..ROUNDS {
        tokens.push(stage.signed_in(&format!("user-{round}")).await);
    }
    let (mut times, mut sign_outs) = (Vec::new(), Vec::new());
    for token in &tokens {
        assert_eq!(stage.refuses(token).await, [false, false]);
        let (account, signed_in) = (stage.account.clone(), token.clone());
        let start = Instant::now();
        // The response is held for a second; the effect must not wait for it.
        sign_outs.push(tokio::spawn(async move { account.bearer("/logout", &signed_in, json!({})).await }));
        while !stage.both_refuse(token).await {
            assert!(start.elapsed() < PATIENCE, "not refused");
        }
        times.push(start.elapsed());
    }
    for sign_out in sign_outs {
        let reply = sign_out.await.unwrap();
        assert_eq!((reply.status, reply.text("scope")), (200, "shared"), "{:?}", reply.body);
    }
    times.sort_unstable();
    println!(
        "from the request to a refusal at both replicas, {ROUNDS} sign-outs: median {:?}, worst {:?}",
        times[ROUNDS / 2],
        times[ROUNDS - 1]
    );
    assert!(times[ROUNDS - 1 - ROUNDS / 10] < WITHIN, "{times:?}");
    // A sign-in right after the response of a sign-out counts, at both.
    for round in 0..3 {
        let token = stage.sign_in(&format!("user-{round}")).await;
        assert_eq!(stage.account.bearer("/logout", &token, json!({})).await.status, 200);
        let again = stage.sign_in(&format!("user-{round}")).await;
        assert_eq!((stage.refuses(&again).await, stage.both_refuse(&token).await), ([false, false], true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_outs_outlive_the_store_the_network_and_the_replicas() {
    let mut stage = Stage::start().await;
    let [before, during, cut_off, after] = [
        stage.signed_in("before").await,
        stage.signed_in("during").await,
        stage.signed_in("cut-off").await,
        stage.signed_in("after").await,
    ];
    let sign_out = async |stage: &Stage, token: &str| {
        let reply = stage.account.bearer("/logout", token, json!({})).await;
        (reply.status, reply.text("scope").to_owned())
    };
    assert_eq!(sign_out(&stage, &before).await, (200, "shared".into()));
    assert!(stage.both_refuse(&before).await);

    // Without the store, checks go on with what is known. The sign-out counts where it was sent to.
    stage.store.kill();
    assert_eq!(sign_out(&stage, &during).await, (503, String::new()));
    assert_eq!(stage.refuses(&during).await, [true, false]);
    assert!(stage.both_refuse(&before).await);
    assert_eq!(stage.refuses(&after).await, [false, false]);

    // The store comes back empty: the replicas put back what they know.
    stage.store.resume().await.unwrap();
    eventually("both know", PATIENCE, async || stage.both_refuse(&during).await).await;
    eventually("the store knows", PATIENCE, async || stage.store.records().await >= 2).await;
    stage.restart_second().await;
    eventually("a new replica knows", PATIENCE, async || {
        stage.both_refuse(&before).await && stage.both_refuse(&during).await
    })
    .await;

    // The second replica is cut off from the store for five seconds, without noticing it from its connections.
    stage.proxy.set(Network::Frozen);
    assert_eq!(sign_out(&stage, &cut_off).await, (200, "shared".into()));
    tokio::time::sleep(Duration::from_secs(4)).await; // the outage itself, which has to last five seconds
    assert_eq!(stage.refuses(&cut_off).await, [true, false]);
    stage.proxy.set(Network::Open);
    eventually("converged", PATIENCE, async || stage.both_refuse(&cut_off).await).await;
    assert_eq!(stage.refuses(&after).await, [false, false]);
}
