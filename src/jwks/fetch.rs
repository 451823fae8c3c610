//! Fetches a JWKS document over HTTP: one attempt, limited in time and size, without following redirects.

use std::io;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time;
use url::Url;

use super::JwksError;
use crate::logging::foreign;

/// Fetches JWKS documents over HTTP.
#[derive(Debug, Default)]
pub struct JwksClient {
    /// Created at the first fetch, not at startup: reading the system's CA certificates takes a while.
    client: OnceCell<reqwest::Client>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a set of keys, fetched or in a file.
pub const MAX_DOCUMENT_BYTES: usize = 512 * 1024;

impl JwksClient {
    /// Fetches the document from the first of `urls`, as [`JwksClient::ask`] does.
    ///
    /// # Errors
    /// [`FetchError`] of the last URL that was tried.
    pub async fn fetch(&self, urls: &[Url]) -> Result<Vec<u8>, FetchError> {
        self.ask(urls).await.result
    }

    /// Fetches the document from the first of `urls`. If a server answers 403 or 404, the next URL is tried. The limit
    /// for all URLs together is five seconds.
    pub async fn ask(&self, urls: &[Url]) -> Fetched {
        let mut asked = None;
        let attempt = async {
            let client = self.client().await?;
            let mut result = Err(FetchError::Status(404));
            for url in urls {
                asked = Some(url.clone());
                result = get(client, url).await;
                if !matches!(result, Err(FetchError::Status(403 | 404))) {
                    break;
                }
            }
            result
        };
        let result = time::timeout(FETCH_TIMEOUT, attempt).await.unwrap_or(Err(FetchError::Timeout));
        Fetched { url: asked, result }
    }

    async fn client(&self) -> Result<&reqwest::Client, FetchError> {
        let build = || {
            reqwest::Client::builder()
                .user_agent(concat!("cognito-authz/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .build()
        };
        self.client
            .get_or_try_init(|| async {
                match tokio::task::spawn_blocking(build).await {
                    Ok(Ok(client)) => Ok(client),
                    Ok(Err(error)) => Err(FetchError::without_client(&error)),
                    Err(_) => Err(FetchError::Tls("the client could not be created".into())),
                }
            })
            .await
    }
}

async fn get(client: &reqwest::Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    let mut response = client
        .get(url.clone())
        .header("accept", "application/json")
        .send()
        .await
        .map_err(|error| FetchError::from(&error))?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| FetchError::from(&error))? {
        if document.len() + chunk.len() > MAX_DOCUMENT_BYTES {
            return Err(FetchError::TooLarge);
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}

impl From<&reqwest::Error> for FetchError {
    /// The error of a request or of reading its response.
    fn from(error: &reqwest::Error) -> Self {
        match error {
            error if error.is_timeout() => Self::Timeout,
            error if error.is_connect() => unconnected(error),
            error => Self::Body(foreign(innermost(error))),
        }
    }
}

impl FetchError {
    /// The error of a client that could not be created.
    pub(crate) fn without_client(error: &reqwest::Error) -> Self {
        Self::Tls(foreign(innermost(error)))
    }
}

/// Result of a fetch, with the URL that it is about.
#[derive(Debug)]
pub struct Fetched {
    /// URL that was asked last; `None` if no request could be made.
    pub url: Option<Url>,
    /// The document, or the error.
    pub result: Result<Vec<u8>, FetchError>,
}

/// Finds out why there is no connection.
fn unconnected(error: &reqwest::Error) -> FetchError {
    let cause = innermost(error);
    let text = || foreign(cause);
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
        // hyper-util has no other mark of a name that does not resolve.
        if error.to_string() == "dns error" {
            return FetchError::Resolve(text());
        }
        match error.downcast_ref::<io::Error>() {
            Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => return FetchError::Refused,
            // Errors of sockets are the system's. This one contains an error of TLS.
            Some(error) if error.get_ref().is_some() => return FetchError::Handshake(text()),
            _ => {}
        }
    }
    FetchError::Connect(text())
}

/// Returns the root cause of an error. The errors above it add no information.
fn innermost<'e>(error: &'e (dyn std::error::Error + 'static)) -> &'e (dyn std::error::Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// Error of a fetch. Its text is for the operator, and contains at most 200 characters of another computer's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FetchError {
    /// The TLS client could not be created.
    #[error("cannot create the TLS client: {0}")]
    Tls(String),
    /// The name of the host has no address.
    #[error("the host's name cannot be resolved: {0}")]
    Resolve(String),
    /// The host refused the connection.
    #[error("the connection was refused")]
    Refused,
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// The connection could not be established for another reason.
    #[error("no connection: {0}")]
    Connect(String),
    /// There was no connection within two seconds, or no complete response within five.
    #[error("no response in time")]
    Timeout,
    /// The status is not 200. Redirects are not followed.
    #[error("the response has status {0}")]
    Status(u16),
    /// The decompressed document is larger than 512 KiB.
    #[error("the document is larger than 512 KiB")]
    TooLarge,
    /// The response ended early or could not be decompressed.
    #[error("the response cannot be read: {0}")]
    Body(String),
    /// The document contains no usable keys.
    #[error("{0}")]
    Document(#[from] JwksError),
}

impl FetchError {
    /// Every value of the metric label `result`: `success`, and the label of each error.
    pub(crate) const LABELS: [&'static str; 10] = [
        "success",
        "tls",
        "connect",
        "timeout",
        "status",
        "too_large",
        "body",
        "not_json",
        "not_jwks",
        "no_usable_key",
    ];

    /// Value of the metric label `result`.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Resolve(_) | Self::Refused | Self::Handshake(_) | Self::Connect(_) => "connect",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Body(_) => "body",
            Self::Document(JwksError::NotJson) => "not_json",
            Self::Document(JwksError::NotJwks) => "not_jwks",
            Self::Document(JwksError::NoUsableKey) => "no_usable_key",
        }
    }
}
