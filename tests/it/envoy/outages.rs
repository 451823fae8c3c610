//! Outages of the service and of Cognito, and changes of keys, while Envoy sends checks.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Stage, published_key};
use crate::support::client::get;
use crate::support::emulator::Emulator;
use crate::support::envoy::{Bootstrap, Envoy, LISTENERS};
use crate::support::http1::{bearer, fetch};
use crate::support::jwks_server::Reply;
use crate::support::service::Program;
use crate::support::token::{SUB, SigningKey, TokenBuilder, jwks};
use crate::support::tool::free_port;
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, eventually};

#[tokio::test]
async fn requests_get_503_until_a_killed_service_is_back() {
    let keys = published_key().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("authz.sock").display());
    let host = format!("127.0.0.1:{}", free_port());
    let flags = ["--jwks-url", &keys.url, "--grpc-listen", &socket, "--grpc-listen", &host];
    let mut program = Program::start(&flags);
    let upstream = Upstream::start().await;
    let envoy = Envoy::start(Bootstrap::new(&[socket.clone(), host.clone()], &upstream.address)).await;
    envoy.finds_the_service_healthy().await;
    let good = bearer(&TokenBuilder::access().sign(SigningKey::shared()));
    for listener in LISTENERS {
        assert_eq!(fetch(envoy.address(listener), "/", &[&good]).await.status, 200);
    }

    program.signal("KILL");
    program.wait();
    for listener in LISTENERS {
        for lines in [&[&*good][..], &[]].repeat(3) {
            let response = fetch(envoy.address(listener), "/away", lines).await;
            assert_eq!((response.status, &*response.body), (503, ""), "{listener}");
        }
        assert_eq!(envoy.counter(listener, "error").await, 6);
    }
    let log = envoy.access_log("/away", 12).await;
    assert!(log.iter().all(|line| line["details"] == "ext_authz_error"), "{log:?}");

    let _program = Program::start(&flags);
    for listener in LISTENERS {
        let envoy = envoy.address(listener);
        eventually("the service is back", PATIENCE, async || match fetch(envoy, "/", &[&good]).await.status {
            200 => true,
            status => {
                assert_eq!(status, 503);
                false
            }
        })
        .await;
        assert_eq!(fetch(envoy, "/", &[""; 0]).await.verdict(), (401, "missing_credential".into()));
    }
    assert!(upstream.seen().iter().all(|seen| seen.path == "/" && seen.header("x-auth-sub") == [SUB]));
}

/// Task that sends requests with one token through both listeners until it is stopped.
struct Traffic {
    stop: oneshot::Sender<()>,
    statuses: tokio::task::JoinHandle<BTreeSet<u16>>,
}

impl Traffic {
    fn start(stage: &Stage, token: &str) -> Self {
        let envoys = LISTENERS.map(|listener| stage.envoy.address(listener).to_owned());
        let token = bearer(token);
        let (stop, mut stopped) = oneshot::channel();
        let statuses = tokio::spawn(async move {
            let mut statuses = BTreeSet::new();
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                for envoy in &envoys {
                    statuses.insert(fetch(envoy, "/", &[&token]).await.status);
                }
            }
            statuses
        });
        Self { stop, statuses }
    }

    async fn stop(self) -> BTreeSet<u16> {
        self.stop.send(()).unwrap();
        self.statuses.await.unwrap()
    }
}

#[tokio::test]
async fn a_key_rotation_fails_no_request() {
    let keys = published_key().await;
    let stage = Stage::start(&["--jwks-url", &keys.url, "--jwks-refresh-interval", "1s"], |_| {}).await;
    let old = TokenBuilder::access().sign(SigningKey::shared());
    let new = TokenBuilder::access().sign(SigningKey::other());
    let verdicts = async |token: &str| {
        let mut verdicts = BTreeSet::new();
        for listener in LISTENERS {
            verdicts.insert(fetch(stage.envoy.address(listener), "/", &[bearer(token)]).await.verdict());
        }
        verdicts
    };
    let (allowed, unknown) = ((200, String::new()), (401, "unknown_kid".to_owned()));

    let traffic = Traffic::start(&stage, &old);
    assert_eq!(verdicts(&new).await, [unknown.clone()].into());
    keys.answers(Reply::ok(jwks(&[SigningKey::shared(), SigningKey::other()])));
    eventually("the new key works", PATIENCE, async || verdicts(&new).await == [allowed.clone()].into()).await;
    assert_eq!(traffic.stop().await, [200].into(), "the old key works throughout");

    let traffic = Traffic::start(&stage, &new);
    keys.answers(Reply::ok(jwks(&[SigningKey::other()])));
    eventually("the old key is refused", PATIENCE, async || verdicts(&old).await == [unknown.clone()].into()).await;
    // Cached tokens are denied, also after the next fetch.
    let fetches = keys.requests();
    eventually("a fetch", PATIENCE, async || keys.requests() > fetches + 1).await;
    assert_eq!(verdicts(&old).await, [unknown].into());
    assert_eq!(traffic.stop().await, [200].into(), "the new key works throughout");
}

