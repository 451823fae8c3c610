//! Settings of the account API, built from its options and the policy.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::browser;
use super::error::{ConfigError, Errors};
use super::options::{AccountOptions, Options, RefreshFlowOption, account_option_ids};
use super::policy::{AccountClient, AccountClientError, CompiledPolicy, SignInSource};
use super::source::{Source, Sources, flag};
use crate::account::call::Allowed;
use crate::account::cors::Cors;
use crate::account::rate_limit::Rates;
use crate::account::{Issuer, RefreshFlow, Settings};
use crate::authz::SignIn;
use crate::authz::credential::BrowserSessions;
use crate::files::{self, MAX_SECRET_BYTES};
use crate::net::listen::{ListenAddress, SocketAddress};
use crate::user_pool::UserPool;

/// Variable with the secret of the app client.
pub(super) const CLIENT_SECRET: &str = "COGNITO_CLIENT_SECRET";

/// Account API: its [`Settings`], its listener, and the settings of its Cognito client.
#[derive(Clone, Debug)]
pub struct AccountConfig {
    /// Settings of the account room.
    pub settings: Settings,
    /// Address of a port of its own. Without one, the account API shares the admin port.
    pub listen: Option<ListenAddress>,
    /// Pool whose users it serves.
    pub pool: UserPool,
    /// Secret of the app client.
    pub client_secret: Option<SecretString>,
    /// Timeout of each call to Cognito.
    pub cognito_timeout: Duration,
}

impl AccountConfig {
    /// Builds the account API; `None` if it is off. Adds to `notes` why it is off by default.
    pub(super) fn new(
        options: &Options,
        policy: &CompiledPolicy,
        sources: Sources<'_>,
        warnings: &mut Vec<String>,
        notes: &mut Vec<String>,
    ) -> Result<Option<Self>, ConfigError> {
        let account = &options.account;
        let target = client(account, policy, sources, notes)?;
        let Some((pool, AccountClient { client_id, secret_file, .. })) = target else {
            return Ok(None);
        };
        let mut errors = Errors::default();
        let secret = errors.keep(secret(secret_file.as_deref(), sources));
        if account.forward_client_address && matches!(secret, Some(None)) {
            let why = "Cognito accepts a client address only from an app client with a secret";
            errors.add(sources.error("forward_client_address", why));
        }
        let secret = secret.flatten();
        let hosted_ui = errors.keep(browser::hosted_ui(options, &client_id, secret.as_ref(), sources, warnings));
        let hosted_ui = hosted_ui.flatten();
        let cookies =
            browser::cookies(&account.browser, hosted_ui.as_ref(), &account.account_prefix, sources, warnings);
        let cookies = errors.keep(cookies).flatten();
        errors.keep(check_port(options, sources, warnings));
        errors.end()?;
        let cors = Cors::new(account.cors_origins.clone());
        let cors = if cookies.is_some() { cors.with_credentials() } else { cors };
        let settings = Settings {
            pool: pool.name.clone(),
            prefix: account.account_prefix.clone(),
            client_id,
            trusted_hops: account.trusted_hops.map(usize::from),
            cors,
            allowed: Allowed {
                attributes: account.account_attributes.clone(),
                metadata: account.client_metadata_keys.clone(),
                forward_address: account.forward_client_address,
            },
            refresh_flow: match account.refresh_flow {
                RefreshFlowOption::Tokens => RefreshFlow::Tokens,
                RefreshFlowOption::Auth => RefreshFlow::Auth,
            },
            rates: Rates { address: account.limit_address, user: account.limit_user, sends: account.limit_sends },
            min_failure_time: account.account_min_failure_time,
            hide_users: account.account_hide_users,
            totp_issuer: Issuer::or(account.totp_issuer.clone(), options.realm.as_str()),
            is_issuer_chosen: account.totp_issuer.is_some() || sources.is_set("realm"),
            realm: options.realm.as_str().into(),
            hosted_ui,
            cookies,
        };
        Ok(Some(Self {
            settings,
            listen: account.account_listen.clone(),
            pool: pool.clone(),
            client_secret: secret,
            cognito_timeout: account.cognito_timeout,
        }))
    }

