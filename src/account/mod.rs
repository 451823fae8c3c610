//! The account API: what every application's auth routes do (sign up, sign in, sign out, ...), without the application.
//! JSON in, JSON out; behind it one call of Cognito.
//!
//! Operations are rows of one table ([`table`]), not functions. A request goes through [`Account::answer`]: route,
//! address limit, Bearer token, body, user limit, Cognito, answer. Nobody learns here who has an account: see
//! [`error::judge`] and `--account-min-failure-time`. Nothing of a request or an answer is ever logged but names of ours
//! and of Cognito's errors.

pub mod address;
pub mod body;
pub mod call;
mod caller;
pub mod carrier;
pub mod cors;
mod counted;
pub mod error;
mod logout;
pub mod oauth;
pub mod openapi;
pub mod prefix;
mod profile;
pub mod rate_limit;
mod refresh;
pub mod table;
mod tokens;
pub mod totp;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use prost::bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

use self::body::Members;
use self::call::Allowed;
use self::caller::Bearer;
use self::carrier::{Carrier, Cookies};
use self::cors::Cors;
use self::counted::Attempt;
use self::error::{AccountError, Asked, Code, Judgement};
use self::oauth::{AUTHORIZE_NAME, AUTHORIZE_PATH, HostedUi, Oauth};
use self::openapi::Extent;
pub use self::prefix::Prefix;
use self::rate_limit::{RateLimits, Rates};
use self::refresh::Refreshes;
use self::table::{Credential, Flow, Hides, Row, Success, rows};
use self::totp::Issuer;
use crate::authz::{Authorizer, UnixTime};
use crate::cognito::error::CognitoError;
use crate::cognito::{CognitoClient, Operation};
use crate::metrics::account::AccountMetrics;
use crate::net::http_server::{Answer, RequestBody};
use crate::user_pool::{ClientId, Clients};

/// Longest time for Cognito to be asked about one request, tries and waits included.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// How a refresh token is turned into new tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshFlow {
    /// `GetTokensFromRefreshToken`, with rotation or without.
    Tokens,
    /// `REFRESH_TOKEN_AUTH`.
    Auth,
}

/// Settings of the account API.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the pool whose people it serves.
    pub pool: Box<str>,
    /// Where it is.
    pub prefix: Prefix,
    /// The app client that it speaks for.
    pub client_id: ClientId,
    /// Proxies in front.
    pub trusted_hops: Option<usize>,
    /// Pages of other origins that may use it.
    pub cors: Cors,
    /// What is passed on.
    pub allowed: Allowed,
    /// How to refresh.
    pub refresh_flow: RefreshFlow,
    /// Limits.
    pub rates: Rates,
    /// Least time for an answer that must not tell whether a user exists.
    pub min_failure_time: Duration,
    /// Whether answers that a user interface would like give way to ones that tell less.
    pub hide_users: bool,
    /// What authenticators call the issuer of accounts.
    pub totp_issuer: Issuer,
    /// `realm` of challenges.
    pub realm: Box<str>,
    /// The hosted sign-in pages, if they are used.
    pub hosted_ui: Option<HostedUi>,
    /// Browser sessions, if they are on.
    pub cookies: Option<Cookies>,
}

/// The account API.
#[derive(Debug)]
pub struct Account {
    settings: Settings,
    client: CognitoClient,
    authorizer: Arc<Authorizer>,
    /// Whose tokens are handed out.
    own_client: Clients,
    limits: RateLimits,
    refreshes: Refreshes,
    oauth: Option<Oauth>,
    metrics: AccountMetrics,
    openapi: Bytes,
    challenge: HeaderValue,
    warned: AtomicBool,
}

/// An answer that is not an error, or looks as if it were none.
#[derive(Clone)]
struct Reply {
    status: u16,
    outcome: &'static str,
    body: Value,
    /// Whether a refresh token is in it.
    rotated: bool,
    /// `Set-Cookie` values.
    cookies: Vec<String>,
}

