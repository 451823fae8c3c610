//! A check with a worker's memory and a cache gives the same answer, byte by byte, as one with neither.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::response;
use crate::authz::credential::BrowserSessions;
use crate::authz::request::Body;
use crate::authz::{Answer, Authorizer, Header, Recent, RequestContext, Ruleset, SignIn, TimeLimits, TokenCache};
use crate::config::policy::{PolicySource, SignInSource};
use crate::jwks::KeySet;
use crate::lifecycle::Readiness;
use crate::metrics::Metrics;
use crate::reload::Reloader;
use crate::revocation::{Keep, Revocations, Settings};
use crate::token_builder::{CLIENT, POOL, SigningKey, TokenBuilder, jwks, unix_now};
use crate::user_pool::{AcceptedUse, Clients, UserPool};

/// Two policy files with the same policies, which differ in everything that an answer can depend on.
const FILES: [&str; 2] = [
    "default: members
claim_headers: [{claim: 'custom:tenant', header: x-tenant}]
policies:
  members: {}
  admins: {groups: {any: [admins]}, headers: {x-role: admin}, remove_authorization: true}
  lenient: {groups: {any: [admins]}, mode: shadow}
  open: {public: true}
  optional: {optional: true}
  sockets: {from: {header: x-token, websocket_query: token}}
",
    "default: members
claim_headers: [{claim: 'custom:tenant', header: x-tenant}, {claim: level, header: x-auth-level}]
whole_claims_header: x-claims
policies:
  members: {scopes: {all: [read]}}
  admins: {groups: {any: [admins, editors]}, headers: {x-role: a-long-name}}
  lenient: {groups: {any: [editors]}, mode: shadow, remove_authorization: true}
  open: {public: true, headers: {x-open: 'yes'}}
  optional: {optional: true, remove_authorization: true}
  sockets: {from: {header: x-token}}
",
];

/// Headers of which a request has some.
const HEADERS: [(&str, &str); 12] = [
    ("accept", "text/html"),
    ("cookie", "theme=dark"),
    ("cookie", "theme=dark; __Host-access_token=a.b.c"),
    ("x-auth-sub", "forged"),
    ("X_Auth_Sub", "forged"),
    ("x-auth-other", "forged"),
    ("x-role", "forged"),
    ("x_tenant", "forged"),
    ("x-auth-level", "forged"),
    ("x-token", "other"),
    ("origin", "https://app.example"),
    ("upgrade", "websocket"),
];

