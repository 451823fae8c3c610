//! Who may use the routes for operators: callers that show the token of `--admin-token-file`, and clients whose
//! certificate the handshake of an `mtls:` listener has verified. Neither the address of a caller nor a header other than
//! `Authorization` is an authorization.
//!
//! Wrong tokens are limited, for each peer and for the whole port. A limit must not lock out the operator, whose peer
//! address can be the same as the attacker's. So tokens beyond a limit are not refused unseen. They are compared one
//! after the other, in the order of their arrival, at a fixed low rate. A right token passes when its turn comes; a wrong
//! one, or one whose turn does not come in time, gets 429.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{self, HeaderMap};
use tokio::time::{self, Instant};

use crate::config::admin::AdminToken;
use crate::files::FileWatch;
use crate::net::http_server::Peer;
use crate::net::peers::network;

/// Caller that may use the routes for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator<'p> {
    /// It has shown the token.
    Token,
    /// It has authenticated with a certificate of this name.
    Certificate(&'p str),
}

impl<'p> Operator<'p> {
    /// Name in the audit log.
    pub(super) fn name(self) -> &'p str {
        match self {
            Self::Token => "admin-token",
            Self::Certificate(name) => name,
        }
    }

    /// Kind of the credential in the audit log. It tells the token from a certificate that has the token's name.
    pub(super) fn credential(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate(_) => "certificate",
        }
    }
}

/// Reason why a caller may not use the routes for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAuthorized {
    /// No token is configured, and the client has no certificate.
    Closed,
    /// The request has no Bearer token, or several.
    NoToken,
    /// The token is wrong.
    WrongToken,
    /// There were too many wrong tokens. Seconds to wait.
    Limited(u64),
}

/// The check of operators.
#[derive(Debug)]
pub(super) struct Gate {
    token: Option<ArcSwap<AdminToken>>,
    wrong: WrongTokens,
}

impl Gate {
    /// Creates the check. Without a token, only clients with a certificate pass.
    pub(super) fn new(token: Option<AdminToken>) -> Self {
        Self { token: token.map(ArcSwap::from_pointee), wrong: WrongTokens::default() }
    }

    /// Checks that a request comes from an operator. A verified certificate is enough; the token is then not examined.
    ///
    /// # Errors
    /// [`NotAuthorized`].
    pub(super) async fn authorize<'p>(
        &self,
        headers: &HeaderMap,
        peer: &'p Peer,
    ) -> Result<Operator<'p>, NotAuthorized> {
        if let Some(name) = peer.certificate_name() {
            return Ok(Operator::Certificate(name));
        }
        let peer = peer.address;
        let token = self.token.as_ref().ok_or(NotAuthorized::Closed)?;
        let candidate = bearer(headers).ok_or(NotAuthorized::NoToken)?;
        let limited = self.wrong.limited(peer);
        if let Some(wait) = limited
            && !self.wrong.turn_comes().await
        {
            return Err(NotAuthorized::Limited(wait));
        }
        match (token.load().matches(candidate), limited) {
            (true, _) => Ok(Operator::Token),
            (false, Some(wait)) => Err(NotAuthorized::Limited(wait)),
            (false, None) => {
                self.wrong.count(peer);
                // The limits bound the number of these lines.
                let peer = peer.map(tracing::field::display);
                tracing::warn!(event = "admin_token_refused", peer, "wrong token for the admin port");
                Err(NotAuthorized::WrongToken)
            }
        }
    }

    /// Checks that a request may read what only operators should see. Without a token, every client of the port may.
    ///
    /// # Errors
    /// As [`Self::authorize`], but never [`NotAuthorized::Closed`].
    pub(super) async fn authorize_reader(&self, headers: &HeaderMap, peer: &Peer) -> Result<(), NotAuthorized> {
        match self.authorize(headers, peer).await {
            Ok(_) | Err(NotAuthorized::Closed) => Ok(()),
            Err(reason) => Err(reason),
        }
    }

    /// Reads the token again whenever its file changes, as long as the process runs. Does not return.
    pub(super) async fn follow(&self) {
        let Some(token) = &self.token else { return std::future::pending().await };
        let (path, version) = {
            let token = token.load();
            (token.path().to_owned(), token.version())
        };
        let mut watch = FileWatch::new(path.clone(), Some(version));
        loop {
            let changed = watch.changed().await;
            let read = match changed {
                Ok(()) => {
                    let path = path.clone();
                    let read = tokio::task::spawn_blocking(move || AdminToken::read(&path)).await;
                    read.unwrap_or_else(|_| Err("the file cannot be read".to_owned()))
                }
                Err(error) => Err(format!("{} {error}", path.display())),
            };
            match read {
                Ok(read) => {
                    token.store(Arc::new(read));
                    tracing::info!("the token for the admin port was read again");
                }
                Err(error) => {
                    tracing::error!(
                        error,
                        "the token for the admin port was not read again; the previous one stays valid"
                    );
                }
            }
        }
    }
}

