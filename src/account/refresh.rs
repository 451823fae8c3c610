//! New tokens for a refresh token: one call at a time for each token, and one that goes on when its caller has gone.
//!
//! Where the app client rotates refresh tokens, a refresh is a deed: the old token is dead and the new one is in the
//! answer. Two tabs that refresh at once must not race each other into `RefreshTokenReuse`, and an answer that nobody
//! was there to take waits a while for the one who comes back with the old token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::body::Members;
use super::call::metadata;
use super::error::AccountError;
use super::table::Row;
use super::{Account, CLIENT_PATIENCE, RefreshFlow, Reply};
use crate::authz::cache::{TokenCache, TokenDigest};
use crate::cognito::{Call, Operation};

type Outcome = Result<Reply, AccountError>;

/// The refreshes that are on their way, by the digest of their token.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    flights: Mutex<HashMap<TokenDigest, watch::Receiver<Option<Outcome>>>>,
}

/// How long rotated tokens wait for somebody to take them.
const KEPT: Duration = Duration::from_secs(60);
/// How many do.
const MAX_KEPT: usize = 10_000;

impl Refreshes {
    fn change<T>(&self, change: impl FnOnce(&mut HashMap<TokenDigest, watch::Receiver<Option<Outcome>>>) -> T) -> T {
        change(&mut self.flights.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Account {
    /// Refreshes, or waits for the refresh of the same token that is on its way.
    pub(super) async fn refresh(self: &Arc<Self>, row: &'static Row, members: &Members) -> Outcome {
        let call = self.refresh_call(members)?;
        let digest = TokenCache::digest(members.text("refreshToken").unwrap_or_default());
        let deadline = Instant::now() + CLIENT_PATIENCE;
        let mut outcome = self.refreshes.change(|flights| {
            match flights.get(&digest) {
                // Kept for somebody: taken once.
                Some(flight) if flight.borrow().is_some() => {
                    let flight = flight.clone();
                    flights.remove(&digest);
                    flight
                }
                Some(flight) => flight.clone(),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    flights.insert(digest, receiver.clone());
                    tokio::spawn(Arc::clone(self).fly(row, call, digest, sender));
                    receiver
                }
            }
        });
        match timeout_at(deadline, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(AccountError::upstream())),
            Ok(Err(_)) => Err(AccountError::upstream()),
            Err(_) => Err(AccountError::unavailable()),
        }
    }

    async fn fly(
        self: Arc<Self>,
        row: &'static Row,
        call: Call,
        digest: TokenDigest,
        sender: watch::Sender<Option<Outcome>>,
    ) {
        let deadline = Instant::now() + CLIENT_PATIENCE;
        let outcome = match self.client.call(call, deadline).await {
            Ok(answer) => self.tokens_or_challenge(&answer, None, deadline).await,
            Err(error) => self.settle(row, &error, false),
        };
        let rotated = outcome.as_ref().is_ok_and(|reply| reply.rotated);
        // Under the lock, so that whoever comes now finds either the flight or its end.
        let kept = self.refreshes.change(|flights| {
            sender.send_replace(Some(outcome));
            // The map has one; a client that waits has another.
            let kept = rotated && sender.receiver_count() <= 1 && flights.len() < MAX_KEPT;
            if !kept {
                flights.remove(&digest);
            }
            kept
        });
        if kept {
            sleep(KEPT).await;
            self.refreshes.change(|flights| {
                // Unless it was taken, and the same old token is on its way once more.
                if flights.get(&digest).is_some_and(|flight| flight.same_channel(&sender.subscribe())) {
                    flights.remove(&digest);
                }
            });
        }
    }

    fn refresh_call(&self, members: &Members) -> Result<Call, AccountError> {
        let text = |name: &str| members.text(name).map(Value::from);
        let (token, device) = (text("refreshToken"), text("deviceKey"));
        let mut body = Map::new();
        let mut set = |name: &str, value: Option<Value>| value.map(|value| body.insert(name.into(), value));
        set("ClientMetadata", metadata(members, &self.settings.allowed));
        match self.settings.refresh_flow {
            RefreshFlow::Tokens => {
                set("RefreshToken", token);
                set("DeviceKey", device);
                Ok(Call { operation: Operation::GetTokensFromRefreshToken, user: None, members: body })
            }
            RefreshFlow::Auth => {
                let user = members.text("username").map(str::to_owned);
                // The hash is made over the real user name, which a refresh token does not tell.
                if user.is_none() && self.client.has_secret() {
                    return Err(AccountError::invalid_request("refreshToken and username are required"));
                }
                let parameters = [("REFRESH_TOKEN", token), ("DEVICE_KEY", device)];
                let parameters: Map<_, _> =
                    parameters.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
                set("AuthFlow", Some("REFRESH_TOKEN_AUTH".into()));
                set("AuthParameters", Some(parameters.into()));
                Ok(Call { operation: Operation::InitiateAuth, user, members: body })
            }
        }
    }
}
