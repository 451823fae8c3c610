//! Signing out: `GlobalSignOut` with the access token, `RevokeToken` with the refresh token, or both. The session at the
//! hosted sign-in pages is a cookie of theirs: only the browser can end it, and is told where.
//!
//! "Signed out" is said when Cognito has confirmed it and not before. `NotAuthorized` confirms it for a token that we
//! have verified and that may do this: then it can only be dead already. (Of any other token it would only say
//! that it is bad.)

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::body::Members;
use super::caller::Bearer;
use super::error::{AccountError, Code};
use super::table::Row;
use super::{Account, Reply};
use crate::cognito::error::{CognitoError, ErrorName};
use crate::cognito::{Call, Operation};

impl Account {
    pub(super) async fn logout(
        &self,
        row: &'static Row,
        bearer: Option<&Bearer>,
        members: &Members,
        message: &str,
        deadline: Instant,
    ) -> Result<Reply, AccountError> {
        let refresh = members.text("refreshToken");
        // Before anything is ended: a bad request changes nothing.
        let hosted = match &self.oauth {
            None => None,
            Some(oauth) => oauth.logout_url(self.settings.client_id.as_str(), members.text("logoutUri"))?,
        };
        let hosted = hosted.filter(|_| bearer.is_none_or(|bearer| bearer.may_be_of_hosted_ui));
        let manager = bearer.filter(|bearer| bearer.may_manage_account);
        if let Some(bearer) = manager {
            let call = one_member(Operation::GlobalSignOut, "AccessToken", &bearer.token);
            match self.client.call(call, deadline).await {
                Ok(_) => {}
                Err(CognitoError::Refused(refusal)) if refusal.name == ErrorName::NotAuthorized => {}
                Err(error) => return self.settle(row, &error, false),
            }
        }
        match refresh {
            None if manager.is_none() => return Err(AccountError::new(row.refusal, Code::ScopeMissing)),
            None => {}
            Some(refresh) => {
                let call = one_member(Operation::RevokeToken, "Token", refresh);
                match self.client.call(call, deadline).await {
                    Ok(_) => {}
                    // Everything of this user has ended; one token of theirs more or less does not matter.
                    Err(_) if manager.is_some() => {}
                    Err(error) => return self.settle(row, &error, false),
                }
            }
        }
        // What was signed out is known to this process only.
        let mut body = json!({"message": message, "scope": "replica"});
        if let (Some(url), Some(body)) = (hosted, body.as_object_mut()) {
            body.insert("hostedUiLogoutUrl".into(), url.as_str().into());
        }
        Ok(Reply::new(200, "success", body))
    }
}

fn one_member(operation: Operation, name: &str, value: &str) -> Call {
    Call { operation, user: None, members: Map::from_iter([(name.to_owned(), Value::from(value))]) }
}