/// Returns the Bearer token of a request, if there is exactly one.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// Wrong tokens that one peer may show at once, and the time after which it may show one more.
const PEER_LIMIT: (u32, Duration) = (10, Duration::from_secs(6));
/// The same for all peers together.
const PORT_LIMIT: (u32, Duration) = (100, Duration::from_millis(600));
/// Maximum number of peers that are counted on their own. Further ones are counted together.
const MAX_PEERS: usize = 1024;
/// Time between two comparisons beyond a limit.
const TURN: Duration = Duration::from_millis(50);
/// Maximum time that a token waits for its turn.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Wrong tokens of late.
#[derive(Debug, Default)]
struct WrongTokens {
    counts: Mutex<Counts>,
    /// Held by the token whose turn it is. Tokio's mutex is fair: it serves in the order of arrival.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Counts {
    port: Count,
    /// By network; `None` for Unix sockets, and for peers that no place was left for.
    peers: HashMap<Option<IpAddr>, Count>,
}

/// Time at which a bucket of wrong tokens will be empty again (GCRA); `None` if it never was used.
#[derive(Clone, Copy, Debug, Default)]
struct Count(Option<Instant>);

impl Count {
    /// Time until one more wrong token fits; `None` if it fits now.
    fn wait(self, (burst, period): (u32, Duration), now: Instant) -> Option<Duration> {
        let full = self.backlog(now).saturating_sub(period * (burst - 1));
        Some(full).filter(|wait| !wait.is_zero())
    }

    fn add(&mut self, (_, period): (u32, Duration), now: Instant) {
        self.0 = Some(now + self.backlog(now) + period);
    }

    fn backlog(self, now: Instant) -> Duration {
        self.0.map_or(Duration::ZERO, |empty| empty.saturating_duration_since(now))
    }
}

impl WrongTokens {
    /// Seconds until a wrong token of this peer fits into the limits; `None` if it fits now.
    fn limited(&self, peer: Option<IpAddr>) -> Option<u64> {
        let (now, peer) = (Instant::now(), peer.map(network));
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.peers.get(&counts.place(peer)).copied().unwrap_or_default();
        let wait = count.wait(PEER_LIMIT, now).max(counts.port.wait(PORT_LIMIT, now))?;
        Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }

    /// Counts a wrong token.
    fn count(&self, peer: Option<IpAddr>) {
        let (now, peer) = (Instant::now(), peer.map(network));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.port.add(PORT_LIMIT, now);
        if counts.peers.len() >= MAX_PEERS {
            counts.peers.retain(|_, count| !count.backlog(now).is_zero());
        }
        let place = counts.place(peer);
        counts.peers.entry(place).or_default().add(PEER_LIMIT, now);
    }

    /// Waits for the turn of one more token. Returns `false` if it does not come in time.
    async fn turn_comes(&self) -> bool {
        let turn = async {
            let _turn = self.turn.lock().await;
            time::sleep(TURN).await;
        };
        time::timeout(MAX_WAIT, turn).await.is_ok()
    }
}

impl Counts {
    /// Place of a peer: its own, or the common one if there are too many.
    fn place(&self, peer: Option<IpAddr>) -> Option<IpAddr> {
        peer.filter(|_| self.peers.len() < MAX_PEERS || self.peers.contains_key(&peer))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TOKEN: &str = "a-token-for-tests-0123";

    fn gate() -> (Gate, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, TOKEN).unwrap();
        (Gate::new(Some(AdminToken::read(&path).unwrap())), directory)
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
    }

