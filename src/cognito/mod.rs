//! The user-pool API of Amazon Cognito: plain HTTP, one URL, the operation in a header (AWS JSON 1.1).
//!
//! [`CognitoClient::call`] is the one caller; [`oauth`] has the one call of the hosted sign-in pages beside it. It adds what proves the app client, keeps the deadline, retries what
//! may be retried, leaves Cognito alone while it is down, and counts. It does not know what the account API offers.
//! Bodies and messages are never logged: passwords, codes and tokens are in them.

pub mod circuit;
pub mod error;
pub mod oauth;
pub mod secret_hash;

use std::future::Future;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use tokio::time::{self, Instant};
use url::Url;

use self::circuit::Circuit;
use self::error::{CognitoError, ErrorAnswer, Outage};
use crate::metrics::account::CognitoMetrics;
use crate::user_pool::ClientId;

/// Most bytes of an answer: three tokens of 16 KiB and a generous rest.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Time to establish a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time before a retry: a moment, and not the same one for all.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_JITTER: Duration = Duration::from_millis(200);

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What can be asked of Cognito, by the names of its API. None of these needs AWS credentials.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "Cognito's documentation is theirs")]
        pub enum Operation {
            $($(#[$doc])* $name,)*
        }

        impl Operation {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

operations! {
    SignUp,
    ConfirmSignUp,
    ResendConfirmationCode,
    InitiateAuth,
    RespondToAuthChallenge,
    GetTokensFromRefreshToken,
    ForgotPassword,
    ConfirmForgotPassword,
    ChangePassword,
    GlobalSignOut,
    RevokeToken,
    GetUser,
    UpdateUserAttributes,
    DeleteUser,
    GetUserAttributeVerificationCode,
    VerifyUserAttribute,
    AssociateSoftwareToken,
    VerifySoftwareToken,
    SetUserMFAPreference,
    /// Not of the user-pool API: the token endpoint of the hosted sign-in pages, see [`oauth`].
    OauthToken,
}

/// How a call proves that it comes from the app client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// `SecretHash` beside `Username`.
    Hash,
    /// `SECRET_HASH` in this map, beside `USERNAME`.
    HashIn(&'static str),
    /// `ClientSecret`, as it is.
    Secret,
    /// Not at all: the access token, or the session of a sign-in, says whose it is.
    Token,
    /// By HTTP, see [`oauth`].
    Basic,
}

impl Operation {
    fn proof(self) -> Proof {
        match self {
            Self::SignUp
            | Self::ConfirmSignUp
            | Self::ResendConfirmationCode
            | Self::ForgotPassword
            | Self::ConfirmForgotPassword => Proof::Hash,
            Self::InitiateAuth | Self::RespondToAuthChallenge => {
                Proof::HashIn(self.parameters().unwrap_or("AuthParameters"))
            }
            Self::GetTokensFromRefreshToken | Self::RevokeToken => Proof::Secret,
            Self::ChangePassword
            | Self::GlobalSignOut
            | Self::GetUser
            | Self::UpdateUserAttributes
            | Self::DeleteUser
            | Self::GetUserAttributeVerificationCode
            | Self::VerifyUserAttribute
            | Self::AssociateSoftwareToken
            | Self::VerifySoftwareToken
            | Self::SetUserMFAPreference => Proof::Token,
            Self::OauthToken => Proof::Basic,
        }
    }

    /// Whether the operation takes the user's access token (its scope has to be `aws.cognito.signin.user.admin`).
    pub fn takes_access_token(self) -> bool {
        self.proof() == Proof::Token
    }

    /// The map of parameters that the operation has, user name included.
    pub fn parameters(self) -> Option<&'static str> {
        match self {
            Self::InitiateAuth => Some("AuthParameters"),
            Self::RespondToAuthChallenge => Some("ChallengeResponses"),
            _ => None,
        }
    }

    /// Whether the operation takes `UserContextData`.
    pub fn takes_user_context(self) -> bool {
        matches!(self.proof(), Proof::Hash | Proof::HashIn(_))
    }

    /// Whether doing it twice is doing it once.
    fn may_be_repeated(self) -> bool {
        matches!(self, Self::GetUser | Self::GlobalSignOut | Self::RevokeToken | Self::SetUserMFAPreference)
    }
}

/// A call to make. It has no `Debug`: nearly every member is a secret or names a person.
#[derive(Clone)]
pub struct Call {
    /// What is asked for.
    pub operation: Operation,
    /// The user, by the name that the call uses; the real one where the call itself names none.
    pub user: Option<String>,
    /// Members of the body, without the app client's.
    pub members: Map<String, Value>,
}

/// The client of one app client of one pool.
#[derive(Debug)]
pub struct CognitoClient {
    endpoint: Url,
    client_id: ClientId,
    secret: Option<SecretString>,
    timeout: Duration,
    circuit: Circuit,
    metrics: CognitoMetrics,
    /// Made at the first call, away from the start: reading the system's CA certificates takes its time.
    http: OnceCell<reqwest::Client>,
}

impl CognitoClient {
    /// A client for the API at `endpoint` that waits `timeout` for each answer.
    pub fn new(
        endpoint: Url,
        client_id: ClientId,
        secret: Option<SecretString>,
        timeout: Duration,
        metrics: CognitoMetrics,
    ) -> Self {
        Self { endpoint, client_id, secret, timeout, circuit: Circuit::default(), metrics, http: OnceCell::new() }
    }

    /// Whether the app client has a secret.
    pub fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// Asks Cognito, and once more where that cannot do harm. All of it ends before `deadline`.
    ///
    /// # Errors
    /// [`CognitoError`].
    pub async fn call(&self, call: Call, deadline: Instant) -> Result<Map<String, Value>, CognitoError> {
        let operation = call.operation;
        let body = Value::Object(self.prove(call)).to_string();
        let first = self.attempt(operation, self.send(operation, body.clone()), deadline).await;
        let again = match &first {
            // Nothing was asked, so nothing can be done twice.
            Err(CognitoError::Unavailable(Outage::Connect)) => true,
            Err(CognitoError::Unavailable(Outage::CircuitOpen)) | Ok(_) => false,
            Err(error @ CognitoError::Refused(_)) => operation.may_be_repeated() && error.label() == "throttled",
            Err(_) => operation.may_be_repeated(),
        };
        let pause = RETRY_PAUSE + RETRY_JITTER.mul_f64(fastrand::f64());
        if !again || Instant::now() + pause >= deadline {
            return first;
        }
        time::sleep(pause).await;
        self.attempt(operation, self.send(operation, body), deadline).await
    }

    /// Adds the app client's id, and its secret in the form that the operation wants it.
    fn prove(&self, call: Call) -> Map<String, Value> {
        let Call { operation, user, mut members } = call;
        let hash = |user: Option<&str>| {
            let secret = self.secret.as_ref()?;
            Some(Value::from(secret_hash::secret_hash(secret, user?, &self.client_id)))
        };
        match operation.proof() {
            Proof::Token | Proof::Basic => return members,
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

    /// One request, which is `send`, counted and judged.
    async fn attempt(
        &self,
        operation: Operation,
        send: impl Future<Output = Result<Map<String, Value>, Failure>>,
        deadline: Instant,
    ) -> Result<Map<String, Value>, CognitoError> {
        let Some(pass) = self.circuit.enter() else {
            let error = CognitoError::Unavailable(Outage::CircuitOpen);
            self.metrics.counted(operation.as_str(), error.label());
            return Err(error);
        };
        let start = Instant::now();
        let deadline = deadline.min(start + self.timeout);
        let timeout = Failure::of(CognitoError::Unavailable(Outage::Timeout));
        let result = time::timeout_at(deadline, send).await.unwrap_or(Err(timeout));
        match &result {
            Err(Failure { error: CognitoError::Unavailable(_), .. }) => pass.failed(),
            _ => pass.answered(),
        }
        let label = result.as_ref().err().map_or("success", |failure| failure.error.label());
        self.metrics.counted(operation.as_str(), label);
        self.metrics.took(operation.as_str(), start.elapsed().as_secs_f64());
        result.map_err(|failure| {
            failure.log(operation);
            failure.error
        })
    }

    async fn send(&self, operation: Operation, body: String) -> Result<Map<String, Value>, Failure> {
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
        // Operations without a result answer `{}` or nothing at all.
        if answer.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        answer.object()
    }

    async fn http(&self) -> Result<&reqwest::Client, Failure> {
        // Redirects are not followed: they would carry a password elsewhere. The environment's HTTPS_PROXY and
        // NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR are looked at by reqwest and its TLS.
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
                        tracing::error!(%error, "no TLS client for calls to Cognito");
                        Err(unavailable())
                    }
                    Err(_) => Err(unavailable()),
                }
            })
            .await
    }
}

