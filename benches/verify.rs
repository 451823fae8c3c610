//! Measures the cost of a check relative to a baseline, in alternating rounds. On a shared machine only the ratios are
//! meaningful.
//!
//! - verification of one token, compared with the bare RSA operation, the least that any verifier has to do
//! - a cached check from bytes to bytes, compared with decoding its request with prost, which the check avoids
//! - a cached check with 1,000 and 1,000,000 revocations, compared with one without any; searching the table for one token, which
//!   the next check after a change does, compared with a cached check; and the memory of a revocation
//! - a cached check with 200 pools, 200 policies and 400 routes, compared with one without a policy file
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a benchmark")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cognito_authz::authz::{Answer, Authorizer, Decoded, Purpose, SignIn, Step, TimeLimits, TokenCache, WantedClaims};
use cognito_authz::config::policy::{PolicySource, SignInSource};
use cognito_authz::ext_authz::{request, response};
use cognito_authz::jwks::KeySet;
use cognito_authz::lifecycle::Readiness;
use cognito_authz::metrics::Metrics;
use cognito_authz::reload::Reloader;
use cognito_authz::revocation::{Keep, LastJudged, MarkedClaims, Marks, Revocations, Settings, Standing};
use cognito_authz::user_pool::{AcceptedUse, Clients, UserPool, UserPools};
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use prost::Message;
use tokio::runtime::Builder;

use crate::browser_request::check_request;
use crate::token::{CLIENT, POOL, SigningKey, TokenBuilder, jwks, unix_now};

#[path = "support/request.rs"]
mod browser_request;
#[path = "../tests/support/token.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod token;

const LIMITS: TimeLimits = TimeLimits { leeway: 0, max_life: 24 * 3600 };
const ROUNDS: usize = 11;
const TOKENS: u32 = 500;

fn main() {
    let key = SigningKey::shared();
    let tokens: Vec<String> = (0..TOKENS)
        .map(|number| {
            TokenBuilder::access().claim("jti", number).claim("cognito:groups", vec!["admins", "editors"]).sign(key)
        })
        .collect();
    let pool = UserPool::new(
        "default",
        POOL.parse().unwrap(),
        Clients::Only(vec![CLIENT.parse().unwrap()]),
        AcceptedUse::Access,
    )
    .unwrap();
    let pools = || UserPools::new(vec![pool.clone()]).unwrap();
    let keys = KeySet::parse(jwks(&[key]).as_bytes(), &KeySet::default()).unwrap();

    let bare_key = parsed_key(key);
    let parts: Vec<(&[u8], Vec<u8>)> = tokens
        .iter()
        .map(|token| {
            let (input, signature) = token.rsplit_once('.').unwrap();
            (input.as_bytes(), URL_SAFE_NO_PAD.decode(signature).unwrap())
        })
        .collect();
    let bare = || parts.iter().for_each(|(input, signature)| bare_key.verify_sig(input, signature).unwrap());
    let (pools_for_verify, wanted, now) = (pools(), WantedClaims::default(), unix_now());
    let verify = || {
        for token in &tokens {
            let decoded = Decoded::new(token).ok().unwrap();
            let unverified = decoded.read().ok().unwrap();
            let candidate =
                unverified.check(&pools_for_verify, Purpose::Check, now, LIMITS, &mut Step::Form).ok().unwrap();
            let key = keys.get(candidate.kid()).unwrap();
            black_box(candidate.verify(key, &wanted).unwrap());
        }
    };
    compare("verification of one token", &verify, "bare RSA verification", &bare);

    let messages: Vec<Vec<u8>> = tokens.iter().map(|token| check_request(token).encode_to_vec()).collect();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let realm = "api".parse().unwrap();
    let cached = |authorizer: &Authorizer| {
        runtime.block_on(async {
            for message in &messages {
                let context = request::read(message).ok().unwrap().unwrap();
                let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
                let rules = authorizer.rules();
                let verdict = authorizer.authorize(&rules, Some(&context), now, deadline).await;
                let answer = Answer::new(&verdict, &rules, Some(&context), &realm);
                assert!(matches!(answer, Answer::Pass(_)), "a good token");
                black_box(response::write(&answer));
            }
        });
    };
    let plain = authorizer(&pool, &jwks(&[key]), None, revocations());
    let decode = || messages.iter().for_each(|message| drop(black_box(CheckRequest::decode(&**message).unwrap())));
    compare("cached check, bytes to bytes", &|| cached(&plain), "decoding the request with prost", &decode);

    let pool_id = POOL.parse().unwrap();
    for count in [1_000, 1_000_000] {
        let revocations = revocations();
        let before = resident_bytes();
        runtime.block_on(async {
            for number in 0..count {
                let sub = format!("{number:08}-0000-4000-8000-000000000000");
                revocations.revoke_user(&pool_id, &sub, now).await.unwrap();
            }
        });
        let each = (resident_bytes() - before) / f64::from(count);
        println!("{count} revocations: {each:.0} bytes of resident memory each");
        // Both are made now: what was allocated before the table was filled lies closer together, and so is faster to read.
        let empty = authorizer(&pool, &jwks(&[key]), None, self::revocations());
        let full = authorizer(&pool, &jwks(&[key]), None, Arc::clone(&revocations));
        let name = format!("cached check, {count} revocations");
        compare(&name, &|| cached(&full), "the same without revocations", &|| cached(&empty));
        let marks: Vec<Marks> = (0..TOKENS)
            .map(|number| {
                let (sub, jti) = (format!("sub-{number}"), format!("jti-{number}"));
                let claims = MarkedClaims { sub: &sub, origin_jti: Some("o"), jti: Some(&jti), since: now };
                Marks::new(&pool_id, &claims, "")
            })
            .collect();
        let ask = || {
            for marks in &marks {
                assert_eq!(black_box(revocations.judge(marks, &LastJudged::default())), Standing::Valid);
            }
        };
        compare("searching the table for it", &ask, "a cached check", &|| cached(&full));
    }

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.yaml");
    std::fs::write(&file, large_file()).unwrap();
    let large = authorizer(&pool, &jwks(&[key]), Some(file), revocations());
    compare("cached check, large policy file", &|| cached(&large), "the same without a file", &|| cached(&plain));
}

