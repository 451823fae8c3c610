//! Where a request comes from. Behind proxies the connection says nothing about it, and `X-Forwarded-For` says it only
//! as far as proxies of ours wrote it: they append, so it is read from the right, and no further than configured.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// This address.
    Known(IpAddr),
    /// Nobody knows.
    Unknown,
}

impl Address {
    /// The address of a request that came over a connection from `peer` (none over a Unix socket). `hops` is how many
    /// proxies stand in front, `None` if nobody said.
    pub fn of(headers: &HeaderMap, peer: Option<IpAddr>, hops: Option<usize>) -> Self {
        let peer = peer.map_or(Self::Unknown, |peer| Self::Known(peer.to_canonical()));
        match hops {
            None if is_forwarded(headers) => Self::Unknown,
            None | Some(0) => peer,
            Some(hops) => {
                let entries: Vec<&str> = headers
                    .get_all(FORWARDED_FOR)
                    .iter()
                    .flat_map(|value| value.to_str().unwrap_or_default().split(','))
                    .collect();
                // Shorter than it should be: the request went around the proxies, and the connection tells.
                let entry = entries.len().checked_sub(hops).and_then(|index| entries.get(index));
                entry.and_then(|entry| parse(entry.trim())).map_or(peer, Self::Known)
            }
        }
    }

    /// The address, if it is known.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Known(address) => Some(address),
            Self::Unknown => None,
        }
    }
}

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Whether a proxy says that it forwards for somebody.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED_FOR)
}

/// An address, with a port or without.
fn parse(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    bare.parse().or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip())).ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_right() {
        let peer = "10.0.0.9";
        for (values, hops, expected) in [
            (&[][..], None, peer),
            (&[], Some(0), peer),
            (&["192.0.2.1"], None, ""),
            (&["192.0.2.1"], Some(0), peer),
            (&["192.0.2.1"], Some(1), "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1"], Some(1), "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1, 10.0.0.1"], Some(2), "192.0.2.1"),
            (&["6.6.6.6", "192.0.2.1,10.0.0.1"], Some(2), "192.0.2.1"),
            (&["192.0.2.1"], Some(2), peer),
            (&[], Some(1), peer),
            (&["nonsense"], Some(1), peer),
            (&["192.0.2.1, "], Some(1), peer),
            (&["192.0.2.1:4711"], Some(1), "192.0.2.1"),
            (&["[2001:db8::1]:4711"], Some(1), "2001:db8::1"),
            (&["[2001:db8::1]"], Some(1), "2001:db8::1"),
            (&["::ffff:192.0.2.1"], Some(1), "192.0.2.1"),
        ] {
            let headers: HeaderMap =
                values.iter().map(|value| (FORWARDED_FOR.parse().unwrap(), value.parse().unwrap())).collect();
            let found = Address::of(&headers, Some(peer.parse().unwrap()), hops);
            assert_eq!(found.ip().map(|ip| ip.to_string()).unwrap_or_default(), expected, "{values:?} {hops:?}");
        }
        assert_eq!(Address::of(&HeaderMap::new(), None, None), Address::Unknown);
    }
}
