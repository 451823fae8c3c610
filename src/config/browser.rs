//! Options of the account API for browsers: the hosted sign-in pages, and sessions in cookies.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::{ConfigError, check_endpoint};
use crate::account::oauth::state::StateKey;
use crate::account::{AppUri, Cookies, HostedUi, HostedUiDomain, Scope};
use crate::file_read::{self, MAX_SECRET_BYTES};
use crate::user_pool::ClientId;

/// The options.
#[derive(Args, Debug)]
pub struct BrowserOptions {
    /// Domain of the pool's hosted sign-in pages, for `/oauth/authorize-url` and `/oauth/token`
    #[arg(long, value_name = "DOMAIN", help_heading = "Account API")]
    pub hosted_ui_domain: Option<HostedUiDomain>,
    /// Where the hosted pages may send codes, exactly as the app client has it; repeatable
    #[arg(long, value_name = "URI", help_heading = "Account API")]
    pub oauth_redirect_uris: Vec<AppUri>,
    /// Where the hosted pages may send the browser after signing out; repeatable, the first is the usual one
    #[arg(long, value_name = "URI", help_heading = "Account API")]
    pub oauth_logout_uris: Vec<AppUri>,
    /// Scope that is asked for at the hosted pages; repeatable. The app client has to allow each
    #[arg(long, value_name = "SCOPE", help_heading = "Account API", default_values = ["openid", "email", "profile"])]
    pub oauth_scopes: Vec<Scope>,
    /// File with a secret that all replicas have, to know each other's sign-ins by [default: the app client's secret]
    #[arg(long, value_name = "FILE", help_heading = "Account API")]
    pub oauth_state_key_file: Option<PathBuf>,
    /// Keep browser sessions in cookies (`HttpOnly`, Secure, SameSite=Strict), and no tokens in bodies
    #[arg(long, value_name = "BOOL", help_heading = "Account API", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub account_cookies: bool,
    /// Time that the refresh cookie stays, at most 400d [default: as long as the browser]
    #[arg(long, value_name = "DURATION", help_heading = "Account API", value_parser = cookie_max_age)]
    pub account_cookie_max_age: Option<Duration>,
}

/// Browsers keep no cookie for longer than 400 days (RFC 6265bis section 5.5).
fn cookie_max_age(text: &str) -> Result<Duration, String> {
    let age = humantime::parse_duration(text).map_err(|_| "not a duration such as 12h or 30d".to_owned())?;
    let range = Duration::from_secs(60)..=Duration::from_secs(400 * 86_400);
    if range.contains(&age) { Ok(age) } else { Err("not between 1m and 400d".into()) }
}

/// Bytes that a secret for states has at least.
const MIN_KEY_BYTES: usize = 32;

impl BrowserOptions {
    /// The hosted pages, if there are any. What belongs to them without them is a mistake.
    pub(super) fn hosted_ui(
        &self,
        client_id: &ClientId,
        secret: Option<&SecretString>,
        allow_insecure: bool,
        error: &dyn Fn(&str, &str) -> ConfigError,
        warnings: &mut Vec<String>,
    ) -> Result<Option<HostedUi>, ConfigError> {
        let Some(domain) = self.hosted_ui_domain.clone() else {
            let lost = [
                ("oauth_redirect_uris", !self.oauth_redirect_uris.is_empty()),
                ("oauth_logout_uris", !self.oauth_logout_uris.is_empty()),
                ("oauth_state_key_file", self.oauth_state_key_file.is_some()),
            ];
            return match lost.iter().find(|(_, is_set)| *is_set) {
                Some((id, _)) => Err(error(id, "of no use without --hosted-ui-domain")),
                None => Ok(None),
            };
        };
        check_endpoint(&domain.0, allow_insecure).map_err(|why| error("hosted_ui_domain", &why))?;
        if self.oauth_redirect_uris.is_empty() {
            return Err(error(
                "hosted_ui_domain",
                "needs at least one of --oauth-redirect-uris: where codes may be sent",
            ));
        }
        let state_key = match (&self.oauth_state_key_file, secret) {
            (Some(path), _) => {
                let wrong = |why: &str| error("oauth_state_key_file", &format!("{} {why}", path.display()));
                let text = file_read::read(path, MAX_SECRET_BYTES).map_err(|why| wrong(&why.to_string()))?;
                if text.trim_ascii().len() < MIN_KEY_BYTES {
                    return Err(wrong("has fewer than 32 bytes: try `openssl rand -hex 32`"));
                }
                StateKey::derived(text.trim_ascii(), client_id.as_str())
            }
            (None, Some(secret)) => StateKey::derived(secret.expose_secret().as_bytes(), client_id.as_str()),
            (None, None) => {
                warnings.push(
                    "sign-ins at the hosted pages have to end at the replica where they began: the app client has no secret, \
                     and --oauth-state-key-file is unset"
                        .into(),
                );
                StateKey::random().ok_or_else(|| error("hosted_ui_domain", "the system has no random numbers"))?
            }
        };
        Ok(Some(HostedUi {
            domain,
            redirect_uris: self.oauth_redirect_uris.clone(),
            logout_uris: self.oauth_logout_uris.clone(),
            scopes: self.oauth_scopes.clone(),
            state_key,
        }))
    }

    /// Browser sessions, if they are on.
    pub(super) fn cookies(&self, error: &dyn Fn(&str, &str) -> ConfigError) -> Result<Option<Cookies>, ConfigError> {
        if self.account_cookie_max_age.is_some() && !self.account_cookies {
            return Err(error("account_cookie_max_age", "of no use without --account-cookies"));
        }
        let max_age = self.account_cookie_max_age.map(|age| age.as_secs());
        Ok(self.account_cookies.then_some(Cookies { max_age }))
    }
}
