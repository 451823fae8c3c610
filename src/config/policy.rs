//! The policy that checks apply: its source, which is read again when the policy file changes, and its compiled form.
//!
//! This file has the types; `config::compile` reads and compiles.

use std::path::PathBuf;

use serde_json::Value;

use crate::authz::SignIn;
use crate::authz::credential::BrowserSessions;
use crate::authz::headers::HeaderPrefix;
use crate::authz::token::claims::WantedClaims;
use crate::authz::{OwnedHeaders, Policies, ProtectedResources};
use crate::files::Fingerprint;
use crate::jwks::KeySet;
use crate::user_pool::{AcceptedUse, ClientId, Clients, UserPool};

/// Name of the pool that the flags describe.
pub(super) const FLAG_POOL: &str = "default";

/// Settings that the pool of the flags needs, for messages.
pub(super) const POOL_SETTINGS: &str = "set COGNITO_USER_POOL_ID (--user-pool-id), COGNITO_CLIENT_ID (--client-id; \
     `any` accepts every app client) and optionally AWS_REGION (--region)";

/// Warning about a file with protected resources if this process has no account API.
pub(crate) const UNSERVED_RESOURCES: &str = "the file has `protected_resources`, but the account API is off: challenges \
     name metadata that this process does not serve";

/// Source of the policy: the flags, and the policy file if there is one.
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// Pool of the flags, called `default`.
    pub pool: Option<UserPool>,
    /// Prefix of the standard headers (`--header-prefix`).
    pub header_prefix: HeaderPrefix,
    /// `true` if plain `http://` is allowed to hosts other than loopback (`--allow-insecure-endpoints`).
    pub allow_insecure_endpoints: bool,
    /// Settings of session cookies as a credential; `None` if checks ignore them (`--account-cookies`).
    pub browser_sessions: Option<BrowserSessions>,
    /// Sign-in to which policies can redirect browsers.
    pub sign_in: SignInSource,
    /// Path of the policy file (`--config`).
    pub file: Option<PathBuf>,
}

/// Sign-in to which policies can redirect browsers (`sign_in: redirect`).
#[derive(Clone, Debug)]
pub struct SignInSource {
    /// Sign-in of the account API.
    pub routes: SignIn,
    /// Options that the account API lacks to serve it, such as `--account-cookies`. Empty for commands that only run
    /// checks.
    pub missing: Vec<String>,
}

/// Flags and policy file, checked and compiled.
#[derive(Debug)]
pub struct CompiledPolicy {
    /// Pools, each with the keys to use until the first set is fetched. The pool of the flags comes first.
    pub pools: Vec<(UserPool, KeySet)>,
    /// Policies, and the routes that select them.
    pub policies: Policies,
    /// Headers that the service sets, and removes from requests.
    pub headers: OwnedHeaders,
    /// Claims that policies and headers read.
    pub wanted: WantedClaims,
    /// Protected resources whose metadata the account API serves.
    pub resources: ProtectedResources,
    /// Pool and app client of the account API, if the file names them.
    pub account: Option<AccountClient>,
    /// Warnings about the file.
    pub warnings: Vec<String>,
    /// Path, SHA-256 and content of the file, for `/config`; null without a file.
    pub shown: Value,
    /// Version of the file that was read.
    pub seen: Option<Fingerprint>,
}

/// Pool and app client that the account API uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountClient {
    /// Name of the pool.
    pub pool: Box<str>,
    /// App client.
    pub client_id: ClientId,
    /// File with the secret of the app client.
    pub secret_file: Option<PathBuf>,
}

/// Reason why a pool has no app client for the account API.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum AccountClientError {
    /// The pool does not accept the tokens of this app client.
    #[error("the pool {0} does not accept the tokens of the app client {1}")]
    NotAccepted(Box<str>, Box<str>),
    /// The configuration names no app client, and the pool does not accept exactly one.
    #[error("the pool {0} accepts several app clients or `any`; name the app client of the account API")]
    Unnamed(Box<str>),
}

impl AccountClient {
    /// Selects the app client of `pool` for the account API: `client_id`, or the only one that the pool accepts.
    pub(super) fn select(
        pool: &UserPool,
        client_id: Option<ClientId>,
        secret_file: Option<PathBuf>,
    ) -> Result<Self, AccountClientError> {
        let client_id = match (client_id, &pool.clients) {
            (Some(client), clients) if clients.accept(&client) => client,
            (Some(client), _) => {
                return Err(AccountClientError::NotAccepted(pool.name.clone(), client.as_str().into()));
            }
            (None, Clients::Only(accepted)) => match accepted.as_slice() {
                [only] => only.clone(),
                _ => return Err(AccountClientError::Unnamed(pool.name.clone())),
            },
            (None, Clients::Any) => return Err(AccountClientError::Unnamed(pool.name.clone())),
        };
        Ok(Self { pool: pool.name.clone(), client_id, secret_file })
    }
}

impl PolicySource {
    /// Checks that the policy has a pool, and that it accepts the tokens of browser sessions.
    ///
    /// # Errors
    /// Id of the option that conflicts with the policy, and the reason.
    pub fn judge(&self, policy: &CompiledPolicy) -> Result<(), (&'static str, String)> {
        if policy.pools.is_empty() {
            let why = format!("the file has no pool; define `pools` in it, or {POOL_SETTINGS}");
            return Err(("config", why));
        }
        match self.session_refuser(policy) {
            Some(refuser) => Err((
                "account_cookies",
                format!("checks take the access token of a browser's session, and {refuser} refuses it"),
            )),
            None => Ok(()),
        }
    }

    /// Describes the pool of browser sessions if it does not accept access tokens. Browser sessions belong to the pool
    /// of the account API, which another replica may serve. If the file has several pools and no `account`, the pool is
    /// unknown, and at least one pool has to accept access tokens.
    fn session_refuser(&self, policy: &CompiledPolicy) -> Option<String> {
        self.browser_sessions.as_ref()?;
        let takes_none = |pool: &UserPool| pool.token_use == AcceptedUse::Id;
        let mut pools = policy.pools.iter().map(|(pool, _)| pool);
        let pool = match &policy.account {
            Some(account) => pools.find(|pool| pool.name == account.pool),
            None if self.pool.is_some() || policy.pools.len() == 1 => pools.next(),
            None if pools.all(takes_none) => return Some("every pool of the file (`token_use: id`)".into()),
            None => return None,
        };
        let pool = pool.filter(|pool| takes_none(pool))?;
        let is_of_flags = self.pool.as_ref().is_some_and(|of_flags| of_flags.name == pool.name);
        Some(if is_of_flags { "--token-use id".into() } else { format!("the pool {} (`token_use: id`)", pool.name) })
    }

    /// Returns the standard headers.
    pub(super) fn owned_headers(&self) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new(self.header_prefix.clone());
        if self.browser_sessions.is_some() {
            headers.hide_sessions();
        }
        headers
    }
}
