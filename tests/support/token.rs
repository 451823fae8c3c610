//! RSA keys and signed tokens for tests. Tokens have valid defaults; a test changes what it is about.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

/// Default pool of the tests.
pub(crate) const POOL: &str = "eu-west-1_Test00001";
/// Issuer of [`POOL`].
pub(crate) const ISSUER: &str = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Test00001";
/// Pool in another region.
pub(crate) const OTHER_POOL: &str = "eu-central-1_Other0002";
/// Issuer of [`OTHER_POOL`].
pub(crate) const OTHER_ISSUER: &str = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Other0002";
/// Default app client.
pub(crate) const CLIENT: &str = "3n4b5urk1ft4fl3mg5e62d9ado";
/// `sub` of the default user.
pub(crate) const SUB: &str = "6d8d0a2e-3f2b-4c55-9a80-0d1f5d2f0b11";

/// RSA key pair that signs tokens.
pub(crate) struct SigningKey {
    kid: String,
    pair: KeyPair,
}

impl SigningKey {
    /// Generates a key of 2048 bits.
    pub(crate) fn generate(kid: &str) -> Self {
        Self { kid: kid.into(), pair: KeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    /// Key that all tests of the process share, because generating one takes a while.
    pub(crate) fn shared() -> &'static Self {
        static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate("c2hhcmVk+/="));
        &KEY
    }

    /// Second shared key, different from [`SigningKey::shared`].
    pub(crate) fn other() -> &'static Self {
        static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate("b3RoZXI="));
        &KEY
    }

    /// Public key as a JWK, in the form that Cognito publishes.
    pub(crate) fn jwk(&self) -> Value {
        let public = self.pair.public_key();
        let n = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
        let e = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
        json!({"kid": self.kid, "alg": "RS256", "kty": "RSA", "e": e, "n": n, "use": "sig"})
    }

    /// Returns the RS256 signature of `input`.
    pub(crate) fn sign(&self, input: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature).unwrap();
        signature
    }
}

/// Returns a JWKS document with these keys.
pub(crate) fn jwks(keys: &[&SigningKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

/// Current Unix time in seconds.
pub(crate) fn unix_now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Builder for a token.
#[derive(Clone)]
pub(crate) struct TokenBuilder {
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl TokenBuilder {
    /// Starts with an access token as Cognito issues it at sign-in, valid for an hour.
    pub(crate) fn access() -> Self {
        Self::of(json!({
            "sub": SUB, "iss": ISSUER, "client_id": CLIENT, "token_use": "access", "username": SUB,
            "scope": "aws.cognito.signin.user.admin", "origin_jti": "o", "event_id": "e", "jti": "j",
        }))
    }

    /// Starts with an ID token as Cognito issues it at sign-in, valid for an hour.
    pub(crate) fn id() -> Self {
        Self::of(json!({
            "sub": SUB, "iss": ISSUER, "aud": CLIENT, "token_use": "id", "cognito:username": SUB,
            "email": "someone@example.test", "email_verified": true, "origin_jti": "o", "event_id": "e", "jti": "j",
        }))
    }

    fn of(claims: Value) -> Self {
        let Value::Object(claims) = claims else { unreachable!("the two above are objects") };
        let now = unix_now();
        let times = [("auth_time", now), ("iat", now), ("exp", now + 3600)];
        Self { header: Map::from_iter([("alg".into(), json!("RS256"))]), claims }
            .changed(|token| token.claims.extend(times.map(|(name, time)| (name.into(), time.into()))))
    }

    fn changed(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Sets a claim. The text `ABSENT` removes it.
    pub(crate) fn claim(self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.changed(|token| match value {
            value if value == "ABSENT" => drop(token.claims.remove(name)),
            value => drop(token.claims.insert(name.into(), value)),
        })
    }

    /// Sets a member of the header. The text `ABSENT` removes it.
    pub(crate) fn header(self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.changed(|token| drop(token.header.insert(name.into(), value)))
    }

    /// Sets `exp` to this many seconds from now.
    pub(crate) fn expires_in(self, seconds: i64) -> Self {
        self.claim("exp", unix_now() + seconds)
    }

    /// Signs the token, with the `kid` of `key` unless the header has one.
    pub(crate) fn sign(&self, key: &SigningKey) -> String {
        let mut header = self.header.clone();
        header.entry("kid").or_insert_with(|| key.kid.clone().into());
        header.retain(|_, value| value != "ABSENT");
        sign_raw(&Value::Object(header).to_string(), &Value::Object(self.claims.clone()).to_string(), key)
    }
}

/// Signs any header and payload, which need not be JSON.
pub(crate) fn sign_raw(header: &str, payload: &str, key: &SigningKey) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = key.sign(input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}
