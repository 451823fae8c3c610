//! Form of the table of `test-policy`, and its JSON Schema. Start from [`read`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::authz::Denial;
use crate::config::ConfigError;
use crate::config::file::fault::YamlPath;
use crate::config::file::reader::Rules;
use crate::config::file::text::Parsed;
use crate::config::file::values::Name;
use crate::config::file::{form, schema};
use crate::config::parse::{TokenUseOption, long_duration};
use crate::files::{self, MAX_TEXT_BYTES};
use crate::user_pool::UserPool;

/// Requests with the decisions that are expected of a policy file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with `tests`, a list of tests")]
#[schemars(title = "Table of cognito-authz test-policy")]
struct Table {
    /// Tests, each of one request.
    tests: Vec<Test>,
}

/// Test of one request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    expecting = "a map with `name` and `expect` | {name: a request without a token, expect: {decision: deny}}"
)]
pub(super) struct Test {
    /// Name of the test, for the report.
    pub(super) name: Text,
    /// Request. The default is `GET /`, without host and headers.
    #[serde(default)]
    pub(super) request: RequestRow,
    /// Token, as its differences from one that the first pool has just issued to a user. Without it, the request has no
    /// token.
    pub(super) token: Option<TokenRow>,
    /// Expected result.
    pub(super) expect: Expected,
}

/// Request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a map that describes a request | {method: GET, path: /}")]
pub(super) struct RequestRow {
    /// Method.
    pub(super) method: Text,
    /// Host.
    pub(super) host: Text,
    /// Path, with the query.
    pub(super) path: Text,
    /// Policy that Envoy's route names (context extension `policy`).
    pub(super) policy: Option<Text>,
    /// Headers, by name.
    pub(super) headers: BTreeMap<String, Text>,
    /// Body: a text, or a value that is sent as JSON.
    pub(super) body: Option<Value>,
}

impl Default for RequestRow {
    fn default() -> Self {
        Self {
            method: "GET".into(),
            host: "".into(),
            path: "/".into(),
            policy: None,
            headers: BTreeMap::new(),
            body: None,
        }
    }
}

impl RequestRow {
    /// Bytes of the body.
    pub(super) fn body(&self) -> Option<Vec<u8>> {
        self.body.as_ref().map(|body| match body {
            Value::String(text) => text.clone().into_bytes(),
            value => value.to_string().into_bytes(),
        })
    }
}

/// Token, as its differences from one that the first pool has just issued to a user. It is signed for this run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a map that describes a token | {groups: [admins]}")]
pub(super) struct TokenRow {
    /// Pool that issued the token. The default is the first pool.
    pub(super) pool: Option<Name>,
    /// Kind of token. The default is one that the pool accepts.
    pub(super) token_use: Option<TokenUseOption>,
    /// App client. The default is the first one that the pool accepts.
    pub(super) client_id: Option<Text>,
    /// Scopes, separated by spaces.
    pub(super) scope: Option<Text>,
    /// Groups of the user.
    pub(super) groups: Vec<Text>,
    /// Time until the token expires, such as `5m`; negative if it has expired.
    pub(super) expires_in: Offset,
    /// Time since the user signed in, such as `2h`.
    pub(super) auth_age: Offset,
    /// Further claims. They take precedence over the members above; null removes a claim.
    pub(super) claims: Map<String, Value>,
    /// `false` for a token with a wrong signature.
    pub(super) signed: bool,
}

impl Default for TokenRow {
    fn default() -> Self {
        Self {
            pool: None,
            token_use: None,
            client_id: None,
            scope: None,
            groups: Vec::new(),
            expires_in: Offset(3600),
            auth_age: Offset(0),
            claims: Map::new(),
            signed: true,
        }
    }
}

