//! Client of Amazon Cognito's user-pool API: HTTP POST to one URL, with the operation in a header (AWS JSON 1.1).
//!
//! Every call goes through [`CognitoClient::call`], except those to the hosted sign-in pages in [`oauth`] and for the
//! pool's metadata in [`openid`]. The client
//! authenticates the app client, keeps the deadline, retries what is safe to repeat, stops calling while Cognito is
//! down ([`circuit`]), and counts calls. It knows nothing of the account API. Bodies and messages are never logged:
//! they contain passwords, codes and tokens.

mod circuit;
mod documented;
pub mod error;
pub(crate) mod oauth;
mod openid;
mod operation;
mod secret_hash;

use std::future::Future;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use tokio::time::{self, Instant};
use url::Url;

use self::circuit::Circuit;
use self::error::{CognitoError, ErrorAnswer, Outage};
use self::operation::Proof;
pub use self::operation::{Call, Operation};
use crate::clock::UnixTime;
use crate::metrics::account::CognitoMetrics;
use crate::request_id;
use crate::telemetry::{Kind, Span, current};
use crate::user_pool::ClientId;

/// Largest response in bytes: three tokens of 16 KiB each, and ample room for the rest.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Time limit to establish a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest delay before a retry. A random part of [`RETRY_JITTER`] is added, so that calls do not retry all at once.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_JITTER: Duration = Duration::from_millis(200);

/// Name of the API in traces.
const SERVICE: &str = "CognitoIdentityProvider";

/// HTTP client for the API of one pool, on behalf of one app client.
#[derive(Debug)]
pub struct CognitoClient {
    endpoint: Url,
    client_id: ClientId,
    secret: Option<SecretString>,
    timeout: Duration,
    circuit: Circuit,
    metrics: CognitoMetrics,
    /// Created at the first call, not at startup: reading the system's CA certificates takes a while.
    http: OnceCell<reqwest::Client>,
}

impl CognitoClient {
    /// Creates a client for the API at `endpoint`. `timeout` is the limit for each attempt.
    pub(crate) fn new(
        endpoint: Url,
        client_id: ClientId,
        secret: Option<SecretString>,
        timeout: Duration,
        metrics: CognitoMetrics,
    ) -> Self {
        Self { endpoint, client_id, secret, timeout, circuit: Circuit::default(), metrics, http: OnceCell::new() }
    }

    /// `true` if the app client has a secret.
    pub(crate) fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// Calls Cognito and returns the members of the response. A failed call is repeated once if that is safe. Returns
    /// before `deadline`.
    ///
    /// # Errors
    /// [`CognitoError`] of the last attempt.
    pub(crate) async fn call(&self, call: Call, deadline: Instant) -> Result<Map<String, Value>, CognitoError> {
        self.call_dated(call, deadline).await.result
    }

    /// The same as [`Self::call`], with the time of the last response by Cognito's clock.
    pub(crate) async fn call_dated(&self, call: Call, deadline: Instant) -> Dated {
        let operation = call.operation;
        let body = Value::Object(self.authenticate(call)).to_string();
        let first = self.attempt(operation, self.send(operation, body.clone()), deadline).await;
        let retry = match &first.result {
            // The request was not sent, so it cannot have had an effect.
            Err(CognitoError::Unavailable(Outage::Connect)) => true,
            Err(CognitoError::Unavailable(Outage::CircuitOpen)) | Ok(_) => false,
            Err(error @ CognitoError::Refused(_)) => operation.may_be_repeated() && error.label() == "throttled",
            Err(_) => operation.may_be_repeated(),
        };
        let pause = RETRY_PAUSE + RETRY_JITTER.mul_f64(fastrand::f64());
        if !retry || Instant::now() + pause >= deadline {
            return first;
        }
        time::sleep(pause).await;
        self.attempt(operation, self.send(operation, body), deadline).await
    }

