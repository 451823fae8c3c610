//! Cognito, over the network: the keys and the `OpenID` document of each pool, its app clients, and the clock.
//!
//! No request needs AWS credentials, and none changes anything or concerns a user: keys and document are public, and an
//! app client is looked up by a refresh with a text that is no refresh token.

use serde_json::{Value, json};
use url::Url;

use super::http::{Client, Response};
use super::{Report, hosted};
use crate::config::Config;
use crate::jwks::fetch::FetchError;
use crate::jwks::{JwksError, KeySet, hint};
use crate::user_pool::{ClientId, Clients, UserPool};

/// Most app clients of a pool that are looked up.
const MAX_CLIENTS: usize = 20;

/// Examines every pool and the hosted pages.
pub(super) async fn examine(config: &Config, report: &mut Report) {
    let client = match Client::new().await {
        Ok(client) => client,
        Err(error) => {
            report.error(
                "network",
                format!("{error}."),
                "The service cannot fetch keys.",
                "Install CA certificates, or set SSL_CERT_FILE.",
            );
            return;
        }
    };
    let mut clock = Clock::default();
    for (pool, _) in &config.policy.pools {
        examine_pool(pool, &client, &mut clock, report).await;
    }
    if let Some(account) = &config.account {
        hosted::examine(account, &client, report).await;
    }
    clock.examine(config.limits.leeway, report);
}

/// Clock of this machine, compared with the clocks of the servers.
#[derive(Default)]
struct Clock {
    /// Smallest difference so far, in seconds, with the host of the server.
    ahead: Option<(i64, String)>,
}

impl Clock {
    fn saw(&mut self, url: &Url, response: &Response) {
        if let Some(ahead) = response.ahead
            && self.ahead.as_ref().is_none_or(|(known, _)| ahead.abs() < known.abs())
        {
            self.ahead = Some((ahead, url.host_str().unwrap_or_default().to_owned()));
        }
    }

    fn examine(&self, leeway: i64, report: &mut Report) {
        let Some((ahead, host)) = &self.ahead else {
            report.warning("clock", "No server told the time.", "The clock of this machine was not examined.", "");
            return;
        };
        let side = if *ahead < 0 { "behind" } else { "ahead of" };
        let what = format!("the clock of this machine is {} s {side} that of {host}", ahead.abs());
        // The time of the response has whole seconds, and took a while to arrive.
        if ahead.abs() > leeway.saturating_add(1) {
            let effect = if *ahead < 0 {
                "Tokens are accepted after they have expired."
            } else {
                "Valid tokens are refused as expired."
            };
            report.error(
                "clock",
                format!("{what}; the leeway is {leeway} s."),
                effect,
                "Synchronize the clock (NTP) of this machine.",
            );
        } else {
            report.ok("clock", what);
        }
    }
}

async fn examine_pool(pool: &UserPool, client: &Client, clock: &mut Clock, report: &mut Report) {
    let place = format!("pool {}", pool.name);
    let unreachable = examine_keys(&place, pool, client, clock, report).await;
    let url = pool.openid_configuration_url();
    if unreachable.is_some_and(|host| url.host_str() == Some(&*host)) {
        return;
    }
    match client.get(url.clone()).await {
        Ok(response) => {
            clock.saw(&url, &response);
            examine_document(&place, pool, &url, &response, report);
        }
        Err(error) => {
            let fix = sentence(&hint(&error, pool));
            report.error(&place, format!("{url}: {error}."), "Cognito's API cannot be reached.", fix);
            return;
        }
    }
    if let Clients::Only(clients) = &pool.clients {
        examine_clients(&place, pool, clients, client, clock, report).await;
    }
}

/// Examines the keys. Returns the host if it cannot be reached.
async fn examine_keys(
    place: &str,
    pool: &UserPool,
    client: &Client,
    clock: &mut Clock,
    report: &mut Report,
) -> Option<String> {
    let (url, error) = match fetch_keys(pool, client, Some(clock)).await {
        Ok((count, url)) => {
            report.ok(place, format!("{count} keys from {url}"));
            return None;
        }
        Err(failure) => failure,
    };
    let fix = sentence(&hint(&error, pool));
    report.error(
        place,
        format!("The keys cannot be fetched from {url}: {error}."),
        "Without keys, every token is answered with 503.",
        fix,
    );
    let is_unreachable = matches!(
        error,
        FetchError::Connect(_)
            | FetchError::Resolve(_)
            | FetchError::Refused
            | FetchError::Handshake(_)
            | FetchError::Timeout
    );
    url.host_str().filter(|_| is_unreachable).map(str::to_owned)
}

/// Keys of a pool.
pub struct PoolKeys {
    /// Name of the pool.
    pub pool: Box<str>,
    /// Number of usable keys, and their address; or a sentence about the error, with its likely cause.
    pub keys: Result<(usize, Url), String>,
}

