//! Options of the account API: calls and limits, hosted sign-in pages, and sessions in cookies.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, ValueEnum};

use super::Cli;
use crate::account::cors::Origin;
use crate::account::rate_limit::Rate;
use crate::account::{AppUri, HostedUiDomain, Issuer, Prefix, RefreshFlow, Scope};
use crate::config::parse::duration_between;
use crate::net::listen::ListenAddress;
use crate::user_pool::ClientId;

/// Topic of these options in the help.
const ACCOUNT_API: &str = "Account API";

/// Returns the ids of the options of the account API, except for `account_api`.
pub(in crate::config) fn account_option_ids() -> Vec<String> {
    let command = Cli::command();
    let options = command.get_arguments().filter(|arg| arg.get_help_heading() == Some(ACCOUNT_API));
    options.map(|arg| arg.get_id().to_string()).filter(|id| id != "account_api").collect()
}

/// Options of the account API.
#[derive(Args, Debug)]
pub struct AccountOptions {
    /// Serve the account API: sign-up, sign-in, sign-out [default: true, unless several app clients are accepted and no option of it is set]
    #[arg(long, value_name = "BOOL", help_heading = ACCOUNT_API, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub account_api: Option<bool>,
    /// Address of a port of its own [default: it shares the admin port]
    #[arg(long, value_name = "ADDRESS", help_heading = ACCOUNT_API)]
    pub account_listen: Option<ListenAddress>,
    /// Path prefix of its routes
    #[arg(long, value_name = "PATH", help_heading = ACCOUNT_API, default_value = "/auth")]
    pub account_prefix: Prefix,
    /// App client that it uses [default: the only --client-id]
    #[arg(long, value_name = "ID", help_heading = ACCOUNT_API)]
    pub account_client_id: Option<ClientId>,
    /// File with the secret of that app client; takes precedence over the variable `COGNITO_CLIENT_SECRET`
    #[arg(long, value_name = "FILE", help_heading = ACCOUNT_API)]
    pub client_secret_file: Option<PathBuf>,
    /// Number of trusted proxies: a client's address is this entry of X-Forwarded-For, from the right [default: X-Forwarded-For is ignored]
    #[arg(long, value_name = "COUNT", help_heading = ACCOUNT_API, value_parser = clap::value_parser!(u8).range(0..=32))]
    pub trusted_hops: Option<u8>,
    /// Origin whose pages may call it from a browser (CORS); repeatable
    #[arg(long, value_name = "ORIGIN", help_heading = ACCOUNT_API)]
    pub cors_origins: Vec<Origin>,
    /// User attribute that users may set at sign-up and change later; repeatable
    #[arg(long, value_name = "NAME", help_heading = ACCOUNT_API)]
    pub account_attributes: Vec<String>,
    /// Key of `clientMetadata` that is passed to Lambda triggers; repeatable
    #[arg(long, value_name = "KEY", help_heading = ACCOUNT_API)]
    pub client_metadata_keys: Vec<String>,
    /// Send the client's address to Cognito (`UserContextData`). The app client needs a secret and has to allow it
    #[arg(long, value_name = "BOOL", help_heading = ACCOUNT_API, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub forward_client_address: bool,
    /// Issuer name that authenticator apps show [default: the realm]
    #[arg(long, value_name = "NAME", help_heading = ACCOUNT_API)]
    pub totp_issuer: Option<Issuer>,
    /// Cognito API for refreshes: `GetTokensFromRefreshToken`, or `REFRESH_TOKEN_AUTH`
    #[arg(long, value_name = "FLOW", help_heading = ACCOUNT_API, default_value = "tokens")]
    pub refresh_flow: RefreshFlowOption,
    /// Timeout of each call to Cognito, 100ms to 10s; all calls of one request end within 10s
    #[arg(long, value_name = "DURATION", help_heading = ACCOUNT_API, default_value = "5s", value_parser = cognito_timeout)]
    pub cognito_timeout: Duration,
    /// Limit for requests, per client address
    #[arg(long, value_name = "N/DURATION", help_heading = ACCOUNT_API, default_value = "75/1m")]
    pub limit_address: Rate,
    /// Limit for attempts at a user's password or code, per user and client address; a third of it in each later period. All addresses together have twice the limit in the first period
    #[arg(long, value_name = "N/DURATION", help_heading = ACCOUNT_API, default_value = "15/1m")]
    pub limit_user: Rate,
    /// Limit for messages, per recipient: a user, an e-mail address or a phone number
    #[arg(long, value_name = "N/DURATION", help_heading = ACCOUNT_API, default_value = "10/10m")]
    pub limit_sends: Rate,
    /// Minimum time of responses that must not reveal whether a user exists; at most 5s
    #[arg(long, value_name = "DURATION", help_heading = ACCOUNT_API, default_value = "300ms", value_parser = min_failure_time)]
    pub account_min_failure_time: Duration,
    /// Never reveal that a user name is taken, an account is not confirmed, or a password must be reset; every sign-up is answered with 201
    #[arg(long, value_name = "BOOL", help_heading = ACCOUNT_API, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub account_hide_users: bool,
    /// Hosted sign-in pages and browser sessions
    #[command(flatten)]
    pub browser: BrowserOptions,
}

