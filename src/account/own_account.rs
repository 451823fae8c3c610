//! Operations on a signed-in user's own account that take more than one call of Cognito: changing attributes, and
//! setting up an authenticator app.
//!
//! The secret of an authenticator app is the second factor: it is in the response, and nowhere else.

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::answer::{Reply, attributes, delivery, profile, text};
use super::body::Members;
use super::call;
use super::caller::Bearer;
use super::context::Context;
use super::error::AccountError;
use super::table::Row;
use crate::cognito::Call;
use crate::request_id;

impl Context {
    /// Changes attributes, and returns the changed profile.
    ///
    /// # Errors
    /// [`AccountError`], also if the change succeeded and the profile cannot be read. Repeating the request is safe.
    pub(super) async fn update(
        &self,
        row: &'static Row,
        bearer: &Bearer,
        members: &Members,
        deadline: Instant,
    ) -> Result<Reply, AccountError> {
        let call = call::call(row, members, Some(&bearer.token), &self.settings.allowed, None)?;
        let updated = match self.client.call(call, deadline).await {
            Ok(answer) => answer,
            Err(error) => return self.settle(row, &error, false),
        };
        self.readdressed(row, members, &bearer.user);
        let mut body = match self.client.call(Call::get_user(&bearer.token), deadline).await {
            Ok(answer) => {
                self.shown(&bearer.user, &attributes(&answer));
                profile(&answer)?
            }
            Err(error) => return self.settle(row, &error, false),
        };
        let details = updated.get("CodeDeliveryDetailsList").and_then(Value::as_array);
        let deliveries: Vec<_> = details.into_iter().flatten().filter_map(|one| delivery(Some(one))).collect();
        if !deliveries.is_empty() {
            body.insert("deliveries".into(), deliveries.into());
        }
        Ok(Reply::success(200, body))
    }

    /// Creates a secret for the user of the token or of the session.
    pub(super) async fn totp(
        &self,
        row: &'static Row,
        bearer: Option<&Bearer>,
        members: &Members,
        deadline: Instant,
    ) -> Result<Reply, AccountError> {
        let token = bearer.map(|bearer| &*bearer.token);
        let call = call::call(row, members, token, &self.settings.allowed, None)?;
        let answer = match self.client.call(call, deadline).await {
            Ok(answer) => answer,
            Err(error) => return self.settle(row, &error, bearer.is_none()),
        };
        let Some(secret) = text(&answer, "SecretCode") else {
            tracing::warn!(request_id = request_id::current(), "Cognito's answer has no secret for an authenticator");
            return Err(AccountError::upstream());
        };
        if !self.settings.is_issuer_chosen {
            self.warned.issuer.warn(
                "a user sets up an authenticator app, and it shows the default of --realm as the name of this service: \
                 set --totp-issuer to a name that users know",
            );
        }
        let account = match (members.text("username").or(members.text("email")), bearer) {
            (Some(name), _) => Some(name.to_owned()),
            (None, Some(bearer)) => Some(self.account_name(bearer, deadline).await),
            (None, None) => None,
        };
        let mut body = Map::new();
        body.insert("secret".into(), secret.into());
        body.insert("otpauthUrl".into(), self.settings.totp_issuer.url(account.as_deref(), secret).into());
        // With an access token there is no sign-in to continue.
        if let (None, Some(session)) = (bearer, text(&answer, "Session")) {
            body.insert("session".into(), session.into());
        }
        Ok(Reply::success(200, body))
    }

    /// Returns the name to show for the account: an address of the user, because in many pools the user name is a UUID.
    /// Falls back to the user name if there is no address or Cognito does not respond.
    async fn account_name(&self, bearer: &Bearer, deadline: Instant) -> String {
        let user = self.client.call(Call::get_user(&bearer.token), deadline).await;
        let mut attributes = user.as_ref().map(attributes).unwrap_or_default();
        match ["email", "phone_number"].into_iter().find_map(|name| attributes.remove(name)) {
            Some(Value::String(address)) => address,
            _ => bearer.user.clone(),
        }
    }
}
