//! Body of `POST /revocations`.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::super::refusal::Refusal;
use crate::clock::{UnixTime, parse_rfc3339};
use crate::revocation::Kind;

/// Maximum length of a claim's value in bytes. Cognito's are UUIDs.
const MAX_VALUE: usize = 256;
/// Maximum length of a reason, in characters.
const MAX_REASON: usize = 200;
/// Seconds that `before` may be in the future, because clocks differ.
const MAX_AHEAD: UnixTime = 60;
/// Maximum length of a message about the form of the body, in characters.
const MAX_MESSAGE: usize = 200;

/// Members of the body. A repeated one is an error, and so is `null`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    #[serde(default, deserialize_with = "present")]
    pool: Option<String>,
    #[serde(default, deserialize_with = "present")]
    sub: Option<String>,
    #[serde(default, deserialize_with = "present")]
    origin_jti: Option<String>,
    #[serde(default, deserialize_with = "present")]
    jti: Option<String>,
    #[serde(default, deserialize_with = "present")]
    before: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    reason: Option<String>,
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Claim that a request is about. Exactly one has to be set.
pub(super) struct Target {
    pub(super) sub: Option<String>,
    pub(super) origin_jti: Option<String>,
    pub(super) jti: Option<String>,
}

impl Target {
    /// `true` if no claim is set.
    pub(super) fn is_empty(&self) -> bool {
        self.sub.is_none() && self.origin_jti.is_none() && self.jti.is_none()
    }

    /// Returns the claim and its value.
    ///
    /// # Errors
    /// None is set, several are, or the value cannot be one.
    pub(super) fn claim(&self) -> Result<(Kind, &str), Refusal> {
        let claims = [(Kind::Subject, &self.sub), (Kind::Session, &self.origin_jti), (Kind::Token, &self.jti)];
        let mut set = claims.into_iter().filter_map(|(kind, value)| value.as_deref().map(|value| (kind, value)));
        let (Some((kind, value)), None) = (set.next(), set.next()) else {
            return Err(Refusal::bad_request("Exactly one of sub, origin_jti and jti is required."));
        };
        if value.is_empty() || value.len() > MAX_VALUE || value.chars().any(is_invisible) {
            let name = kind.as_str();
            return Err(Refusal::bad_request(format!(
                "{name} has to be a text of 1 to {MAX_VALUE} bytes without control characters."
            )));
        }
        Ok((kind, value))
    }
}

/// Revocation that an operator asks for.
#[derive(Debug)]
pub(super) struct Order {
    /// Name or id of the pool.
    pub(super) pool: Option<String>,
    pub(super) kind: Kind,
    /// Value of the claim.
    pub(super) value: String,
    /// Of a `sub`: second up to which sign-ins are revoked. Else the current time.
    pub(super) before: UnixTime,
    /// Reason, for the log.
    pub(super) reason: Option<String>,
}

impl Order {
    /// Reads the body.
    ///
    /// # Errors
    /// A message for the caller. It may repeat a part of the body.
    pub(super) fn read(body: &[u8], now: UnixTime) -> Result<Self, Refusal> {
        // serde would read an array as the members in their order.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(Refusal::bad_request("The body is not a revocation: it has to be a JSON object."));
        }
        let members: Members = serde_json::from_slice(body).map_err(|error| {
            let error: String = error.to_string().chars().take(MAX_MESSAGE).collect();
            Refusal::bad_request(format!("The body is not a revocation: {error}."))
        })?;
        let Members { pool, sub, origin_jti, jti, before, reason } = members;
        let target = Target { sub, origin_jti, jti };
        let (kind, value) = target.claim()?;
        if before.is_some() && kind != Kind::Subject {
            return Err(Refusal::bad_request("before is only for a sub: sessions and tokens are revoked as a whole."));
        }
        let before = before.map(|before| time(&before)).transpose()?.unwrap_or(now);
        if before > now.saturating_add(MAX_AHEAD) {
            return Err(Refusal::bad_request(format!("before is more than {MAX_AHEAD} seconds in the future.")));
        }
        if let Some(reason) = &reason {
            check_reason(reason)?;
        }
        Ok(Self { pool, kind, value: value.to_owned(), before, reason })
    }
}

fn time(value: &Value) -> Result<UnixTime, Refusal> {
    let time = match value {
        Value::Number(seconds) => seconds.as_i64().filter(|seconds| *seconds >= 0),
        Value::String(text) => parse_rfc3339(text),
        _ => None,
    };
    time.ok_or_else(|| {
        Refusal::bad_request(
            "before has to be Unix seconds (an integer), or RFC 3339 such as \"2026-03-01T12:00:00Z\".",
        )
    })
}

