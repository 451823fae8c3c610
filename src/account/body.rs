//! Reads the members of a request, most of which are in its body: JSON, of limited size, within limited time, with the types that the row's fields have.

use http::header::HeaderMap;
use percent_encoding::percent_decode_str;
use prost::bytes::Bytes;
use serde_json::{Map, Value};

use super::error::{AccountError, Code};
use super::oauth;
use super::table::{AUTH_FLOWS, Field, MAX_ID, Need, Place, Row, Shape, Target};
use crate::net::http_server::RequestBody;
use crate::net::json_body::{self, BodyError};

/// Reads a body.
///
/// # Errors
/// [`AccountError`]: 415 for another type or a compressed body, 413 if it is too large, 400 if it does not arrive.
pub(super) async fn read(headers: &HeaderMap, body: RequestBody) -> Result<Bytes, AccountError> {
    json_body::read(headers, body).await.map_err(|error| match error {
        BodyError::Type => AccountError::new(415, Code::UnsupportedMediaType),
        BodyError::TooLarge => AccountError::new(413, Code::TooLarge),
        BodyError::Late => AccountError::invalid_request("The body did not arrive in time."),
        BodyError::BrokenOff => AccountError::invalid_request("The body broke off."),
    })
}

/// Members of a request that the row has fields for, with the right types. It has no `Debug`, because they are secrets and
/// names.
#[derive(Default)]
pub(super) struct Members {
    members: Map<String, Value>,
}

impl Members {
    /// Parses `body`. If it has no refresh token, `refresh_token` of the session takes its place.
    ///
    /// # Errors
    /// [`AccountError`] 400: the body is not a JSON object, or a member has the wrong type or is missing.
    pub(super) fn read(row: &Row, body: &[u8], refresh_token: Option<&str>) -> Result<Self, AccountError> {
        let body = if body.is_empty() { b"{}" } else { body };
        let Ok(Value::Object(mut all)) = serde_json::from_slice(body) else {
            return Err(AccountError::invalid_request("The body has to be a JSON object."));
        };
        let target = row.fields.iter().find(|field| field.target == Target::RefreshToken);
        if let (Some(field), Some(token)) = (target, refresh_token)
            && all.get(field.name).is_none_or(|value| value.is_null() || value == "")
        {
            all.insert(field.name.into(), token.into());
        }
        let mut members = Map::new();
        for field in row.body_fields() {
            let Some(value) = all.remove(field.name).filter(|value| !value.is_null()) else { continue };
            if is_present(field, &value)? {
                members.insert(field.name.into(), value);
            }
        }
        let members = Self { members };
        members.check(row)?;
        Ok(members)
    }

    fn check(&self, row: &Row) -> Result<(), AccountError> {
        let has = |name| self.members.contains_key(name);
        let missing = row.body_fields().find(|field| match field.need {
            Need::Yes => !has(field.name),
            Need::No => false,
            Need::Unless(other) => !has(field.name) && !has(other),
            Need::User => self.user(row).is_none(),
            Need::Any => !row.fields.iter().any(|field| field.need == Need::Any && has(field.name)),
        });
        if let Some(field) = missing {
            return Err(AccountError::invalid_member(field.name, row.requirement()));
        }
        let is_preferred =
            |field: &&Field| self.factor(field.name).is_some_and(|(_, preferred)| preferred == Some(true));
        if let Some(field) = row.fields.iter().filter(is_preferred).nth(1) {
            return Err(AccountError::invalid_member(field.name, "Only one second factor can be preferred."));
        }
        for field in row.fields.iter().filter(|field| field.target == Target::AuthFlow) {
            if self.text(field.name).is_some_and(|flow| !AUTH_FLOWS.contains(&flow)) {
                let message = format!("{} has to be one of {}", field.name, AUTH_FLOWS.join(", "));
                return Err(AccountError::invalid_member(field.name, message));
            }
        }
        Ok(())
    }

