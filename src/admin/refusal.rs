//! Error responses of the routes for operators.

use std::borrow::Cow;

use http::StatusCode;
use http::header::{self, HeaderValue};
use serde_json::json;

use super::json_answer;
use super::token::NotAuthorized;
use crate::net::http_server::Answer;
use crate::net::json_body::{BodyError, MAX_BYTES};

/// Error response.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: Cow<'static, str>,
    header: Option<(header::HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), header: None }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub(super) fn not_found(message: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn with(self, name: header::HeaderName, value: impl Into<HeaderValue>) -> Self {
        Self { header: Some((name, value.into())), ..self }
    }

    pub(super) fn into_answer(self) -> Answer {
        let mut answer = json_answer(self.status, &json!({"message": self.message, "code": self.code}));
        answer.headers_mut().extend(self.header);
        answer
    }
}

impl From<NotAuthorized> for Refusal {
    fn from(reason: NotAuthorized) -> Self {
        let unauthorized = |message| Self::new(StatusCode::UNAUTHORIZED, "invalid_token", message);
        match reason {
            NotAuthorized::Closed => Self::new(
                StatusCode::FORBIDDEN,
                "not_configured",
                "This path is closed to operators: start the service with --admin-token-file, and send its content as \
                 Authorization: Bearer; or write mtls: before the address of --admin-listen, and present a client \
                 certificate.",
            ),
            NotAuthorized::NoToken => unauthorized("Send the content of --admin-token-file as Authorization: Bearer.")
                .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"admin\"")),
            NotAuthorized::WrongToken => unauthorized("The token is not the content of --admin-token-file.").with(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"admin\", error=\"invalid_token\""),
            ),
            NotAuthorized::Limited(seconds) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "There were too many wrong tokens.")
                    .with(header::RETRY_AFTER, seconds)
            }
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Type => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "The body has to be application/json, without a Content-Encoding.",
            ),
            BodyError::TooLarge => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("The body is larger than {} KiB.", MAX_BYTES >> 10),
            ),
            BodyError::Late => Self::bad_request("The body did not arrive in time."),
            BodyError::BrokenOff => Self::bad_request("The body broke off."),
        }
    }
}