    /// Returns the pool and the app client that the account API uses, for `/config`.
    pub fn target(&self) -> Value {
        let Self { pool, settings, .. } = self;
        json!({"pool": pool.name, "user_pool_id": pool.id.as_str(), "endpoint": pool.endpoint.as_str(),
            "client_id": settings.client_id.as_str()})
    }
}

/// Returns the settings of session cookies as a credential of checks. They do not depend on `--account-api`, because
/// another replica may serve the account API.
pub(super) fn browser_sessions(options: &AccountOptions) -> Option<BrowserSessions> {
    let origins = options.cors_origins.iter().map(|origin| origin.as_bytes().into()).collect();
    options.browser.account_cookies.then_some(BrowserSessions { origins })
}

/// Returns the sign-in to which policies can redirect browsers, and the options that it lacks. It does not depend on
/// `--account-api` either.
pub(super) fn sign_in(options: &AccountOptions) -> SignInSource {
    let (prefix, browser) = (&options.account_prefix, &options.browser);
    let has_callback = browser.oauth_redirect_uris.iter().any(|uri| uri.is_callback(prefix));
    let callback = format!("a URI with the path {}/oauth/callback in --oauth-redirect-uris", prefix.as_str());
    let required = [
        (browser.account_cookies, "--account-cookies"),
        (browser.hosted_ui_domain.is_some(), "--hosted-ui-domain"),
        (has_callback, &*callback),
    ];
    let missing = required.into_iter().filter(|(is_given, _)| !is_given && !browser.is_unused);
    SignInSource { routes: SignIn::below(prefix.as_str()), missing: missing.map(|(_, what)| what.to_owned()).collect() }
}

/// Selects the pool and the app client: those of `account` in the policy file, or those of the options and the only
/// pool. Returns `None` if the account API is off: by an option, or because nothing configures it and its app client is
/// ambiguous, which `notes` then say.
///
/// # Errors
/// The account API is configured, but not its pool or app client.
fn client<'p>(
    options: &AccountOptions,
    policy: &'p CompiledPolicy,
    sources: Sources<'_>,
    notes: &mut Vec<String>,
) -> Result<Option<(&'p UserPool, AccountClient)>, ConfigError> {
    if options.account_api == Some(false) {
        return Ok(None);
    }
    let mut pools = policy.pools.iter().map(|(pool, _)| pool);
    if let Some(client) = &policy.account {
        let conflicting = [
            ("account_client_id", options.account_client_id.is_some()),
            ("client_secret_file", options.client_secret_file.is_some()),
        ];
        if let Some((id, _)) = conflicting.into_iter().find(|(_, is_set)| *is_set) {
            return Err(sources.error(id, "conflicts with `account` in the file of --config; set it there"));
        }
        let pool = pools.find(|pool| pool.name == client.pool);
        let pool = pool.ok_or_else(|| sources.error("config", format_args!("there is no pool {}", client.pool)))?;
        return Ok(Some((pool, client.clone())));
    }
    let Some(pool) = pools.next() else { return Ok(None) };
    let is_of_flags = sources.is_set("user_pool_id");
    // The option that is incomplete, what is missing, and where to set it.
    let (id, why, place) = if !is_of_flags && pools.next().is_some() {
        ("config", "the file has several pools; name the one of the account API".to_owned(), "in `account`")
    } else {
        match AccountClient::select(pool, options.account_client_id.clone(), options.client_secret_file.clone()) {
            Ok(client) => return Ok(Some((pool, client))),
            Err(why @ AccountClientError::NotAccepted(..)) => return Err(sources.error("account_client_id", why)),
            Err(why @ AccountClientError::Unnamed(_)) if is_of_flags => {
                ("account_client_id", why.to_string(), "with --account-client-id")
            }
            Err(why @ AccountClientError::Unnamed(_)) => ("config", why.to_string(), "in `account`"),
        }
    };
    match configured_by(options, sources) {
        None => {
            notes.push(format!("{IS_OFF}{why} {place} to serve it"));
            Ok(None)
        }
        Some(name) => {
            let remedy = format!("{place}, or disable the API with --account-api=false ({name} is set)");
            Err(sources.error(id, format_args!("{why} {remedy}")))
        }
    }
}

