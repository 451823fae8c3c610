//! Texts of the policy file. Each kind has a check, and the same check as a pattern for the JSON Schema.
//!
//! Start from [`Parsed`] and [`Plain`].

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::Ipv6Addr;
use std::ops::Deref;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use url::Url;

use super::reader::MEND;
use crate::authz::headers::{ENVOYS, HeaderName, RESERVED};
use crate::authz::policy::route::host_name;
use crate::authz::request::is_token;
use crate::config::parse::AcceptedClient;
use crate::user_pool::{ClientId, UserPoolId};

/// Form of a text in the JSON Schema.
pub trait Form {
    /// Returns the schema, which accepts the same texts as the program.
    fn schema() -> Schema;
}

/// Text that parses into `T`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parsed<T>(pub T);

impl<'de, T: FromStr> Deserialize<'de> for Parsed<T>
where
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);

        impl<T: FromStr> Visitor<'_> for Text<T>
        where
            T::Err: fmt::Display,
        {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
                text.parse().map_err(|why: T::Err| match text {
                    "" => E::custom(format!("the text is empty: {MEND}")),
                    _ => E::custom(format!("{text:?} is {}", article(&why.to_string()))),
                })
            }
        }

        deserializer.deserialize_str(Text(PhantomData)).map(Self)
    }
}

/// Completes the error of a `FromStr`, which is a phrase ("not a URL") or a sentence.
fn article(why: &str) -> String {
    if ["not ", "a ", "more "].iter().any(|start| why.starts_with(start)) {
        why.to_owned()
    } else {
        format!("not valid: {why}")
    }
}

impl<T: Form> JsonSchema for Parsed<T> {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

impl Form for UserPoolId {
    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z0-9_-]+_[A-Za-z0-9]+$", "maxLength": 55})
    }
}

impl Form for ClientId {
    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z0-9_+]{1,128}$"})
    }
}

impl Form for AcceptedClient {
    fn schema() -> Schema {
        ClientId::schema()
    }
}

impl Form for HeaderName {
    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[a-z0-9!#$%&'*+^`|~-]{1,128}$",
            "not": {"anyOf": [{"enum": RESERVED}, {"pattern": format!("^({})", ENVOYS.join("|"))}]},
        })
    }
}

/// An `https://` or `http://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebUrl(pub Url);

impl FromStr for WebUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_web = ["https://", "http://"].into_iter().any(|scheme| text.starts_with(scheme));
        if !is_web || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("not an https:// URL");
        }
        text.parse().map(Self).map_err(|_| "not a valid URL")
    }
}

impl Form for WebUrl {
    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^https?://\\S+$"})
    }
}

/// Path of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl FromStr for FilePath {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Err("not a path of a file") } else { Ok(Self(text.into())) }
    }
}

impl Form for FilePath {
    fn schema() -> Schema {
        Any::schema()
    }
}

/// Kind of [`Plain`] text.
pub trait Kind {
    /// Checks a text that is not empty.
    ///
    /// # Errors
    /// A phrase that begins with `not`, such as "not a host name".
    fn check(text: &str) -> Result<(), String>;

    /// The same check as a JSON Schema.
    fn schema() -> Schema;
}

/// Text of one [`Kind`], never empty.
pub struct Plain<K>(Box<str>, PhantomData<K>);

impl<K: Kind> FromStr for Plain<K> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty".into());
        }
        K::check(text).map(|()| Self(text.into(), PhantomData))
    }
}

impl<'de, K: Kind> Deserialize<'de> for Plain<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Parsed::deserialize(deserializer).map(|Parsed(text)| text)
    }
}

impl<K: Kind> JsonSchema for Plain<K> {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        K::schema()
    }
}

impl<K> Deref for Plain<K> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<K> Clone for Plain<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<K> PartialEq for Plain<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K> Eq for Plain<K> {}

impl<K> fmt::Debug for Plain<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Any text: a group, the name of a claim, an issuer.
#[derive(Debug)]
pub enum Any {}

