//! Requests of the command: one attempt, limited in time and size, without following redirects.

use std::time::Duration;

use crate::clock::{UnixTime, unix_now};
use crate::jwks::fetch::{FetchError, MAX_DOCUMENT_BYTES};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for a request and its response.
const TIMEOUT: Duration = Duration::from_secs(5);

/// HTTP client with the settings of the service: CA certificates and proxies come from the environment.
pub(super) struct Client(reqwest::Client);

/// Response with any status.
pub(super) struct Response {
    pub(super) status: u16,
    /// `Location`, if it is text.
    pub(super) location: Option<String>,
    /// Name of an error of the user-pool API (`x-amzn-errortype`), if the header is there.
    pub(super) error_type: Option<String>,
    pub(super) body: Vec<u8>,
    /// Difference of the clock of this machine to that of the server (`Date`), in seconds; positive if this clock is
    /// ahead. The true difference is smaller by up to the time of the request and a second.
    pub(super) ahead: Option<i64>,
}

impl Client {
    pub(super) async fn new() -> Result<Self, FetchError> {
        let build = || {
            reqwest::Client::builder()
                .user_agent(concat!("cognito-authz/", env!("CARGO_PKG_VERSION"), " doctor"))
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .build()
        };
        match tokio::task::spawn_blocking(build).await {
            Ok(Ok(client)) => Ok(Self(client)),
            Ok(Err(error)) => Err(FetchError::without_client(&error)),
            Err(_) => Err(FetchError::Tls("the client could not be created".into())),
        }
    }

    pub(super) async fn get(&self, url: url::Url) -> Result<Response, FetchError> {
        run(self.0.get(url).header("accept", "application/json, text/html;q=0.5")).await
    }

    /// Calls an operation of the user-pool API (AWS JSON 1.1).
    pub(super) async fn call(
        &self,
        endpoint: url::Url,
        operation: &str,
        body: &serde_json::Value,
    ) -> Result<Response, FetchError> {
        let request = self
            .0
            .post(endpoint)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("AWSCognitoIdentityProviderService.{operation}"))
            .body(body.to_string());
        run(request).await
    }
}

async fn run(request: reqwest::RequestBuilder) -> Result<Response, FetchError> {
    let mut response = request.send().await.map_err(|error| FetchError::from(&error))?;
    let now = unix_now();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (location, error_type) = (header("location"), header("x-amzn-errortype"));
    let ahead = header("date").and_then(|date| ahead(&date, now));
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| FetchError::from(&error))? {
        if body.len() + chunk.len() > MAX_DOCUMENT_BYTES {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Response { status, location, error_type, body, ahead })
}

fn ahead(date: &str, now: UnixTime) -> Option<i64> {
    let date = httpdate::parse_http_date(date).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(now - i64::try_from(date.as_secs()).ok()?)
}
