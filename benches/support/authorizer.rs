//! The parts of the service that decide, with a test key, and checks from bytes to bytes ([`checks`]).

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cognito_authz::authz::{Answer, Authorizer, Recent, SignIn, TimeLimits, TokenCache};
use cognito_authz::config::policy::{PolicySource, SignInSource};
use cognito_authz::ext_authz::{request, response};
use cognito_authz::jwks::KeySet;
use cognito_authz::lifecycle::Readiness;
use cognito_authz::metrics::Metrics;
use cognito_authz::reload::Reloader;
use cognito_authz::revocation::{Keep, Revocations, Settings};
use cognito_authz::user_pool::{AcceptedUse, Clients, UserPool};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::token::{CLIENT, POOL, SigningKey, TokenBuilder, jwks, unix_now};

pub(crate) const LIMITS: TimeLimits = TimeLimits { leeway: 0, max_life: 24 * 3600 };

/// Returns a runtime as each thread of the gRPC port has one.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Returns tokens of different users.
pub(crate) fn tokens(count: u32) -> Vec<String> {
    (0..count)
        .map(|number| {
            let token =
                TokenBuilder::access().claim("sub", format!("sub-{number}")).claim("jti", format!("jti-{number}"));
            token.claim("cognito:groups", vec!["admins", "editors"]).sign(SigningKey::shared())
        })
        .collect()
}

/// Returns the pool of the tokens.
pub(crate) fn pool() -> UserPool {
    let clients = Clients::Only(vec![CLIENT.parse().unwrap()]);
    UserPool::new("default", POOL.parse().unwrap(), clients, AcceptedUse::Access).unwrap()
}

/// Returns the keys of the pool.
pub(crate) fn keys() -> KeySet {
    KeySet::parse(jwks(&[SigningKey::shared()]).as_bytes(), &KeySet::default()).unwrap()
}

/// Returns the public key without anything around it, for the bare RSA operation.
pub(crate) fn parsed_key(key: &SigningKey) -> ParsedPublicKey {
    let jwk = key.jwk();
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    RsaPublicKeyComponents { n: part("n"), e: part("e") }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).unwrap()
}

/// Returns a table in memory, with this number of revoked users who have no token in the benchmarks.
pub(crate) fn revocations(count: u32) -> Arc<Revocations> {
    let settings = Settings { keep: Keep::Memory, capacity: 1_000_000, life: 24 * 3600 };
    let revocations = Revocations::open(settings, Metrics::new().unwrap().revocation().unwrap()).unwrap();
    let (pool, now) = (POOL.parse().unwrap(), unix_now());
    runtime().block_on(async {
        for number in 0..count {
            let sub = format!("{number:08}-0000-4000-8000-000000000000");
            revocations.revoke_user(&pool, &sub, now).await.unwrap();
        }
    });
    Arc::new(revocations)
}

/// Returns an authorizer with the pool of the tokens, and with this policy file.
pub(crate) fn authorizer(policy_file: Option<&str>, revocations: Arc<Revocations>) -> Authorizer {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.yaml");
    let source = PolicySource {
        pool: Some(pool()),
        header_prefix: "x-auth-".parse().unwrap(),
        allow_insecure_endpoints: false,
        browser_sessions: None,
        sign_in: SignInSource { routes: SignIn::below("/auth"), missing: Vec::new() },
        file: policy_file.map(|text| {
            std::fs::write(&path, text).unwrap();
            path
        }),
    };
    let mut rules = source.read().unwrap();
    rules.pools[0].1 = keys();
    let metrics = Arc::new(Metrics::new().unwrap());
    let (_, rules) =
        Reloader::open(rules, source, Duration::from_secs(900), Arc::clone(&metrics), &Readiness::default()).unwrap();
    Authorizer::new(rules, TokenCache::new(50_000, 64 << 20, metrics.token_cache.clone()), revocations, LIMITS)
}

/// Returns a function that answers one check, from the bytes of a `CheckRequest` to those of a framed `CheckResponse`. It
/// panics unless the check passes.
pub(crate) fn checks(authorizer: Authorizer) -> impl AsyncFn(&[u8]) -> Bytes {
    let (realm, recent) = ("api".parse().unwrap(), Recent::new(32 << 20));
    async move |message| {
        let context = request::read(message).ok().unwrap().unwrap();
        let rules = authorizer.rules();
        let deadline = Instant::now() + Duration::from_secs(5);
        let verdict = authorizer.authorize(&rules, Some(&context), Some(&recent), unix_now(), deadline).await;
        let answer = Answer::new(&verdict, &rules, Some(&context), &realm);
        assert!(matches!(answer, Answer::Pass(_)), "a good token");
        response::write(&answer)
    }
}
