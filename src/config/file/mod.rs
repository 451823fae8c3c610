//! Form of the policy file (`--config`), and its JSON Schema. `config::compile` checks rules that concern
//! several members.
//!
//! Reading is strict: an unknown member, a member that is null or empty, and a value of the wrong form are errors with
//! their place in the file. An `expecting` text describes a type to the reader of such an error; after ` | ` it has an
//! example. Start from [`PolicyFile::read`].

pub(crate) mod fault;
pub(crate) mod form;
pub mod json_rpc;
mod locate;
mod node;
pub mod places;
pub(crate) mod reader;
pub mod resources;
pub(crate) mod schema;
#[cfg(test)]
mod tests;
pub mod text;
pub mod values;

use schemars::JsonSchema;
use serde::Deserialize;

use self::form::Form;
use self::json_rpc::JsonRpcEntry;
use self::places::PlacesEntry;
use self::reader::Rules;
use self::resources::ProtectedResourceEntry;
use self::text::{Any, Challenge, FilePath, HeaderValue, Host, Kind, Method, Parsed, Path, Plain, Region, WebUrl};
use self::values::{List, Name, Named, OneOrMany, Operand, Seconds};
use super::parse::{AcceptedClient, TokenUseOption};
use crate::account::cors::Origin;
use crate::authz::headers::HeaderName;
use crate::user_pool::{ClientId, UserPoolId};

/// Pools, policies, routes and headers of cognito-authz.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a map of pools, policies and routes")]
#[schemars(title = "Policy file of cognito-authz", transform = schema::file)]
pub struct PolicyFile {
    /// User pools, in addition to the pool of the flags, which is called `default`. A token selects its pool by its issuer.
    pub pools: Named<Name, PoolEntry>,
    /// Pool and app client of the account API. A change needs a restart.
    pub account: Option<AccountEntry>,
    /// Policy of requests that no route matches. Required if there are `routes`. Without both, every valid token is accepted.
    pub default: Option<Name>,
    /// Policies. Envoy selects one with the context extension `policy`; otherwise a route does.
    pub policies: Named<Name, PolicyEntry>,
    /// Routes, which select policies. Their order has no effect.
    pub routes: Vec<RouteEntry>,
    /// Resources that clients such as MCP clients find the sign-in for by their metadata (RFC 9728).
    pub protected_resources: List<ProtectedResourceEntry>,
    /// `true` if routes ignore the case of paths, for upstreams that do so.
    pub case_insensitive: bool,
    /// Claims that the upstream receives in headers, in addition to the standard ones.
    pub claim_headers: Vec<ClaimHeaderEntry>,
    /// Header that contains all claims, as JSON in base64url.
    pub whole_claims_header: Option<Parsed<HeaderName>>,
    /// `true` if the upstream does not receive the `Authorization` header. A policy can override it.
    pub remove_authorization: bool,
}

/// User pool.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    expecting = "a map that describes a pool | {user_pool_id: eu-west-1_AbC123xyz, client_ids: [CLIENT]}"
)]
#[schemars(transform = schema::pool)]
pub struct PoolEntry {
    /// Id of the pool. The region is part of it.
    pub user_pool_id: Parsed<UserPoolId>,
    /// App clients whose tokens are accepted, or `any`.
    pub client_ids: OneOrMany<Parsed<AcceptedClient>>,
    /// Accepted values of `iss`, instead of both issuer formats of the pool. They are compared, never fetched.
    #[serde(default)]
    pub issuers: List<Plain<Any>>,
    /// Regions of replicas of the pool. Tokens that a replica issues have its region in `iss`.
    #[serde(default)]
    pub replica_regions: List<Plain<Region>>,
    /// Base URL of the user-pool API and, unless `jwks_url` is set, of the key set.
    pub endpoint: Option<Parsed<WebUrl>>,
    /// URL of the key set.
    pub jwks_url: Option<Parsed<WebUrl>>,
    /// File with the key set to use until the first one is fetched.
    pub jwks_file: Option<Parsed<FilePath>>,
    /// Accepted kind of token.
    #[serde(default)]
    pub token_use: TokenUseOption,
    /// File with the secret of the account API's app client, unless `account` names one.
    pub client_secret_file: Option<Parsed<FilePath>>,
}

/// Pool and app client of the account API.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, expecting = "a map with `pool` and `client_id` | {pool: NAME, client_id: CLIENT}")]
pub struct AccountEntry {
    /// Name of the pool.
    pub pool: Name,
    /// App client. Optional if the pool accepts exactly one.
    pub client_id: Option<Parsed<ClientId>>,
    /// File with the secret of the app client.
    pub client_secret_file: Option<Parsed<FilePath>>,
}