/// Creates an authorizer with this pool and those of the policy file, if there is one.
fn authorizer(pool: &UserPool, jwks: &str, file: Option<PathBuf>, revocations: Arc<Revocations>) -> Authorizer {
    let source = PolicySource {
        pool: Some(pool.clone()),
        header_prefix: "x-auth-".parse().unwrap(),
        allow_insecure_endpoints: false,
        browser_sessions: None,
        sign_in: SignInSource { routes: SignIn::below("/auth"), missing: Vec::new() },
        file,
    };
    let mut rules = source.read().unwrap();
    rules.pools[0].1 = KeySet::parse(jwks.as_bytes(), &KeySet::default()).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let (_, rules) =
        Reloader::open(rules, source, Duration::from_secs(900), Arc::clone(&metrics), &Readiness::default()).unwrap();
    let cache = TokenCache::new(50_000, 64 << 20, metrics.token_cache.clone());
    Authorizer::new(rules, cache, revocations, LIMITS)
}

/// Returns an empty table of revocations, in memory.
fn revocations() -> Arc<Revocations> {
    let settings = Settings { keep: Keep::Memory, capacity: 1_000_000, life: 24 * 3600 };
    Arc::new(Revocations::open(settings, Metrics::new().unwrap().revocation().unwrap()).unwrap())
}

/// Resident memory of this process.
fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

/// Returns a policy file with 200 pools, one policy per pool and two routes per policy, plus one route that the
/// requests of this benchmark match.
fn large_file() -> String {
    let each = |write: fn(u32) -> String| (0..200).map(write).collect::<String>();
    let pools = each(|number| format!("  p{number}: {{user_pool_id: eu-west-1_Pool{number}, client_ids: any}}\n"));
    let policies = each(|number| format!("  only{number}: {{pools: [p{number}]}}\n"));
    let routes = each(|number| {
        let host = format!("- {{host: t{number}.example, path_prefix: /, policy: only{number}}}\n");
        host + &format!("- {{path_prefix: /tenants/t{number}, policy: only{number}}}\n")
    });
    format!(
        "pools:\n{pools}default: members\npolicies:\n  members: {{}}\n  readers: {{groups: {{any: [editors]}}}}\n{policies}\
         routes:\n- {{method: GET, path: '/v1/orders/{{id}}', policy: readers}}\n{routes}"
    )
}

/// Prints the median time of `work`, of `base`, and of their ratio.
fn compare(name: &str, work: &dyn Fn(), against: &str, base: &dyn Fn()) {
    let time = |work: &dyn Fn()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1e6 / f64::from(TOKENS)
    };
    time(work);
    time(base);
    let rounds: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (time(work), time(base))).collect();
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (ours, theirs) = (median(rounds.iter().map(|r| r.0).collect()), median(rounds.iter().map(|r| r.1).collect()));
    let ratio = median(rounds.iter().map(|(ours, theirs)| ours / theirs).collect());
    println!("{name}: {ours:.2} us; {against}: {theirs:.2} us; ratio {ratio:.2}");
}

fn parsed_key(key: &SigningKey) -> ParsedPublicKey {
    let jwk = key.jwk();
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    RsaPublicKeyComponents { n: part("n"), e: part("e") }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).unwrap()
}
