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
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cognito_authz::authz::{Authorizer, Decoded, Purpose, Step, WantedClaims};
use cognito_authz::revocation::{LastJudged, MarkedClaims, Marks, Standing};
use cognito_authz::user_pool::UserPools;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use prost::Message;

use crate::authorizer::{LIMITS, authorizer, checks, keys, parsed_key, pool, revocations, runtime, tokens};
use crate::browser_request::check_request;
use crate::token::{POOL, SigningKey, unix_now};

#[path = "support/authorizer.rs"]
mod authorizer;
#[path = "support/request.rs"]
mod browser_request;
#[path = "../tests/support/token.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod token;

const ROUNDS: usize = 11;
const TOKENS: u32 = 500;

fn main() {
    let tokens = tokens(TOKENS);
    let bare_key = parsed_key(SigningKey::shared());
    let parts: Vec<(&[u8], Vec<u8>)> = tokens
        .iter()
        .map(|token| {
            let (input, signature) = token.rsplit_once('.').unwrap();
            (input.as_bytes(), URL_SAFE_NO_PAD.decode(signature).unwrap())
        })
        .collect();
    let bare = || parts.iter().for_each(|(input, signature)| bare_key.verify_sig(input, signature).unwrap());
    let (pools, keys) = (UserPools::new(vec![pool()]).unwrap(), keys());
    let (wanted, now) = (WantedClaims::default(), unix_now());
    let verify = || {
        for token in &tokens {
            let decoded = Decoded::new(token).ok().unwrap();
            let unverified = decoded.read().ok().unwrap();
            let candidate = unverified.check(&pools, Purpose::Check, now, LIMITS, &mut Step::Form).ok().unwrap();
            let key = keys.get(candidate.kid()).unwrap();
            black_box(candidate.verify(key, &wanted).unwrap());
        }
    };
    compare("verification of one token", &verify, "bare RSA verification", &bare);

    let messages: Vec<Vec<u8>> = tokens.iter().map(|token| check_request(token).encode_to_vec()).collect();
    let runtime = runtime();
    let cached = |authorizer: Authorizer| {
        let (check, messages, runtime) = (checks(authorizer), &messages, &runtime);
        move || {
            runtime.block_on(async {
                for message in messages {
                    black_box(check(message).await);
                }
            });
        }
    };
    let plain = cached(authorizer(None, revocations(0)));
    let decode = || messages.iter().for_each(|message| drop(black_box(CheckRequest::decode(&**message).unwrap())));
    compare("cached check, bytes to bytes", &plain, "decoding the request with prost", &decode);

    let pool_id = POOL.parse().unwrap();
    for count in [1_000, 1_000_000] {
        let before = resident_bytes();
        let table = revocations(count);
        let each = (resident_bytes() - before) / f64::from(count);
        println!("{count} revocations: {each:.0} bytes of resident memory each");
        // Both are made now: what was allocated before the table was filled lies closer together, and so is faster to read.
        let empty = cached(authorizer(None, revocations(0)));
        let full = cached(authorizer(None, Arc::clone(&table)));
        compare(&format!("cached check, {count} revocations"), &full, "the same without revocations", &empty);
        let marks: Vec<Marks> = (0..TOKENS)
            .map(|number| {
                let (sub, jti) = (format!("sub-{number}"), format!("jti-{number}"));
                let claims = MarkedClaims { sub: &sub, origin_jti: Some("o"), jti: Some(&jti), since: now };
                Marks::new(&pool_id, &claims, "")
            })
            .collect();
        let ask = || {
            for marks in &marks {
                assert_eq!(black_box(table.judge(marks, &LastJudged::default())), Standing::Valid);
            }
        };
        compare("searching the table for it", &ask, "a cached check", &full);
    }

    let large = cached(authorizer(Some(&large_file()), revocations(0)));
    compare("cached check, large policy file", &large, "the same without a file", &plain);
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