    /// Adds the app client's id and, in the form that the operation requires, its secret.
    fn authenticate(&self, call: Call) -> Map<String, Value> {
        let Call { operation, user, mut members } = call;
        let hash = |user: Option<&str>| {
            let secret = self.secret.as_ref()?;
            Some(Value::from(secret_hash::secret_hash(secret, user?, &self.client_id)))
        };
        match operation.proof() {
            Proof::Token | Proof::Basic | Proof::Nothing => return members,
            Proof::Hash => {
                if let Some(hash) = hash(user.as_deref()) {
                    members.insert("SecretHash".into(), hash);
                }
            }
            Proof::HashIn(map) => {
                if let (Some(hash), Some(Value::Object(map))) = (hash(user.as_deref()), members.get_mut(map)) {
                    map.insert("SECRET_HASH".into(), hash);
                }
            }
            Proof::Secret => {
                if let Some(secret) = &self.secret {
                    members.insert("ClientSecret".into(), secret.expose_secret().into());
                }
            }
        }
        members.insert("ClientId".into(), self.client_id.as_str().into());
        members
    }

    /// Runs the request `send` within its time limit, if the circuit is closed, and counts and logs the result.
    async fn attempt(
        &self,
        operation: Operation,
        send: impl Future<Output = Result<Answer, Failure>>,
        deadline: Instant,
    ) -> Dated {
        let Some(pass) = self.circuit.enter() else {
            let error = CognitoError::Unavailable(Outage::CircuitOpen);
            self.metrics.counted(operation.as_str(), error.label());
            return Dated { result: Err(error), date: None };
        };
        let dated = self.timed(operation, send, deadline).await;
        match &dated.result {
            Err(CognitoError::Unavailable(_)) => pass.failed(),
            _ => pass.answered(),
        }
        self.metrics.circuit_open.set(self.circuit.is_open().into());
        dated
    }

    /// Runs the request `send` within its time limit, and counts and logs the result.
    async fn timed(
        &self,
        operation: Operation,
        send: impl Future<Output = Result<Answer, Failure>>,
        deadline: Instant,
    ) -> Dated {
        let start = Instant::now();
        let span = self.span(operation);
        let deadline = deadline.min(start + self.timeout);
        let timeout = Failure::of(CognitoError::Unavailable(Outage::Timeout));
        let result = time::timeout_at(deadline, send).await.unwrap_or(Err(timeout));
        let label = result.as_ref().err().map_or("success", |failure| failure.error.label());
        self.metrics.counted(operation.as_str(), label);
        self.metrics.took(operation.as_str(), start.elapsed().as_secs_f64());
        if let Some(span) = span {
            describe(span, result.as_ref().err());
        }
        match result {
            Ok(Answer { members, date }) => Dated { result: Ok(members), date },
            Err(failure) => {
                failure.log(operation);
                Dated { result: Err(failure.error), date: failure.date }
            }
        }
    }

    /// Begins the span of an attempt, as the semantic conventions for AWS want it, if its request is traced. It has the
    /// name of the operation, but not the host of the hosted pages or of a document: they are not the API.
    fn span(&self, operation: Operation) -> Option<Span> {
        let name = operation.as_str();
        if !operation.is_api() {
            return current::child(name, Kind::Client);
        }
        let mut span = current::child(format!("{SERVICE}.{name}"), Kind::Client)?;
        span.set("rpc.system", "aws-api");
        span.set("rpc.service", SERVICE);
        span.set("rpc.method", name);
        span.set_some("server.address", self.endpoint.host_str().map(str::to_owned));
        Some(span)
    }

