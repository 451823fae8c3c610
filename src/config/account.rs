//! Options of the account API, and what they become.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use secrecy::{ExposeSecret, SecretString};

use super::ConfigError;
use super::browser::BrowserOptions;
use super::options::duration;
use super::rules::AccountClient;
use super::source::Source;
use crate::account::call::Allowed;
use crate::account::cors::{Cors, Origin};
use crate::account::rate_limit::{Rate, Rates};
use crate::account::{Cookies, HostedUi, Issuer, Prefix, RefreshFlow};
use crate::authz::credential::BrowserSessions;
use crate::file_read::{self, MAX_SECRET_BYTES};
use crate::listen::ListenAddress;
use crate::user_pool::ClientId;

/// The variable with the app client's secret.
pub const CLIENT_SECRET: &str = "COGNITO_CLIENT_SECRET";

/// The options.
#[derive(Args, Debug)]
pub struct AccountOptions {
    /// Serve the account API: sign-up, sign-in, sign-out
    #[arg(long, value_name = "BOOL", help_heading = "Account API", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub account_api: bool,
    /// Where, instead of on the admin port
    #[arg(long, value_name = "ADDRESS", help_heading = "Account API")]
    pub account_listen: Option<ListenAddress>,
    /// Path that its routes are below
    #[arg(long, value_name = "PATH", help_heading = "Account API", default_value = "/auth")]
    pub account_prefix: Prefix,
    /// App client that it speaks for [default: the only --client-id]
    #[arg(long, value_name = "ID", help_heading = "Account API")]
    pub account_client_id: Option<ClientId>,
    /// File with that client's secret, if it has one; goes before the variable `COGNITO_CLIENT_SECRET`
    #[arg(long, value_name = "FILE", help_heading = "Account API")]
    pub client_secret_file: Option<PathBuf>,
    /// Proxies in front, to count from the right of X-Forwarded-For [default: X-Forwarded-For is not believed]
    #[arg(long, value_name = "COUNT", help_heading = "Account API", value_parser = clap::value_parser!(u8).range(0..=32))]
    pub trusted_hops: Option<u8>,
    /// Origin whose pages may use it from a browser (CORS); repeatable
    #[arg(long, value_name = "ORIGIN", help_heading = "Account API")]
    pub cors_origins: Vec<Origin>,
    /// Attribute that users may set when they sign up, beside their name and address, and change; repeatable
    #[arg(long, value_name = "NAME", help_heading = "Account API")]
    pub account_attributes: Vec<String>,
    /// Key of `clientMetadata` that is passed on to Lambdas; repeatable
    #[arg(long, value_name = "KEY", help_heading = "Account API")]
    pub client_metadata_keys: Vec<String>,
    /// Tell Cognito the client's address (`UserContextData`); the app client needs a secret and has to allow it
    #[arg(long, value_name = "BOOL", help_heading = "Account API", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub forward_client_address: bool,
    /// What authenticator apps call the issuer of their codes [default: the realm]
    #[arg(long, value_name = "NAME", help_heading = "Account API")]
    pub totp_issuer: Option<Issuer>,
    /// How to refresh: `GetTokensFromRefreshToken`, or `REFRESH_TOKEN_AUTH`
    #[arg(long, value_name = "FLOW", help_heading = "Account API", default_value = "tokens")]
    pub refresh_flow: RefreshFlowOption,
    /// Time for each call of Cognito; a client waits at most 10s in all
    #[arg(long, value_name = "DURATION", help_heading = "Account API", default_value = "5s", value_parser = cognito_timeout)]
    pub cognito_timeout: Duration,
    /// Requests of an address
    #[arg(long, value_name = "N/DURATION", help_heading = "Account API", default_value = "75/1m")]
    pub limit_address: Rate,
    /// Attempts of an address at a user's password or code, and a third of them in each later duration; from all addresses together twice as many in the first duration
    #[arg(long, value_name = "N/DURATION", help_heading = "Account API", default_value = "15/1m")]
    pub limit_user: Rate,
    /// Messages to a recipient: a user, an e-mail address or a phone number
    #[arg(long, value_name = "N/DURATION", help_heading = "Account API", default_value = "10/10m")]
    pub limit_sends: Rate,
    /// Least time for answers that must not tell whether a user exists; at most 5s
    #[arg(long, value_name = "DURATION", help_heading = "Account API", default_value = "300ms", value_parser = min_failure_time)]
    pub account_min_failure_time: Duration,
    /// Tell nobody that a name is taken, an account not verified, or a password to be reset; every sign-up is answered with 201
    #[arg(long, value_name = "BOOL", help_heading = "Account API", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub account_hide_users: bool,
    /// Hosted sign-in pages and browser sessions.
    #[command(flatten)]
    pub browser: BrowserOptions,
}

/// A value of `--refresh-flow`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RefreshFlowOption {
    /// `GetTokensFromRefreshToken`; needed where refresh tokens rotate
    Tokens,
    /// `REFRESH_TOKEN_AUTH`
    Auth,
}

impl From<RefreshFlowOption> for RefreshFlow {
    fn from(option: RefreshFlowOption) -> Self {
        match option {
            RefreshFlowOption::Tokens => Self::Tokens,
            RefreshFlowOption::Auth => Self::Auth,
        }
    }
}

fn between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let time = duration(text)?;
    let words = |time| humantime::format_duration(time).to_string();
    if (least..=most).contains(&time) {
        Ok(time)
    } else {
        Err(format!("not between {} and {}", words(least), words(most)))
    }
}

