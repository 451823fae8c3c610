//! Signing keys of a user pool: parses a JWKS document (RFC 7517) into a [`KeySet`], the keys by `kid`.
//!
//! A key that cannot verify RS256 signatures is skipped, and the reason is kept. A document without a usable key is an
//! error. This file does no I/O: [`fetch`] downloads documents, [`store`] holds the keys and refreshes them.

mod advice;
pub mod fetch;
pub(crate) mod store;

pub(crate) use self::advice::hint;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Public RSA key of 2048 to 8192 bits that verifies RS256 signatures.
///
/// The key is parsed once, when the document is read. Verifying a token then costs one RSA operation.
pub struct VerifyingKey {
    key: ParsedPublicKey,
    modulus: Box<[u8]>,
    exponent: Box<[u8]>,
    retired: AtomicBool,
    /// Time at which a document first had the key.
    seen: Instant,
}

impl VerifyingKey {
    /// Verifies an RSASSA-PKCS1-v1_5 signature with SHA-256 over `message` (RFC 7518 section 3.3). Returns `None` if
    /// `signature` is not valid.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Option<SignatureValid> {
        self.key.verify_sig(message, signature).ok().map(|()| SignatureValid(()))
    }

    /// `true` while the key is in its pool's key set. A token verified with a key that has left the set must not be
    /// served from a cache.
    pub(crate) fn is_current(&self) -> bool {
        !self.retired.load(Ordering::Acquire)
    }
}

/// Proof that a signature was verified. Only [`VerifyingKey::verify`] creates it; creating verified claims consumes it.
#[derive(Debug)]
#[must_use]
pub(crate) struct SignatureValid(());

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("bits", &(self.modulus.len() * 8)).finish_non_exhaustive()
    }
}

/// The usable keys of one pool.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: HashMap<Box<str>, Arc<VerifyingKey>>,
    skipped: Vec<SkippedKey>,
}

/// Key of a JWKS document that is not used.
#[derive(Debug, PartialEq, Eq)]
struct SkippedKey {
    /// Index in the array `keys`, from 0.
    position: usize,
    /// Reason, for the log.
    why: &'static str,
}

/// Error for a document that contains no usable keys.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum JwksError {
    /// The document is not JSON.
    #[error("not a JSON document")]
    NotJson,
    /// The JSON has no array `keys` (RFC 7517 section 5).
    #[error("not a JWK set: no array `keys`")]
    NotJwks,
    /// Every key of the set was skipped, or the set is empty.
    #[error("no usable key in the set")]
    NoUsableKey,
}

impl KeySet {
    /// Parses a JWKS document.
    ///
    /// A key that is also in `previous`, unchanged, is reused: cached tokens that were verified with it stay valid.
    ///
    /// # Errors
    /// [`JwksError`] if the document is not a JWK set or has no usable key.
    pub fn parse(document: &[u8], previous: &Self) -> Result<Self, JwksError> {
        let document: Value = serde_json::from_slice(document).map_err(|_| JwksError::NotJson)?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or(JwksError::NotJwks)?;
        let mut occurrences: HashMap<&str, usize> = HashMap::new();
        for kid in keys.iter().filter_map(|jwk| jwk.get("kid")?.as_str()) {
            *occurrences.entry(kid).or_default() += 1;
        }
        let mut set = Self::default();
        for (position, jwk) in keys.iter().enumerate() {
            match usable(jwk, &occurrences) {
                Ok((kid, modulus, exponent)) => match previous.unchanged(kid, &modulus, &exponent) {
                    Some(key) => drop(set.keys.insert(kid.into(), key)),
                    None => match parse_key(modulus, exponent) {
                        Ok(key) => drop(set.keys.insert(kid.into(), Arc::new(key))),
                        Err(why) => set.skipped.push(SkippedKey { position, why }),
                    },
                },
                Err(why) => set.skipped.push(SkippedKey { position, why }),
            }
        }
        if set.keys.is_empty() { Err(JwksError::NoUsableKey) } else { Ok(set) }
    }

    /// Returns the key whose `kid` is exactly this one.
    pub fn get(&self, kid: &str) -> Option<&Arc<VerifyingKey>> {
        self.keys.get(kid)
    }

    /// `kid` of each usable key, sorted.
    pub(crate) fn kids(&self) -> Vec<&str> {
        let mut kids: Vec<&str> = self.keys.keys().map(|kid| &**kid).collect();
        kids.sort_unstable();
        kids
    }

    /// Number of usable keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns the `kid` of each usable key, in order, and the time since a document first had the key.
    pub(crate) fn ages(&self) -> Vec<(Box<str>, Duration)> {
        let mut ages: Vec<_> = self.keys.iter().map(|(kid, key)| (kid.clone(), key.seen.elapsed())).collect();
        ages.sort_unstable();
        ages
    }

