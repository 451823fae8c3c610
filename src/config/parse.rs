//! Values that options and the policy file have in common: app clients, kinds of token, durations, sizes, and URLs
//! to fetch from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::Deserialize;
use url::{Host, Url};

use crate::user_pool::{AcceptedUse, ClientId, Clients, UserPoolError};

/// Item of `--client-id` and of a pool's `client_ids`.
#[derive(Clone, Debug)]
pub enum AcceptedClient {
    /// This app client.
    Client(ClientId),
    /// Every app client of the pool: `any`.
    Any,
}

impl FromStr for AcceptedClient {
    type Err = UserPoolError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "any" { Ok(Self::Any) } else { text.parse().map(Self::Client) }
    }
}

/// Combines a list of accepted app clients. Returns `None` if it contains `any` and an app client.
pub(super) fn clients(accepted: impl IntoIterator<Item = AcceptedClient>) -> Option<Clients> {
    let mut clients = Vec::new();
    let mut any = false;
    for client in accepted {
        match client {
            AcceptedClient::Client(client) => clients.push(client),
            AcceptedClient::Any => any = true,
        }
    }
    match (any, clients.is_empty()) {
        (false, _) => Some(Clients::Only(clients)),
        (true, true) => Some(Clients::Any),
        (true, false) => None,
    }
}

/// Kind of token.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TokenUseOption {
    /// Access tokens
    #[default]
    Access,
    /// ID tokens
    Id,
    /// Both
    Any,
}

impl From<TokenUseOption> for AcceptedUse {
    fn from(option: TokenUseOption) -> Self {
        match option {
            TokenUseOption::Access => Self::Access,
            TokenUseOption::Id => Self::Id,
            TokenUseOption::Any => Self::Any,
        }
    }
}

/// Number of bytes: `512`, `64KiB`, `16MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "not a number of bytes such as 65536, 64KiB or 16MiB";
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit: u64 = match text.get(digits.len()..).map(str::trim) {
            Some("" | "B") => 1,
            Some("KiB") => 1 << 10,
            Some("MiB") => 1 << 20,
            Some("GiB") => 1 << 30,
            _ => return Err(FORM),
        };
        let number: u64 = digits.parse().map_err(|_| FORM)?;
        number.checked_mul(unit).map(Self).ok_or("too many bytes")
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Parses a duration of at most one day.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = any_duration(text)?;
    if duration > Duration::from_secs(86_400) { Err("more than a day".into()) } else { Ok(duration) }
}

/// Parses a duration that is compared with the age of a session: at most 3650 days, the longest lifetime of a refresh
/// token.
pub(crate) fn long_duration(text: &str) -> Result<Duration, String> {
    let duration = any_duration(text)?;
    if duration > Duration::from_secs(3650 * 86_400) { Err("more than 3650 days".into()) } else { Ok(duration) }
}

/// Parses a duration between `least` and `most`.
pub(crate) fn duration_between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let time = any_duration(text)?;
    let words = |time| humantime::format_duration(time).to_string();
    if (least..=most).contains(&time) {
        Ok(time)
    } else {
        Err(format!("not between {} and {}", words(least), words(most)))
    }
}

fn any_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "not a duration such as 250ms, 30s or 1h".to_owned())
}

/// Checks a URL to fetch from: `https`, or plain `http` to a loopback host, or to any host if `allow_insecure`
/// (`--allow-insecure-endpoints`). It has no user name, password or fragment.
///
/// # Errors
/// A phrase that says what is wrong with the URL.
pub(crate) fn check_endpoint(url: &Url, allow_insecure: bool) -> Result<(), String> {
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("the URL contains a user name, a password or a fragment".into());
    }
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err("the URL has no host".into()),
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback || allow_insecure => Ok(()),
        "http" => Err("plain http to a host other than loopback needs --allow-insecure-endpoints".into()),
        scheme => Err(format!("the scheme is {scheme}, not https")),
    }
}