fn cognito_timeout(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_millis(100), Duration::from_secs(10))
}

fn min_failure_time(text: &str) -> Result<Duration, String> {
    between(text, Duration::ZERO, Duration::from_secs(5))
}

/// Settings of the account API.
#[derive(Clone, Debug)]
pub struct AccountConfig {
    /// Name of the pool whose people it serves.
    pub pool: Box<str>,
    /// Address, if it has one of its own.
    pub listen: Option<ListenAddress>,
    /// Path that its routes are below.
    pub prefix: Prefix,
    /// App client that it speaks for.
    pub client_id: ClientId,
    /// That client's secret.
    pub client_secret: Option<SecretString>,
    /// Proxies in front.
    pub trusted_hops: Option<usize>,
    /// Pages that may use it.
    pub cors: Cors,
    /// What is passed on.
    pub allowed: Allowed,
    /// What authenticators call the issuer of accounts; the realm, if nothing else.
    pub totp_issuer: Option<Issuer>,
    /// How to refresh.
    pub refresh_flow: RefreshFlow,
    /// Time for each call of Cognito.
    pub cognito_timeout: Duration,
    /// Limits.
    pub rates: Rates,
    /// Least time for an answer that must not tell whether a user exists.
    pub min_failure_time: Duration,
    /// Whether less is told.
    pub hide_users: bool,
    /// The hosted sign-in pages, if they are used.
    pub hosted_ui: Option<HostedUi>,
    /// Browser sessions, if they are on.
    pub cookies: Option<Cookies>,
}

impl AccountOptions {
    /// Whether checks take the sessions that the account API gives browsers, wherever it is served.
    pub(super) fn browser_sessions(&self) -> Option<BrowserSessions> {
        let origins = self.cors_origins.iter().map(|origin| origin.as_bytes().into()).collect();
        self.browser.account_cookies.then_some(BrowserSessions { origins })
    }
}

impl AccountConfig {
    /// The settings; none if there is no `client` to speak for, because the API is off. `error` says where an option's value stands.
    pub(super) fn new(
        options: AccountOptions,
        client: Option<AccountClient>,
        admin: &ListenAddress,
        allow_insecure: bool,
        secret: Option<(SecretString, Source)>,
        error: &dyn Fn(&str, &str) -> ConfigError,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(AccountClient { pool, client_id, secret_file }) = client else {
            return Ok(None);
        };
        let secret = match (&secret_file, secret) {
            (Some(path), _) => {
                let text = file_read::read_text(path, MAX_SECRET_BYTES)
                    .map_err(|why| error("client_secret_file", &format!("{} {why}", path.display())))?;
                let why = format!("{} does not hold {SECRET_FORM}", path.display());
                Some(parse_secret(text.trim()).ok_or_else(|| error("client_secret_file", &why))?)
            }
            (None, Some((text, source))) => Some(
                parse_secret(text.expose_secret())
                    .ok_or_else(|| ConfigError::new(format!("{CLIENT_SECRET} is not {SECRET_FORM} (from {source})")))?,
            ),
            (None, None) => None,
        };
        if options.forward_client_address && secret.is_none() {
            return Err(error("forward_client_address", "Cognito takes it only from an app client with a secret"));
        }
        let hosted_ui = options.browser.hosted_ui(&client_id, secret.as_ref(), allow_insecure, error, warnings)?;
        let cookies = options.browser.cookies(error)?;
        let cors = Cors::new(options.cors_origins);
        let cors = if cookies.is_some() { cors.with_credentials() } else { cors };
        let shares = options.account_listen.is_none();
        if shares && ADMIN_PATHS.contains(&options.account_prefix.as_str()) {
            return Err(error("account_prefix", "a path of the admin port"));
        }
        if shares && !is_private(admin) {
            warnings.push(format!(
                "the account API shares the admin port {admin}: whoever reaches it also reaches /metrics and /config; \
                 use --account-listen, or route nothing but {} to this port",
                options.account_prefix.as_str()
            ));
        }
        Ok(Some(Self {
            pool,
            listen: options.account_listen,
            prefix: options.account_prefix,
            client_id,
            client_secret: secret,
            trusted_hops: options.trusted_hops.map(usize::from),
            cors,
            allowed: Allowed {
                attributes: options.account_attributes,
                metadata: options.client_metadata_keys,
                forward_address: options.forward_client_address,
            },
            totp_issuer: options.totp_issuer,
            refresh_flow: options.refresh_flow.into(),
            cognito_timeout: options.cognito_timeout,
            rates: Rates { address: options.limit_address, user: options.limit_user, sends: options.limit_sends },
            min_failure_time: options.account_min_failure_time,
            hide_users: options.account_hide_users,
            hosted_ui,
            cookies,
        }))
    }
}

/// Paths that operators ask for.
const ADMIN_PATHS: [&str; 4] = ["/livez", "/readyz", "/metrics", "/config"];

const SECRET_FORM: &str = "an app client's secret (one word of 8 to 128 characters)";

/// One word. AWS's secrets are 24 to 64 characters of `[\w+]`, those of emulators have others, too; whether it is the
/// right one only Cognito can say. The value is in no error.
fn parse_secret(text: &str) -> Option<SecretString> {
    ((8..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.into())
}

/// Whether only this machine reaches the address.
fn is_private(address: &ListenAddress) -> bool {
    match address {
        ListenAddress::Unix(_) => true,
        ListenAddress::Tcp(address) => {
            let host = address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}