    /// `true` if there is no usable key, which is so only before the first successful fetch.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys of the document that are not used.
    fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// Marks the keys that are not in `successor` as retired (see [`VerifyingKey::is_current`]).
    fn retire_for(&self, successor: &Self) {
        for (kid, key) in &self.keys {
            if !successor.keys.get(kid).is_some_and(|kept| Arc::ptr_eq(kept, key)) {
                key.retired.store(true, Ordering::Release);
            }
        }
    }

    fn unchanged(&self, kid: &str, modulus: &[u8], exponent: &[u8]) -> Option<Arc<VerifyingKey>> {
        let key = self.keys.get(kid)?;
        (*key.modulus == *modulus && *key.exponent == *exponent).then(|| Arc::clone(key))
    }
}

/// Returns `kid`, modulus and exponent of a key, or the reason why it is not used.
///
/// Cognito publishes RSA keys of 2048 bits with `"alg": "RS256"` and `"use": "sig"` ("Verifying JSON web tokens" in the
/// Amazon Cognito developer guide).
fn usable<'j>(jwk: &'j Value, occurrences: &HashMap<&str, usize>) -> Result<(&'j str, Vec<u8>, Vec<u8>), &'static str> {
    let jwk = jwk.as_object().ok_or("not an object")?;
    let kid = match jwk.get("kid") {
        Some(Value::String(kid)) if !kid.is_empty() => kid.as_str(),
        _ => return Err("no kid"),
    };
    if occurrences.get(kid).is_none_or(|count| *count != 1) {
        return Err("the kid occurs more than once");
    }
    if jwk.get("kty").and_then(Value::as_str) != Some("RSA") {
        return Err("not an RSA key");
    }
    if !is_absent_or(jwk, "use", |value| value.as_str() == Some("sig")) {
        return Err("not for signatures (use)");
    }
    let allows_verify = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
    if !is_absent_or(jwk, "key_ops", allows_verify) {
        return Err("not for verifying (key_ops)");
    }
    if !is_absent_or(jwk, "alg", |value| value.as_str() == Some("RS256")) {
        return Err("not for RS256 (alg)");
    }
    let modulus = unsigned(jwk, "n").ok_or("no modulus")?;
    let exponent = unsigned(jwk, "e").ok_or("no exponent")?;
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err("a modulus of less than 2048 or more than 8192 bits");
    }
    // An RSA exponent is odd, and aws-lc accepts at most 33 bits.
    let value = exponent.iter().try_fold(0_u64, |value, byte| value.checked_mul(256)?.checked_add(u64::from(*byte)));
    if !value.is_some_and(|e| e >= 3 && e % 2 == 1 && e < 1 << 33) {
        return Err("an exponent that is not an odd number from 3 to 2^33");
    }
    Ok((kid, modulus, exponent))
}

fn is_absent_or(jwk: &Map<String, Value>, member: &str, accepts: impl Fn(&Value) -> bool) -> bool {
    jwk.get(member).is_none_or(accepts)
}

/// Decodes a `Base64urlUInt` (RFC 7518 section 2) and removes the leading zeros that some issuers add.
fn unsigned(jwk: &Map<String, Value>, member: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(jwk.get(member)?.as_str()?).ok()?;
    let start = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes.get(start..)?.to_vec())
}

