//! Everything that a decision depends on beside the request and the time, as one value that is replaced as one.
//!
//! A check takes the ruleset in force once and keeps it to its end, answer and metrics included; a reload puts another
//! in its place. What is the same in both (the keys of a pool that has not changed) is shared.

use std::borrow::Cow;

use super::browser_session::BrowserSessions;
use super::cache::PoolStamp;
use super::denial::Denial;
use super::extra_claims::WantedClaims;
use super::headers::OwnedHeaders;
use super::policy::Policies;
use super::request::RequestContext;
use super::token;
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

/// The credential of a request.
pub struct Credential<'r> {
    /// The token.
    pub token: Cow<'r, str>,
    /// `true` if it was in a browser's session.
    pub is_session: bool,
}

impl Ruleset {
    /// The credential of a request: its Bearer token, also a bad one; without one, the access token of a browser's session.
    ///
    /// # Errors
    /// What [`token::credential`] and [`BrowserSessions::access_token`] return.
    pub fn credential<'r>(&self, request: &RequestContext<'r>) -> Result<Credential<'r>, Denial> {
        match (token::credential(request.header_values("authorization")), &self.browser_sessions) {
            (Err(Denial::MissingCredential), Some(sessions)) => {
                let token = sessions.access_token(request)?.ok_or(Denial::MissingCredential)?;
                Ok(Credential { token, is_session: true })
            }
            (bearer, _) => Ok(Credential { token: Cow::Borrowed(bearer?), is_session: false }),
        }
    }
}