#[derive(Clone, Debug)]
enum Event {
    /// A check: policy, token with its place, headers.
    Check(Option<&'static str>, Option<(usize, Place)>, Vec<usize>),
    /// The time passes, in seconds.
    Later(i64),
    /// The other file is read.
    Reload,
    /// A user signs out.
    SignOut(usize),
}

/// Place of a token in a request.
#[derive(Clone, Copy, Debug)]
enum Place {
    Bearer,
    /// Session cookie.
    Cookie,
    /// The header of the policy `sockets`.
    Header,
}

impl Place {
    fn header(self, token: &str) -> (&'static str, String) {
        match self {
            Self::Bearer => ("authorization", format!("Bearer {token}")),
            Self::Cookie => ("cookie", format!("theme=dark; __Host-access_token={token}")),
            Self::Header => ("x-token", token.to_owned()),
        }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let policy = prop::option::of(prop::sample::select(
        &["members", "admins", "lenient", "open", "optional", "sockets", "unknown"][..],
    ));
    let place = prop_oneof![8 => Just(Place::Bearer), 1 => Just(Place::Cookie), 1 => Just(Place::Header)];
    let token = prop::option::weighted(0.95, (0..TOKENS, place));
    // Most requests of a browser or a program have none of these headers, and only those reach the memory.
    let headers = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(0..HEADERS.len(), 0..3)];
    let check = (policy, token, headers).prop_map(|(policy, token, headers)| Event::Check(policy, token, headers));
    let event = prop_oneof![
        40 => check,
        2 => (0..15_i64).prop_map(Event::Later),
        2 => Just(Event::Reload),
        1 => (0..TOKENS).prop_map(Event::SignOut),
    ];
    prop::collection::vec(event, 20..150)
}

const TOKENS: usize = 5;

/// Tokens of different users: the first has it all, the second no group, the third ends soon, the fourth has a wrong
/// signature, and the fifth is an ID token.
fn tokens() -> [String; TOKENS] {
    let of = |number: usize| TokenBuilder::access().claim("sub", sub(number)).claim("custom:tenant", "acme, inc");
    let key = SigningKey::shared();
    let kid = key.jwk()["kid"].clone();
    [
        of(0)
            .claim("cognito:groups", vec!["admins", "editors"])
            .claim("scope", "read write")
            .claim("level", 3)
            .sign(key),
        of(1).claim("username", "zoë").sign(key),
        of(2).claim("cognito:groups", vec!["editors"]).claim("scope", "read").expires_in(40).sign(key),
        of(3).header("kid", kid).sign(SigningKey::other()),
        TokenBuilder::id().claim("sub", sub(4)).claim("cognito:groups", vec!["admins"]).sign(key),
    ]
}

fn sub(number: usize) -> String {
    format!("{number}0000000-0000-4000-8000-000000000000")
}

struct Setup {
    file: std::path::PathBuf,
    source: PolicySource,
    reloader: Reloader,
    rules: Ruleset,
    /// Authorizer with a cache.
    cached: Authorizer,
    plain: Authorizer,
    revocations: Arc<Revocations>,
}

impl Setup {
    fn new(directory: &std::path::Path) -> Self {
        let file = directory.join("policy.yaml");
        std::fs::write(&file, FILES[0]).unwrap();
        let clients = Clients::Only(vec![CLIENT.parse().unwrap()]);
        let pool = UserPool::new("default", POOL.parse().unwrap(), clients, AcceptedUse::Any).unwrap();
        let source = PolicySource {
            pool: Some(pool),
            header_prefix: "x-auth-".parse().unwrap(),
            allow_insecure_endpoints: false,
            browser_sessions: Some(BrowserSessions::default()),
            sign_in: SignInSource { routes: SignIn::below("/auth"), missing: Vec::new() },
            file: Some(file.clone()),
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let settings = Settings { keep: Keep::Memory, capacity: 100, life: 24 * 3600 };
        let revocations = Arc::new(Revocations::open(settings, metrics.revocation().unwrap()).unwrap());
        let open = || {
            let mut policy = source.read().unwrap();
            policy.pools[0].1 = KeySet::parse(jwks(&[SigningKey::shared()]).as_bytes(), &KeySet::default()).unwrap();
            let every = Duration::from_secs(900);
            Reloader::open(policy, source.clone(), every, Arc::clone(&metrics), &Readiness::default()).unwrap()
        };
        let limits = TimeLimits { leeway: 0, max_life: 24 * 3600 };
        let authorizer = |capacity| {
            let cache = TokenCache::new(capacity, 1 << 20, metrics.token_cache.clone());
            Authorizer::new(open().1, cache, Arc::clone(&revocations), limits)
        };
        let (cached, plain) = (authorizer(100), authorizer(0));
        let (reloader, rules) = open();
        Self { file, source, reloader, rules, cached, plain, revocations }
    }

    async fn check(&self, request: &RequestContext<'_>, recent: Option<&Recent>, now: i64) -> Vec<u8> {
        let authorizer = if recent.is_some() { &self.cached } else { &self.plain };
        let deadline = Instant::now() + Duration::from_secs(5);
        let verdict = authorizer.authorize(&self.rules, Some(request), recent, now, deadline).await;
        let realm = "api".parse().unwrap();
        response::write(&Answer::new(&verdict, &self.rules, Some(request), &realm)).to_vec()
    }
}

/// Plays the events, and compares the answers.
async fn play(events: Vec<Event>, tokens: &[String; TOKENS]) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let mut setup = Setup::new(directory.path());
    // One memory holds everything, the other evicts all the time.
    let memories = [Recent::new(1 << 20), Recent::new(6_000)];
    let (mut now, mut file) = (unix_now(), 0);
    for event in events {
        match event {
            Event::Later(seconds) => now += seconds,
            Event::SignOut(user) => {
                setup.revocations.revoke_user(&POOL.parse().unwrap(), &sub(user), now).await.unwrap();
            }
            Event::Reload => {
                file = 1 - file;
                std::fs::write(&setup.file, FILES[file]).unwrap();
                setup.rules = setup.reloader.adopt(setup.source.read().unwrap(), None).unwrap();
            }
            Event::Check(policy, token, headers) => {
                let credential = token.map(|(token, place)| place.header(&tokens[token]));
                let given = headers.iter().map(|index| HEADERS[*index]);
                let all = given.chain(credential.as_ref().map(|(name, value)| (*name, &**value)));
                let header = |(name, value): (&'static str, _)| Header { name: name.as_bytes(), value };
                let request = RequestContext {
                    policy: policy.map(str::as_bytes),
                    method: b"GET",
                    path: b"/orders/7?token=x.y.z",
                    host: b"api.example",
                    headers: all.map(|(name, value)| (name, value.as_bytes())).map(header).collect(),
                    body: Body::Absent,
                };
                let plain = setup.check(&request, None, now).await;
                for memory in &memories {
                    let answer = setup.check(&request, Some(memory), now).await;
                    prop_assert_eq!(&answer, &plain, "{:?} {:?} {:?}", policy, token, headers);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_memory_of_a_worker_changes_no_answer(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(events, &tokens()))?;
    }
}