impl std::fmt::Debug for Reply {
    /// Without the body: tokens are in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

impl Reply {
    fn new(status: u16, outcome: &'static str, body: Value) -> Self {
        Self { status, outcome, body, rotated: false, cookies: Vec::new() }
    }
}

/// Below the prefix; the one route that asks nothing of Cognito.
const OPENAPI: &str = "/openapi.json";
/// Values of the label `operation`, beside the rows' names: what is no row.
const NO_ROW: &str = "none";

/// Values of the label `operation` of account metrics.
pub fn route_labels() -> Vec<&'static str> {
    rows().map(|row| row.name).chain([AUTHORIZE_NAME, "openapi", NO_ROW]).collect()
}

/// Value of the label `outcome` for a challenge.
const CHALLENGE: &str = "challenge";

/// Values of the label `outcome` of account metrics.
pub fn outcome_labels() -> Vec<&'static str> {
    ["success", CHALLENGE].into_iter().chain(Code::ALL.iter().map(|code| code.as_str())).collect()
}

impl Account {
    /// The account API over these parts.
    pub fn new(
        settings: Settings,
        client: CognitoClient,
        authorizer: Arc<Authorizer>,
        metrics: AccountMetrics,
    ) -> Arc<Self> {
        let extent = Extent { hosted_ui: settings.hosted_ui.is_some(), cookies: settings.cookies.is_some() };
        let openapi = openapi::document(settings.prefix.as_str(), &settings.allowed, extent).to_string();
        let challenge = HeaderValue::from_str(&format!("Bearer realm=\"{}\"", settings.realm));
        Arc::new(Self {
            client,
            authorizer,
            own_client: Clients::Only(vec![settings.client_id.clone()]),
            limits: RateLimits::new(settings.rates, metrics.clone()),
            refreshes: Refreshes::default(),
            oauth: settings.hosted_ui.clone().map(Oauth::new),
            metrics,
            openapi: openapi.into(),
            challenge: challenge.unwrap_or(HeaderValue::from_static("Bearer")),
            warned: AtomicBool::new(false),
            settings,
        })
    }

    /// Whether `path` is this room's to answer.
    pub fn covers(&self, path: &str) -> bool {
        self.settings.prefix.below(path).is_some()
    }

    /// Answers a request that came over a connection from `peer`.
    pub(crate) async fn answer(self: &Arc<Self>, request: Request<RequestBody>, peer: Option<IpAddr>) -> Answer {
        let start = Instant::now();
        let (parts, body) = request.into_parts();
        let below = self.settings.prefix.below(parts.uri.path()).unwrap_or_default();
        // What is asked for in another way than any of the path's is counted with the first.
        let rows = || Row::of(below).filter(|row| row.flow != Flow::Oauth || self.oauth.is_some());
        let row = rows().find(|row| row.takes(&parts.method));
        let begins_at = self.oauth.as_ref().filter(|_| below == AUTHORIZE_PATH);
        let read_only = || allow([&Method::GET].into_iter());
        let (name, allow) = match row.or_else(|| rows().next()) {
            Some(row) => (row.name, allow(rows().map(|row| &row.method))),
            None if begins_at.is_some() => (AUTHORIZE_NAME, read_only()),
            None if below == OPENAPI => ("openapi", read_only()),
            None => (NO_ROW, String::new()),
        };
        let cors = &self.settings.cors;
        if !allow.is_empty() && cors.is_preflight(&parts.method, &parts.headers) {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            cors.apply(&parts.headers, &mut response, HeaderValue::from_str(&allow).ok());
            return response;
        }
        let carrier = self.carrier(&parts.headers);
        let is_read = [Method::GET, Method::HEAD].contains(&parts.method);
        let mut result = match (row, begins_at) {
            (Some(row), _) => match self.guard(&carrier, &parts.method) {
                Ok(()) => self.run(row, &parts.headers, &carrier, body, peer).await,
                Err(error) => Err(error),
            },
            (None, _) if allow.is_empty() => Err(AccountError::new(404, Code::NotFound)),
            (None, Some(oauth)) if is_read => {
                let address = self.address(&parts.headers, peer);
                self.authorize_url(oauth, parts.uri.query().unwrap_or_default(), &address, &carrier)
            }
            (None, None) if below == OPENAPI && is_read => {
                self.metrics.answered(name, "success", start.elapsed().as_secs_f64());
                let mut response = response(200, self.openapi.clone());
                cors.apply(&parts.headers, &mut response, None);
                return response;
            }
            (None, _) => Err(AccountError::new(405, Code::MethodNotAllowed)),
        };
        let cookies = self.pack(&carrier, row, &mut result);
        let (status, outcome) = match &result {
            Ok(reply) => (reply.status, reply.outcome),
            Err(error) => (error.status, error.code.as_str()),
        };
        let mut response = match result {
            Ok(reply) => response(reply.status, reply.body.to_string()),
            Err(error) => self.refusal(&error, &allow),
        };
        for cookie in cookies.into_iter().filter_map(|cookie| HeaderValue::try_from(cookie).ok()) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        cors.apply(&parts.headers, &mut response, None);
        let took = start.elapsed();
        self.metrics.answered(name, outcome, took.as_secs_f64());
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match status {
            ..400 => tracing::debug!(operation = name, outcome, status, duration_ms, "account request"),
            400..500 => tracing::info!(operation = name, outcome, status, duration_ms, "account request"),
            _ => tracing::warn!(operation = name, outcome, status, duration_ms, "account request"),
        }
        response
    }

