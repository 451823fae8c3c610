//! The body of a request: JSON, of a bounded size, within a bounded time, and of the types that its row asks for.

use std::time::Duration;

use http::header::{self, HeaderMap};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use prost::bytes::{Bytes, BytesMut};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::error::{AccountError, Code};
use super::table::{AUTH_FLOWS, Need, Place, Row, Shape};
use crate::field_value::trim_text;
use crate::net::http_server::RequestBody;

/// Bytes of a body; one more is too many.
pub const MAX_BYTES: usize = 16 * 1024;
/// What is read of a body that is too large and thrown away, so that the client gets to read the answer.
const DISCARDED_BYTES: usize = 1024 * 1024;
/// Time for the whole body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a body.
///
/// # Errors
/// [`AccountError`]: 415, 413, or 400 for one that does not come.
pub(crate) async fn read(headers: &HeaderMap, mut body: RequestBody) -> Result<Bytes, AccountError> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(AccountError::new(415, Code::UnsupportedMediaType));
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if !is_json(headers) {
        return Err(AccountError::new(415, Code::UnsupportedMediaType));
    }
    let deadline = Instant::now() + READ_TIMEOUT;
    let mut read = BytesMut::new();
    let mut length = 0;
    loop {
        let frame = timeout_at(deadline, body.frame()).await;
        let frame = frame.map_err(|_| AccountError::invalid_request("The body did not arrive in time."))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| AccountError::invalid_request("The body broke off."))?;
        let Ok(data) = frame.into_data() else { continue }; // trailers
        length += data.len();
        if length <= MAX_BYTES {
            read.extend_from_slice(&data);
        } else if length > DISCARDED_BYTES {
            break;
        }
    }
    if length > MAX_BYTES { Err(AccountError::new(413, Code::TooLarge)) } else { Ok(read.freeze()) }
}

/// `application/json`, with parameters or without; RFC 8259 knows no other encoding than UTF-8.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    trim_text(essence).eq_ignore_ascii_case("application/json")
}

/// The members of a body that the row knows, of the right types. It has no `Debug`: they are secrets and names.
#[derive(Default)]
pub struct Members {
    members: Map<String, Value>,
}

impl Members {
    /// Reads what is in `body` for this row. `known` is a member that the request has elsewhere, in case that the body
    /// does not have it.
    ///
    /// # Errors
    /// [`AccountError`] 400: not a JSON object, a member of another type, or one that is missing.
    pub fn read(row: &Row, body: &[u8], known: Option<(&str, &str)>) -> Result<Self, AccountError> {
        let body = if body.is_empty() { b"{}" } else { body };
        let Ok(Value::Object(mut all)) = serde_json::from_slice(body) else {
            return Err(AccountError::invalid_request("The body has to be a JSON object."));
        };
        if let Some((name, text)) = known
            && all.get(name).is_none_or(|value| value.is_null() || value == "")
        {
            all.insert(name.into(), text.into());
        }
        let mut members = Map::new();
        for field in row.fields {
            let Some(value) = all.remove(field.name).filter(|value| !value.is_null()) else { continue };
            let problem = match (field.place.shape(), &value) {
                (Shape::Text, Value::String(text)) if text.is_empty() => continue,
                (Shape::Texts, Value::Object(texts)) if texts.is_empty() => continue,
                (Shape::Text, Value::String(_)) => None,
                (Shape::Texts, Value::Object(texts)) => {
                    let wrong = texts.iter().find(|(_, value)| !value.is_string());
                    // The name is the caller's text, and goes back to nobody else.
                    wrong
                        .map(|(name, _)| name.chars().filter(|c| !c.is_control()).take(64).collect::<String>())
                        .map(|name| format!(".{name} has to be a string"))
                }
                (Shape::Factor, Value::Object(settings)) => wrong_settings(settings).map(str::to_owned),
                (Shape::Text, _) => Some(" has to be a string".into()),
                (Shape::Texts, _) => Some(" has to be an object of strings".into()),
                (Shape::Factor, _) => Some(" has to be an object".into()),
            };
            if let Some(problem) = problem {
                return Err(AccountError::invalid_request(format!("{}{problem}", field.name)));
            }
            members.insert(field.name.into(), value);
        }
        let members = Self { members };
        members.check(row)?;
        Ok(members)
    }

