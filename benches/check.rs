//! Times of the parts of a check, and of a whole cached check, measured by Criterion. `cargo bench --bench check -- match`
//! measures one group. Times vary with the machine and its load: `benches/verify.rs` measures ratios.
//!
//! - `parse`: reading a request of 2 kB, beside decoding it with prost
//! - `verify`: one token, beside the bare RSA operation, the least that any verifier has to do
//! - `match`: the decision about a cached token, without a policy file and with 1, 10 and 1,000 routes
//! - `answer`: describing and encoding the answer
//! - `revocation`: judging a token among 0, 1,000 and 1,000,000 revocations: `searched` as after a change of the table,
//!   `remembered` as in all other checks
//! - `check`: a cached check from bytes to bytes
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark")]

use std::cell::LazyCell;
use std::hint::black_box;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cognito_authz::authz::{Answer, Decoded, Purpose, Step, WantedClaims};
use cognito_authz::ext_authz::{request, response};
use cognito_authz::revocation::{LastJudged, MarkedClaims, Marks, Standing};
use cognito_authz::user_pool::UserPools;
use criterion::{Criterion, criterion_group, criterion_main};
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use prost::Message;
use tokio::time::Instant;

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

criterion_main!(benches);
criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = parse, verify, match_routes, answer, revocation, check
}

/// Returns the bytes of a request with a token.
fn message() -> Vec<u8> {
    check_request(&tokens(1)[0]).encode_to_vec()
}

fn parse(criterion: &mut Criterion) {
    let message = message();
    let mut group = criterion.benchmark_group("parse");
    group.bench_function("request", |b| b.iter(|| drop(black_box(request::read(black_box(&message)).ok().unwrap()))));
    group.bench_function("prost", |b| b.iter(|| CheckRequest::decode(black_box(&*message)).unwrap()));
}

fn verify(criterion: &mut Criterion) {
    let (token, now) = (tokens(1).remove(0), unix_now());
    let (pools, keys, wanted) = (UserPools::new(vec![pool()]).unwrap(), keys(), WantedClaims::default());
    let mut group = criterion.benchmark_group("verify");
    group.bench_function("token", |b| {
        b.iter(|| {
            let decoded = Decoded::new(black_box(&token)).ok().unwrap();
            let unverified = decoded.read().ok().unwrap();
            let candidate = unverified.check(&pools, Purpose::Check, now, LIMITS, &mut Step::Form).ok().unwrap();
            let key = keys.get(candidate.kid()).unwrap();
            candidate.verify(key, &wanted).unwrap()
        });
    });
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (key, signature) = (parsed_key(SigningKey::shared()), URL_SAFE_NO_PAD.decode(signature).unwrap());
    group.bench_function("rsa", |b| b.iter(|| key.verify_sig(black_box(input.as_bytes()), &signature).unwrap()));
}

fn match_routes(criterion: &mut Criterion) {
    let (message, now, runtime) = (message(), unix_now(), runtime());
    let context = request::read(&message).ok().unwrap().unwrap();
    let mut group = criterion.benchmark_group("match");
    for routes in [0, 1, 10, 1000] {
        let file = policy_file(routes);
        let authorizer = authorizer((routes > 0).then_some(&*file), revocations(0));
        let rules = authorizer.rules();
        group.bench_function(format!("{routes} routes"), |b| {
            b.iter(|| {
                let deadline = Instant::now() + Duration::from_secs(5);
                let verdict =
                    runtime.block_on(authorizer.authorize(&rules, Some(black_box(&context)), None, now, deadline));
                drop(black_box(verdict));
            });
        });
    }
}

/// Returns a policy file with this number of routes. The last one matches the request.
fn policy_file(routes: u32) -> String {
    let others: String = (1..routes)
        .map(|number| match number % 3 {
            0 => format!("- {{host: t{number}.example, path_prefix: /, policy: members}}\n"),
            1 => format!("- {{path_prefix: /tenants/t{number}, policy: members}}\n"),
            _ => format!("- {{method: GET, path: '/v{number}/things/{{id}}', policy: members}}\n"),
        })
        .collect();
    format!(
        "default: members\npolicies:\n  members: {{}}\n  readers: {{groups: {{any: [editors]}}}}\nroutes:\n{others}\
         - {{method: GET, path: '/v1/orders/{{id}}', policy: readers}}\n"
    )
}

fn answer(criterion: &mut Criterion) {
    let (message, authorizer) = (message(), authorizer(None, revocations(0)));
    let context = request::read(&message).ok().unwrap().unwrap();
    let (rules, realm) = (authorizer.rules(), "api".parse().unwrap());
    let deadline = Instant::now() + Duration::from_secs(5);
    let verdict = runtime().block_on(authorizer.authorize(&rules, Some(&context), None, unix_now(), deadline));
    criterion.bench_function("answer", |b| {
        b.iter(|| response::write(&Answer::new(black_box(&verdict), &rules, Some(&context), &realm)));
    });
}

fn revocation(criterion: &mut Criterion) {
    let claims = MarkedClaims { sub: "sub-0", origin_jti: Some("o"), jti: Some("jti-0"), since: unix_now() };
    let marks = Marks::new(&POOL.parse().unwrap(), &claims, "");
    let mut group = criterion.benchmark_group("revocation");
    for count in [0, 1_000, 1_000_000] {
        // Filled only if it is measured: a million takes a while.
        let (revocations, remembered) = (LazyCell::new(|| revocations(count)), LastJudged::default());
        let judge = |last: &LastJudged| assert_eq!(revocations.judge(black_box(&marks), last), Standing::Valid);
        group.bench_function(format!("{count} searched"), |b| b.iter(|| judge(&LastJudged::default())));
        group.bench_function(format!("{count} remembered"), |b| b.iter(|| judge(&remembered)));
    }
}

fn check(criterion: &mut Criterion) {
    let (message, runtime) = (message(), runtime());
    let check = checks(authorizer(None, revocations(0)));
    criterion.bench_function("check", |b| b.iter(|| runtime.block_on(check(black_box(&message)))));
}