    /// One operation, from limits to answer.
    async fn run(
        self: &Arc<Self>,
        row: &'static Row,
        headers: &HeaderMap,
        carrier: &Carrier<'_>,
        body: RequestBody,
        peer: Option<IpAddr>,
    ) -> Result<Reply, AccountError> {
        let address = self.address(headers, peer);
        self.limits.request(&address).map_err(AccountError::rate_limited)?;
        let refresh_cookie = match row.flow {
            Flow::Refresh | Flow::Logout => carrier.refresh_token()?,
            _ => None,
        };
        let has_more = refresh_cookie.is_some() || carrier.reads() && row.credential == Credential::TokenOrSession;
        let bearer = match self.bearer(row, headers, carrier).await {
            // An access cookie goes with its token, or is of another sign-in than this one.
            Err(error) if error.status == 401 && has_more => None,
            bearer => bearer?,
        };
        let body = body::read(headers, body).await?;
        let members = Members::read(row, &body, refresh_cookie.as_deref().map(|token| ("refreshToken", token)))?;
        drop(body);
        let session = members.text("session").filter(|_| row.credential == Credential::TokenOrSession);
        // What a browser sends by itself does not stand against what the page has said.
        let bearer = bearer.filter(|bearer| session.is_none() || !bearer.is_cookie);
        let user = match (&bearer, session) {
            (Some(_), Some(_)) => {
                return Err(AccountError::invalid_request("Send an access token or a session, not both."));
            }
            (Some(bearer), None) => bearer.user.clone(),
            // Nobody says whose it is, and it is no name.
            (None, Some(session)) => format!("session\0{session}"),
            (None, None) if row.credential == Credential::TokenOrSession => return Err(caller::no_token()),
            (None, None) => members.user(row).unwrap_or_default().to_owned(),
        };
        self.count(row, &members, &address, &user)?;
        // Signing out has a second way, without the scope.
        let wants_scope = row.operation.takes_access_token() && row.flow != Flow::Logout;
        if wants_scope && bearer.as_ref().is_some_and(|bearer| !bearer.may_manage_account) {
            return Err(AccountError::new(row.refusal, Code::ScopeMissing));
        }

        let asked = Instant::now();
        let deadline = asked + CLIENT_PATIENCE;
        match (row.flow, row.success, &bearer) {
            (Flow::Refresh, ..) => self.refresh(row, &members).await,
            (Flow::Logout, Success::LoggedOut(message), bearer) => {
                self.logout(row, bearer.as_ref(), &members, message, deadline).await
            }
            (Flow::Oauth, ..) => match &self.oauth {
                Some(oauth) => self.oauth_token(oauth, row, &members, carrier, deadline).await,
                None => Err(AccountError::new(404, Code::NotFound)),
            },
            (Flow::Update, _, Some(bearer)) => self.update(row, bearer, &members, deadline).await,
            (Flow::Totp, _, bearer) => self.totp(row, bearer.as_ref(), &members, deadline).await,
            _ => {
                let attempt = Attempt { address: &address, name: &user };
                let result = self.plain(row, &members, bearer.as_ref(), attempt, deadline).await;
                if self.is_telling(row, &members, &result) {
                    sleep_until(asked + self.settings.min_failure_time).await;
                }
                result
            }
        }
    }

