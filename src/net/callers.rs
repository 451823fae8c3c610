//! Networks whose hosts may use a port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// IPv4 or IPv6 network, as `10.1.0.0/16` or `fd00::/8`. An address without a length is a network of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Number of leading bits that the addresses of the network have in common.
    length: u8,
}

/// Error in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not an address, or a length that the address does not have.
    #[error("not a network such as 10.1.0.0/16 or fd00::/8")]
    Shape,
    /// Bits behind the length are set.
    #[error("has bits set behind its length; 10.1.2.3/16 has to be 10.1.0.0/16")]
    HostBits,
}

/// Returns the bits of an address, left-aligned, so that those of both families are compared in the same way.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Network {
    /// `true` if the address is in the network. An IPv4 address that a socket for both families reports as
    /// `::ffff:10.1.2.3` counts as IPv4.
    fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let differing = bits(address) ^ bits(self.address);
        address.is_ipv4() == self.address.is_ipv4() && differing.leading_zeros() >= u32::from(self.length)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Shape)?;
        // A peer's address is compared in canonical form, which a mapped network would never contain.
        if address.to_canonical() != address {
            return Err(NetworkError::Shape);
        }
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => longest,
            Some(length) if !length.is_empty() && length.bytes().all(|digit| digit.is_ascii_digit()) => {
                length.parse().ok().filter(|length| *length <= longest).ok_or(NetworkError::Shape)?
            }
            Some(_) => return Err(NetworkError::Shape),
        };
        match bits(address).checked_shl(u32::from(length)) {
            None | Some(0) => Ok(Self { address, length }),
            Some(_) => Err(NetworkError::HostBits),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Peers that may use a port.
#[derive(Clone, Debug)]
pub(crate) enum Callers {
    /// Every peer.
    All,
    /// Peers with an address in one of these networks.
    In(Arc<[Network]>),
}

impl Callers {
    /// `true` if a TCP peer may use the port. `None` stands for a peer whose address is not known.
    pub(crate) fn admit(&self, peer: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::In(networks) => peer.is_some_and(|peer| networks.iter().any(|network| network.contains(peer))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses_only() {
        for (network, inside, outside) in [
            (
                "127.0.0.0/8",
                &["127.0.0.1", "127.255.255.255", "::ffff:127.0.0.1"][..],
                &["126.0.0.1", "128.0.0.1", "::1"][..],
            ),
            ("10.1.2.3", &["10.1.2.3", "::ffff:10.1.2.3"], &["10.1.2.2", "10.1.2.4", "a01:203::"]),
            ("0.0.0.0/0", &["1.2.3.4", "::ffff:1.2.3.4"], &["::1", "fd00::1"]),
            ("::/0", &["::1", "fd00::1"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            ("fd00:1::/32", &["fd00:1::1", "fd00:1:ffff::"], &["fd00:2::1", "fd00::1"]),
            ("::1/128", &["::1"], &["::2", "127.0.0.1"]),
            ("10.0.0.2/31", &["10.0.0.2", "10.0.0.3"], &["10.0.0.1", "10.0.0.4"]),
        ] {
            let callers = Callers::In([network.parse().unwrap()].into());
            let admits = |address: &&str| callers.admit(Some(address.parse().unwrap()));
            assert!(inside.iter().all(admits), "{network}");
            assert!(!outside.iter().any(admits), "{network}");
            assert!(!callers.admit(None), "a peer that has gone");
        }
        assert!(!Callers::In([].into()).admit(Some([127, 0, 0, 1].into())));
    }

    #[test]
    fn malformed_networks_are_errors() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/ 8",
            "10.0.0/8",
            "10.0.0.0/8/8",
            "::/129",
            "fd00::/-1",
            "localhost",
            "010.0.0.0/8",
            "10.0.0.0-10.0.0.9",
            "*",
            "::ffff:10.0.0.1",
            "::ffff:10.0.0.0/104",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Shape), "{text}");
        }
        for text in ["10.1.2.3/16", "0.0.0.1/0", "fd00::1/8", "::1/0", "10.0.0.3/31"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::HostBits), "{text}");
        }
        for text in ["10.1.0.0/16", "0.0.0.0/0", "::/0", "::1/128"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }
}