    fn check(&self, row: &Row) -> Result<(), AccountError> {
        let there = |name| self.members.contains_key(name);
        let complete = row.fields.iter().all(|field| match field.need {
            Need::Yes => there(field.name),
            Need::No => true,
            Need::Unless(other) => there(field.name) || there(other),
            Need::User => self.user(row).is_some(),
            Need::Any => row.fields.iter().any(|field| field.need == Need::Any && there(field.name)),
        });
        if !complete {
            return Err(AccountError::invalid_request(row.requirement()));
        }
        let factors = row.fields.iter().filter_map(|field| self.factor(field.name));
        if factors.filter(|(_, preferred)| *preferred == Some(true)).count() > 1 {
            return Err(AccountError::invalid_request("Only one second factor can be preferred."));
        }
        for field in row.fields.iter().filter(|field| field.place == Place::AuthFlow) {
            if self.text(field.name).is_some_and(|flow| !AUTH_FLOWS.contains(&flow)) {
                return Err(AccountError::invalid_request(format!(
                    "{} has to be one of {}",
                    field.name,
                    AUTH_FLOWS.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// A member that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name).and_then(Value::as_str)
    }

    /// A member that is a map of texts.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.members.get(name).and_then(Value::as_object);
        texts.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }

    /// A member that has the settings of a second factor: whether it is enabled, and preferred.
    pub fn factor(&self, name: &str) -> Option<(bool, Option<bool>)> {
        let settings = self.members.get(name)?;
        Some((settings.get("enabled")?.as_bool()?, settings.get("preferred").and_then(Value::as_bool)))
    }

    /// The user that the body names: `username` before `phone` before `email`, or the parameter `USERNAME`.
    pub fn user(&self, row: &Row) -> Option<&str> {
        let mut named = row.fields.iter().rev().filter(|field| field.need == Need::User);
        let parameters = row.fields.iter().filter(|field| field.place == Place::Parameters);
        let mut parameters = parameters.flat_map(|field| self.texts(field.name));
        let parameter =
            || parameters.find(|(name, user)| *name == "USERNAME" && !user.is_empty()).map(|(_, user)| user);
        named.find_map(|field| self.text(field.name)).or_else(parameter)
    }
}

/// What is wrong with the settings of a second factor.
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
    use http::HeaderValue;

    /// What a body is refused with, and its user if it is not.
    fn read(path: &str, body: &str) -> Result<Option<String>, String> {
        let row = row(path);
        Members::read(row, body.as_bytes(), None).map(|members| members.user(row).map(Into::into)).map_err(|error| {
            assert_eq!((error.status, error.code), (400, Code::InvalidRequest));
            error.message.into_owned()
        })
    }

    #[test]
    fn bodies_that_are_refused_say_why() {
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
    fn the_user_is_named_in_several_ways() {
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
    fn what_is_known_stands_in_for_what_is_not_there() {
        let row = row("/refresh");
        for (body, token) in [("", "cookie"), (r#"{"refreshToken":null}"#, "cookie"), (r#"{"refreshToken":"r"}"#, "r")]
        {
            let members = Members::read(row, body.as_bytes(), Some(("refreshToken", "cookie"))).ok().unwrap();
            assert_eq!(members.text("refreshToken"), Some(token), "{body}");
        }
        let wrong = Members::read(row, br#"{"refreshToken":7}"#, Some(("refreshToken", "cookie")));
        assert!(wrong.is_err_and(|error| error.message == "refreshToken has to be a string"));
    }

    #[test]
    fn json_is_the_one_type() {
        let with =
            |value: &'static str| HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/json;x=y"] {
            assert!(is_json(&with(good)), "{good}");
        }
        for bad in
            ["", "text/json", "application/json5", "application/x-www-form-urlencoded", "text/plain; application/json"]
        {
            assert!(!is_json(&with(bad)), "{bad}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