#[tokio::test]
async fn an_unknown_key_is_fetched_before_the_next_refresh() {
    let keys = published_key().await;
    let stage = Stage::start(&["--jwks-url", &keys.url], |_| {}).await;
    let new = bearer(&TokenBuilder::access().sign(SigningKey::other()));
    let envoy = stage.envoy.address("ingress_tcp");
    assert_eq!(fetch(envoy, "/", &[&new]).await.verdict(), (401, "unknown_kid".into()));
    keys.answers(Reply::ok(jwks(&[SigningKey::shared(), SigningKey::other()])));
    eventually("the new key works", Duration::from_secs(30), async || fetch(envoy, "/", &[&new]).await.status == 200)
        .await;
    assert_eq!(keys.requests(), 2, "one fetch at startup, and one for all checks since");
}

#[tokio::test]
async fn instances_with_keys_survive_an_outage_of_cognito() {
    let mut cognito = Emulator::start().await;
    let pool = cognito.create_pool().await;
    let client = cognito.create_client(&pool).await;
    let sub = cognito.create_user(&pool, &client, "ada@example.test", &[]).await;
    let token = bearer(&cognito.sign_in(&client, "ada@example.test").await.access);
    let later = bearer(&cognito.sign_in(&client, "ada@example.test").await.access);
    let url = cognito.url.clone();
    let flags = ["--user-pool-id", &pool, "--client-id", &client, "--cognito-endpoint", &url];
    let flags = [&flags[..], &["--jwks-refresh-interval", "1s"]].concat();
    let informed = Stage::start(&flags, |_| {}).await;
    for listener in LISTENERS {
        assert_eq!(fetch(informed.envoy.address(listener), "/", &[&token]).await.seen().header("x-auth-sub"), [&sub]);
    }

    cognito.stop().await;
    // A second service starts during the outage. Envoy checks its health over the Unix socket, but not over TCP.
    let newcomer = Stage::start_unready(&flags, |bootstrap| {
        assert!(!bootstrap.cluster("cognito_authz_tcp")["health_checks"].take().is_null());
    })
    .await;
    let failures = "cognito_authz_jwks_fetches_total{pool=\"default\",result=\"connect\"} ";
    for stage in [&informed, &newcomer] {
        eventually("the outage is noticed", PATIENCE, async || {
            let (_, metrics) = get(&stage.service.admin, "/metrics").await;
            metrics.lines().any(|line| line.strip_prefix(failures).is_some_and(|count| count != "0"))
        })
        .await;
    }
    for listener in LISTENERS {
        let envoy = informed.envoy.address(listener);
        // One token is in the cache, the other is verified now.
        for token in [&token, &later] {
            assert_eq!(fetch(envoy, "/", &[token]).await.seen().header("x-auth-sub"), [&sub]);
        }
        assert_eq!(fetch(envoy, "/", &[""; 0]).await.verdict(), (401, "missing_credential".into()));
    }
    assert_eq!(get(&informed.service.admin, "/readyz").await.0, 200, "keys do not expire");

    assert_eq!(get(&newcomer.service.admin, "/readyz").await.0, 503);
    let unhealthy = fetch(newcomer.envoy.address("ingress_uds"), "/", &[&token]).await;
    assert_eq!((unhealthy.status, &*unhealthy.body), (503, ""));
    let asked = fetch(newcomer.envoy.address("ingress_tcp"), "/", &[&token]).await;
    assert_eq!(asked.verdict(), (503, "keys_unavailable".into()));
    assert_eq!(asked.header("retry-after"), Some("5"));
    assert!(newcomer.upstream.seen().is_empty());

    cognito.resume().await.unwrap();
    eventually("ready", PATIENCE, async || get(&newcomer.service.admin, "/readyz").await.0 == 200).await;
    for listener in LISTENERS {
        let envoy = newcomer.envoy.address(listener);
        eventually("the service responds", PATIENCE, async || fetch(envoy, "/", &[&token]).await.status == 200).await;
    }
}
