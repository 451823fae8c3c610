//! `/revocations` of the admin port: operators list, make and lift revocations. Each change is one line of the log with
//! `event="revocation"`.
//!
//! | request | response |
//! |---|---|
//! | `GET /revocations?limit=&after=` | a page of the revocations in effect, in order of their ids |
//! | `GET /revocations?sub=` (or `origin_jti=`, `jti=`; with several pools `&pool=`) | its id, and the revocation if it is in effect |
//! | `POST /revocations` | makes one, and returns it |
//! | `DELETE /revocations/ID` | lifts one, and returns it as it was |
//!
//! The log names a revocation by its id, which is a digest. Neither claims nor tokens are logged: callers sometimes
//! send an e-mail address in place of a `sub`.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::json_answer;
use super::refusal::Refusal;
use super::token::{Gate, Operator};
use crate::authz::Authorizer;
use crate::clock::{UnixTime, unix_now};
use crate::net::http_server::{Answer, Peer, RequestBody};
use crate::net::json_body;
use crate::revocation::{Causes, Entry, Key, Kind, NotRecorded, Revocation, Revocations};

mod order;

use self::order::{Order, Target};

/// Path of the list; a revocation's own path is below it.
const PATH: &str = "/revocations";
/// Number of entries of a page if the request does not say, and the maximum.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// Seconds after which a client should repeat a request that failed with 503.
const RETRY_AFTER: u64 = 5;

/// `true` for the paths of this module.
pub(super) fn covers(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The routes.
#[derive(Debug)]
pub(super) struct RevocationRoutes {
    revocations: Arc<Revocations>,
    /// Source of the pools in effect.
    authorizer: Arc<Authorizer>,
    gate: Arc<Gate>,
}

impl From<NotRecorded> for Refusal {
    fn from(error: NotRecorded) -> Self {
        let (code, message) = match error {
            NotRecorded::Full => (
                "revocations_full",
                "Nothing was recorded: there are as many revocations as --revocation-capacity allows.",
            ),
            NotRecorded::Unwritten => (
                "upstream_unavailable",
                "This replica applies the change and goes on trying to write it, but the file or store has not taken \
                 it yet.",
            ),
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).with(header::RETRY_AFTER, RETRY_AFTER)
    }
}

/// Change that the audit log reports.
struct Change<'c> {
    action: &'static str,
    id: Key,
    kind: Kind,
    pool: Option<&'c str>,
    before: Option<UnixTime>,
    reason: Option<&'c str>,
}

impl Change<'_> {
    /// Writes the audit line.
    fn log(&self, by: Operator<'_>, peer: &Peer, result: Result<(), NotRecorded>) {
        let Self { action, id, kind, pool, before, reason } = self;
        let result = match result {
            Ok(()) => "recorded",
            Err(NotRecorded::Full) => "full",
            Err(NotRecorded::Unwritten) => "not-written",
        };
        let peer = peer.address.map(tracing::field::display);
        tracing::info!(
            event = "revocation",
            action,
            %id,
            kind = kind.as_str(),
            pool,
            before,
            reason,
            by = by.name(),
            credential = by.credential(),
            peer,
            result,
            "revocation by an operator"
        );
    }
}

impl RevocationRoutes {
    /// Creates the routes, for those whom `gate` lets pass.
    pub(super) fn new(revocations: Arc<Revocations>, authorizer: Arc<Authorizer>, gate: Arc<Gate>) -> Self {
        Self { revocations, authorizer, gate }
    }

    /// Answers a request for one of the paths that this module [`covers`].
    pub(super) async fn answer(&self, request: Request<RequestBody>, peer: Peer) -> Answer {
        let (parts, body) = request.into_parts();
        match self.run(&parts, body, &peer).await {
            Ok(value) => json_answer(StatusCode::OK, &value),
            Err(refusal) => refusal.into_answer(),
        }
    }

