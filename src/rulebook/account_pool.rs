//! The pool and the app client that the account API calls. They are settled at startup: its client of Cognito is built
//! once. Tokens are verified by the rules in effect, so a reload that changed the pool under the same name would verify
//! the tokens of one pool and sign their users out at another. Such a reload is refused.

use super::{AccountClient, CompiledPolicy};
use crate::user_pool::{ClientId, UserPool};

/// What the account API calls.
#[derive(Debug)]
pub(super) struct AccountPool {
    /// The pool, as it is called.
    pub(super) pool: UserPool,
    /// The app client.
    pub(super) client_id: ClientId,
    /// The member `account` of the file at startup.
    pub(super) of_file: Option<AccountClient>,
}

impl AccountPool {
    /// The reason why `rules` need a restart; none if the account API goes on calling what they name.
    pub(super) fn needs_restart(&self, rules: &CompiledPolicy) -> Option<String> {
        let change = self.change(rules)?;
        Some(format!(
            "the account API speaks for the pool {} with the app client {}, and {change}: restart to put the file in effect",
            self.pool.name,
            self.client_id.as_str()
        ))
    }

    fn change(&self, rules: &CompiledPolicy) -> Option<&'static str> {
        let flags =
            || AccountClient { pool: self.pool.name.clone(), client_id: self.client_id.clone(), secret_file: None };
        if let Some(new) = &rules.account {
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
        let Some((new, _)) = rules.pools.iter().find(|(pool, _)| pool.name == self.pool.name) else {
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