    /// Adds the members that are in the URL: `path` is below the prefix.
    ///
    /// # Errors
    /// [`AccountError`] 400: a member does not have the required form, or is there twice.
    pub(super) fn and_url(mut self, row: &Row, path: &str, query: &str) -> Result<Self, AccountError> {
        for field in row.fields {
            let text = match field.place {
                Place::Body => None,
                // Bytes that are not UTF-8 are in no identifier.
                Place::Path => row.segment(path).map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned()),
                Place::Query => oauth::parameter(query, field.name)?,
            };
            if let Some(value) = text.map(Value::from)
                && is_present(field, &value)?
            {
                self.members.insert(field.name.into(), value);
            }
        }
        Ok(self)
    }

    /// Returns a member that is an object with any members.
    pub(super) fn document(&self, name: &str) -> Option<&Map<String, Value>> {
        self.members.get(name).and_then(Value::as_object)
    }

    /// Returns a member that is a string.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name).and_then(Value::as_str)
    }

    /// Returns the pairs of a member that is an object of strings.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.members.get(name).and_then(Value::as_object);
        texts.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }

    /// Returns the settings of a second factor: `enabled` and `preferred`.
    pub(super) fn factor(&self, name: &str) -> Option<(bool, Option<bool>)> {
        let settings = self.members.get(name)?;
        Some((settings.get("enabled")?.as_bool()?, settings.get("preferred").and_then(Value::as_bool)))
    }

    /// `true` if the client signs in with a password, and not with another flow.
    pub(super) fn is_password_sign_in(&self, row: &Row) -> bool {
        row.fields.iter().any(|field| field.target == Target::AuthFlow && self.text(field.name).is_none())
    }

    /// Returns the user that the body names. Precedence: `username`, `phone`, `email`, the parameter `USERNAME`.
    pub(super) fn user(&self, row: &Row) -> Option<&str> {
        let mut named = row.fields.iter().rev().filter(|field| field.need == Need::User);
        let parameters = row.fields.iter().filter(|field| field.target == Target::Parameters);
        let mut parameters = parameters.flat_map(|field| self.texts(field.name));
        let parameter =
            || parameters.find(|(name, user)| *name == "USERNAME" && !user.is_empty()).map(|(_, user)| user);
        named.find_map(|field| self.text(field.name)).or_else(parameter)
    }
}