/// Start of the note about an account API that is off by default.
const IS_OFF: &str = "the account API is off: ";

/// Returns what the default of `--account-api` comes to, for `/config`.
pub(super) fn decided(is_on: bool, notes: &[String]) -> Value {
    let reason = notes.iter().find_map(|note| note.strip_prefix(IS_OFF));
    let mut decided = json!({"value": is_on.to_string(), "source": Source::Default.to_string()});
    if let (Some(reason), Value::Object(members)) = (reason, &mut decided) {
        members.insert("reason".into(), reason.into());
    }
    decided
}

/// Returns the name of an option or variable that configures the account API.
fn configured_by(options: &AccountOptions, sources: Sources<'_>) -> Option<String> {
    if options.account_api.is_some() {
        return Some(flag("account_api"));
    }
    let of_option = account_option_ids().into_iter().find(|id| sources.is_set(id)).map(|id| flag(&id));
    of_option.or_else(|| sources.secret(CLIENT_SECRET).map(|_| CLIENT_SECRET.to_owned()))
}

/// Reads the secret of the app client from `file`, or else from the variable [`CLIENT_SECRET`]. No error contains the
/// value.
fn secret(file: Option<&Path>, sources: Sources<'_>) -> Result<Option<SecretString>, ConfigError> {
    match (file, sources.secret(CLIENT_SECRET)) {
        (Some(path), _) => {
            let error = |why: &str| sources.error("client_secret_file", format_args!("{} {why}", path.display()));
            let text = files::read_text(path, MAX_SECRET_BYTES).map_err(|why| error(&why.to_string()))?;
            let secret = parse_secret(text.trim()).ok_or_else(|| error(&format!("does not contain {SECRET_FORM}")))?;
            Ok(Some(secret))
        }
        (None, Some((text, source))) => match parse_secret(text.expose_secret()) {
            Some(secret) => Ok(Some(secret)),
            None => Err(ConfigError::new(format!("{CLIENT_SECRET} is not {SECRET_FORM} (from {source})"))),
        },
        (None, None) => Ok(None),
    }
}

const SECRET_FORM: &str = "an app client's secret (one word of 8 to 128 characters)";

/// Checks the form of a secret: one word of visible ASCII. AWS generates 24 to 64 characters of `[\w+]`; emulators use
/// others. Only Cognito can tell if the secret is correct.
fn parse_secret(text: &str) -> Option<SecretString> {
    ((8..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.into())
}

/// Paths of the admin port.
const ADMIN_PATHS: [&str; 6] = ["/livez", "/readyz", "/metrics", "/config", "/status", "/revocations"];

/// Checks an account API that shares the admin port: its prefix is no admin path, and only this machine should reach
/// the port.
fn check_port(options: &Options, sources: Sources<'_>, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    if options.account.account_listen.is_some() {
        return Ok(());
    }
    let (admin, prefix) = (&options.admin_listen, options.account.account_prefix.as_str());
    if ADMIN_PATHS.contains(&prefix) {
        return Err(sources.error("account_prefix", "a path of the admin port"));
    }
    if !is_private(admin) {
        warnings.push(format!(
            "the account API shares the admin port {admin}, so its clients can also reach /metrics and /config; set \
             --account-listen, or route only {prefix} to this port"
        ));
    }
    Ok(())
}

/// `true` if only this machine can reach the address.
fn is_private(address: &ListenAddress) -> bool {
    match &address.socket {
        SocketAddress::Unix(_) => true,
        SocketAddress::Tcp(address) => {
            let host = address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}