    async fn send(&self, operation: Operation, body: String) -> Result<Answer, Failure> {
        let http = self.http().await?;
        let request = http
            .post(self.endpoint.clone())
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("AWSCognitoIdentityProviderService.{}", operation.as_str()))
            .body(body);
        let answer = fetch(request).await?;
        if answer.status != StatusCode::OK {
            let header = answer.headers.get("x-amzn-errortype").and_then(|name| name.to_str().ok());
            let ErrorAnswer { error, name } = ErrorAnswer::read(answer.status.as_u16(), header, &answer.body);
            return Err(answer.failure(error, &name));
        }
        // Operations without a result answer with `{}` or an empty body.
        if answer.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Answer { members: Map::new(), date: answer.date() });
        }
        answer.object()
    }

    async fn http(&self) -> Result<&reqwest::Client, Failure> {
        // Redirects are not followed: they could send a password to another host. reqwest and its TLS library read
        // HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR from the environment.
        let build = || {
            reqwest::Client::builder()
                .user_agent(concat!("cognito-authz/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(Duration::from_secs(20))
                .redirect(reqwest::redirect::Policy::none())
                .build()
        };
        let unavailable = || Failure::of(CognitoError::Unavailable(Outage::Connect));
        self.http
            .get_or_try_init(|| async {
                match tokio::task::spawn_blocking(build).await {
                    Ok(Ok(client)) => Ok(client),
                    Ok(Err(error)) => {
                        let request_id = request_id::current();
                        tracing::error!(request_id, %error, "cannot create the TLS client for calls to Cognito");
                        Err(unavailable())
                    }
                    Err(_) => Err(unavailable()),
                }
            })
            .await
    }
}

/// Result of a call, with the time of the response.
pub(crate) struct Dated {
    /// Result of the call.
    pub(crate) result: Result<Map<String, Value>, CognitoError>,
    /// Time of the response by Cognito's clock (`Date`, RFC 9110 section 6.6.1). `None` if there was no response, or one
    /// without it.
    pub(crate) date: Option<UnixTime>,
}

/// Successful response.
struct Answer {
    members: Map<String, Value>,
    date: Option<UnixTime>,
}

/// HTTP response with any status.
struct Fetched {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Fetched {
    fn failure(&self, error: CognitoError, name: &str) -> Failure {
        let id = self.headers.get("x-amzn-requestid").and_then(|id| request_id::well_formed(id.as_bytes()));
        Failure { error, name: name.into(), status: self.status.as_u16(), id: id.map(Into::into), date: self.date() }
    }

    /// `Date`, in seconds.
    fn date(&self) -> Option<UnixTime> {
        let date = httpdate::parse_http_date(self.headers.get(http::header::DATE)?.to_str().ok()?).ok()?;
        UnixTime::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
    }

    /// Parses the body, which has to be a JSON object.
    fn object(&self) -> Result<Answer, Failure> {
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(members)) => Ok(Answer { members, date: self.date() }),
            _ => Err(self.failure(CognitoError::Nonsense, "no JSON object")),
        }
    }
}

/// Sends a request and reads the response, up to [`MAX_ANSWER_BYTES`].
async fn fetch(request: reqwest::RequestBuilder) -> Result<Fetched, Failure> {
    let failed = |error: reqwest::Error| {
        let outage = match error {
            error if error.is_connect() => Outage::Connect,
            error if error.is_timeout() => Outage::Timeout,
            _ => Outage::Broken,
        };
        Failure::of(CognitoError::Unavailable(outage))
    };
    let mut response = request.send().await.map_err(failed)?;
    let headers = std::mem::take(response.headers_mut());
    let mut answer = Fetched { status: response.status(), headers, body: Vec::new() };
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if answer.body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(answer.failure(CognitoError::Nonsense, "too large"));
        }
        answer.body.extend_from_slice(&chunk);
    }
    Ok(answer)
}

/// Failed call, with the details that may be logged.
struct Failure {
    error: CognitoError,
    name: String,
    status: u16,
    /// Id that AWS gave the call.
    id: Option<String>,
    date: Option<UnixTime>,
}

impl Failure {
    fn of(error: CognitoError) -> Self {
        Self { error, name: String::new(), status: 0, id: None, date: None }
    }