/// An answer, whatever it says.
struct Fetched {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Fetched {
    fn failure(&self, error: CognitoError, name: &str) -> Failure {
        let id = word(&self.headers, "x-amzn-requestid");
        Failure { error, name: name.into(), status: self.status.as_u16(), id }
    }

    /// The JSON object that it has to be.
    fn object(&self) -> Result<Map<String, Value>, Failure> {
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(members)) => Ok(members),
            _ => Err(self.failure(CognitoError::Nonsense, "no JSON object")),
        }
    }
}

/// Makes a request and reads the answer, up to a size.
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

/// A call that failed, with what the operator may be told of it.
struct Failure {
    error: CognitoError,
    name: String,
    status: u16,
    id: Option<String>,
}

impl Failure {
    fn of(error: CognitoError) -> Self {
        Self { error, name: String::new(), status: 0, id: None }
    }

    /// By name and by AWS's request id; never by message.
    fn log(&self, operation: Operation) {
        let (operation, outcome) = (operation.as_str(), self.error.label());
        let name = Some(&*self.name).filter(|name| !name.is_empty());
        let status = Some(self.status).filter(|status| *status != 0);
        let request_id = self.id.as_deref();
        if matches!(self.error, CognitoError::Refused(_)) {
            tracing::info!(operation, outcome, name, status, request_id, "Cognito refused a call");
        } else {
            tracing::warn!(operation, outcome, name, status, request_id, "a call to Cognito failed");
        }
    }
}

/// A header that is a plain word of some length, and nothing else: it goes into the log.
fn word(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    let is_plain = (1..=64).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_plain.then(|| value.to_owned())
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

    /// The body that Cognito gets for these members.
    fn body(secret: Option<&str>, operation: Operation, members: &Value) -> Value {
        let call =
            Call { operation, user: Some("alice".into()), members: members.as_object().cloned().unwrap_or_default() };
        Value::Object(client(secret).prove(call))
    }

    #[test]
    fn each_operation_is_proven_in_its_own_way() {
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
                Operation::OauthToken => [None; 4],
                _ => [Some(hash), None, None, None],
            };
            assert_eq!(places.map(|place| place.and_then(Value::as_str)), expected, "{operation:?}");
            let has_id = !operation.takes_access_token() && *operation != Operation::OauthToken;
            assert_eq!(found.get("ClientId").and_then(Value::as_str), has_id.then_some(id), "{operation:?}");
            let without = body(None, *operation, &members).to_string();
            assert!(!without.contains("SECRET") && !without.contains("Secret"), "{without}");
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        let shown = format!("{:?}", client(Some("1exampleclientsecret0123456789abcdefghijklmnopqrstu")));
        assert!(!shown.contains("exampleclientsecret"), "{shown}");
    }
}
