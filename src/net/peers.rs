//! Counts the connections of each peer of a port, so that no single peer can take all of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Number of open connections by peer.
#[derive(Debug, Default)]
pub(super) struct Peers {
    connections: Mutex<HashMap<IpAddr, usize>>,
}

/// Guard that counts one connection of a peer, until it is dropped.
#[derive(Debug)]
pub(super) struct PeerConnection {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Peers {
    /// Counts one more connection of this peer. Returns `None` if it has `max` already.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr, max: usize) -> Option<PeerConnection> {
        let peer = network(peer);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(peer).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(PeerConnection { peers: Arc::clone(self), peer })
    }
}

impl Drop for PeerConnection {
    fn drop(&mut self) {
        let mut connections = self.peers.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.peer);
            }
        }
    }
}

/// Returns the address that connections are counted by: an IPv4 address, or the /64 of an IPv6 address, because one
/// host usually has a whole /64.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_a_count_of_its_own() {
        let peers = Arc::new(Peers::default());
        let enter = |peer: &str| peers.enter(peer.parse().unwrap(), 2);
        let first = [enter("192.0.2.1"), enter("::ffff:192.0.2.1")];
        assert!(first.iter().all(Option::is_some) && enter("192.0.2.1").is_none(), "one address in two forms");
        let other = [enter("2001:db8::1"), enter("2001:db8::ffff:1:2:3")];
        assert!(other.iter().all(Option::is_some) && enter("2001:db8::2").is_none(), "one /64");
        assert!(enter("192.0.2.2").is_some() && enter("2001:db8:0:1::1").is_some());
        drop((first, other));
        assert!(peers.connections.lock().unwrap().is_empty(), "peers without connections use no memory");
    }
}
