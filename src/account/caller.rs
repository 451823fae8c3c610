//! The caller of a request: its network address and its access token.
//!
//! Behind proxies the connection's address is a proxy's. `X-Forwarded-For` has the client's, but only the entries that
//! trusted proxies appended can be believed. So it is read from the right, and only as far as `--trusted-hops` says.
//! The rest of the header is the client's text and is not read, so that no header raises a client's limits.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::context::{CLIENT_PATIENCE, Context, unix_now};
use super::error::{AccountError, Code};
use super::table::{Credential, Row};
use super::token_transport::TokenTransport;
use crate::authz::{Denial, Expected, Fault, Presented, Purpose, Trace, credential};
use crate::field_value::trim_text;
use crate::revocation::Marks;
use crate::user_pool::AcceptedUse;

/// Scope that an access token needs to change or sign out its user.
const SCOPE: &str = "aws.cognito.signin.user.admin";

/// The caller's access token, verified. It has no `Debug`, because the token is secret.
pub(super) struct Bearer {
    pub(super) token: String,
    /// `true` if the token was in a cookie.
    pub(super) is_cookie: bool,
    /// What the token can be revoked by.
    pub(super) marks: Marks,
    /// User name for rate limits.
    pub(super) user: String,
    /// `true` if the token has the scope `aws.cognito.signin.user.admin`.
    pub(super) may_manage_account: bool,
    /// `true` if the token can come from the hosted pages: tokens of the user-pool API have exactly that one scope.
    pub(super) may_be_of_hosted_ui: bool,
}

/// 401 for a missing access token.
pub(super) fn no_token() -> AccountError {
    AccountError::unauthorized("No token provided")
}

impl Context {
    /// Finds and verifies the caller's access token, as a check does: the Bearer token, else the token in the cookies.
    /// Returns `None` if the row takes no token, or can do without one and there is none.
    ///
    /// # Errors
    /// [`AccountError`] 401 for a missing or invalid token, 503 if it cannot be verified at the moment.
    pub(super) async fn bearer(
        &self,
        row: &Row,
        headers: &HeaderMap,
        transport: &TokenTransport<'_>,
    ) -> Result<Option<Bearer>, AccountError> {
        if row.credential == Credential::None {
            return Ok(None);
        }
        let refused = |denial: Denial| match denial.fault() {
            Fault::Service => AccountError::unavailable(),
            Fault::Caller => AccountError::new(401, Code::InvalidToken),
        };
        let authorization = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let Some(found) = credential::find(authorization, || transport.access_token()).map_err(refused)? else {
            return if row.credential == Credential::TokenOrSession { Ok(None) } else { Err(no_token()) };
        };
        let credential::Credential { token, is_session } = found;
        let rules = self.authorizer.rules();
        let Some(pool) = rules.pools.named(&self.settings.pool) else {
            return Err(AccountError::unavailable());
        };
        // Cognito accepts access tokens only, whatever checks accept.
        let expected = Expected { pool: &pool.name, token_use: AcceptedUse::Access, clients: &pool.clients };
        let deadline = Instant::now() + CLIENT_PATIENCE;
        let (purpose, mut trace) = (Purpose::Account(expected), Trace::default());
        let verified =
            self.authorizer.verify(&rules, &Presented::new(&token), purpose, unix_now(), deadline, &mut trace).await;
        let verified = verified.map_err(refused)?;
        let claims = &verified.claims;
        self.signed_in(None, claims);
        let scope = claims.scope().unwrap_or_default();
        Ok(Some(Bearer {
            user: claims.username().unwrap_or(claims.sub()).to_owned(),
            may_manage_account: scope.split(' ').any(|scope| scope == SCOPE),
            may_be_of_hosted_ui: scope != SCOPE,
            is_cookie: is_session,
            marks: *claims.marks(),
            token: token.into_owned(),
        }))
    }

    /// Returns the address of a request, and warns once if the number of proxies is not configured or wrong.
    pub(super) fn address(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Address {
        let hops = self.settings.trusted_hops;
        let address = Address::of(headers, peer, hops);
        if hops.is_none() && headers.contains_key(FORWARDED_FOR) {
            self.metrics.unknown_addresses.inc();
            self.warned.addresses.warn(
                "requests to the account API come through a proxy (X-Forwarded-For), and --trusted-hops is unset: \
                 clients cannot be told apart, so that all clients of a proxy share the limits of one address",
            );
        } else if address == Address::Unreadable {
            self.warned.addresses.warn(
                "X-Forwarded-For does not have a client's address where --trusted-hops says: such requests share the \
                 limits of one address; count the proxies in front again",
            );
        }
        address
    }
}

/// Address that a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// Address of the client.
    Client(IpAddr),
    /// Address of the connection, which can be a proxy's: the request has an `X-Forwarded-For`, and `--trusted-hops` is
    /// unset. The request counts for this address, as it would without the header.
    Peer(IpAddr),
    /// The entry that a trusted proxy should have written is not an address. All such requests count as one address.
    Unreadable,
    /// Unix socket, without a proxy that names its clients.
    Unknown,
}

