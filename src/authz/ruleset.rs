//! Configuration that decisions depend on: pools, keys and policies, replaced as a whole.
//!
//! A check takes the current ruleset once, when it starts, and uses it to the end, for the answer and the metrics as
//! well. A reload replaces the ruleset. Both rulesets share what has not changed, such as the keys of an unchanged
//! pool.

use super::cache::PoolStamp;
use super::credential::{self, BrowserSessions, Credential};
use super::denial::Denial;
use super::headers::OwnedHeaders;
use super::policy::Policies;
use super::request::RequestContext;
use super::token::extra_claims::WantedClaims;
use crate::jwks::store::KeyStore;
use crate::metrics::CheckCounters;
use crate::user_pool::UserPools;

/// Rules for all decisions between two reloads.
#[derive(Debug)]
pub struct Ruleset {
    /// User pools whose tokens are accepted.
    pub(crate) pools: UserPools,
    /// Keys of the pools, in the same order.
    pub(crate) keys: KeyStore,
    /// Versions of the pools, in the same order.
    pub(crate) stamps: Vec<PoolStamp>,
    /// Policies, and the routes that choose them.
    pub(crate) policies: Policies,
    /// Identity headers, which only this service may set.
    pub(crate) headers: OwnedHeaders,
    /// Claims that policies and identity headers need in addition to the standard ones.
    pub(crate) wanted: WantedClaims,
    /// Settings for session cookies; `None` if they are not accepted as a credential.
    pub(crate) browser_sessions: Option<BrowserSessions>,
    /// Counters of checks, by pool and policy.
    pub(crate) counters: CheckCounters,
}

impl Ruleset {
    /// The credential of a request, if it has one. Without browser sessions, only a Bearer token is one.
    ///
    /// # Errors
    /// Those of [`credential::bearer`] and [`BrowserSessions::access_token`].
    pub fn credential<'r>(&self, request: &RequestContext<'r>) -> Result<Option<Credential<'r>>, Denial> {
        let session = || self.browser_sessions.as_ref().map_or(Ok(None), |sessions| sessions.access_token(request));
        credential::find(request.header_values("authorization"), session)
    }
}
