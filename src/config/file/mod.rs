//! The policy file (`--config`): its form, which is also its JSON Schema. What its parts mean together is for
//! [`compile`] to say.
//!
//! Everything is strict: an unknown member, a member that is null or empty, a value of the wrong form and a name that
//! nothing has are errors that say where they stand. Start from [`PolicyFile::read`].

pub mod compile;
mod locate;
mod schema;
mod strict;
#[cfg(test)]
mod tests;
pub mod text;
pub mod values;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;

use self::locate::{Fault, Place};
use self::strict::Strict;
use self::text::{Any, Challenge, HeaderValue, Host, Kind, Method, Parsed, Path, Plain, Region, WebUrl};
use self::values::{List, Name, Named, OneOrMany, Operand, Seconds};
use super::options::{AcceptedClient, TokenUseOption};
use crate::authz::headers::HeaderName;
use crate::user_pool::{ClientId, UserPoolId};

/// Pools, policies, routes and headers of cognito-authz.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a map of pools, policies and routes")]
#[schemars(title = "Policy file of cognito-authz", transform = schema::file)]
pub struct PolicyFile {
    /// User pools beside the one of the flags, which is called `default`. A token selects its pool by its issuer.
    pub pools: Named<Name, PoolEntry>,
    /// The pool and app client that the account API speaks for. A change needs a restart.
    pub account: Option<AccountEntry>,
    /// The policy of requests that no route matches. Required beside `routes`; without both, every good token passes.
    pub default: Option<Name>,
    /// Policies. Envoy chooses one with the context extension `policy`; otherwise the routes do.
    pub policies: Named<Name, PolicyEntry>,
    /// Routes to policies. Their order does not matter.
    pub routes: Vec<RouteEntry>,
    /// Whether paths are matched without regard to case, for upstreams that do so.
    pub case_insensitive: bool,
    /// Claims that upstream gets in headers, beside the standard ones.
    pub claim_headers: Vec<ClaimHeaderEntry>,
    /// Header with all claims as base64url of their JSON.
    pub whole_claims_header: Option<Parsed<HeaderName>>,
    /// Whether upstream does not get the `Authorization` header. A policy may say otherwise.
    pub remove_authorization: bool,
}

/// A user pool.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a pool, as a map")]
#[schemars(transform = schema::pool)]
pub struct PoolEntry {
    /// Its id, which decides the region.
    pub user_pool_id: Parsed<UserPoolId>,
    /// App clients whose tokens are accepted, or `any`.
    pub client_ids: OneOrMany<Parsed<AcceptedClient>>,
    /// Accepted `iss`, instead of both issuer formats of the pool. Compared, never fetched.
    #[serde(default)]
    pub issuers: List<Plain<Any>>,
    /// Regions to which the pool is replicated: tokens that were issued there name them in `iss`.
    #[serde(default)]
    pub replica_regions: List<Plain<Region>>,
    /// Base URL of the user-pool API and, unless `jwks_url` is given, of the keys.
    pub endpoint: Option<Parsed<WebUrl>>,
    /// Where its keys are fetched.
    pub jwks_url: Option<Parsed<WebUrl>>,
    /// Keys to begin with, until the first set is fetched.
    pub jwks_file: Option<Plain<Any>>,
    /// Kinds of token that are accepted.
    #[serde(default)]
    pub token_use: TokenUseOption,
    /// File with the secret of the app client that the account API speaks for, unless `account` names one.
    pub client_secret_file: Option<Plain<Any>>,
}

/// What the account API speaks for.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, expecting = "a map of `pool` and `client_id`")]
pub struct AccountEntry {
    /// The pool.
    pub pool: Name,
    /// The app client. May be left out if the pool accepts one only.
    pub client_id: Option<Parsed<ClientId>>,
    /// File with its secret, if it has one.
    pub client_secret_file: Option<Plain<Any>>,
}

/// What a request has to bring. Without any member: a good token.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a policy, as a map")]
#[schemars(transform = schema::policy)]
pub struct PolicyEntry {
    /// Everybody passes; a token is not even looked at.
    pub public: bool,
    /// Everybody passes; a token that is there has to be good, and then upstream learns who calls.
    pub optional: bool,
    /// The kind of token.
    pub token_use: Option<TokenUseOption>,
    /// Pools, one of which has to have issued the token.
    pub pools: List<Name>,
    /// App clients, one of which the token has to be issued to.
    pub clients: List<Parsed<ClientId>>,
    /// Values of `aud`, one of which the token has to carry (resource-bound access tokens).
    pub audiences: List<Plain<Challenge>>,
    /// Whether a token may be used by somebody else for its subject (`act`).
    pub allow_delegated: Option<bool>,
    /// Scopes.
    pub scopes: Option<AnyAllEntry<Challenge>>,
    /// Groups of the user (`cognito:groups`).
    pub groups: Option<AnyAllEntry<Any>>,
    /// Other claims, each of which has to be as it says.
    pub claims: List<ClaimEntry>,
    /// Most time since the user signed in (`auth_time`), such as `5m`.
    pub max_auth_age: Option<Seconds>,
    /// Values of `acr`, one of which the token has to carry.
    pub acr: List<Plain<Challenge>>,
    /// Methods (`amr`) by which the user has to have signed in.
    pub amr: Option<AnyAllEntry<Challenge>>,
    /// Whether CORS preflights pass without a token.
    pub cors_preflight: CorsPreflight,
    /// Headers that upstream gets, whoever calls.
    pub headers: Named<Parsed<HeaderName>, Plain<HeaderValue>>,
    /// Whether upstream does not get the `Authorization` header.
    pub remove_authorization: Option<bool>,
    /// URL of the protected resource's metadata, for challenges (RFC 9728).
    pub resource_metadata: Option<Parsed<WebUrl>>,
    /// Requests whose path can be read in more than one way, where Envoy or a route without a path chooses this policy.
    pub unsafe_paths: UnsafePaths,
}

