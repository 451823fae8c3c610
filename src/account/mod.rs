//! The account API: the auth routes that applications usually write themselves (sign up, sign in, sign out, ...). It
//! takes and returns JSON and calls Cognito's user-pool API.
//!
//! Operations are rows of one table ([`table`]). Reading order: `http.rs` routes a request and writes the response;
//! [`Service`] runs one operation: address limit, access token, body, user limit, handler. Handlers are methods of
//! [`context::Context`], in `refresh.rs`, `sign_out.rs`, `own_account.rs` and `oauth.rs`; most operations need none, only `call.rs`
//! and `answer.rs`. [`protected_resources`] serves the metadata of protected resources, which is public.
//!
//! [`browser`] is the part for navigations: sign-in and sign-out by redirect, with pages in place of JSON.
//!
//! Responses do not reveal who has an account: see [`error::judge`] and `--account-min-failure-time`. Nothing from a
//! request or a response is logged except its id, a refused origin, and names of operations and of Cognito's errors.

mod answer;
mod body;
mod browser;
pub(crate) mod call;
mod caller;
mod context;
pub(crate) mod cors;
mod counted;
mod error;
mod http;
pub(crate) mod oauth;
mod openapi;
pub(crate) mod outcomes;
mod own_account;
mod passkeys;
mod protected_resources;
pub(crate) mod rate_limit;
mod refresh;
mod settings;
mod sign_out;
mod table;
mod token_transport;
mod traced;

use std::net::IpAddr;
use std::sync::Arc;

use ::http::header::HeaderMap;
use tokio::time::{Instant, sleep_until};
use url::Url;

use self::answer::{CHALLENGE, Reply};
use self::body::Members;
use self::browser::Browser;
use self::caller::Bearer;
use self::context::{CLIENT_PATIENCE, Context};
use self::counted::Attempt;
use self::error::{AccountError, Code};
pub use self::http::Account;
use self::oauth::Oauth;
use self::refresh::Refreshes;
pub use self::settings::{AppUri, Cookies, HostedUi, HostedUiDomain, Issuer, Prefix, RefreshFlow, Scope, Settings};
use self::sign_out::Ending;
use self::table::{Credential, Flow, Hides, Limit, Row, Success};
use self::token_transport::TokenTransport;
use crate::net::http_server::RequestBody;

/// Runs operations, without HTTP's routes and responses.
#[derive(Debug)]
struct Service {
    context: Arc<Context>,
    refreshes: Arc<Refreshes>,
    /// Hosted sign-in pages, if they are used.
    oauth: Option<Arc<Oauth>>,
    /// Sign-in by redirect, if it is on.
    browser: Option<Browser>,
}

impl Service {
    fn new(context: Context) -> Self {
        let oauth = context.settings.hosted_ui.clone().map(|settings| Arc::new(Oauth::new(settings)));
        let (context, refreshes) = (Arc::new(context), Arc::default());
        let browser = oauth.as_ref().and_then(|oauth| Browser::new(&context, &refreshes, oauth));
        Self { context, refreshes, oauth, browser }
    }