    /// Logs the error's name, the id of the account request, and AWS's id of the call, but never its message: that can
    /// contain personal data.
    fn log(&self, operation: Operation) {
        let (operation, outcome) = (operation.as_str(), self.error.label());
        let name = Some(&*self.name).filter(|name| !name.is_empty());
        let status = Some(self.status).filter(|status| *status != 0);
        let (request_id, aws_request_id) = (request_id::current(), self.id.as_deref());
        if matches!(self.error, CognitoError::Refused(_)) {
            tracing::info!(operation, outcome, name, status, request_id, aws_request_id, "Cognito refused a call");
        } else {
            tracing::warn!(operation, outcome, name, status, request_id, aws_request_id, "a call to Cognito failed");
        }
    }
}

/// Describes the result of an attempt in its span, and ends it. Of an error it has the name, as the log.
fn describe(mut span: Span, failure: Option<&Failure>) {
    let status = failure.map_or(200, |failure| failure.status);
    span.set_some("http.response.status_code", Some(i64::from(status)).filter(|status| *status != 0));
    if let Some(failure) = failure {
        span.set_some("aws.request_id", failure.id.clone());
        span.set_some("cognito_authz.error", Some(failure.name.clone()).filter(|name| !name.is_empty()));
        span.fail(failure.error.label());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn client(secret: Option<&str>) -> CognitoClient {
        let metrics = CognitoMetrics::for_tests();
        let url = "http://127.0.0.1:1".parse().unwrap();
        CognitoClient::new(
            url,
            "7example23clientid45abcdefg".parse().unwrap(),
            secret.map(Into::into),
            Duration::from_secs(1),
            metrics,
        )
    }

    /// Returns the body that is sent to Cognito for these members.
    fn body(secret: Option<&str>, operation: Operation, members: &Value) -> Value {
        let call =
            Call { operation, user: Some("alice".into()), members: members.as_object().cloned().unwrap_or_default() };
        Value::Object(client(secret).authenticate(call))
    }

    #[test]
    fn each_operation_authenticates_the_app_client_in_its_own_form() {
        let secret = Some("1exampleclientsecret0123456789abcdefghijklmnopqrstu");
        let hash = "cvZTWlGdIW36QDaxQzC5LU7waxGzAJzESqskkc0oa7E=";
        let id = "7example23clientid45abcdefg";
        for operation in Operation::ALL {
            let members = json!({"AuthParameters": {}, "ChallengeResponses": {}});
            let found = body(secret, *operation, &members);
            let places = [
                found.get("SecretHash"),
                found["AuthParameters"].get("SECRET_HASH"),
                found["ChallengeResponses"].get("SECRET_HASH"),
                found.get("ClientSecret"),
            ];
            let expected = match operation {
                Operation::InitiateAuth => [None, Some(hash), None, None],
                Operation::RespondToAuthChallenge => [None, None, Some(hash), None],
                Operation::GetTokensFromRefreshToken | Operation::RevokeToken => [None, None, None, secret],
                operation if operation.takes_access_token() => [None; 4],
                Operation::OauthToken | Operation::OpenidConfiguration => [None; 4],
                _ => [Some(hash), None, None, None],
            };
            assert_eq!(places.map(|place| place.and_then(Value::as_str)), expected, "{operation:?}");
            let is_api = ![Operation::OauthToken, Operation::OpenidConfiguration].contains(operation);
            let has_id = !operation.takes_access_token() && is_api;
            assert_eq!(found.get("ClientId").and_then(Value::as_str), has_id.then_some(id), "{operation:?}");
            let without = body(None, *operation, &members).to_string();
            assert!(!without.contains("SECRET") && !without.contains("Secret"), "{without}");
        }
    }

    #[test]
    fn debug_output_does_not_contain_the_secret() {
        let shown = format!("{:?}", client(Some("1exampleclientsecret0123456789abcdefghijklmnopqrstu")));
        assert!(!shown.contains("exampleclientsecret"), "{shown}");
    }
}
