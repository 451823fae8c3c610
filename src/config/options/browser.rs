//! Options of the account API for browsers: hosted sign-in pages, and sessions in cookies.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::account::{AppUri, HostedUiDomain, Scope};

/// Options for browsers.
#[derive(Args, Debug)]
pub struct BrowserOptions {
    /// Domain of the pool's hosted sign-in pages, for `/oauth/authorize-url` and `/oauth/token`
    #[arg(long, value_name = "DOMAIN", help_heading = "Account API")]
    pub hosted_ui_domain: Option<HostedUiDomain>,
    /// URI that the hosted pages may redirect to with a code, exactly as registered with the app client; repeatable
    #[arg(long, value_name = "URI", help_heading = "Account API")]
    pub oauth_redirect_uris: Vec<AppUri>,
    /// URI that the hosted pages may redirect to after sign-out; repeatable, the first is the default
    #[arg(long, value_name = "URI", help_heading = "Account API")]
    pub oauth_logout_uris: Vec<AppUri>,
    /// Scope that is requested at the hosted pages; repeatable. The app client has to allow each
    #[arg(long, value_name = "SCOPE", help_heading = "Account API", default_values = ["openid", "email", "profile"])]
    pub oauth_scopes: Vec<Scope>,
    /// File with a secret that all replicas share, so that each can finish a sign-in that another one began [default: the app client's secret]
    #[arg(long, value_name = "FILE", help_heading = "Account API")]
    pub oauth_state_key_file: Option<PathBuf>,
    /// Keep browser sessions in cookies (`HttpOnly`, Secure, SameSite=Strict) instead of returning tokens in bodies
    #[arg(long, value_name = "BOOL", help_heading = "Account API", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub account_cookies: bool,
    /// Lifetime of the refresh cookie, 1m to 400d [default: until the browser is closed]
    #[arg(long, value_name = "DURATION", help_heading = "Account API", value_parser = cookie_max_age)]
    pub account_cookie_max_age: Option<Duration>,
}

/// Browsers keep no cookie for longer than 400 days (RFC 6265bis section 5.5).
fn cookie_max_age(text: &str) -> Result<Duration, String> {
    let age = humantime::parse_duration(text).map_err(|_| "not a duration such as 12h or 30d".to_owned())?;
    let range = Duration::from_secs(60)..=Duration::from_secs(400 * 86_400);
    if range.contains(&age) { Ok(age) } else { Err("not between 1m and 400d".into()) }
}