    async fn shows(gate: &Gate, peer: &str, token: &str) -> Result<Operator<'static>, NotAuthorized> {
        let peer = Peer { address: Some(peer.parse().unwrap()), certificate: None };
        let result = gate.authorize(&headers(&[&format!("Bearer {token}")]), &peer).await;
        result.map(|operator| if operator == Operator::Token { Operator::Token } else { panic!("{operator:?}") })
    }

    #[tokio::test]
    async fn only_one_right_token_passes() {
        let (gate, _directory) = gate();
        let unix = Peer::default();
        let right = format!("Bearer {TOKEN}");
        for values in [&[&*right][..], &[&format!("bEaReR  {TOKEN} ")]] {
            assert_eq!(gate.authorize(&headers(values), &unix).await, Ok(Operator::Token), "{values:?}");
        }
        let basic = format!("Basic {TOKEN}");
        for values in [&[][..], &["Bearer"], &["Bearer "], &[TOKEN], &[&basic], &[&right, &right], &[&right, &basic]] {
            assert_eq!(gate.authorize(&headers(values), &unix).await, Err(NotAuthorized::NoToken), "{values:?}");
        }
        for wrong in [&TOKEN[1..], &TOKEN.to_uppercase(), &format!("{TOKEN} {TOKEN}")] {
            assert_eq!(shows(&gate, "192.0.2.1", wrong).await, Err(NotAuthorized::WrongToken), "{wrong}");
        }
        assert_eq!(Gate::new(None).authorize(&headers(&[&right]), &unix).await, Err(NotAuthorized::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_are_limited_by_peer_and_a_right_one_passes_after_its_turn() {
        let (gate, _directory) = gate();
        for attempt in 0..10 {
            assert_eq!(shows(&gate, "192.0.2.1", "wrong").await, Err(NotAuthorized::WrongToken), "{attempt}");
        }
        let start = Instant::now();
        for _ in 0..20 {
            assert!(matches!(shows(&gate, "::ffff:192.0.2.1", "wrong").await, Err(NotAuthorized::Limited(1..=6))));
        }
        assert_eq!(shows(&gate, "192.0.2.1", TOKEN).await, Ok(Operator::Token));
        assert!(start.elapsed() >= TURN * 21, "every one has waited for its turn");
        // Another peer has limits of its own.
        let start = Instant::now();
        assert_eq!(shows(&gate, "192.0.2.2", "wrong").await, Err(NotAuthorized::WrongToken));
        assert_eq!(shows(&gate, "192.0.2.2", TOKEN).await, Ok(Operator::Token));
        assert!(start.elapsed().is_zero());
        // One more fits every six seconds.
        time::advance(PEER_LIMIT.1).await;
        assert_eq!(shows(&gate, "192.0.2.1", "wrong").await, Err(NotAuthorized::WrongToken));
        assert!(matches!(shows(&gate, "192.0.2.1", "wrong").await, Err(NotAuthorized::Limited(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_of_many_peers_are_limited_and_take_bounded_memory() {
        let (gate, _directory) = gate();
        let attempts = async |from: u32, to: u32| {
            let mut compared = 0;
            for number in from..to {
                let peer = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
                compared += u32::from(shows(&gate, &peer, "wrong").await == Err(NotAuthorized::WrongToken));
            }
            compared
        };
        assert_eq!(attempts(0, 100).await, 100);
        let start = Instant::now();
        let compared = attempts(100, 3000).await;
        let allowed = start.elapsed().as_millis() / PORT_LIMIT.1.as_millis();
        assert!(u128::from(compared) <= allowed + 1, "{compared} of {allowed}");
        for number in 0..5000_u32 {
            gate.wrong.count(Some(std::net::Ipv4Addr::from(0x0a00_0000 + number).into()));
        }
        assert!(gate.wrong.counts.lock().unwrap().peers.len() <= MAX_PEERS + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_wrong_tokens_from_the_same_peer_does_not_lock_out_the_operator() {
        let (gate, _directory) = gate();
        let gate = Arc::new(gate);
        // As many connections as one peer has on a port, each of which tries again at once.
        let flood: Vec<_> = (0..64)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move {
                    loop {
                        let _ = shows(&gate, "192.0.2.1", "wrong").await;
                    }
                })
            })
            .collect();
        time::sleep(Duration::from_secs(30)).await;
        for _ in 0..10 {
            let start = Instant::now();
            assert_eq!(shows(&gate, "192.0.2.1", TOKEN).await, Ok(Operator::Token));
            assert!(start.elapsed() < MAX_WAIT, "{:?}", start.elapsed());
        }
        flood.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