/// What happens to requests whose path can be read in more than one way.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UnsafePaths {
    /// They are refused (`unsafe_path`).
    #[default]
    Refuse,
    /// They are judged like any other. Envoy's reading of the path has to be the application's.
    Allow,
}

/// What happens to CORS preflights.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum CorsPreflight {
    /// They pass.
    Allow,
    /// They are requests like any other.
    #[default]
    Check,
}

/// Names of which one has to be there (`any`), and names of which all have to be (`all`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, bound = "K: Kind", expecting = "a map of `any` and `all`")]
#[schemars(transform = schema::any_all, bound = "K: Kind")]
pub struct AnyAllEntry<K> {
    /// One of these.
    #[serde(default)]
    pub any: List<Plain<K>>,
    /// Each of these.
    #[serde(default)]
    pub all: List<Plain<K>>,
}

/// What one claim has to be. One of `equals`, `one_of` and `contains`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a claim, as a map")]
#[schemars(transform = schema::claim)]
pub struct ClaimEntry {
    /// Name of the claim; or a list of names, for a member of an object.
    pub claim: OneOrMany<Plain<Any>>,
    /// The claim is this.
    pub equals: Option<Operand>,
    /// The claim is one of these.
    pub one_of: Option<List<Operand>>,
    /// The claim is a list, and this is among its members.
    pub contains: Option<Operand>,
}

/// Requests and their policy. What is left out matches everything.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a route, as a map")]
#[schemars(transform = schema::route)]
pub struct RouteEntry {
    /// Host, or a list of hosts, without port.
    pub host: Option<OneOrMany<Plain<Host>>>,
    /// Method, or a list of methods.
    pub method: Option<OneOrMany<Plain<Method>>>,
    /// The whole path. A segment `{name}` stands for any text.
    pub path: Option<Plain<Path>>,
    /// First segments of the path.
    pub path_prefix: Option<Plain<Path>>,
    /// The policy.
    pub policy: Name,
}

/// A claim that upstream gets in a header.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a header, as a map")]
pub struct ClaimHeaderEntry {
    /// Name of the claim; or a list of names, for a member of an object.
    pub claim: OneOrMany<Plain<Any>>,
    /// The header.
    pub header: Parsed<HeaderName>,
    /// How a list is written.
    #[serde(default)]
    pub list: ListForm,
}

/// How a list is written into headers.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ListForm {
    /// In one header, with commas between.
    #[default]
    Comma,
    /// In one header, as JSON.
    Json,
    /// In one header for each member. Envoy makes one line of them, with commas between.
    Repeated,
}

impl PolicyFile {
    /// Reads the form of a file.
    ///
    /// # Errors
    /// One sentence that says where in the file what is wrong.
    pub fn read(text: &str) -> Result<Self, String> {
        // An empty file is what a writer leaves for a moment, or a mistake; never what somebody wants to be in force.
        if text.lines().all(|line| line.trim_start().starts_with('#') || matches!(line.trim(), "" | "---")) {
            return Err("the file is empty".into());
        }
        let parser = || Strict(yaml_serde::Deserializer::from_str(text));
        let file = Self::deserialize(parser()).map_err(|error| {
            let why = error.to_string();
            // Where the file itself is the map, the parser does not say where in it.
            let member = |before: &str| Some(why.strip_prefix(before)?.split_once('`')?.0.to_owned());
            let at = |member: String, what: &str| located(text, &Place::default().member(member).fault(what));
            match (member("unknown field `"), member("duplicate field `")) {
                (Some(unknown), _) => at(unknown, "there is no such member"),
                (_, Some(twice)) => at(twice, "there is another member of this name"),
                _ => why,
            }
        })?;
        // `{}`: a map without a member is an error of `Named`.
        if Named::<String, IgnoredAny>::deserialize(parser()).is_err() {
            return Err("the file is empty".into());
        }
        Ok(file)
    }

    /// The JSON Schema of the form (draft 2020-12).
    pub fn schema() -> schemars::Schema {
        schema::of::<Self>()
    }
}

/// Says where in `text` a fault of its meaning stands, as errors of its form do.
pub(crate) fn located(text: &str, fault: &Fault) -> String {
    locate::locate(text, fault)
}
