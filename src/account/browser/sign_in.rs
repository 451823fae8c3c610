//! Starting, completing and renewing a session by redirects.

use tokio::time::Instant;

use super::attempt::{Attempt, Target};
use super::page::{Page, Step, hosted_code};
use super::return_to::ReturnTo;
use super::rounds::Rounds;
use super::{Browser, Redirect, Refusal, Visit, invalid_state};
use crate::account::body::Members;
use crate::account::context::{CLIENT_PATIENCE, unix_now};
use crate::account::error::{AccountError, Code};
use crate::account::oauth::state::Purpose;
use crate::account::oauth::{Authorization, Begun, Proof, Unfinished, parameter};
use crate::request_id;

const AGAIN: &str = "Sign in again";
const RETRY: &str = "Try again";
const ENDED: &str = "Your earlier sign-in was ended, and the sign-in page has used it again. Sign out there first.";

impl Browser {
    /// Renews the session, unless the user has to log in again, or else starts a sign-in.
    pub(super) async fn sign_in(&self, visit: &Visit<'_>, login_again: bool) -> Result<Redirect, Refusal> {
        let return_to = visit.return_to();
        let rounds = visit.rounds(&return_to);
        if rounds.is_full() {
            let step = visit.sign_in_again(&return_to, login_again, RETRY);
            let page = Page::sign_in(AccountError::new(400, Code::SignInLoop), Some(step));
            // The next round starts only if the user wants it.
            return Err(Refusal { cookies: vec![rounds.forget()], ..page.into() });
        }
        if !login_again && let Some(redirect) = self.renew(visit, &return_to, &rounds).await? {
            return Ok(redirect);
        }
        self.begin(visit, &Target { return_to, login_again })
    }

