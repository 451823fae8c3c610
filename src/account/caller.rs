//! Who calls: the address that a request comes from, and the access token that it carries.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use http::header::{self, HeaderMap};
use tokio::time::Instant;

use super::address::{self, Address};
use super::error::{AccountError, Code};
use super::table::{Credential, Row};
use super::{Account, CLIENT_PATIENCE, unix_now};
use crate::authz::{Denial, Expected, token};
use crate::user_pool::AcceptedUse;

/// What an access token needs for its user to be changed or signed out with it.
const SCOPE: &str = "aws.cognito.signin.user.admin";

/// The caller's access token, verified. It has no `Debug`.
pub(super) struct Bearer {
    /// As it was sent.
    pub(super) token: String,
    /// The user, as far as limits are concerned.
    pub(super) user: String,
    /// Whether it has the scope for that.
    pub(super) may_manage_account: bool,
}

/// 401 where a token has to be.
pub(super) fn no_token() -> AccountError {
    AccountError::unauthorized("No token provided")
}

impl Account {
    /// The caller's access token, verified as a check does it; none where the row wants none, or may go without.
    pub(super) async fn bearer(&self, row: &Row, headers: &HeaderMap) -> Result<Option<Bearer>, AccountError> {
        if row.credential == Credential::None {
            return Ok(None);
        }
        let values = headers.get_all(header::AUTHORIZATION).iter();
        let token = token::credential(values.map(|value| value.to_str().unwrap_or("Bearer")));
        let refused = |denial: Denial| match denial {
            Denial::MissingCredential => no_token(),
            denial if denial.is_ours() => AccountError::unavailable(),
            _ => AccountError::new(401, Code::InvalidToken),
        };
        let token = match token {
            Err(Denial::MissingCredential) if row.credential == Credential::TokenOrSession => return Ok(None),
            token => token.map_err(refused)?,
        };
        let Some(pool) = self.authorizer.pools().iter().next() else {
            return Err(AccountError::unavailable());
        };
        // Only an access token can do anything here, whatever checks accept.
        let expected = Expected { token_use: AcceptedUse::Access, clients: &pool.clients };
        let deadline = Instant::now() + CLIENT_PATIENCE;
        let verified = self.authorizer.verify_token(token, expected, unix_now(), deadline).await.map_err(refused)?;
        let claims = &verified.claims;
        Ok(Some(Bearer {
            token: token.to_owned(),
            user: claims.username().unwrap_or(claims.sub()).to_owned(),
            may_manage_account: claims.scope().is_some_and(|scope| scope.split(' ').any(|scope| scope == SCOPE)),
        }))
    }

    /// Where a request comes from. What a proxy says is not believed unless its place is configured.
    pub(super) fn address(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Address {
        let hops = self.settings.trusted_hops;
        if hops.is_none() && address::is_forwarded(headers) {
            self.metrics.unknown_addresses.inc();
            if !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "requests to the account API come through a proxy (X-Forwarded-For), and --trusted-hops is unset: \
                     clients cannot be told apart, so that limits per address do not work"
                );
            }
        }
        Address::of(headers, peer, hops)
    }
}