fn parse_key(modulus: Vec<u8>, exponent: Vec<u8>) -> Result<VerifyingKey, &'static str> {
    let key = RsaPublicKeyComponents { n: &modulus, e: &exponent }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .map_err(|_| "not a valid RSA key")?;
    Ok(VerifyingKey {
        key,
        modulus: modulus.into(),
        exponent: exponent.into(),
        retired: AtomicBool::new(false),
        seen: Instant::now(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Returns a modulus of `bits` bits. It is not a product of two primes, which the parser does not check.
    fn modulus(bits: usize) -> String {
        let mut bytes = vec![0xff_u8; bits.div_ceil(8)];
        if !bits.is_multiple_of(8) {
            bytes[0] = (1 << (bits % 8)) - 1;
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn jwk(change: impl Fn(&mut Map<String, Value>)) -> Value {
        let mut key =
            json!({"kid": "a+/=", "alg": "RS256", "kty": "RSA", "e": "AQAB", "n": modulus(2048), "use": "sig"});
        change(key.as_object_mut().unwrap());
        key
    }

    fn parse(keys: &[Value]) -> Result<KeySet, JwksError> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), &KeySet::default())
    }

    #[track_caller]
    fn check(usable: bool, change: impl Fn(&mut Map<String, Value>)) {
        let good = jwk(|key| drop(key.insert("kid".into(), "good".into())));
        let set = parse(&[jwk(change), good]).expect("the good key remains");
        assert!(set.get("good").is_some(), "a skipped key must not affect the others");
        assert_eq!(set.len(), if usable { 2 } else { 1 }, "{:?}", set.skipped());
        assert_eq!(set.skipped().len(), usize::from(!usable));
    }

    #[test]
    fn only_rsa_signature_keys_are_usable() {
        let set = |name: &'static str, value: Value| {
            move |key: &mut Map<String, Value>| drop(key.insert(name.into(), value.clone()))
        };
        let unset = |name: &'static str| move |key: &mut Map<String, Value>| drop(key.remove(name));
        check(true, |_| {});
        check(true, unset("use"));
        check(true, unset("alg"));
        check(true, set("key_ops", json!(["verify"])));
        check(true, set("key_ops", json!(["sign", "verify"])));
        check(true, set("n", modulus(8192).into()));
        check(true, set("n", URL_SAFE_NO_PAD.encode([&[0; 2][..], &[0xff; 256]].concat()).into()));
        check(true, set("e", "Aw".into()));
        check(true, set("unknown", json!({"x": 1})));
        for (name, value) in [
            ("use", json!("enc")),
            ("use", json!(null)),
            ("use", json!(1)),
            ("key_ops", json!([])),
            ("key_ops", json!(["sign"])),
            ("key_ops", json!("verify")),
            ("alg", json!("RS512")),
            ("alg", json!("rs256")),
            ("alg", json!(null)),
            ("kty", json!("EC")),
            ("kty", json!("oct")),
            ("kty", json!(null)),
            ("kid", json!("")),
            ("kid", json!(7)),
            ("kid", json!(null)),
            ("n", json!(modulus(2047))),
            ("n", json!(modulus(8193))),
            ("n", json!("")),
            ("n", json!("AAAA")),
            ("n", json!(format!("{}=", modulus(2048)))),
            ("n", json!("+/+/")),
            ("n", json!(5)),
            ("e", json!("AQ")),
            ("e", json!("Ag")),
            ("e", json!("BA")),
            ("e", json!("AgAAAAAB")),
            ("e", json!("AQAAAAAAAAAAAQ")),
            ("e", json!("")),
            ("e", json!(null)),
        ] {
            check(false, set(name, value));
        }
        for name in ["kid", "kty", "n", "e"] {
            check(false, unset(name));
        }
    }

    #[test]
    fn keys_with_a_duplicate_kid_are_skipped() {
        let other = jwk(|key| drop(key.insert("kid".into(), "other".into())));
        let elliptic = jwk(|key| drop(key.insert("kty".into(), "EC".into())));
        for twin in [jwk(|_| {}), elliptic] {
            let set = parse(&[jwk(|_| {}), twin, other.clone()]).unwrap();
            assert!(set.get("a+/=").is_none());
            assert_eq!((set.len(), set.skipped().len()), (1, 2));
        }
    }

    #[test]
    fn a_document_without_keys_is_an_error() {
        for (document, error) in [
            ("", JwksError::NotJson),
            ("<html>", JwksError::NotJson),
            ("{\"keys\":[", JwksError::NotJson),
            ("[]", JwksError::NotJwks),
            ("{}", JwksError::NotJwks),
            ("{\"keys\":{}}", JwksError::NotJwks),
            ("{\"keys\":null}", JwksError::NotJwks),
            ("{\"keys\":[]}", JwksError::NoUsableKey),
            ("{\"keys\":[1,null,\"a\",[],{}]}", JwksError::NoUsableKey),
        ] {
            assert_eq!(KeySet::parse(document.as_bytes(), &KeySet::default()).unwrap_err(), error, "{document}");
        }
    }

    #[test]
    fn a_key_is_current_until_it_leaves_the_set() {
        let named = |kid: &str, bits| {
            jwk(|key| {
                key.insert("kid".into(), kid.into());
                key.insert("n".into(), modulus(bits).into());
            })
        };
        let first = parse(&[named("stays", 2048), named("leaves", 2048), named("changes", 2048)]).unwrap();
        let document = json!({"keys": [named("stays", 2048), named("changes", 2056)]}).to_string();
        let second = KeySet::parse(document.as_bytes(), &first).unwrap();
        first.retire_for(&second);
        assert!(Arc::ptr_eq(first.get("stays").unwrap(), second.get("stays").unwrap()));
        assert!(first.get("stays").unwrap().is_current());
        assert!(!first.get("leaves").unwrap().is_current());
        assert!(!first.get("changes").unwrap().is_current());
        assert!(second.get("changes").unwrap().is_current());
    }
}