/// Policy. Without members, it requires a valid token.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a map of requirements | {groups: {any: [admins]}}")]
#[schemars(transform = schema::policy)]
pub struct PolicyEntry {
    /// Every request is allowed; tokens are ignored.
    pub public: bool,
    /// Requests without a token are allowed. A token must be valid; the upstream then receives the identity headers.
    pub optional: bool,
    /// Required kind of token.
    pub token_use: Option<TokenUseOption>,
    /// Pools, one of which must have issued the token.
    pub pools: List<Name>,
    /// App clients, one of which the token must be issued to.
    pub clients: List<Parsed<ClientId>>,
    /// Values of `aud`, one of which the token must contain (resource-bound access tokens).
    pub audiences: List<Plain<Challenge>>,
    /// `false` rejects tokens that an actor uses on behalf of the subject (`act`).
    pub allow_delegated: Option<bool>,
    /// Required scopes.
    pub scopes: Option<AnyAllEntry<Challenge>>,
    /// Required groups of the user (`cognito:groups`).
    pub groups: Option<AnyAllEntry<Any>>,
    /// Conditions on other claims, all of which must be met.
    pub claims: List<ClaimEntry>,
    /// Maximum time since the user signed in (`auth_time`), such as `5m`.
    pub max_auth_age: Option<Seconds>,
    /// Values of `acr`, one of which the token must contain.
    pub acr: List<Plain<Challenge>>,
    /// Required methods of sign-in (`amr`).
    pub amr: Option<AnyAllEntry<Challenge>>,
    /// Handling of CORS preflights.
    pub cors_preflight: CorsPreflight,
    /// Headers with a fixed value that the upstream receives.
    pub headers: Named<Parsed<HeaderName>, Plain<HeaderValue>>,
    /// `true` if the upstream does not receive the `Authorization` header.
    pub remove_authorization: Option<bool>,
    /// URL of the protected resource's metadata, for challenges (RFC 9728).
    pub resource_metadata: Option<Parsed<WebUrl>>,
    /// Handling of ambiguous paths, if Envoy or a route without a path selects this policy.
    pub unsafe_paths: UnsafePaths,
    /// `shadow`: requests that the policy would deny pass, and are counted and logged.
    pub mode: Mode,
    /// Origins whose pages may read denials, such as `https://app.example.com`.
    pub cors_origins: List<Parsed<Origin>>,
    /// Further places of the credential.
    pub from: Option<PlacesEntry>,
    /// `redirect`: a browser that opens a page without a good session is redirected to the sign-in of the account API.
    pub sign_in: Option<SignInEntry>,
    /// Requirements for the JSON-RPC messages in the body. Envoy has to send bodies (`with_request_body`).
    pub json_rpc: Option<JsonRpcEntry>,
}

/// Handling of browsers that open a page without a good session.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SignInEntry {
    /// They are redirected to the sign-in of the account API.
    Redirect,
}

/// Handling of requests that do not meet the policy.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Such a request is denied.
    #[default]
    Enforce,
    /// Such a request passes; the denial is counted and logged.
    Shadow,
}

/// Handling of requests whose path is ambiguous.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UnsafePaths {
    /// Such a request is denied (`unsafe_path`).
    #[default]
    Refuse,
    /// Such a request is checked like any other. Envoy and the application have to interpret its path alike.
    Allow,
}

/// Handling of CORS preflights.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum CorsPreflight {
    /// A preflight is allowed without a token.
    Allow,
    /// A preflight is checked like any other request.
    #[default]
    Check,
}

/// Names, one of which is required (`any`), and names that are all required (`all`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, bound = "K: Kind", expecting = "a map with `any` or `all` | {any: …}")]
#[schemars(transform = schema::any_all, bound = "K: Kind")]
pub struct AnyAllEntry<K> {
    /// At least one of these is required.
    #[serde(default)]
    pub any: List<Plain<K>>,
    /// All of these are required.
    #[serde(default)]
    pub all: List<Plain<K>>,
}

/// Condition on a claim: one of `equals`, `one_of` and `contains`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with `claim` and a test | {claim: NAME, equals: VALUE}")]
#[schemars(transform = schema::claim)]
pub struct ClaimEntry {
    /// Name of the claim, or a list of names for a member of an object.
    pub claim: OneOrMany<Plain<Any>>,
    /// The claim equals this value.
    pub equals: Option<Operand>,
    /// The claim equals one of these values.
    pub one_of: Option<List<Operand>>,
    /// The claim is a list that contains this value.
    pub contains: Option<Operand>,
}

/// Route: conditions on a request, and the policy of requests that meet them. An absent member matches every request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with `policy` and conditions | {path_prefix: /admin, policy: NAME}")]
#[schemars(transform = schema::route)]
pub struct RouteEntry {
    /// Host or list of hosts, without port.
    pub host: Option<OneOrMany<Plain<Host>>>,
    /// Method or list of methods.
    pub method: Option<OneOrMany<Plain<Method>>>,
    /// Whole path. A segment `{name}` matches any text.
    pub path: Option<Plain<Path>>,
    /// First segments of the path.
    pub path_prefix: Option<Plain<Path>>,
    /// Name of the policy.
    pub policy: Name,
}

/// Claim that the upstream receives in a header.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map with `claim` and `header` | {claim: NAME, header: x-auth-name}")]
pub struct ClaimHeaderEntry {
    /// Name of the claim, or a list of names for a member of an object.
    pub claim: OneOrMany<Plain<Any>>,
    /// Name of the header.
    pub header: Parsed<HeaderName>,
    /// Format of a list.
    #[serde(default)]
    pub list: ListForm,
}

/// Format of a list in headers.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ListForm {
    /// One header; the items are separated by commas.
    #[default]
    Comma,
    /// One header, as JSON.
    Json,
    /// One header per item. Envoy joins them into one line, separated by commas.
    Repeated,
}

impl PolicyFile {
    /// Parses `text`, and checks its form.
    ///
    /// # Errors
    /// One sentence if the text is empty, or is not YAML.
    pub(crate) fn read(text: &str) -> Result<Form<Self>, String> {
        form::read(text, Rules::Strict)
    }

    /// Returns the JSON Schema of the form (draft 2020-12).
    pub fn schema() -> schemars::Schema {
        schema::strict::<Self>("config.schema.json")
    }
}
