//! Settings of the account API for browsers: hosted sign-in pages, and sessions in cookies.

use secrecy::{ExposeSecret, SecretString};

use super::error::ConfigError;
use super::options::{BrowserOptions, Options};
use super::parse::check_endpoint;
use super::source::Sources;
use crate::account::oauth::state::StateKey;
use crate::account::{Cookies, HostedUi, Prefix};
use crate::files::{self, MAX_SECRET_BYTES};
use crate::session_cookie::SameSite;
use crate::user_pool::ClientId;

/// Minimum length of a secret in `--oauth-state-key-file`, in bytes.
const MIN_KEY_BYTES: usize = 32;

/// Builds the settings of the hosted pages. Without `--hosted-ui-domain` there are none, and their options are errors.
pub(super) fn hosted_ui(
    options: &Options,
    client_id: &ClientId,
    secret: Option<&SecretString>,
    sources: Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<HostedUi>, ConfigError> {
    let browser = &options.account.browser;
    let Some(domain) = browser.hosted_ui_domain.clone() else {
        let dependent = [
            ("oauth_redirect_uris", !browser.oauth_redirect_uris.is_empty()),
            ("oauth_logout_uris", !browser.oauth_logout_uris.is_empty()),
            ("oauth_state_key_file", browser.oauth_state_key_file.is_some()),
        ];
        return match dependent.iter().find(|(_, is_set)| *is_set) {
            Some((id, _)) => Err(sources.error(id, "has no effect without --hosted-ui-domain")),
            None => Ok(None),
        };
    };
    check_endpoint(&domain.0, options.allow_insecure_endpoints)
        .map_err(|why| sources.error("hosted_ui_domain", why))?;
    if browser.oauth_redirect_uris.is_empty() {
        return Err(sources.error("hosted_ui_domain", "needs at least one URI in --oauth-redirect-uris"));
    }
    let state_key = state_key(browser, client_id, secret, sources, warnings)?;
    Ok(Some(HostedUi {
        domain,
        redirect_uris: browser.oauth_redirect_uris.clone(),
        logout_uris: browser.oauth_logout_uris.clone(),
        scopes: browser.oauth_scopes.clone(),
        state_key,
    }))
}

/// Derives the key that seals the state of a sign-in: from a file, from the app client's secret, or random.
fn state_key(
    browser: &BrowserOptions,
    client_id: &ClientId,
    secret: Option<&SecretString>,
    sources: Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<StateKey, ConfigError> {
    match (&browser.oauth_state_key_file, secret) {
        (Some(path), _) => {
            let error = |why: &str| sources.error("oauth_state_key_file", format_args!("{} {why}", path.display()));
            let text = files::read(path, MAX_SECRET_BYTES).map_err(|why| error(&why.to_string()))?;
            if text.trim_ascii().len() < MIN_KEY_BYTES {
                return Err(error("has fewer than 32 bytes; create one with `openssl rand -hex 32`"));
            }
            Ok(StateKey::derived(text.trim_ascii(), client_id.as_str()))
        }
        (None, Some(secret)) => Ok(StateKey::derived(secret.expose_secret().as_bytes(), client_id.as_str())),
        (None, None) => {
            warnings.push(
                "a sign-in at the hosted pages can only end at the replica where it began, because the app client has \
                 no secret and --oauth-state-key-file is unset"
                    .into(),
            );
            StateKey::random()
                .ok_or_else(|| sources.error("hosted_ui_domain", "the system cannot generate random numbers"))
        }
    }
}

/// Builds the settings of browser sessions; `None` without `--account-cookies`.
///
/// Browsers do not send `Strict` cookies on a navigation that another site started. The way back from the hosted pages
/// is one, so the cookies of a sign-in by redirect are `Lax`.
pub(super) fn cookies(
    browser: &BrowserOptions,
    hosted_ui: Option<&HostedUi>,
    prefix: &Prefix,
    sources: Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Cookies>, ConfigError> {
    if browser.account_cookie_max_age.is_some() && !browser.account_cookies {
        return Err(sources.error("account_cookie_max_age", "has no effect without --account-cookies"));
    }
    let max_age = browser.account_cookie_max_age.map(|age| age.as_secs());
    let redirects = hosted_ui.filter(|hosted| browser.account_cookies && hosted.callbacks(prefix).next().is_some());
    if redirects.is_some_and(|hosted| hosted.logout_uris.is_empty()) {
        warnings.push(format!(
            "a sign-out at {}/oauth/sign-out does not end the session at the hosted pages, because --oauth-logout-uris \
             is unset",
            prefix.as_str()
        ));
    }
    let same_site = if redirects.is_some() { SameSite::Lax } else { SameSite::Strict };
    Ok(browser.account_cookies.then_some(Cookies { max_age, same_site }))
}
