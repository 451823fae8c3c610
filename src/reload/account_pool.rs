//! Pool and app client of the account API, which a reload must not change.
//!
//! The account API's client for Cognito is built once, at startup, while tokens are verified by the rules in effect. If
//! a reload changed the pool under the same name, the service would verify the tokens of one pool and sign users out at
//! another. Such a reload is rejected.

use super::{AccountClient, CompiledPolicy};
use crate::user_pool::{ClientId, UserPool};

/// Pool and app client that the account API uses, as configured at startup.
#[derive(Debug)]
pub(super) struct AccountPool {
    pub(super) pool: UserPool,
    pub(super) client_id: ClientId,
    /// Member `account` of the policy file.
    pub(super) of_file: Option<AccountClient>,
}

impl AccountPool {
    /// Returns the reason why `policy` needs a restart, or `None` if it does not affect the account API.
    pub(super) fn needs_restart(&self, policy: &CompiledPolicy) -> Option<String> {
        let change = self.change(policy)?;
        Some(format!(
            "the account API speaks for the pool {} with the app client {}, and {change}: restart to put the file in effect",
            self.pool.name,
            self.client_id.as_str()
        ))
    }

    /// Returns the first difference between `policy` and the startup configuration.
    fn change(&self, policy: &CompiledPolicy) -> Option<&'static str> {
        let flags =
            || AccountClient { pool: self.pool.name.clone(), client_id: self.client_id.clone(), secret_file: None };
        if let Some(new) = &policy.account {
            let old = self.of_file.clone().unwrap_or_else(flags);
            if new.pool != old.pool {
                return Some("`account` names another pool");
            }
            if new.client_id != old.client_id {
                return Some("`account` names another client_id");
            }
            if new.secret_file != old.secret_file {
                return Some("`account` names another client_secret_file");
            }
        } else if self.of_file.is_some() {
            return Some("`account` is gone");
        }
        let Some((new, _)) = policy.pools.iter().find(|(pool, _)| pool.name == self.pool.name) else {
            return Some("that pool is gone");
        };
        let old = &self.pool;
        if new.id != old.id {
            Some("that pool has another user_pool_id")
        } else if new.issuers != old.issuers {
            Some("that pool has other issuers")
        } else if new.endpoint != old.endpoint {
            Some("that pool has another endpoint")
        } else if new.jwks_urls != old.jwks_urls {
            Some("that pool has another jwks_url")
        } else if !new.clients.accept(&self.client_id) {
            Some("the client_ids of that pool do not list it")
        } else {
            None
        }
    }
}