/// Checks that a reason can be a part of a log line.
fn check_reason(reason: &str) -> Result<(), Refusal> {
    if reason.chars().count() > MAX_REASON || reason.chars().any(is_invisible) {
        return Err(Refusal::bad_request(format!(
            "reason has to be at most {MAX_REASON} characters, without control characters."
        )));
    }
    let is_address = |word: &str| {
        word.split_once('@').is_some_and(|(user, host)| {
            user.ends_with(char::is_alphanumeric) && host.starts_with(char::is_alphanumeric)
        })
    };
    // Every JWT begins with `{"`, in Base64.
    let is_token = |word: &str| word.contains("eyJ") && word.contains('.');
    if reason.split_whitespace().any(|word| is_address(word) || is_token(word)) {
        return Err(Refusal::bad_request("reason is logged, so it must not contain an e-mail address or a token."));
    }
    Ok(())
}

/// `true` for control characters, and for those that break a line or change the direction of a text.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixTime = 1_772_366_400; // 2026-03-01T12:00:00Z

    fn read(body: &str) -> Result<Order, String> {
        Order::read(body.as_bytes(), NOW).map_err(|refusal| {
            assert_eq!((refusal.status.as_u16(), refusal.code), (400, "invalid_request"));
            refusal.message.into_owned()
        })
    }

    #[test]
    fn each_claim_is_read() {
        let order = read(r#"{"pool":"staff","sub":"s","before":7,"reason":"stolen phone (@ops)"}"#).unwrap();
        assert_eq!((order.kind, &*order.value, order.before), (Kind::Subject, "s", 7));
        assert_eq!((order.pool.as_deref(), order.reason.as_deref()), (Some("staff"), Some("stolen phone (@ops)")));
        for (body, kind) in [(r#"{"origin_jti":"o"}"#, Kind::Session), (r#"{"jti":"o"}"#, Kind::Token)] {
            let order = read(body).unwrap();
            assert_eq!((order.kind, &*order.value, order.before, order.pool), (kind, "o", NOW, None));
        }
        for (before, time) in [(json!("2026-03-01T13:00:00+01:00"), NOW), (json!(NOW + 60), NOW + 60), (json!(0), 0)] {
            assert_eq!(read(&json!({"sub": "s", "before": before}).to_string()).unwrap().before, time);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = |length: usize| "a".repeat(length);
        for (body, message) in [
            (String::new(), "not a revocation"),
            (r#"["staff","s"]"#.to_owned(), "not a revocation"),
            ("null".to_owned(), "not a revocation"),
            (r#"{"sub":"s"} x"#.to_owned(), "trailing characters"),
            (r#"{"sub":"s","sub":"s"}"#.to_owned(), "duplicate field `sub`"),
            (r#"{"sub":"s","until":1}"#.to_owned(), "unknown field `until`"),
            (r#"{"sub":"s","pool":null}"#.to_owned(), "invalid type: null"),
            (r#"{"sub":"s","before":null}"#.to_owned(), "before has to be"),
            (r#"{"sub":7}"#.to_owned(), "invalid type"),
            ("{}".to_owned(), "Exactly one"),
            (r#"{"reason":"r"}"#.to_owned(), "Exactly one"),
            (r#"{"sub":"s","jti":"j"}"#.to_owned(), "Exactly one"),
            (r#"{"sub":""}"#.to_owned(), "sub has to be"),
            (json!({"jti": long(257)}).to_string(), "jti has to be"),
            (json!({"sub": "a\u{0}"}).to_string(), "sub has to be"),
            (json!({"jti": "j", "before": 1}).to_string(), "before is only for a sub"),
            (json!({"sub": "s", "before": NOW + 61}).to_string(), "more than 60 seconds in the future"),
            (json!({"sub": "s", "before": i64::MAX}).to_string(), "more than 60 seconds in the future"),
            (json!({"sub": "s", "before": u64::MAX}).to_string(), "before has to be"),
            (json!({"sub": "s", "before": -1}).to_string(), "before has to be"),
            (json!({"sub": "s", "before": 1.5}).to_string(), "before has to be"),
            (json!({"sub": "s", "before": "now"}).to_string(), "before has to be"),
            (json!({"sub": "s", "before": "7"}).to_string(), "before has to be"),
            (json!({"sub": "s", "before": true}).to_string(), "before has to be"),
            (json!({"sub": "s", "reason": long(201)}).to_string(), "at most 200 characters"),
            (json!({"sub": "s", "reason": "a\nb"}).to_string(), "without control characters"),
            (json!({"sub": "s", "reason": "a\u{202E}b"}).to_string(), "without control characters"),
            (json!({"sub": "s", "reason": "for ada@example.com"}).to_string(), "e-mail address"),
            (json!({"sub": "s", "reason": "saw eyJhbGciOiJIUzI1NiJ9.e30.x"}).to_string(), "a token"),
        ] {
            let error = read(&body).unwrap_err();
            assert!(error.contains(message), "{body}: {error}");
        }
        assert!(read(&json!({"sub": "s", "reason": "é".repeat(200)}).to_string()).is_ok());
        let error = read(&json!({"sub": "s", long(16_000): 1}).to_string()).unwrap_err();
        assert!(error.len() < 300, "{}", error.len());
    }
}
