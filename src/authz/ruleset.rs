//! Everything that a decision depends on beside the request and the time, as one value that is replaced as one.
//!
//! A check takes the ruleset in force once and keeps it to its end, answer and metrics included; a reload puts another
//! in its place. What is the same in both (the keys of a pool that has not changed) is shared.

use super::cache::PoolStamp;
use super::credential::{self, BrowserSessions, Credential};
use super::denial::Denial;
use super::extra_claims::WantedClaims;
use super::headers::OwnedHeaders;
use super::policy::Policies;
use super::request::RequestContext;
use crate::jwks::store::KeyStore;
use crate::metrics::CheckCounters;
use crate::user_pool::UserPools;

/// The rules in force.
#[derive(Debug)]
pub struct Ruleset {
    /// The pools.
    pub pools: UserPools,
    /// Their keys, in the same order.
    pub keys: KeyStore,
    /// Their versions, in the same order.
    pub stamps: Vec<PoolStamp>,
    /// The policies, and the routes to them.
    pub policies: Policies,
    /// The headers that are ours.
    pub headers: OwnedHeaders,
    /// The claims that are kept for policies and headers.
    pub wanted: WantedClaims,
    /// Whether a browser's session is a credential.
    pub browser_sessions: Option<BrowserSessions>,
    /// Counters of these pools and policies.
    pub counters: CheckCounters,
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
