//! Where a request comes from. Behind proxies the connection says nothing about it, and `X-Forwarded-For` says it only
//! as far as proxies of ours wrote it: they append, so it is read from the right, and no further than configured.
//!
//! The rest of the header is the client's text. It is not read, so nothing in it changes what the request counts as:
//! no header gives a client more than it has without one.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::HeaderValue;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// The client's address.
    Client(IpAddr),
    /// Address of the connection, which may be a proxy's: `X-Forwarded-For` is there, and `--trusted-hops` is unset.
    /// The request counts as one of this address, as it would without the header.
    Peer(IpAddr),
    /// No address stands where a proxy of ours should have written the client's. All such requests together count as
    /// one address.
    Unreadable,
    /// A Unix socket, and no proxy that is known to name its clients.
    Unknown,
}

impl Address {
    /// The address of a request that came over a connection from `peer` (none over a Unix socket). `hops` is the
    /// number of proxies in front, `None` if `--trusted-hops` is unset.
    pub fn of(headers: &HeaderMap, peer: Option<IpAddr>, hops: Option<usize>) -> Self {
        let peer = peer.map(|peer| peer.to_canonical());
        let hops = match (hops, peer) {
            (None | Some(0), None) => return Self::Unknown,
            (None, Some(peer)) if is_forwarded(headers) => return Self::Peer(peer),
            (None | Some(0), Some(peer)) => return Self::Client(peer),
            (Some(hops), _) => hops,
        };
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut entries = lines.map(HeaderValue::as_bytes).flat_map(|line| line.rsplit(|byte| *byte == b','));
        match (entries.nth(hops - 1), peer) {
            (Some(entry), _) => parse(entry).map_or(Self::Unreadable, Self::Client),
            // Shorter than it should be: the request went around the proxies, and the connection tells.
            (None, Some(peer)) => Self::Client(peer),
            (None, None) => Self::Unreadable,
        }
    }

    /// The client's address, if it is known.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Client(address) => Some(address),
            Self::Peer(_) | Self::Unreadable | Self::Unknown => None,
        }
    }
}

const FORWARDED_FOR: &str = "x-forwarded-for";

/// `true` if the request has an `X-Forwarded-For`.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED_FOR)
}

/// An address, with a port or without, between optional white space (RFC 9110 section 5.6.3: space and tab).
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
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
            // Bytes of the client's own.
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
        assert_eq!(Address::Peer(own).ip(), None, "Cognito is not told a proxy's address");
    }
}
