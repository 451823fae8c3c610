//! Operations that end sessions: sign-out, revocation of one session, change of the password, deletion of the user.
//!
//! Signing out calls `GlobalSignOut` with the access token, `RevokeToken` with the refresh token, or both. The session
//! at the hosted sign-in pages is a cookie of their domain: only the browser can end it, and the response has the URL.
//! A sign-out succeeds only once Cognito has confirmed it. `NotAuthorized` is a confirmation for a verified token with
//! the required scope, because such a token can only have been revoked before; for other tokens it is not.
//!
//! Cognito ends refresh tokens, but access tokens stay formally valid. So what Cognito has confirmed is recorded as a
//! revocation, which every check asks about: for a sign-out, all tokens of sign-ins up to the second T in which Cognito
//! answered, by its own clock. The response is held until that clock has passed T, so that a sign-in after the response
//! is later than T, whatever our clock says. All of this continues when the client disconnects: Cognito's part would
//! otherwise be done, and ours not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use url::Url;

use super::answer::Reply;
use super::body::Members;
use super::call;
use super::caller::Bearer;
use super::context::{Context, unix_now};
use super::error::{AccountError, Code};
use super::table::{Flow, Revokes, Row};
use crate::clock::UnixTime;
use crate::cognito::error::{CognitoError, ErrorName};
use crate::cognito::{Call, Dated};
use crate::request_id;
use crate::revocation::{Kind, Revocation};
use crate::telemetry::{Kind as SpanKind, current};

/// `Date` counts whole seconds, so a second after a response Cognito's clock has passed the second that it names.
const PRECISION_OF_DATE: Duration = Duration::from_secs(1);

/// Request that ends sessions.
pub(super) struct Ending {
    pub(super) row: &'static Row,
    /// The caller. `None` if there is only a refresh token, in a cookie.
    pub(super) bearer: Option<Bearer>,
    pub(super) members: Members,
    /// Sign-out of the hosted pages, which only the browser can do.
    pub(super) hosted: Option<Url>,
    /// `true` if the caller's session ends here even if Cognito has nothing to end: it does not know the refresh token any
    /// more, or the access token lacks the scope. A copy of the access token would otherwise work until it expires.
    pub(super) is_final: bool,
}

impl Context {
    /// Ends sessions at Cognito and here. Runs in a task of its own, so that it continues when the client disconnects.
    ///
    /// # Errors
    /// [`AccountError`]. 503 also if the revocation is in effect here but could not be written.
    pub(super) async fn end_sessions(
        self: &Arc<Self>,
        ending: Ending,
        deadline: Instant,
    ) -> Result<Reply, AccountError> {
        let context = Arc::clone(self);
        let task = tokio::spawn(request_id::keep(current::carried(async move {
            let result = context.end_sessions_now(&ending, deadline).await;
            context.end_here(&ending, result).await
        })));
        task.await.unwrap_or_else(|_| Err(AccountError::upstream()))
    }

    /// Ends the caller's session here if the result is that Cognito has nothing to end, and the request asks for that.
    async fn end_here(&self, ending: &Ending, result: Result<Reply, AccountError>) -> Result<Reply, AccountError> {
        let Ending { row, bearer, is_final, .. } = ending;
        let has_nothing_to_end = |error: &AccountError| matches!(error.code, Code::InvalidToken | Code::ScopeMissing);
        if let (true, Some(bearer), Err(error)) = (is_final, bearer, &result)
            && has_nothing_to_end(error)
            && let Some(cause) = row.revokes.cause()
        {
            self.revoke(row.name, Revokes::Session(cause), bearer, None).await?;
        }
        result
    }

    async fn end_sessions_now(&self, ending: &Ending, deadline: Instant) -> Result<Reply, AccountError> {
        let Ending { row, bearer, members, hosted, .. } = ending;
        let Dated { result, date } = match (row.flow, bearer) {
            (Flow::Logout, bearer) => self.sign_out(row, bearer.as_ref(), members, deadline).await?,
            (_, bearer) => {
                let token = bearer.as_ref().map(|bearer| &*bearer.token);
                let call = call::call(row, members, token, &self.settings.allowed, None)?;
                self.client.call_dated(call, deadline).await
            }
        };
        if let Err(error) = result {
            return self.settle(row, &error, false);
        }
        if let Some(bearer) = bearer {
            self.revoke(row.name, row.revokes, bearer, date).await?;
        }
        let mut reply = self.done(row, &serde_json::Map::new(), false)?;
        if let (Some(url), Some(body)) = (hosted, reply.body.as_object_mut()) {
            body.insert("hostedUiLogoutUrl".into(), url.as_str().into());
        }
        Ok(reply)
    }

    /// Signs the user out at Cognito. The time is that of the first confirmation: it ends the sessions.
    async fn sign_out(
        &self,
        row: &'static Row,
        bearer: Option<&Bearer>,
        members: &Members,
        deadline: Instant,
    ) -> Result<Dated, AccountError> {
        let refresh = members.text("refreshToken");
        let revocation = |refresh| self.client.call_dated(Call::revoke_token(refresh), deadline);
        let Some(bearer) = bearer.filter(|bearer| bearer.may_manage_account) else {
            let refresh = refresh.ok_or_else(|| AccountError::new(row.refusal, Code::ScopeMissing))?;
            return Ok(revocation(refresh).await);
        };
        let mut signed_out = self.client.call_dated(Call::global_sign_out(&bearer.token), deadline).await;
        if let Err(CognitoError::Refused(refusal)) = &signed_out.result
            && refusal.name == ErrorName::NotAuthorized
        {
            signed_out.result = Ok(serde_json::Map::new());
        }
        if let (Ok(_), Some(refresh)) = (&signed_out.result, refresh) {
            // `GlobalSignOut` has ended all sessions of the user, so a token that cannot be revoked does not matter.
            drop(revocation(refresh).await);
        }
        Ok(signed_out)
    }

    /// Records what `by` revokes. `date` is the time of Cognito's answer, if it named one.
    async fn revoke(
        &self,
        by: &'static str,
        revokes: Revokes,
        bearer: &Bearer,
        date: Option<UnixTime>,
    ) -> Result<(), AccountError> {
        let (answered, now) = (Instant::now(), unix_now());
        let marks = &bearer.marks;
        // Whatever the clocks say, the caller's own token counts as older.
        let before = date.unwrap_or(now).max(marks.since());
        let ((kind, key), except, cause) = match revokes {
            Revokes::Nothing => return Ok(()),
            Revokes::AllSessions(cause) => (marks.subject(), None, cause),
            Revokes::OtherSessions(cause) => (marks.subject(), Some(marks.session().1), cause),
            Revokes::Session(cause) => (marks.session(), None, cause),
        };
        let revocation = Revocation { kind, key, before, except, cause };
        let span = current::child("record revocation", SpanKind::Internal);
        let recorded = self.revocations.revoke(revocation, now).await;
        let result = if recorded.is_ok() { "success" } else { "failure" };
        if let Some(mut span) = span {
            span.set("cognito_authz.revocation.kind", kind.as_str());
            span.set("cognito_authz.revocation.scope", self.revocations.scope().as_str());
            if recorded.is_err() {
                span.fail(result);
            }
        }
        tracing::info!(
            event = "revocation",
            action = "revoke",
            kind = kind.as_str(),
            id = %key,
            by,
            result,
            request_id = request_id::current(),
            "revocation"
        );
        recorded.map_err(|_| AccountError::unavailable())?;
        if kind == Kind::Subject {
            sleep_until(answered + PRECISION_OF_DATE).await;
        }
        Ok(())
    }
}
