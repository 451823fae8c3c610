//! Connections of each peer of a port, so that none of them can have all of the port.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections at a time, by peer.
#[derive(Debug, Default)]
pub(super) struct Peers {
    connections: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of a peer, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Peers {
    /// Counts one more connection of this peer, unless it has `most` already.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr, most: usize) -> Option<Place> {
        let peer = network(peer);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { peers: Arc::clone(self), peer })
    }
}

impl Drop for Place {
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

/// An IPv4 address, or the /64 of an IPv6 address: a host has all of one.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_own_places() {
        let peers = Arc::new(Peers::default());
        let enter = |peer: &str| peers.enter(peer.parse().unwrap(), 2);
        let first = [enter("192.0.2.1"), enter("::ffff:192.0.2.1")];
        assert!(first.iter().all(Option::is_some) && enter("192.0.2.1").is_none(), "one address in two forms");
        let other = [enter("2001:db8::1"), enter("2001:db8::ffff:1:2:3")];
        assert!(other.iter().all(Option::is_some) && enter("2001:db8::2").is_none(), "one /64");
        assert!(enter("192.0.2.2").is_some() && enter("2001:db8:0:1::1").is_some());
        drop((first, other));
        assert!(peers.connections.lock().unwrap().is_empty(), "nothing stays of those that have left");
    }
}