impl Address {
    /// Returns the address of a request over a connection from `peer` (`None` for a Unix socket). `hops` is the number
    /// of proxies in front, `None` if `--trusted-hops` is unset.
    fn of(headers: &HeaderMap, peer: Option<IpAddr>, hops: Option<usize>) -> Self {
        let peer = peer.map(|peer| peer.to_canonical());
        let hops = match (hops, peer) {
            (None | Some(0), None) => return Self::Unknown,
            (None, Some(peer)) if headers.contains_key(FORWARDED_FOR) => return Self::Peer(peer),
            (None | Some(0), Some(peer)) => return Self::Client(peer),
            (Some(hops), _) => hops,
        };
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut entries = lines.map(HeaderValue::as_bytes).flat_map(|line| line.rsplit(|byte| *byte == b','));
        match (entries.nth(hops - 1), peer) {
            (Some(entry), _) => parse(entry).map_or(Self::Unreadable, Self::Client),
            // Fewer entries than proxies: the request bypassed them, and the connection is the client's.
            (None, Some(peer)) => Self::Client(peer),
            (None, None) => Self::Unreadable,
        }
    }

    /// Returns the client's address, if it is known.
    pub(super) fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Client(address) => Some(address),
            Self::Peer(_) | Self::Unreadable | Self::Unknown => None,
        }
    }
}

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Parses an address with an optional port, between optional white space (RFC 9110 section 5.6.3: space and tab).
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let entry = trim_text(std::str::from_utf8(entry).ok()?);
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    bare.parse().or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip())).ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let name = || FORWARDED_FOR.parse().unwrap();
        values.iter().map(|value| (name(), HeaderValue::from_bytes(value).unwrap())).collect()
    }

    #[test]
    fn addresses_are_counted_from_the_right() {
        let client = |address: &str| Address::Client(address.parse().unwrap());
        let own: IpAddr = "10.0.0.9".parse().unwrap();
        let peer = Address::Client(own);
        let one = client("192.0.2.1");
        for (values, hops, expected) in [
            (&[][..], None, peer),
            (&[], Some(0), peer),
            (&[&b"192.0.2.1"[..]], None, Address::Peer(own)),
            (&[b"192.0.2.1"], Some(0), peer),
            (&[b"192.0.2.1"], Some(1), one),
            (&[b"6.6.6.6, 192.0.2.1"], Some(1), one),
            (&[b"6.6.6.6, 192.0.2.1, 10.0.0.1"], Some(2), one),
            (&[b"6.6.6.6", b"192.0.2.1,10.0.0.1"], Some(2), one),
            (&[b"6.6.6.6,192.0.2.1", b"10.0.0.1"], Some(2), one),
            (&[b"192.0.2.1"], Some(2), peer),
            (&[], Some(1), peer),
            (&[b"nonsense"], Some(1), Address::Unreadable),
            (&[b"192.0.2.1, "], Some(1), Address::Unreadable),
            (&[b""], Some(1), Address::Unreadable),
            (&[b"192.0.2.1, \xff"], Some(1), Address::Unreadable),
            // Bytes that the client wrote.
            (&[b"\xff, 192.0.2.1"], Some(1), one),
            (&[b"\xff\x80,\t192.0.2.1\t"], Some(1), one),
            (&["ü".as_bytes(), b"192.0.2.1"], Some(1), one),
            (&[b"\xff, 192.0.2.1, \xfe"], Some(2), one),
            (&[b"192.0.2.1:4711"], Some(1), one),
            (&[b"[2001:db8::1]:4711"], Some(1), client("2001:db8::1")),
            (&[b"[2001:db8::1]"], Some(1), client("2001:db8::1")),
            (&[b"::ffff:192.0.2.1"], Some(1), one),
        ] {
            assert_eq!(Address::of(&headers(values), Some(own), hops), expected, "{values:?} {hops:?}");
        }
        for (values, hops, expected) in [
            (&[][..], None, Address::Unknown),
            (&[&b"192.0.2.1"[..]], None, Address::Unknown),
            (&[b"192.0.2.1"], Some(0), Address::Unknown),
            (&[b"192.0.2.1"], Some(1), one),
            (&[b"\xff"], Some(1), Address::Unreadable),
            (&[], Some(1), Address::Unreadable),
        ] {
            assert_eq!(Address::of(&headers(values), None, hops), expected, "a Unix socket: {values:?} {hops:?}");
        }
        assert_eq!(Address::Peer(own).ip(), None, "a proxy's address is not sent to Cognito");
    }
}