/// `false` if the member counts as absent, because it is empty.
///
/// # Errors
/// [`AccountError`] 400 for a value of another type.
fn is_present(field: &Field, value: &Value) -> Result<bool, AccountError> {
    let problem = match (field.target.shape(), value) {
        (Shape::Text, Value::String(text)) if text.is_empty() => return Ok(false),
        (Shape::Texts | Shape::Document, Value::Object(members)) if members.is_empty() => return Ok(false),
        (Shape::Text, Value::String(_)) | (Shape::Document, Value::Object(_)) => None,
        (Shape::Id, Value::String(text)) => {
            (!is_id(text)).then(|| format!(" has to be 1 to {MAX_ID} characters of base64url: A-Z, a-z, 0-9, - and _"))
        }
        (Shape::Texts, Value::Object(texts)) => {
            let wrong = texts.iter().find(|(_, value)| !value.is_string());
            // The name is the caller's text, and only the caller gets it back.
            wrong
                .map(|(name, _)| name.chars().filter(|c| !c.is_control()).take(64).collect::<String>())
                .map(|name| format!(".{name} has to be a string"))
        }
        (Shape::Factor, Value::Object(settings)) => wrong_settings(settings).map(str::to_owned),
        (Shape::Text | Shape::Id, _) => Some(" has to be a string".into()),
        (Shape::Texts, _) => Some(" has to be an object of strings".into()),
        (Shape::Factor | Shape::Document, _) => Some(" has to be an object".into()),
    };
    match problem {
        Some(problem) => Err(AccountError::invalid_member(field.name, format!("{}{problem}", field.name))),
        None => Ok(true),
    }
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Returns an error message for settings of a second factor that are not valid.
fn wrong_settings(settings: &Map<String, Value>) -> Option<&'static str> {
    match (settings.get("enabled"), settings.get("preferred")) {
        (None | Some(Value::Null), _) => Some(".enabled is required"),
        (Some(Value::Bool(enabled)), None | Some(Value::Null | Value::Bool(_))) => {
            let preferred = settings.get("preferred") == Some(&Value::Bool(true));
            (preferred && !enabled).then_some(" cannot be preferred without being enabled")
        }
        (Some(Value::Bool(_)), _) => Some(".preferred has to be a boolean"),
        _ => Some(".enabled has to be a boolean"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::table::row;

    /// Returns the user of a body, or the message with which it is rejected.
    fn read(path: &str, body: &str) -> Result<Option<String>, String> {
        let row = row(path);
        Members::read(row, body.as_bytes(), None).map(|members| members.user(row).map(Into::into)).map_err(|error| {
            assert_eq!((error.status, error.code), (400, Code::InvalidRequest));
            error.message.into_owned()
        })
    }

    #[test]
    fn rejected_bodies_have_a_message() {
        let required = "email and password are required";
        for (path, body, expected) in [
            ("/login", "", required),
            ("/login", "{}", required),
            ("/login", r#"{"email":"a"}"#, required),
            ("/login", r#"{"email":"a","password":null}"#, required),
            ("/login", r#"{"email":"","password":"p"}"#, required),
            ("/login", r#"{"email":7,"password":"p"}"#, "email has to be a string"),
            ("/login", r#"{"email":["a"],"password":"p"}"#, "email has to be a string"),
            ("/login", "[]", "The body has to be a JSON object."),
            ("/login", "null", "The body has to be a JSON object."),
            ("/login", "{", "The body has to be a JSON object."),
            ("/login", "{}{}", "The body has to be a JSON object."),
            ("/login", "\u{feff}{}", "The body has to be a JSON object."),
            (
                "/login",
                r#"{"email":"a","authFlow":"REFRESH_TOKEN_AUTH"}"#,
                "authFlow has to be one of USER_SRP_AUTH, USER_AUTH, CUSTOM_AUTH",
            ),
            (
                "/login",
                r#"{"email":"a","authFlow":"USER_AUTH","authParameters":{"A":1}}"#,
                "authParameters.A has to be a string",
            ),
            (
                "/login",
                r#"{"email":"a","authFlow":"USER_AUTH","authParameters":"A"}"#,
                "authParameters has to be an object of strings",
            ),
            ("/login", r#"{"authFlow":"USER_AUTH"}"#, required),
            ("/register", r#"{"email":"a","password":"p"}"#, "email, password, and name are required"),
            ("/challenge", r#"{"challenge":"SMS_MFA"}"#, "challenge and email are required"),
            ("PATCH /me", r#"{"attributes":{}}"#, "attributes is required"),
            ("PATCH /me", r#"{"attributes":{"name":null}}"#, "attributes.name has to be a string"),
            ("PUT /mfa/preference", "{}", "totp, sms, or email is required"),
            ("PUT /mfa/preference", r#"{"totp":null}"#, "totp, sms, or email is required"),
            ("PUT /mfa/preference", r#"{"totp":true}"#, "totp has to be an object"),
            ("PUT /mfa/preference", r#"{"totp":{}}"#, "totp.enabled is required"),
            ("PUT /mfa/preference", r#"{"totp":{"enabled":"yes"}}"#, "totp.enabled has to be a boolean"),
            ("PUT /mfa/preference", r#"{"sms":{"enabled":true,"preferred":1}}"#, "sms.preferred has to be a boolean"),
            ("PUT /webauthn/registration", "{}", "credential is required"),
            ("PUT /webauthn/registration", r#"{"credential":{}}"#, "credential is required"),
            ("PUT /webauthn/registration", r#"{"credential":"{}"}"#, "credential has to be an object"),
            ("PUT /webauthn/registration", r#"{"credential":[]}"#, "credential has to be an object"),
            (
                "PUT /mfa/preference",
                r#"{"email":{"enabled":false,"preferred":true}}"#,
                "email cannot be preferred without being enabled",
            ),
            (
                "PUT /mfa/preference",
                r#"{"totp":{"enabled":true,"preferred":true},"sms":{"enabled":true,"preferred":true}}"#,
                "Only one second factor can be preferred.",
            ),
        ] {
            assert_eq!(read(path, body), Err(expected.into()), "{path} {body}");
        }
    }

    #[test]
    fn members_of_the_url_are_read_from_there_only() {
        let read = |route: &str, path: &str, query: &str| {
            let body = br#"{"credentialId": "body", "next": "body"}"#;
            let members = Members::read(row(route), body, None).and_then(|read| read.and_url(row(route), path, query));
            let text = |members: Members| ["credentialId", "next"].map(|name| members.text(name).map(str::to_owned));
            members.map(text).map_err(|error| error.message.into_owned())
        };
        let delete = |path: &str| read("DELETE /webauthn/credentials/x", path, "credentialId=query&next=query");
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(delete("/webauthn/credentials/A%2d_0"), Ok([some("A-_0"), None]));
        let refused =
            Err("credentialId has to be 1 to 1364 characters of base64url: A-Z, a-z, 0-9, - and _".to_owned());
        for bad in ["%2e%2e", "%2F", "%ff", "%C3%A9", "%", "%25", "=", "A%00", &"a".repeat(1365)] {
            assert_eq!(delete(&format!("/webauthn/credentials/{bad}")), refused, "{bad}");
        }
        let list = |query: &str| read("GET /webauthn/credentials", "/webauthn/credentials", query);
        assert_eq!(list(""), Ok([None, None]));
        assert_eq!(list("credentialId=x&next="), Ok([None, None]));
        assert_eq!(list("x=1&next=a%2Bb%2Fc%3D%3D"), Ok([None, some("a+b/c==")]));
        assert_eq!(list("next=a&next=b"), Err("next is there twice; send it once".to_owned()));
    }

    #[test]
    fn the_user_has_several_names() {
        for (path, body, user) in [
            ("/login", r#"{"email":"a@b","password":" p "}"#, "a@b"),
            ("/login", r#"{"email":"a@b","username":"u","password":"p","x":{}}"#, "u"),
            ("/login", r#"{"email":"a@b","phone":"+1","password":"p"}"#, "+1"),
            ("/login", r#"{"authFlow":"USER_SRP_AUTH","authParameters":{"USERNAME":"s","SRP_A":"0"}}"#, "s"),
            ("/challenge", r#"{"challenge":"X","responses":{"USERNAME":"s"}}"#, "s"),
            ("/challenge", r#"{"challenge":"X","username":"u","responses":{"USERNAME":"s"}}"#, "u"),
        ] {
            assert_eq!(read(path, body), Ok(Some(user.into())), "{path} {body}");
        }
        assert_eq!(read("/logout", ""), Ok(None));
    }

    #[test]
    fn the_token_of_the_session_replaces_a_missing_one() {
        let row = row("/refresh");
        for (body, token) in [("", "cookie"), (r#"{"refreshToken":null}"#, "cookie"), (r#"{"refreshToken":"r"}"#, "r")]
        {
            let members = Members::read(row, body.as_bytes(), Some("cookie")).ok().unwrap();
            assert_eq!(members.text("refreshToken"), Some(token), "{body}");
        }
        let wrong = Members::read(row, br#"{"refreshToken":7}"#, Some("cookie"));
        assert!(wrong.is_err_and(|error| error.message == "refreshToken has to be a string"));
    }
}
