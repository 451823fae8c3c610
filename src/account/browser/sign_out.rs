//! Ending a session: here, at Cognito, and at the hosted pages.

use tokio::time::Instant;

use super::page::Page;
use super::{Browser, Redirect, Refusal, Visit, navigation};
use crate::account::body::Members;
use crate::account::context::CLIENT_PATIENCE;
use crate::account::error::{AccountError, Code};
use crate::account::sign_out::Ending;
use crate::session_cookie::ShortLived;

impl Browser {
    /// Signs the user out, unless another site may have caused the request: then a page asks the user.
    pub(super) async fn sign_out(&self, visit: &Visit<'_>) -> Result<Redirect, Refusal> {
        let origin = self.own_callback(visit.headers).map(|callback| callback.origin.as_bytes());
        if navigation::is_of_other_site(visit.method, visit.headers, origin) {
            let error = AccountError {
                message: "Another page sent you here. Nothing has changed yet.".into(),
                ..AccountError::new(403, Code::CrossSite)
            };
            return Err(Page::sign_out(error, Some(visit.sign_out("Sign out"))).into());
        }
        let failed = |error| Page::sign_out(error, Some(visit.sign_out("Try again")));
        self.end_session(visit).await.map_err(failed)?;
        let hosted = self.oauth.logout_url(self.context.settings.client_id.as_str(), None).map_err(failed)?;
        let mut cookies = visit.transport.clear();
        for kind in ShortLived::ALL {
            cookies.extend(kind.all(visit.transport.cookies()).map(|(id, _)| kind.clear(id)));
        }
        Ok(Redirect { location: hosted.map_or_else(|| "/".to_owned(), Into::into), cookies })
    }

    /// Ends the session of the cookies at Cognito, and revokes it here. Of tokens that Cognito does not accept any more,
    /// it ends only here.
    ///
    /// # Errors
    /// [`AccountError`] if Cognito has not confirmed the end. The cookies have to stay, so that the user can try again.
    async fn end_session(&self, visit: &Visit<'_>) -> Result<(), AccountError> {
        let (context, row) = (&self.context, self.rows.sign_out);
        let bearer = match context.bearer(row, visit.headers, &visit.transport).await {
            Ok(bearer) => bearer.filter(|bearer| bearer.is_cookie),
            Err(error) if error.status == 401 => None,
            Err(error) => return Err(error),
        };
        let refresh = visit.transport.refresh_token().ok().flatten();
        if bearer.is_none() && refresh.is_none() {
            return Ok(());
        }
        let members = Members::read(row, b"", refresh.as_deref())?;
        let ending = Ending { row, bearer, members, hosted: None, is_final: true };
        match context.end_sessions(ending, Instant::now() + CLIENT_PATIENCE).await {
            Err(error) if !matches!(error.code, Code::InvalidToken | Code::ScopeMissing) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
