//! Reloads under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tonic::transport::Channel;

use super::{Stage, their_keys};
use crate::support::client::{Ask, connect};
use crate::support::policy_file::PolicyFile;
use crate::support::token::{SigningKey, TokenBuilder};
use crate::support::{PATIENCE, eventually};

/// Time limit for each check: the limit of the service for a call.
const MAX_CALL: Duration = Duration::from_secs(5);

/// Two versions that differ in everything that a check uses: names of policies, requirements, headers, claims.
const VERSIONS: [&str; 2] = [
    "default: one
policies:
  one: {headers: {x-version: one}}
  open-one: {public: true, headers: {x-version: one}}
  staff-one: {groups: {any: [staff]}}
claim_headers: [{claim: first, header: x-first}, {claim: both, header: x-both}]
routes: [{path: /open, policy: open-one}, {path: /staff, policy: staff-one}]
",
    "default: two
policies:
  two: {headers: {x-version: two}}
  open-two: {public: true, headers: {x-version: two}}
  a-new-one: {optional: true}
  staff-two: {headers: {x-version: two}}
claim_headers: [{claim: both, header: x-both}, {claim: second, header: x-second}]
routes: [{path: /staff, policy: staff-two}, {path_prefix: /open, policy: open-two}]
pools: {a-first: {user_pool_id: eu-central-1_Other0002, client_ids: any, jwks_url: KEYS}}
",
];

/// Status and headers under the first and under the second version, for a token with the claims `first`, `second` and
/// `both`.
type Expected = [(u16, &'static [(&'static str, &'static str)]); 2];
const EXPECTED: [(&str, Expected); 3] = [
    (
        "/",
        [
            (200, &[("x-both", "b"), ("x-first", "1"), ("x-version", "one")]),
            (200, &[("x-both", "b"), ("x-second", "2"), ("x-version", "two")]),
        ],
    ),
    ("/open", [(200, &[("x-version", "one")]), (200, &[("x-version", "two")])]),
    ("/staff", [(403, &[]), (200, &[("x-both", "b"), ("x-second", "2"), ("x-version", "two")])]),
];

/// Sends checks without a pause until `stop` is set. Returns the number of responses under each version.
async fn load(channel: Channel, tokens: Arc<Vec<String>>, stop: Arc<AtomicBool>) -> [usize; 2] {
    let mut answered = [0; 2];
    let mut asked = fastrand::usize(..1000);
    while !stop.load(Ordering::Relaxed) {
        asked += 1;
        let (path, expected) = EXPECTED[asked % EXPECTED.len()];
        // Most tokens are in the cache.
        let token = &tokens[if asked % 50 == 0 { (asked / 50) % tokens.len() } else { 0 }];
        let ask = Ask::get(path).bearer(token).of(&channel);
        let answer = tokio::time::timeout(MAX_CALL, ask).await.unwrap_or_else(|_| panic!("a check takes too long"));
        // The name of the policy shows the version. The rest of the response must be of the same version.
        let version = usize::from(answer.text("policy").ends_with("two"));
        let ours: Vec<_> = ["x-both", "x-first", "x-second", "x-version"]
            .into_iter()
            .filter_map(|name| Some((name, answer.headers.get(name)?.as_str())))
            .collect();
        assert_eq!((answer.status, &*ours), expected[version], "{path}: {answer:?}");
        answered[version] += 1;
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_disturb_no_check() {
    let their_keys = their_keys().await;
    let versions = VERSIONS.map(|text| text.replace("KEYS", &their_keys.url));
    let stage = Stage::new(PolicyFile::new(&versions[0])).await;
    let token = |number: usize| {
        let token = TokenBuilder::access().claim("first", "1").claim("second", "2").claim("both", "b");
        token.claim("jti", number).sign(SigningKey::shared())
    };
    let tokens: Arc<Vec<String>> = Arc::new((0..200).map(token).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let other = connect(&stage.program.grpc[0]).await;
    let load: Vec<_> = [&stage.channel, &other, &stage.channel, &other]
        .into_iter()
        .map(|channel| tokio::spawn(load(channel.clone(), Arc::clone(&tokens), Arc::clone(&stop))))
        .collect();
    for reload in 1..=100 {
        stage.file.replace(&versions[reload % 2]);
        stage.program.signal("HUP");
        let name = ["one", "two"][reload % 2];
        eventually(name, PATIENCE, async || {
            assert!(!load.iter().any(tokio::task::JoinHandle::is_finished), "a response was wrong");
            Ask::get("/open").of(&stage.channel).await.headers["x-version"] == name
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = [0; 2];
    for task in load {
        for (sum, more) in answered.iter_mut().zip(task.await.unwrap()) {
            *sum += more;
        }
    }
    assert!(answered.iter().all(|answered| *answered > 200), "{answered:?}: there was no load");
    // A reload is counted after it takes effect.
    eventually("all reloads are counted", PATIENCE, async || {
        stage.metric("config_reloads_total{result=\"success\"}").await >= 100.0
    })
    .await;
    assert_eq!(stage.metric("config_reloads_total{result=\"failure\"}").await, 0.0);
    assert_eq!(stage.keys.requests(), 1, "the keys of the unchanged pool are not fetched again");
    assert_eq!(stage.metric("checks_in_flight").await, 0.0);
}
