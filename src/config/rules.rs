//! The rules that checks go by: what the flags say, and over it the policy file, as often as it changes.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::ConfigError;
use super::file::compile::compile;
use super::file::{PolicyFile, located};
use crate::authz::credential::BrowserSessions;
use crate::authz::headers::HeaderPrefix;
use crate::authz::token::claims::WantedClaims;
use crate::authz::{OwnedHeaders, Policies};
use crate::file_read::{self, Fingerprint, MAX_TEXT_BYTES};
use crate::jwks::KeySet;
use crate::user_pool::{AcceptedUse, ClientId, UserPool};

/// Where rules are read, again and again.
#[derive(Clone, Debug)]
pub struct RulesSource {
    /// The pool of the flags, `default`.
    pub pool: Option<UserPool>,
    /// Prefix of the standard headers.
    pub header_prefix: HeaderPrefix,
    /// Whether plain `http://` may be fetched from hosts other than loopback.
    pub allow_insecure_endpoints: bool,
    /// Whether a browser's session is a credential of checks.
    pub browser_sessions: Option<BrowserSessions>,
    /// The policy file.
    pub file: Option<PathBuf>,
}

/// The rules.
#[derive(Debug)]
pub struct Rules {
    /// The pools, with keys to begin with.
    pub pools: Vec<(UserPool, KeySet)>,
    /// The policies, and the routes to them.
    pub policies: Policies,
    /// The headers that are ours.
    pub headers: OwnedHeaders,
    /// The claims that policies and headers need.
    pub wanted: WantedClaims,
    /// What the account API speaks for, if the file says so.
    pub account: Option<AccountClient>,
    /// What is odd but no error.
    pub warnings: Vec<String>,
    /// The file, for `/config`.
    pub shown: Value,
    /// The version of the file that was read.
    pub seen: Option<Fingerprint>,
}

/// An app client that the account API speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountClient {
    /// Name of its pool.
    pub pool: Box<str>,
    /// The client.
    pub client_id: ClientId,
    /// File with its secret.
    pub secret_file: Option<PathBuf>,
}

impl RulesSource {
    /// Reads the rules as they are now.
    ///
    /// # Errors
    /// One sentence that names the file, and the place in it.
    pub fn read(&self) -> Result<Rules, ConfigError> {
        let Some(path) = &self.file else {
            return Ok(self.without_file());
        };
        let error = |why: &str| ConfigError::new(format!("{}: {why}", path.display()));
        let (bytes, seen) = file_read::read_version(path, MAX_TEXT_BYTES).map_err(|why| error(&why.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| error("is not UTF-8"))?;
        let file = PolicyFile::read(&text).map_err(|why| error(&why))?;
        let mut rules = compile(file, self).map_err(|fault| error(&located(&text, &fault)))?;
        rules.seen = Some(seen);
        rules.shown = json!({"path": path.display().to_string(), "content": shown(&text)});
        Ok(rules)
    }

    /// Judges what the flags and the file say together.
    ///
    /// # Errors
    /// The option that the rules do not go with, and why.
    pub fn judge(&self, rules: &Rules) -> Result<(), (&'static str, String)> {
        if rules.pools.is_empty() {
            return Err(("config", "the file has no pool, and --user-pool-id is not given".into()));
        }
        match self.session_refuser(rules) {
            Some(refuser) => Err((
                "account_cookies",
                format!("checks take the access token of a browser's session, and {refuser} refuses it"),
            )),
            None => Ok(()),
        }
    }

    /// The pool that browsers' sessions are of, in words, if its checks take no access tokens. It is the account API's,
    /// which another replica may serve. Without `account` and with several pools it is not known: then one of them has
    /// to take access tokens.
    fn session_refuser(&self, rules: &Rules) -> Option<String> {
        self.browser_sessions.as_ref()?;
        let takes_none = |pool: &UserPool| pool.token_use == AcceptedUse::Id;
        let mut pools = rules.pools.iter().map(|(pool, _)| pool);
        let pool = match &rules.account {
            Some(account) => pools.find(|pool| pool.name == account.pool),
            None if self.pool.is_some() || rules.pools.len() == 1 => pools.next(),
            None if pools.all(takes_none) => return Some("every pool of the file (`token_use: id`)".into()),
            None => return None,
        };
        let pool = pool.filter(|pool| takes_none(pool))?;
        let is_of_flags = self.pool.as_ref().is_some_and(|of_flags| of_flags.name == pool.name);
        Some(if is_of_flags { "--token-use id".into() } else { format!("the pool {} (`token_use: id`)", pool.name) })
    }

    /// The standard headers.
    pub(crate) fn owned_headers(&self) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new(self.header_prefix.clone());
        if self.browser_sessions.is_some() {
            headers.hide_sessions();
        }
        headers
    }

    fn without_file(&self) -> Rules {
        Rules {
            pools: self.pool.iter().map(|pool| (pool.clone(), KeySet::default())).collect(),
            policies: Policies::default(),
            headers: self.owned_headers(),
            wanted: WantedClaims::default(),
            account: None,
            warnings: Vec::new(),
            shown: Value::Null,
            seen: None,
        }
    }
}

/// The file as data. There are no secrets in it: they stand in files of their own.
fn shown(text: &str) -> Value {
    yaml_serde::from_str(text).unwrap_or_default()
}
