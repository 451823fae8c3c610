//! Member `json_rpc` of a policy: requirements for the JSON-RPC messages in the body.

use std::str::FromStr;

use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;

use super::schema;
use super::text::{Form, Kind, Parsed, Plain};
use super::values::{List, Name, OneOrMany};
use crate::config::parse::ByteSize;

/// Requirements for the JSON-RPC messages in the body. A message that a call matches must also meet the requirements of
/// the call's policy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with `calls` | {calls: [{method: tools/call, policy: NAME}]}")]
pub struct JsonRpcEntry {
    /// Maximum length of the body. The default is 64KiB.
    #[serde(default)]
    pub max_body: Parsed<BodySize>,
    /// Calls with requirements of their own.
    pub calls: List<CallEntry>,
}

/// Call: conditions on a message, and the policy whose requirements it must meet.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with `method` and `policy` | {method: tools/call, policy: NAME}")]
#[schemars(transform = schema::call)]
pub struct CallEntry {
    /// Value or list of values of `method`, such as `tools/call`.
    pub method: OneOrMany<Plain<CallText>>,
    /// Value or list of values of `params.name`.
    pub name: Option<OneOrMany<Plain<CallText>>>,
    /// Values of `params.name` that the call does not apply to.
    pub except: Option<OneOrMany<Plain<CallText>>>,
    /// Name of the policy.
    pub policy: Name,
}

/// Maximum length of a body in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodySize(pub usize);

/// Largest accepted [`BodySize`].
const MOST: u64 = 1 << 20;

impl Default for Parsed<BodySize> {
    fn default() -> Self {
        Self(BodySize(64 << 10))
    }
}

impl FromStr for BodySize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ByteSize(bytes) = text.parse()?;
        let bytes = usize::try_from(bytes).ok().filter(|_| (1..=MOST).contains(&bytes));
        bytes.map(Self).ok_or("not between 1 byte and 1MiB")
    }
}

impl Form for BodySize {
    fn schema() -> Schema {
        // Up to 1 MiB, in each unit.
        let bytes =
            "0*([1-9][0-9]{0,5}|10[0-3][0-9]{4}|104[0-7][0-9]{3}|1048[0-4][0-9]{2}|10485[0-6][0-9]|104857[0-6])";
        let kib = "0*([1-9][0-9]{0,2}|10[01][0-9]|102[0-4])";
        json_schema!({"type": "string", "pattern": format!("^({bytes} *B?|{kib} *KiB|0*1 *MiB)$")})
    }
}

/// Text in a message: not empty, and without control characters.
#[derive(Debug)]
pub enum CallText {}

impl Kind for CallText {
    fn check(text: &str) -> Result<(), String> {
        if text.bytes().all(|byte| byte >= b' ' && byte != 0x7f) {
            return Ok(());
        }
        Err("not a text without control characters".into())
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[^\\x00-\\x1f\\x7f]+$"})
    }
}