impl Kind for Any {
    fn check(_: &str) -> Result<(), String> {
        Ok(())
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// Text that needs no escaping in a challenge: `NQCHAR` (RFC 6749 appendix A), the characters of scopes.
#[derive(Debug)]
pub enum Challenge {}

impl Kind for Challenge {
    fn check(text: &str) -> Result<(), String> {
        if text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
            return Ok(());
        }
        Err("not a text of printable ASCII characters without spaces, quotes and backslashes".into())
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[!#-\\[\\]-~]+$"})
    }
}

/// Value of a fixed header.
#[derive(Debug)]
pub enum HeaderValue {}

impl Kind for HeaderValue {
    fn check(text: &str) -> Result<(), String> {
        let plain = text.bytes().all(|b| matches!(b, b' '..=b'~')) && text.trim_matches(' ') == text;
        if plain && text.len() <= 1024 {
            return Ok(());
        }
        Err("not 1 to 1024 printable ASCII characters without spaces at the edges".into())
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[!-~]([ -~]*[!-~])?$", "maxLength": 1024})
    }
}

/// AWS region.
#[derive(Debug)]
pub enum Region {}

impl Kind for Region {
    fn check(text: &str) -> Result<(), String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.bytes().all(plain) { Ok(()) } else { Err("not a region such as us-east-1".into()) }
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[a-z0-9-]+$"})
    }
}

/// Path or path prefix. `PathPattern` checks the rest of its grammar.
#[derive(Debug)]
pub enum Path {}

impl Kind for Path {
    fn check(text: &str) -> Result<(), String> {
        if text.starts_with('/') { Ok(()) } else { Err("not a path, because it does not begin with /".into()) }
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^/"})
    }
}

/// Host in the form in which hosts are compared: a DNS name, an IPv4 address, or an IPv6 address in brackets, without
/// port and trailing dot. There are no wildcards.
#[derive(Debug)]
pub enum Host {}

impl Kind for Host {
    fn check(text: &str) -> Result<(), String> {
        if text.contains('*') {
            return Err("not a host name: there are no wildcards; a route without `host` matches every host".into());
        }
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>() {
            let plain = format!("[{address}]");
            return if text == plain {
                Ok(())
            } else {
                Err(format!("not the canonical form of this address: write {plain}"))
            };
        }
        let name = host_name(text.as_bytes());
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if !name.split('.').all(label) {
            return Err("not a host name".into());
        }
        if !text.eq_ignore_ascii_case(&name) {
            return Err(format!("not a host without port and trailing dot: write {name}"));
        }
        Ok(())
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^([A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*|\\[[0-9a-f:.]+\\])$"})
    }
}

/// Method, case-sensitive (RFC 9110 section 9.1). There are no wildcards.
#[derive(Debug)]
pub enum Method {}

/// Wildcards of other tools. As methods, they would match no request.
const EVERY_METHOD: [&str; 2] = ["ALL", "ANY"];

impl Kind for Method {
    fn check(text: &str) -> Result<(), String> {
        if text.contains('*') || EVERY_METHOD.iter().any(|every| text.eq_ignore_ascii_case(every)) {
            return Err("not a method: a route without `method` matches every method".into());
        }
        if !is_token(text.as_bytes()) {
            return Err("not a method".into());
        }
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(format!(
                "not a method in upper case (methods are case-sensitive): write {}",
                text.to_uppercase()
            ));
        }
        Ok(())
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[A-Z0-9!#$%&'+.^_`|~-]+$",
            "not": {"enum": EVERY_METHOD},
        })
    }
}

/// Name of a segment of a route's path.
#[derive(Debug)]
pub enum SegmentName {}

impl Kind for SegmentName {
    fn check(text: &str) -> Result<(), String> {
        if text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Ok(());
        }
        Err("not a name of letters, digits and _".into())
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z0-9_]+$"})
    }
}
