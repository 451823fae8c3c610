//! The real program while its policy file changes: under load, on every way in which files change, with files that are
//! wrong, and with pools that come, change and go.
//!
//! When a reload is over is seen in the answers: each version of the file has a static header of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::support::client::{Answer, Ask, connect, get, metric};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::Program;
use crate::support::token::{CLIENT, OTHER_ISSUER, SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

/// Longest that any check may take, whatever happens meanwhile: the limit of a call.
const MAX_CALL: Duration = Duration::from_secs(5);

/// The program with a policy file.
pub(crate) struct Stage {
    pub(crate) program: Program,
    channel: Channel,
    pub(crate) file: PolicyFile,
    /// Where the default pool has its keys.
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

    async fn metric(&self, series: &str) -> f64 {
        metric(&self.program.admin, series).await
    }

    /// Waits until this version of the file is in force.
    async fn is_in_force(&self, version: &str) {
        eventually(version, PATIENCE, async || self.version().await == version).await;
    }

    /// The version in force.
    pub(crate) async fn version(&self) -> String {
        Ask::get("/version").of(&self.channel).await.headers["x-version"].clone()
    }

    /// Puts a file in force.
    pub(crate) async fn reload(&self, version: &str, more: &str) {
        self.file.replace(&text(version, more));
        self.program.signal("HUP");
        self.is_in_force(version).await;
    }
}

/// A file whose version stands in a header of a public route.
pub(crate) fn text(version: &str, more: &str) -> String {
    format!(
        "default: members\npolicies: {{members: {{}}, version: {{public: true, headers: {{x-version: '{version}'}}}}}}\n\
         routes: [{{path: /version, policy: version}}]\n{more}\n"
    )
}

/// A second pool that fetches its keys there.
fn partners(keys: &JwksServer, clients: &str) -> String {
    format!(
        "pools: {{partners: {{user_pool_id: eu-central-1_Other0002, client_ids: [{clients}], jwks_url: '{}'}}}}",
        keys.url
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

/// Two versions that differ in all that a check looks at: names of policies, what they ask for, headers, claims.
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

/// What the first and the second version answer about a token with `first`, `second` and `both`: status, headers.
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

/// Asks without a pause until told to stop. How often each version has answered.
async fn load(channel: Channel, tokens: Arc<Vec<String>>, stop: Arc<AtomicBool>) -> [usize; 2] {
    let mut answered = [0; 2];
    let mut asked = fastrand::usize(..1000);
    while !stop.load(Ordering::Relaxed) {
        asked += 1;
        let (path, expected) = EXPECTED[asked % EXPECTED.len()];
        // Mostly out of the cache.
        let token = &tokens[if asked % 50 == 0 { (asked / 50) % tokens.len() } else { 0 }];
        let ask = Ask::get(path).bearer(token).of(&channel);
        let answer = tokio::time::timeout(MAX_CALL, ask).await.unwrap_or_else(|_| panic!("a check takes too long"));
        // The name of the policy says which version has answered; all the rest has to be that version's, too.
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
            assert!(!load.iter().any(tokio::task::JoinHandle::is_finished), "a check was not answered as it should be");
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
    assert!(stage.metric("config_reloads_total{result=\"success\"}").await >= 100.0);
    assert_eq!(stage.metric("config_reloads_total{result=\"failure\"}").await, 0.0);
    assert_eq!(stage.keys.requests(), 1, "the pool that stays is not fetched again");
    assert_eq!(stage.metric("checks_in_flight").await, 0.0);
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
        mounted.is_in_force(version).await;
        plain.is_in_force(version).await;
        let (_, config) = get(&mounted.program.admin, "/config").await;
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["policy_file"]["content"]["policies"]["version"]["headers"]["x-version"], version);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_changes_nothing() {
    let mut stage = Stage::new(PolicyFile::new(&text("1", ""))).await;
    let readyz = async |stage: &Stage| {
        let (status, body) = get(&stage.program.admin, "/readyz").await;
        (status, serde_json::from_str::<Value>(&body).unwrap()["policy_file"].clone())
    };
    assert_eq!(readyz(&stage).await, (200, Value::Null));
    assert_eq!(stage.metric("config_last_reload_successful").await, 1.0);
    let breaks: [(&str, &str); 5] = [
        ("", "the file is empty"),
        ("policies: {a: {]", "line 1"),
        ("default: nobody", "there is no policy nobody"),
        ("polices: {}", "unknown member"),
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
    assert_eq!(stage.metric("config_last_reload_successful").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_new_pool_are_there_before_it_is() {
    let their_keys =
        JwksServer::start(Reply { delay: Duration::from_secs(1), ..Reply::ok(jwks(&[SigningKey::other()])) }).await;
    let stage = Stage::new(PolicyFile::new(&text("1", ""))).await;
    let (our, their) = (our_token(), their_token("partner"));
    assert_eq!(stage.ask(&their).await.verdict(), (401, "unknown_issuer"));
    stage.file.replace(&text("2", &partners(&their_keys, "partner")));
    let start = Instant::now();
    stage.program.signal("HUP");
    let mut asked = 0;
    loop {
        // Asked first: the switch may come between the two questions.
        let version = stage.version().await;
        let answer = stage.ask(&their).await;
        assert_eq!(stage.ask(&our).await.status, 200);
        if answer.status == 200 {
            break;
        }
        assert_eq!((answer.verdict(), &*version), ((401, "unknown_issuer"), "1"));
        assert!(start.elapsed() < PATIENCE);
        asked += 1;
    }
    assert!(
        asked > 10 && start.elapsed() >= Duration::from_secs(1),
        "{asked}: nothing was asked while keys were fetched"
    );
    assert_eq!((stage.version().await, their_keys.requests()), ("2".to_owned(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_pool_without_keys_is_waited_for_no_longer_than_five_seconds() {
    let their_keys = JwksServer::start(Reply::status(500)).await;
    let stage = Stage::new(PolicyFile::new(&text("1", ""))).await;
    let (our, their) = (our_token(), their_token("partner"));
    stage.file.replace(&text("2", &partners(&their_keys, "partner")));
    let start = Instant::now();
    stage.program.signal("HUP");
    while stage.version().await == "1" {
        assert_eq!(stage.ask(&our).await.status, 200);
        let verdict = stage.ask(&their).await;
        // Between the two questions the switch may come.
        assert!(verdict.reason == "unknown_issuer" || stage.version().await == "2", "{verdict:?}");
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let waited = start.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
    assert_eq!(stage.ask(&their).await.verdict(), (503, "keys_unavailable"));
    assert_eq!(stage.ask(&our).await.status, 200);
    assert_eq!(get(&stage.program.admin, "/readyz").await.0, 200, "the others go on");
    // It is not new any more: what comes next does not wait for it.
    let start = Instant::now();
    stage.reload("3", &partners(&their_keys, "partner, guest")).await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    their_keys.answers(Reply::ok(jwks(&[SigningKey::other()])));
    eventually("keys", PATIENCE, async || stage.ask(&their).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_change_and_go_at_once_also_for_cached_tokens() {
    let their_keys = their_keys().await;
    let stage = Stage::new(PolicyFile::new(&text("1", &partners(&their_keys, "partner, guest")))).await;
    let (our, partner, guest) = (our_token(), their_token("partner"), their_token("guest"));
    for token in [&our, &partner, &guest, &our, &partner, &guest] {
        assert_eq!(stage.ask(token).await.status, 200);
    }
    assert_eq!(stage.metric("token_cache_hits_total").await, 3.0);
    let hits = async || stage.metric("token_cache_hits_total").await;

    stage.reload("2", &partners(&their_keys, "partner")).await;
    assert_eq!(stage.ask(&guest).await.verdict(), (401, "wrong_client"));
    assert_eq!(stage.ask(&partner).await.status, 200);
    let before = hits().await;
    assert_eq!(stage.ask(&our).await.status, 200);
    assert_eq!(hits().await, before + 1.0, "a pool that stays as it was keeps its verified tokens");

    // A pool comes before it, so that it has another place.
    let more = partners(&their_keys, "partner").replace(
        "{partners:",
        &format!("{{a: {{user_pool_id: eu-west-1_A, client_ids: {CLIENT}, jwks_url: '{}'}}, partners:", their_keys.url),
    );
    stage.reload("3", &more).await;
    for token in [&our, &partner] {
        assert_eq!(stage.ask(token).await.status, 200);
    }
    assert_eq!(stage.ask(&partner).await.text("client_id"), "partner");
    assert_eq!(
        stage.metric("checks_total{decision=\"allow\",policy=\"members\",pool=\"partners\",reason=\"\"}").await,
        7.0
    );

    // The tokens that a pool accepts change, too.
    stage.reload("4", &partners(&their_keys, "partner").replace("client_ids", "token_use: id, client_ids")).await;
    assert_eq!(stage.ask(&partner).await.verdict(), (401, "wrong_token_use"));
    stage
        .reload(
            "5",
            &partners(&their_keys, "partner").replace("client_ids", "issuers: ['https://other.test'], client_ids"),
        )
        .await;
    assert_eq!(stage.ask(&partner).await.verdict(), (401, "unknown_issuer"));
    stage.reload("6", &partners(&their_keys, "partner, guest")).await;
    for token in [&partner, &guest] {
        assert_eq!(stage.ask(token).await.status, 200);
    }
    stage.reload("7", "").await;
    for token in [&partner, &guest] {
        assert_eq!(stage.ask(token).await.verdict(), (401, "unknown_issuer"));
    }
    assert_eq!(stage.ask(&our).await.status, 200);
    let (_, metrics) = get(&stage.program.admin, "/metrics").await;
    assert!(metrics.contains("jwks_keys{pool=\"default\"} 1") && !metrics.contains("jwks_keys{pool=\"partners\"}"));
    // Keys were fetched for `partners`, for `a`, and never again.
    assert_eq!((stage.keys.requests(), their_keys.requests()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_moves_gets_other_keys() {
    let (old, new) = (their_keys().await, JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await);
    let stage = Stage::new(PolicyFile::new(&text("1", &partners(&old, "partner")))).await;
    let before = their_token("partner");
    let after =
        TokenBuilder::access().claim("iss", OTHER_ISSUER).claim("client_id", "partner").sign(SigningKey::shared());
    assert_eq!((stage.ask(&before).await.status, stage.ask(&after).await.status), (200, 401));
    stage.reload("2", &partners(&new, "partner")).await;
    assert_eq!(stage.ask(&before).await.verdict(), (401, "unknown_kid"));
    assert_eq!(stage.ask(&after).await.status, 200);
    assert_eq!((old.requests(), new.requests(), stage.keys.requests()), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_apis_pool_stays() {
    let their_keys = their_keys().await;
    let account = "account: {pool: partners}";
    let with = format!("{}\n{account}", partners(&their_keys, "partner"));
    let stage = Stage::new(PolicyFile::new(&text("1", &with))).await;
    let error = async || {
        let (_, body) = get(&stage.program.admin, "/readyz").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        body["policy_file"].as_str().unwrap_or_default().to_owned()
    };
    stage.file.replace(&text("2", ""));
    stage.program.signal("HUP");
    eventually("refused", PATIENCE, async || error().await.contains("the account API speaks for the pool partners"))
        .await;
    assert_eq!((stage.version().await, stage.ask(&their_token("partner")).await.status), ("1".to_owned(), 200));
    stage.reload("3", &with).await;
    assert_eq!(error().await, "");
    assert_eq!(json!(stage.version().await), "3");
}