/// Expected result. Absent members are not compared.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with `decision` | {decision: deny, reason: missing_credential}")]
pub(super) struct Expected {
    /// Decision.
    pub(super) decision: ExpectedDecision,
    /// Reason of the denial.
    pub(super) reason: Option<Reason>,
    /// Reason for which a policy in shadow mode would deny the request.
    pub(super) shadow_reason: Option<Reason>,
    /// HTTP status of the answer to the client.
    pub(super) status: Option<u16>,
    /// Address of the sign-in to which the browser is redirected.
    pub(super) location: Option<Text>,
    /// Policy that is selected.
    pub(super) policy: Option<Name>,
    /// Requirement that is not met, such as `scopes` or `claims.tenant`.
    pub(super) requirement: Option<Text>,
    /// Headers that the upstream receives, by name; null for a header that it must not receive.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Option<Text>>,
}

/// Decision about a request.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum ExpectedDecision {
    /// The request reaches the upstream.
    Allow,
    /// The request is refused.
    Deny,
}

impl ExpectedDecision {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Text. A number or a boolean is the text that is written.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(transparent)]
pub(super) struct Text(pub(super) String);

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number", "boolean"]})
    }
}

/// Seconds, written as a duration with an optional `-` before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offset(pub(super) i64);

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Parsed::deserialize(deserializer).map(|Parsed(offset)| offset)
    }
}

impl Serialize for Offset {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}s", self.0))
    }
}

impl FromStr for Offset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        i64::try_from(long_duration(rest)?.as_secs()).map(|seconds| Self(sign * seconds)).map_err(|_| "too long".into())
    }
}

impl JsonSchema for Offset {
    fn schema_name() -> Cow<'static, str> {
        "Offset".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration such as `90s`, `5m`, `2h` or `30d`, with a `-` before it if it is in the past.",
            "type": "string",
            "pattern": "^-?[0-9]",
        })
    }
}

/// Denial, written as its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reason(pub(super) Denial);

/// Reasons of all denials.
static REASONS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| Denial::ALL.iter().map(|denial| denial.reason()).collect());

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Reason;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the reason of a denial | missing_credential")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Reason, E> {
                let denial = Denial::ALL.iter().find(|denial| denial.reason() == text);
                denial.copied().map(Reason).ok_or_else(|| E::unknown_variant(text, &REASONS))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Reason {
    fn schema_name() -> Cow<'static, str> {
        "Reason".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "Reason of a denial.", "type": "string", "enum": *REASONS})
    }
}

/// Reads a table. `pools` are the pools of the policy file.
///
/// # Errors
/// Every error of the table, each with its line.
pub(super) fn read(path: &Path, pools: &[&UserPool]) -> Result<Vec<Test>, ConfigError> {
    let error = |why: &str| ConfigError::new(format!("{}: {why}", path.display()));
    let text = files::read_text(path, MAX_TEXT_BYTES).map_err(|why| error(&why.to_string()))?;
    let read = form::read::<Table>(&text, Rules::Lenient).map_err(|why| error(&format!("{why}; {EXPECTED}")))?;
    let mut faults = read.faults;
    let tests = read.content.map(|table| table.tests).unwrap_or_default();
    let at = YamlPath::default().member("tests");
    if tests.is_empty() && faults.is_empty() {
        faults.push(at.fault(format!("there are no tests in it; {EXPECTED}")));
    }
    for (index, test) in tests.iter().enumerate() {
        let Some(name) = test.token.as_ref().and_then(|token| token.pool.as_ref()) else { continue };
        if !pools.iter().any(|pool| *pool.name == *name.as_str()) {
            let at = at.item(index).before(&read.removed).member("token").member("pool");
            let known = pools.iter().map(|pool| &*pool.name);
            faults.push(at.unknown(format!("there is no pool {name}"), name.as_str(), known));
        }
    }
    match form::describe(&faults, &text) {
        None => Ok(tests),
        Some(errors) => Err(errors.map(error)),
    }
}

/// End of the errors for a file that is no table.
const EXPECTED: &str = "a table is a map with `tests`, a list of maps with `name`, `request`, `token` and `expect`";

/// Returns the JSON Schema of the form (draft 2020-12).
pub fn schema() -> Schema {
    schema::of::<Table>("test-policy.schema.json")
}