/// Fetches the keys of each pool.
pub async fn keys(config: &Config) -> Vec<PoolKeys> {
    let client = Client::new().await;
    let mut all = Vec::new();
    for (pool, _) in &config.policy.pools {
        let keys = match &client {
            Err(error) => Err(format!("{error}; {}", hint(error, pool))),
            Ok(client) => match fetch_keys(pool, client, None).await {
                Ok((count, url)) => Ok((count, url.clone())),
                Err((url, error)) => {
                    let hint = hint(&error, pool);
                    Err(format!("the keys cannot be fetched from {url}: {error}; {hint}"))
                }
            },
        };
        all.push(PoolKeys { pool: pool.name.clone(), keys });
    }
    all
}

/// Fetches the keys from the first address that does not answer 403 or 404, as the service does. Returns their number.
async fn fetch_keys<'p>(
    pool: &'p UserPool,
    client: &Client,
    mut clock: Option<&mut Clock>,
) -> Result<(usize, &'p Url), (&'p Url, FetchError)> {
    let mut failure = None;
    for url in &pool.jwks_urls {
        let result = match client.get(url.clone()).await {
            Ok(response) => {
                if let Some(clock) = &mut clock {
                    clock.saw(url, &response);
                }
                match response.status {
                    200 => KeySet::parse(&response.body, &KeySet::default()).map_err(FetchError::from),
                    status => Err(FetchError::Status(status)),
                }
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(keys) => return Ok((keys.len(), url)),
            Err(error) => {
                let is_last = !matches!(error, FetchError::Status(403 | 404));
                // The first address is the one that nearly every pool has.
                failure.get_or_insert((url, error));
                if is_last {
                    break;
                }
            }
        }
    }
    // Every pool has an address.
    Err(failure.unwrap_or((&pool.endpoint, FetchError::Document(JwksError::NoUsableKey))))
}

/// Compares the `OpenID` document with the pool.
fn examine_document(place: &str, pool: &UserPool, url: &Url, response: &Response, report: &mut Report) {
    if response.status != 200 {
        let error = FetchError::Status(response.status);
        let fix = sentence(&hint(&error, pool));
        report.error(
            place,
            format!("There is no OpenID document at {url}: {error}."),
            "The id of the pool, its region or the endpoint is wrong.",
            fix,
        );
        return;
    }
    let document: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    match document.get("issuer").and_then(Value::as_str) {
        Some(issuer) if pool.issuers.iter().any(|accepted| accepted == issuer) => {
            report.ok(place, format!("tokens are issued by {issuer}"));
        }
        Some(issuer) => report.error(
            place,
            format!("The pool issues tokens with iss {issuer}; accepted are {}.", pool.issuers.join(", ")),
            "Every token of this pool is refused (unknown_issuer).",
            "Correct the pool's id, or the issuers (--issuer, `issuers`).",
        ),
        None => report.error(
            place,
            format!("{url} answers without an OpenID document."),
            "Another server, such as a proxy, answers in Cognito's place.",
            "Correct --cognito-endpoint, or `endpoint` of the pool.",
        ),
    }
}

/// Looks up each app client in the region of the pool.
async fn examine_clients(
    place: &str,
    pool: &UserPool,
    clients: &[ClientId],
    client: &Client,
    clock: &mut Clock,
    report: &mut Report,
) {
    for id in clients.iter().take(MAX_CLIENTS) {
        let call = json!({
            "ClientId": id.as_str(),
            "AuthFlow": "REFRESH_TOKEN_AUTH",
            "AuthParameters": {"REFRESH_TOKEN": "not-a-token"},
        });
        let name = id.as_str();
        match client.call(pool.endpoint.clone(), "InitiateAuth", &call).await {
            Ok(response) => {
                clock.saw(&pool.endpoint, &response);
                match &*error_name(&response) {
                    "ResourceNotFoundException" => report.error(
                        place,
                        format!("The app client {name} does not exist in {}.", pool.id.region()),
                        "No token can have it, and sign-ins with it fail.",
                        "Correct --client-id, or `client_ids` of the pool.",
                    ),
                    // Cognito knows the app client, and refuses the token, the flow or the missing secret.
                    "NotAuthorizedException" | "InvalidParameterException" | "UnsupportedOperationException" => {
                        report.ok(place, format!("the app client {name} exists in {}", pool.id.region()));
                    }
                    other => report.warning(
                        place,
                        format!(
                            "Whether the app client {name} exists is not known: status {} {other}.",
                            response.status
                        ),
                        "",
                        "Run doctor again later.",
                    ),
                }
            }
            Err(error) => {
                let fix = sentence(&hint(&error, pool));
                report.error(
                    place,
                    format!("The app client {name} cannot be looked up at {}: {error}.", pool.endpoint),
                    "The account API cannot reach Cognito either.",
                    fix,
                );
                return;
            }
        }
    }
    if clients.len() > MAX_CLIENTS {
        report.warning(
            place,
            format!("Only the first {MAX_CLIENTS} of {} app clients were looked up.", clients.len()),
            "",
            "",
        );
    }
}

/// Name of the error of the user-pool API, from the header or the body.
fn error_name(response: &Response) -> String {
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let name =
        response.error_type.as_deref().or_else(|| body.get("__type").and_then(Value::as_str)).unwrap_or_default();
    // `prefix#Name:suffix`
    let name = name.rsplit('#').next().unwrap_or_default();
    name.split(':').next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).take(64).collect()
}

pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '?']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}
