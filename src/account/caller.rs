//! Who calls: the address that a request comes from, and the access token that it carries.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use http::header::{self, HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::address::{self, Address};
use super::carrier::Carrier;
use super::error::{AccountError, Code};
use super::table::{Credential, Row};
use super::{Account, CLIENT_PATIENCE, unix_now};
use crate::authz::{Denial, Expected, Fault, Purpose, Trace, credential};
use crate::user_pool::AcceptedUse;

/// What an access token needs for its user to be changed or signed out with it.
const SCOPE: &str = "aws.cognito.signin.user.admin";

/// The caller's access token, verified. It has no `Debug`.
pub(super) struct Bearer {
    /// As it was sent.
    pub(super) token: String,
    /// Whether it was in a cookie.
    pub(super) is_cookie: bool,
    /// The user, as far as limits are concerned.
    pub(super) user: String,
    /// Whether it has the scope for that.
    pub(super) may_manage_account: bool,
    /// Whether it may come from the hosted pages: what the user-pool API issues has that one scope and no other.
    pub(super) may_be_of_hosted_ui: bool,
}

/// 401 where a token has to be.
pub(super) fn no_token() -> AccountError {
    AccountError::unauthorized("No token provided")
}

impl Account {
    /// The caller's access token, verified as a check does it: the Bearer token, or without one that in the cookies. None
    /// where the row wants none, or may go without.
    pub(super) async fn bearer(
        &self,
        row: &Row,
        headers: &HeaderMap,
        carrier: &Carrier<'_>,
    ) -> Result<Option<Bearer>, AccountError> {
        if row.credential == Credential::None {
            return Ok(None);
        }
        let refused = |denial: Denial| match denial.fault() {
            Fault::Service => AccountError::unavailable(),
            Fault::Caller => AccountError::new(401, Code::InvalidToken),
        };
        let authorization = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let Some(found) = credential::find(authorization, || carrier.access_token()).map_err(refused)? else {
            return if row.credential == Credential::TokenOrSession { Ok(None) } else { Err(no_token()) };
        };
        let credential::Credential { token, is_session } = found;
        let rules = self.authorizer.rules();
        let Some(pool) = rules.pools.named(&self.settings.pool) else {
            return Err(AccountError::unavailable());
        };
        // Only an access token can do anything here, whatever checks accept.
        let expected = Expected { pool: &pool.name, token_use: AcceptedUse::Access, clients: &pool.clients };
        let deadline = Instant::now() + CLIENT_PATIENCE;
        let (purpose, mut trace) = (Purpose::Account(expected), Trace::default());
        let verified = self.authorizer.verify(&rules, &token, purpose, unix_now(), deadline, &mut trace).await;
        let verified = verified.map_err(refused)?;
        let claims = &verified.claims;
        self.signed_in(None, claims);
        let scope = claims.scope().unwrap_or_default();
        Ok(Some(Bearer {
            user: claims.username().unwrap_or(claims.sub()).to_owned(),
            may_manage_account: scope.split(' ').any(|scope| scope == SCOPE),
            may_be_of_hosted_ui: scope != SCOPE,
            is_cookie: is_session,
            token: token.into_owned(),
        }))
    }

    /// Where a request comes from. What a proxy says is not believed unless its place is configured.
    pub(super) fn address(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Address {
        let hops = self.settings.trusted_hops;
        let address = Address::of(headers, peer, hops);
        if hops.is_none() && address::is_forwarded(headers) {
            self.metrics.unknown_addresses.inc();
            self.warn_once(
                "requests to the account API come through a proxy (X-Forwarded-For), and --trusted-hops is unset: \
                 clients cannot be told apart, so that all clients of a proxy share the limits of one address",
            );
        } else if address == Address::Unreadable {
            self.warn_once(
                "X-Forwarded-For does not have a client's address where --trusted-hops says: such requests share the \
                 limits of one address; count the proxies in front again",
            );
        }
        address
    }

    /// Logs once that addresses are not known; the client's header decides how often there is a reason.
    fn warn_once(&self, message: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("{message}");
        }
    }
}