    /// Renews the session with the refresh token in the request's cookies. Returns `None` if there is none, or if Cognito
    /// refuses it; then a sign-in replaces the cookies. They are not deleted here, because a renewal in another tab may
    /// have replaced them.
    async fn renew(
        &self,
        visit: &Visit<'_>,
        return_to: &ReturnTo,
        rounds: &Rounds<'_>,
    ) -> Result<Option<Redirect>, Refusal> {
        let Ok(Some(token)) = visit.transport.refresh_token() else { return Ok(None) };
        let row = self.rows.refresh;
        let Ok(members) = Members::read(row, b"", Some(&token)) else { return Ok(None) };
        let mut result = self.refreshes.refresh(&self.context, row, &members).await;
        let cookies = visit.transport.pack(Some(row), &mut result);
        match result {
            Ok(_) if !cookies.is_empty() => Ok(Some(completed(return_to, rounds, cookies))),
            Err(error) if matches!(error.status, 429 | 503) || error.code == Code::SessionTooLarge => {
                let step = visit.sign_in_again(return_to, false, RETRY);
                Err(Page::sign_in(error, Some(step)).into())
            }
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Sends the browser to the hosted pages.
    fn begin(&self, visit: &Visit<'_>, target: &Target) -> Result<Redirect, Refusal> {
        let failed = |error: AccountError| {
            let step = visit.sign_in_again(&target.return_to, target.login_again, RETRY);
            Refusal::from(Page::sign_in(error, Some(step)))
        };
        let Some(callback) = self.own_callback(visit.headers) else {
            let message = "This host is not set up for signing in.";
            return Err(Page::sign_in(AccountError::invalid_request(message), None).into());
        };
        let holder = target.bound();
        let (redirect_uri, login_again) = (callback.uri.as_str(), target.login_again);
        let asked =
            Authorization { purpose: Purpose::Navigation, redirect_uri, holder: &holder, provider: None, login_again };
        let begun = self.oauth.begin(self.context.settings.client_id.as_str(), &asked);
        let Begun { url, state, verifier } = begun.map_err(&failed)?;
        let attempt = Attempt { verifier, target: target.clone() };
        let cookies = attempt.keep(&state, unix_now(), visit.transport.cookies());
        let cookies = cookies.map_err(|_| failed(AccountError::upstream()))?;
        Ok(Redirect { location: url.into(), cookies })
    }

    /// Completes a sign-in with the code from the hosted pages.
    pub(super) async fn callback(&self, visit: &Visit<'_>) -> Result<Redirect, Refusal> {
        let given = |name| parameter(visit.query, name);
        let (Ok(state), Ok(code), Ok(error), Ok(issuer)) =
            (given("state"), given("code"), given("error"), given("iss"))
        else {
            let step = visit.sign_in_again(&visit.home(), false, AGAIN);
            return Err(Page::sign_in(AccountError::new(400, Code::InvalidRequest), Some(step)).into());
        };
        let state = state.unwrap_or_default();
        let Some(attempt) = Attempt::read(&state, visit.transport.cookies(), visit.prefix) else {
            return self.stale(visit, None).await;
        };
        let Attempt { verifier, target } = attempt;
        let is_from_elsewhere = issuer.is_some_and(|issuer| !self.is_issuer(&issuer));
        let Some(callback) = self.own_callback(visit.headers).filter(|_| !is_from_elsewhere) else {
            return self.stale(visit, None).await;
        };
        let gone = || Attempt::clear(&state);
        let holder = target.bound();
        let redirect_uri = callback.uri.as_str();
        let proof = Proof { purpose: Purpose::Navigation, verifier: &verifier, redirect_uri, holder: &holder };
        let Some(used) = self.oauth.use_up(&state, &proof) else {
            return self.stale(visit, gone()).await;
        };
        let failed = |error| {
            // The hosted pages have used the old sign-in again, so only its end helps.
            let (error, step) = match error {
                error if is_dead(&error) => {
                    (AccountError { message: ENDED.into(), ..error }, visit.sign_out("Sign out"))
                }
                error => (error, visit.sign_in_again(&target.return_to, target.login_again, AGAIN)),
            };
            Refusal { cookies: gone().into_iter().collect(), ..Page::sign_in(error, Some(step)).into() }
        };
        if let Some(error) = error {
            let mut refusal = failed(AccountError::new(400, Code::SignInFailed));
            let code = hosted_code(&error);
            tracing::info!(request_id = request_id::current(), code, "the hosted pages ended a sign-in");
            refusal.page.hosted_code = Some(code);
            return Err(refusal);
        }
        let code = code.ok_or_else(|| failed(AccountError::new(400, Code::InvalidRequest)))?;
        let deadline = Instant::now() + CLIENT_PATIENCE;
        let row = self.rows.exchange;
        let mut result = match self.oauth.exchange_code(&self.context, row, &code, &proof, &used, deadline).await {
            // The URL of this request is the only place that has the code, so the same request has to be repeated.
            Err(Unfinished { error, can_retry: true }) => {
                return Err(Page::sign_in(error, Some(Step::Repeat)).into());
            }
            // The hosted pages used an earlier sign-in of the user, which was revoked here.
            Err(Unfinished { error, .. }) if is_dead(&error) && !target.login_again => {
                let mut again = self.begin(visit, &Target { login_again: true, ..target.clone() })?;
                again.cookies.extend(gone());
                return Ok(again);
            }
            result => result.map_err(|unfinished| unfinished.error),
        };
        let cookies = visit.transport.pack(Some(row), &mut result);
        match result {
            Ok(_) if !cookies.is_empty() => {
                let mut redirect = completed(&target.return_to, &visit.rounds(&target.return_to), cookies);
                redirect.cookies.extend(gone());
                Ok(redirect)
            }
            Ok(_) => Err(failed(AccountError::upstream())),
            Err(error) => Err(failed(error)),
        }
    }

    /// Ends a callback that belongs to no sign-in in progress: the back button, a page that was restored, cookies that
    /// are blocked, or a link of an attacker. A browser that is signed in goes on.
    async fn stale(&self, visit: &Visit<'_>, cookie: Option<String>) -> Result<Redirect, Refusal> {
        let bearer = self.context.bearer(self.rows.sign_out, visit.headers, &visit.transport).await;
        let cookies = cookie.into_iter().collect();
        let home = visit.home();
        if matches!(bearer, Ok(Some(bearer)) if bearer.is_cookie) {
            return Ok(Redirect { location: home.as_str().to_owned(), cookies });
        }
        let step = visit.sign_in_again(&home, false, AGAIN);
        Err(Refusal { cookies, ..Page::sign_in(invalid_state(), Some(step)).into() })
    }

    /// `true` if a response of the authorization server may name this issuer (RFC 9207).
    fn is_issuer(&self, issuer: &str) -> bool {
        let rules = self.context.authorizer.rules();
        let pool = rules.pools.named(&self.context.settings.pool);
        pool.is_some_and(|pool| pool.issuers.iter().any(|own| own == issuer)) || self.oauth.origin() == issuer
    }
}

impl<'r> Visit<'r> {
    fn home(&self) -> ReturnTo {
        ReturnTo::parse("/", self.prefix)
    }

    fn rounds(&self, return_to: &ReturnTo) -> Rounds<'r> {
        let cookies: Vec<_> = self.transport.cookies().collect();
        Rounds::read(return_to, cookies.into_iter(), unix_now())
    }
}

/// Returns to the page of a session that is new or renewed.
fn completed(return_to: &ReturnTo, rounds: &Rounds<'_>, tokens: Vec<String>) -> Redirect {
    let cookies = tokens.into_iter().chain(rounds.completed(unix_now())).collect();
    Redirect { location: return_to.as_str().to_owned(), cookies }
}

/// `true` for new tokens of a session that was revoked.
fn is_dead(error: &AccountError) -> bool {
    (error.status, error.code) == (401, Code::InvalidToken)
}