    /// `true` if the time that an answer took could tell whether a user exists.
    fn is_telling(&self, row: &Row, members: &Members, result: &Result<Reply, AccountError>) -> bool {
        match row.hides {
            Hides::Nothing => self.settings.hide_users && row.operation == Operation::SignUp,
            // A challenge comes before anything was proven, unless it is the answer to a password.
            Hides::Failures => result.as_ref().map_or(true, |reply| {
                let shows_password = row.operation == Operation::InitiateAuth && members.text("authFlow").is_none();
                reply.outcome == CHALLENGE && !shows_password
            }),
            Hides::All => true,
        }
    }

    /// One call of Cognito and its answer.
    async fn plain(
        &self,
        row: &'static Row,
        members: &Members,
        bearer: Option<&Bearer>,
        attempt: Attempt<'_>,
        deadline: Instant,
    ) -> Result<Reply, AccountError> {
        let token = bearer.map(|bearer| &*bearer.token);
        let call = call::call(row, members, token, &self.settings.allowed, attempt.address.ip())?;
        let by_session = row.credential == Credential::TokenOrSession && bearer.is_none();
        match self.client.call(call, deadline).await {
            Ok(answer) if row.success == Success::Tokens => {
                // In an answer to a challenge the name is the caller's word: it is the session that counts there.
                let attempt = Some(attempt).filter(|_| row.operation == Operation::InitiateAuth);
                self.tokens_or_challenge(&answer, attempt, deadline).await
            }
            Ok(answer) => {
                match (row.success, bearer) {
                    (Success::Registered(_), _) => self.signed_up(row, members, &answer),
                    (Success::Profile, Some(bearer)) => self.shown(&bearer.user, &profile::attributes(&answer)),
                    _ => {}
                }
                self.done(row, &answer, by_session)
            }
            Err(error) => self.settle(row, &error, by_session),
        }
    }

    /// What an error of Cognito's is to the client, and what the operator should know of it.
    fn settle(&self, row: &'static Row, error: &CognitoError, by_session: bool) -> Result<Reply, AccountError> {
        if let Some(advice) = error::advice(row, error) {
            tracing::error!(operation = row.name, error = %error, advice, "the account API needs its operator");
        }
        match error::judge(row, error, Asked { hide_users: self.settings.hide_users, by_session }) {
            Judgement::AsIfDone => {
                if row.hides != Hides::All {
                    tracing::info!(operation = row.name, error = %error, "answered as a success (--account-hide-users)");
                }
                self.done(row, &Map::new(), by_session)
            }
            Judgement::Error(error) => Err(error),
        }
    }

    fn refusal(&self, error: &AccountError, allow: &str) -> Answer {
        let body = json!({"message": error.message, "code": error.code.as_str()}).to_string();
        let mut response = response(error.status, body);
        let headers = response.headers_mut();
        if let Some(seconds) = error.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        match error.status {
            401 => drop(headers.insert(header::WWW_AUTHENTICATE, self.challenge.clone())),
            405 => headers.extend(HeaderValue::from_str(allow).ok().map(|allow| (header::ALLOW, allow))),
            _ => {}
        }
        response
    }
}

/// The methods of a path.
fn allow<'m>(methods: impl Iterator<Item = &'m Method>) -> String {
    let methods: Vec<_> =
        methods.map(|method| if method == Method::GET { "GET, HEAD" } else { method.as_str() }).collect();
    methods.join(", ")
}

fn response(status: u16, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Now.
fn unix_now() -> UnixTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    UnixTime::try_from(now).unwrap_or(UnixTime::MAX)
}