    async fn run(&self, parts: &Parts, body: RequestBody, peer: &Peer) -> Result<Value, Refusal> {
        let operator = self.gate.authorize(&parts.headers, peer).await?;
        let id = parts.uri.path().strip_prefix(PATH).unwrap_or_default().strip_prefix('/');
        let query = parts.uri.query().unwrap_or_default();
        match (id, &parts.method) {
            (None, &Method::GET | &Method::HEAD) => self.list(query),
            (None, &Method::POST) => self.revoke(&json_body::read(&parts.headers, body).await?, operator, peer).await,
            (Some(id), &Method::DELETE) => self.lift(id, operator, peer).await,
            (id, _) => {
                let methods = if id.is_none() { "GET, HEAD, POST" } else { "DELETE" };
                let message = format!("This path takes {methods}.");
                Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
                    .with(header::ALLOW, HeaderValue::from_static(methods)))
            }
        }
    }

    fn list(&self, query: &str) -> Result<Value, Refusal> {
        let mut given = Map::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if given.insert(name.to_string(), value.into()).is_some() {
                return Err(Refusal::bad_request("A parameter of the query is repeated."));
            }
        }
        let mut take = |name: &str| match given.remove(name) {
            Some(Value::String(value)) => Some(value),
            _ => None,
        };
        let (limit, after, pool) = (take("limit"), take("after"), take("pool"));
        let target = Target { sub: take("sub"), origin_jti: take("origin_jti"), jti: take("jti") };
        if !given.is_empty() {
            return Err(Refusal::bad_request(
                "The parameters of the query are sub, origin_jti or jti, with pool; or limit and after.",
            ));
        }
        let now = unix_now();
        let in_effect = |entry: &Entry| entry.until > now && entry.state.before().is_some();
        if !target.is_empty() {
            if limit.is_some() || after.is_some() {
                return Err(Refusal::bad_request("limit and after are only for lists without a claim."));
            }
            let (kind, value) = target.claim()?;
            let (_, key) = self.key(pool.as_deref(), kind, value)?;
            let found: Vec<Value> = self.revocations.get(key).filter(in_effect).iter().map(shown).collect();
            return Ok(json!({"id": key.to_string(), "revocations": found, "next": null}));
        }
        if pool.is_some() {
            return Err(Refusal::bad_request(
                "pool is only for a claim: an entry does not contain the pool that it belongs to.",
            ));
        }
        let limit = match limit.as_deref().map(str::parse) {
            None => PAGE,
            Some(Ok(limit)) if (1..=MAX_PAGE).contains(&limit) => limit,
            Some(_) => return Err(Refusal::bad_request(format!("limit has to be between 1 and {MAX_PAGE}."))),
        };
        let after = after.map(|after| after.parse::<Key>()).transpose();
        let after = after.map_err(|_| Refusal::bad_request("after has to be the next of the previous page."))?;
        let page = self.revocations.page(after, limit);
        let next = page.last().filter(|_| page.len() == limit).map(|last| last.key.to_string());
        let page: Vec<Value> = page.iter().filter(|entry| in_effect(entry)).map(shown).collect();
        Ok(json!({"revocations": page, "next": next}))
    }

    async fn revoke(&self, body: &[u8], by: Operator<'_>, peer: &Peer) -> Result<Value, Refusal> {
        let now = unix_now();
        let order = Order::read(body, now)?;
        let (pool, key) = self.key(order.pool.as_deref(), order.kind, &order.value)?;
        let revocation =
            Revocation { kind: order.kind, key, before: order.before, except: None, cause: Causes::OPERATOR };
        let result = self.revocations.revoke(revocation, now).await;
        let change = Change {
            action: "revoke",
            id: key,
            kind: order.kind,
            pool: Some(&pool),
            before: (order.kind == Kind::Subject).then_some(order.before),
            reason: order.reason.as_deref(),
        };
        change.log(by, peer, result.as_ref().map(|_| ()).map_err(|error| *error));
        let entry = result?;
        // What is in effect can be more than what was asked for.
        Ok(self.changed(&self.revocations.get(key).unwrap_or(entry)))
    }

    async fn lift(&self, id: &str, by: Operator<'_>, peer: &Peer) -> Result<Value, Refusal> {
        let key: Key = id.parse().map_err(|_| Refusal::not_found("An id has 32 lower-case hexadecimal digits."))?;
        let now = unix_now();
        let missing = || Refusal::not_found("There is no revocation with this id in effect.");
        let known = self.revocations.get(key).filter(|entry| entry.until > now).ok_or_else(missing)?;
        let result = self.revocations.lift(key, now).await;
        let result = match result {
            Ok(None) => return Err(missing()),
            Ok(Some(_)) => Ok(()),
            Err(error) => Err(error),
        };
        let change =
            Change { action: "lift", id: key, kind: known.kind, pool: None, before: before(&known), reason: None };
        change.log(by, peer, result);
        result?;
        Ok(self.changed(&known))
    }

    /// Returns the name of a pool that a request names by its name or its id, and the key of a claim in it.
    fn key(&self, pool: Option<&str>, kind: Kind, value: &str) -> Result<(String, Key), Refusal> {
        let rules = self.authorizer.rules();
        let mut pools = rules.pools.iter();
        let found = if let Some(named) = pool {
            let by_name = pools.find(|pool| &*pool.name == named);
            by_name.or_else(|| rules.pools.iter().find(|pool| pool.id.as_str() == named))
        } else {
            pools.next().filter(|_| pools.next().is_none())
        };
        let found = found.ok_or_else(|| {
            let names: Vec<&str> = rules.pools.iter().map(|pool| &*pool.name).collect();
            let names = names.join(", ");
            Refusal::bad_request(match pool {
                Some(_) => format!("There is no such pool; pool has to be one of: {names}."),
                None => format!("There are several pools; pool has to be one of: {names}."),
            })
        })?;
        Ok((found.name.to_string(), Key::new(&found.id, kind, value)))
    }

    /// Response to a change.
    fn changed(&self, entry: &Entry) -> Value {
        let mut shown = shown(entry);
        if let Some(members) = shown.as_object_mut() {
            members.insert("scope".into(), self.revocations.scope().as_str().into());
        }
        shown
    }
}

/// Second up to which sign-ins are revoked, for a `sub`.
fn before(entry: &Entry) -> Option<UnixTime> {
    entry.state.before().filter(|_| entry.kind == Kind::Subject)
}

/// Entry in a response.
fn shown(entry: &Entry) -> Value {
    let causes: Vec<&str> = entry.causes.names().collect();
    let mut shown =
        json!({"id": entry.key.to_string(), "kind": entry.kind.as_str(), "until": entry.until, "causes": causes});
    if let (Some(before), Some(members)) = (before(entry), shown.as_object_mut()) {
        members.insert("before".into(), before.into());
        if entry.state.has_exception() {
            members.insert("except_one_session".into(), true.into());
        }
    }
    shown
}
