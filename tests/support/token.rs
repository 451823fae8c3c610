//! Real keys and really signed tokens for tests: sensible defaults, one changed thing per test.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

/// The pool that tests use unless they say otherwise.
pub(crate) const POOL: &str = "eu-west-1_Test00001";
/// Its issuer.
pub(crate) const ISSUER: &str = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Test00001";
/// Another pool, in another region.
pub(crate) const OTHER_POOL: &str = "eu-central-1_Other0002";
/// Its issuer.
pub(crate) const OTHER_ISSUER: &str = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Other0002";
/// The app client.
pub(crate) const CLIENT: &str = "3n4b5urk1ft4fl3mg5e62d9ado";
/// The user.
pub(crate) const SUB: &str = "6d8d0a2e-3f2b-4c55-9a80-0d1f5d2f0b11";

/// A key that signs tokens.
pub(crate) struct SigningKey {
    kid: String,
    pair: KeyPair,
}

impl SigningKey {
    /// A new RSA key of 2048 bits.
    pub(crate) fn generate(kid: &str) -> Self {
        Self { kid: kid.into(), pair: KeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    /// A key that all tests of the process share: making one takes a while.
    pub(crate) fn shared() -> &'static Self {
        static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate("c2hhcmVk+/="));
        &KEY
    }

    /// Another one.
    pub(crate) fn other() -> &'static Self {
        static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate("b3RoZXI="));
        &KEY
    }

    /// The public key, as Cognito publishes it.
    pub(crate) fn jwk(&self) -> Value {
        let public = self.pair.public_key();
        let n = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
        let e = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
        json!({"kid": self.kid, "alg": "RS256", "kty": "RSA", "e": e, "n": n, "use": "sig"})
    }

    /// RS256 over `input`.
    pub(crate) fn sign(&self, input: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature).unwrap();
        signature
    }
}

/// A JWKS document of these keys.
pub(crate) fn jwks(keys: &[&SigningKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

/// Now, in seconds.
pub(crate) fn unix_now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A token in the making.
#[derive(Clone)]
pub(crate) struct TokenBuilder {
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl TokenBuilder {
    /// An access token as Cognito issues it to a user who signs in.
    pub(crate) fn access() -> Self {
        Self::of(json!({
            "sub": SUB, "iss": ISSUER, "client_id": CLIENT, "token_use": "access", "username": SUB,
            "scope": "aws.cognito.signin.user.admin", "origin_jti": "o", "event_id": "e", "jti": "j",
        }))
    }

    /// An ID token.
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
            .also(|token| token.claims.extend(times.map(|(name, time)| (name.into(), time.into()))))
    }

    fn also(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Sets a claim; the text `ABSENT` takes it out.
    pub(crate) fn claim(self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.also(|token| match value {
            value if value == "ABSENT" => drop(token.claims.remove(name)),
            value => drop(token.claims.insert(name.into(), value)),
        })
    }

    /// Sets a member of the header; the text `ABSENT` takes it out.
    pub(crate) fn header(self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.also(|token| drop(token.header.insert(name.into(), value)))
    }

    /// Sets `exp` to so many seconds from now.
    pub(crate) fn expires_in(self, seconds: i64) -> Self {
        self.claim("exp", unix_now() + seconds)
    }

    /// The signed token.
    pub(crate) fn sign(&self, key: &SigningKey) -> String {
        let mut header = self.header.clone();
        header.entry("kid").or_insert_with(|| key.kid.clone().into());
        header.retain(|_, value| value != "ABSENT");
        sign_raw(&Value::Object(header).to_string(), &Value::Object(self.claims.clone()).to_string(), key)
    }
}

/// Signs any header and payload, JSON or not.
pub(crate) fn sign_raw(header: &str, payload: &str, key: &SigningKey) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = key.sign(input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}
