//! Refreshing the tokens of a session.
//!
//! If the app client rotates refresh tokens, a refresh has an effect: the old token stops working, and only the
//! response has the new one. So there is one call at a time for each refresh token, two tabs that refresh at once share
//! it, and it continues when its client disconnects. The result of such a call is kept for a while, for the client that
//! retries with the old token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::Reply;
use super::body::Members;
use super::call::metadata;
use super::context::{CLIENT_PATIENCE, Context};
use super::error::AccountError;
use super::settings::RefreshFlow;
use super::table::Row;
use crate::authz::cache::{TokenCache, TokenDigest};
use crate::cognito::{Call, Operation};
use crate::request_id;
use crate::telemetry::current;

type Outcome = Result<Reply, AccountError>;
type Flights = HashMap<TokenDigest, watch::Receiver<Option<Outcome>>>;

/// Refreshes in flight, and results that no client has received, by the digest of the refresh token.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    flights: Mutex<Flights>,
}

/// Time for which a result that no client has received is kept.
const KEPT: Duration = Duration::from_secs(60);
/// Maximum number of results that are kept.
const MAX_KEPT: usize = 10_000;

impl Refreshes {
    fn change<T>(&self, change: impl FnOnce(&mut Flights) -> T) -> T {
        change(&mut self.flights.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Refreshes the tokens, or waits for the refresh of the same token that is in flight.
    pub(super) async fn refresh(
        self: &Arc<Self>,
        context: &Arc<Context>,
        row: &'static Row,
        members: &Members,
    ) -> Outcome {
        let call = context.refresh_call(members)?;
        let digest = TokenCache::digest(members.text("refreshToken").unwrap_or_default());
        let deadline = Instant::now() + CLIENT_PATIENCE;
        let mut outcome = self.change(|flights| {
            match flights.get(&digest) {
                // A kept result can be received once.
                Some(flight) if flight.borrow().is_some() => {
                    let flight = flight.clone();
                    flights.remove(&digest);
                    flight
                }
                Some(flight) => flight.clone(),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    flights.insert(digest, receiver.clone());
                    let flight = Arc::clone(self).fly(Arc::clone(context), row, call, digest, sender);
                    tokio::spawn(request_id::keep(current::carried(flight)));
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

    /// Makes the call, in a task of its own, and publishes the result.
    async fn fly(
        self: Arc<Self>,
        context: Arc<Context>,
        row: &'static Row,
        call: Call,
        digest: TokenDigest,
        sender: watch::Sender<Option<Outcome>>,
    ) {
        let deadline = Instant::now() + CLIENT_PATIENCE;
        let outcome = match context.client.call(call, deadline).await {
            Ok(answer) => context.tokens_or_challenge(&answer, None, deadline).await,
            Err(error) => context.settle(row, &error, false),
        };
        let rotated = outcome.as_ref().is_ok_and(|reply| reply.has_refresh_token);
        // Under the lock, so that a client that arrives now finds either the call in flight or its result.
        let kept = self.change(|flights| {
            sender.send_replace(Some(outcome));
            // The map holds one receiver, every waiting client another.
            let kept = rotated && sender.receiver_count() <= 1 && flights.len() < MAX_KEPT;
            if !kept {
                flights.remove(&digest);
            }
            kept
        });
        if kept {
            sleep(KEPT).await;
            self.change(|flights| {
                // The entry can be another one: this result was received, and the same old token is in flight again.
                if flights.get(&digest).is_some_and(|flight| flight.same_channel(&sender.subscribe())) {
                    flights.remove(&digest);
                }
            });
        }
    }
}

impl Context {
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
                // The secret hash is computed over the user name in the pool, which a refresh token does not reveal.
                if user.is_none() && self.client.has_secret() {
                    let message = "refreshToken and username are required";
                    return Err(AccountError::invalid_member("username", message));
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