/// Value of `--refresh-flow`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RefreshFlowOption {
    /// `GetTokensFromRefreshToken`; required if refresh tokens rotate
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

fn cognito_timeout(text: &str) -> Result<Duration, String> {
    duration_between(text, Duration::from_millis(100), Duration::from_secs(10))
}

fn min_failure_time(text: &str) -> Result<Duration, String> {
    duration_between(text, Duration::ZERO, Duration::from_secs(5))
}

/// Options for browsers.
#[derive(Args, Debug)]
pub struct BrowserOptions {
    /// Domain of the pool's hosted sign-in pages, for `/oauth/authorize-url` and `/oauth/token`
    #[arg(long, value_name = "DOMAIN", help_heading = ACCOUNT_API)]
    pub hosted_ui_domain: Option<HostedUiDomain>,
    /// URI that the hosted pages may redirect to with a code, exactly as registered with the app client; repeatable
    #[arg(long, value_name = "URI", help_heading = ACCOUNT_API)]
    pub oauth_redirect_uris: Vec<AppUri>,
    /// URI that the hosted pages may redirect to after sign-out; repeatable, the first is the default
    #[arg(long, value_name = "URI", help_heading = ACCOUNT_API)]
    pub oauth_logout_uris: Vec<AppUri>,
    /// Scope that is requested at the hosted pages; repeatable. The app client has to allow each
    #[arg(long, value_name = "SCOPE", help_heading = ACCOUNT_API, default_values = ["openid", "email", "profile"])]
    pub oauth_scopes: Vec<Scope>,
    /// File with a secret that all replicas share, so that each can finish a sign-in that another one began [default: the app client's secret]
    #[arg(long, value_name = "FILE", help_heading = ACCOUNT_API)]
    pub oauth_state_key_file: Option<PathBuf>,
    /// Keep browser sessions in cookies (`HttpOnly`, Secure, `SameSite`) instead of returning tokens in bodies
    #[arg(long, value_name = "BOOL", help_heading = ACCOUNT_API, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub account_cookies: bool,
    /// Lifetime of the refresh cookie, 1m to 400d [default: until the browser is closed]
    #[arg(long, value_name = "DURATION", help_heading = ACCOUNT_API, value_parser = cookie_max_age)]
    pub account_cookie_max_age: Option<Duration>,
    /// `true` for a command that only runs checks. It redirects no browser, so options of the sign-in may be missing.
    #[arg(skip)]
    pub is_unused: bool,
}

/// Browsers keep no cookie for longer than 400 days (RFC 6265bis section 5.5).
fn cookie_max_age(text: &str) -> Result<Duration, String> {
    let age = humantime::parse_duration(text).map_err(|_| "not a duration such as 12h or 30d".to_owned())?;
    let range = Duration::from_secs(60)..=Duration::from_secs(400 * 86_400);
    if range.contains(&age) { Ok(age) } else { Err("not between 1m and 400d".into()) }
}