    /// Runs one operation, from the limits to the response. `path` is below the prefix.
    async fn run(
        &self,
        row: &'static Row,
        (path, query): (&str, &str),
        headers: &HeaderMap,
        transport: &TokenTransport<'_>,
        body: RequestBody,
        peer: Option<IpAddr>,
    ) -> Result<Reply, AccountError> {
        let context = &self.context;
        let address = context.address(headers, peer);
        context.limits.request(&address).map_err(AccountError::rate_limited)?;
        let refresh_cookie = if row.takes_refresh_token() { transport.refresh_token()? } else { None };
        let has_more = refresh_cookie.is_some() || transport.reads() && row.credential == Credential::TokenOrSession;
        let bearer = match context.bearer(row, headers, transport).await {
            // The access cookie has expired before the refresh cookie, or belongs to another sign-in than this one.
            Err(error) if error.status == 401 && has_more => None,
            bearer => bearer?,
        };
        let body = body::read(headers, body).await?;
        let members = Members::read(row, &body, refresh_cookie.as_deref())?.and_url(row, path, query)?;
        drop(body);
        let session = members.text("session").filter(|_| row.credential == Credential::TokenOrSession);
        // The browser adds cookies to every request, so the member that the page sends takes precedence.
        let bearer = bearer.filter(|bearer| session.is_none() || !bearer.is_cookie);
        let user = match (&bearer, session) {
            (Some(_), Some(_)) => {
                let message = "Send an access token or a session, not both.";
                return Err(AccountError::invalid_member("session", message));
            }
            (Some(bearer), None) => bearer.user.clone(),
            // The user of a session is unknown. The key must not be the name of a user.
            (None, Some(session)) => format!("session\0{session}"),
            (None, None) if row.credential == Credential::TokenOrSession => return Err(caller::no_token()),
            (None, None) => members.user(row).unwrap_or_default().to_owned(),
        };
        context.count(row, &members, &address, &user)?;
        let needs_scope = matches!(row.credential, Credential::Token | Credential::TokenOrSession);
        if needs_scope && bearer.as_ref().is_some_and(|bearer| !bearer.may_manage_account) {
            return Err(AccountError::new(row.refusal, Code::ScopeMissing));
        }

        let asked = Instant::now();
        let deadline = asked + CLIENT_PATIENCE;
        match (row.flow, &bearer) {
            (Flow::Refresh, _) => self.refreshes.refresh(context, row, &members).await,
            (Flow::Logout | Flow::EndSessions, _) => {
                // Checked first, so that a bad request has no effect.
                let hosted = self.hosted_sign_out(row, bearer.as_ref(), &members)?;
                context.end_sessions(Ending { row, bearer, members, hosted, is_final: false }, deadline).await
            }
            (Flow::Oauth, _) => match &self.oauth {
                Some(oauth) => oauth.exchange(context, row, &members, transport, deadline).await,
                None => Err(AccountError::new(404, Code::NotFound)),
            },
            (Flow::Update, Some(bearer)) => context.update(row, bearer, &members, deadline).await,
            (Flow::Totp, bearer) => context.totp(row, bearer.as_ref(), &members, deadline).await,
            _ => {
                let attempt = Attempt { address: &address, name: &user };
                let result = context.plain(row, &members, bearer.as_ref(), attempt, deadline).await;
                if context.must_hide(row, &members, &result) {
                    sleep_until(asked + context.settings.min_failure_time).await;
                }
                result
            }
        }
    }

    /// Returns the URL that ends the session at the hosted pages, if the token can come from there.
    fn hosted_sign_out(
        &self,
        row: &Row,
        bearer: Option<&Bearer>,
        members: &Members,
    ) -> Result<Option<Url>, AccountError> {
        let Some(oauth) = self.oauth.as_ref().filter(|_| row.flow == Flow::Logout) else { return Ok(None) };
        let url = oauth.logout_url(self.context.settings.client_id.as_str(), members.text("logoutUri"))?;
        Ok(url.filter(|_| bearer.is_none_or(|bearer| bearer.may_be_of_hosted_ui)))
    }
}

impl Context {
    /// `true` if the duration of a response could reveal whether a user exists.
    fn must_hide(&self, row: &Row, members: &Members, result: &Result<Reply, AccountError>) -> bool {
        match row.hides {
            Hides::Nothing => false,
            Hides::SignUp => self.settings.hide_users,
            // A challenge proves nothing, unless it is the response to a correct password.
            Hides::Failures => {
                result.as_ref().map_or(true, |reply| reply.outcome == CHALLENGE && !members.is_password_sign_in(row))
            }
            Hides::All => true,
        }
    }

    /// Makes one call of Cognito and the response.
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
                let attempt = Some(attempt).filter(|_| row.limit == Limit::SignIn);
                self.tokens_or_challenge(&answer, attempt, deadline).await
            }
            Ok(answer) => {
                match (row.success, bearer) {
                    (Success::Registered(_), _) => self.signed_up(row, members, &answer),
                    (Success::Profile, Some(bearer)) => self.shown(&bearer.user, &answer::attributes(&answer)),
                    _ => {}
                }
                self.done(row, &answer, by_session)
            }
            Err(error) => self.settle(row, &error, by_session),
        }
    }
}
