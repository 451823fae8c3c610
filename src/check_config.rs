//! The command `cognito-authz check-config`: shows in short what the configuration, which has no errors, comes to. With
//! `--online` it fetches the keys of each pool as well.
//!
//! Nothing here is a secret: files with secrets are not named. Start from [`summary`].

use crate::authz::{Access, Policy};
use crate::config::Config;
use crate::config::account::AccountConfig;
use crate::doctor::{self, PoolKeys};
use crate::net::listen::Security;
use crate::revocation::Keep;
use crate::user_pool::{AcceptedUse, Clients, UserPool};

/// Width of the names of the lines.
const WIDTH: usize = 16;
/// Most items of a list that are shown.
const MAX_ITEMS: usize = 12;

/// Describes the configuration: pools, policies, routes, headers, account API, listeners, TLS and revocations.
pub fn summary(config: &Config) -> String {
    let mut lines = Lines::default();
    if let Some(path) = &config.policy_source.file {
        lines.add("policy file", &path.display().to_string());
    }
    for (pool, _) in &config.policy.pools {
        lines.pool(pool);
    }
    let policies = &config.policy.policies;
    let default = policies.name_without_choice(None);
    lines.add("policies", &list(policies.iter().map(|policy| describe_policy(policy, default))));
    lines.add("routes", &policies.routes().iter().len().to_string());
    let resources = config.policy.resources.origins().map(|origin| origin.resources.len()).sum();
    if resources > 0 {
        lines.add("resources", &format!("metadata for {resources} protected resource{}", plural(resources)));
    }
    lines.headers(config);
    lines.add("account API", &config.account.as_ref().map_or_else(|| "off".into(), |it| describe_account(it, config)));
    lines.add("listeners", &listeners(config));
    let encrypted = listen_addresses(config).filter(|(_, address)| address.security != Security::Plain).count();
    let tls = match encrypted {
        0 => "no listener".to_owned(),
        _ => format!("{encrypted} listener{}, with a certificate that can be read", plural(encrypted)),
    };
    lines.add("TLS", &tls);
    lines.add("revocations", &revocations(config));
    lines.0
}

/// Result of fetching the keys of all pools.
#[derive(Debug)]
pub struct Fetched {
    /// A line for each pool whose keys were fetched.
    pub text: String,
    /// A sentence for each pool without keys.
    pub errors: Vec<String>,
}

/// Fetches the keys of each pool, as the service does.
pub async fn fetch_keys(config: &Config) -> Fetched {
    let mut fetched = Fetched { text: String::new(), errors: Vec::new() };
    let mut lines = Lines::default();
    for PoolKeys { pool, keys } in doctor::keys(config).await {
        match keys {
            Ok((count, url)) => lines.add(&format!("keys {pool}"), &format!("{count} key{} from {url}", plural(count))),
            Err(error) => fetched.errors.push(format!("pool {pool}: {error}")),
        }
    }
    fetched.text = lines.0;
    fetched
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, text: &str) {
        // A value of the file can contain anything; a line stays one line.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.0.extend([format!("{name:<WIDTH$} {text}"), "\n".into()]);
    }

    fn pool(&mut self, pool: &UserPool) {
        let tokens = match pool.token_use {
            AcceptedUse::Access => "access tokens",
            AcceptedUse::Id => "ID tokens",
            AcceptedUse::Any => "access and ID tokens",
        };
        let clients = match &pool.clients {
            Clients::Any => "every app client".into(),
            Clients::Only(clients) => {
                let ids = list(clients.iter().map(|client| client.as_str().to_owned()));
                format!("app client{} {ids}", plural(clients.len()))
            }
        };
        self.add(&format!("pool {}", pool.name), &format!("{}, {tokens}, {clients}", pool.id));
        self.add("  issuers", &list(pool.issuers.iter().cloned()));
        self.add("  keys", &list(pool.jwks_urls.iter().map(ToString::to_string)));
    }

    fn headers(&mut self, config: &Config) {
        let headers = &config.policy.headers;
        self.add("headers", &format!("{}, from the token", list(headers.standard().map(str::to_owned))));
        let names: Vec<&str> = headers.names().collect();
        let name = |index: usize| names.get(index).copied().unwrap_or_default();
        let claims = headers.claims().map(|(index, header)| {
            let claim = config.policy.wanted.path(header.claim).map(ToString::to_string).unwrap_or_default();
            format!("{} from {claim}", name(index))
        });
        let whole = headers.whole_claims().map(|index| format!("{} with all claims", name(index)));
        let further: Vec<String> = claims.chain(whole).collect();
        if !further.is_empty() {
            self.add("  claims", &list(further.into_iter()));
        }
    }
}

fn describe_policy(policy: &Policy, default: &str) -> String {
    let access = match policy.access {
        Access::Public => Some("public"),
        Access::Optional => Some("optional"),
        Access::Required(_) => None,
    };
    let notes = [(*policy.name == *default).then_some("default"), access, policy.is_shadow().then_some("shadow mode")];
    let notes: Vec<&str> = notes.into_iter().flatten().collect();
    if notes.is_empty() { policy.name.to_string() } else { format!("{} ({})", policy.name, notes.join(", ")) }
}

fn describe_account(account: &AccountConfig, config: &Config) -> String {
    let AccountConfig { settings, pool, listen, .. } = account;
    let port = listen.as_ref().unwrap_or(&config.admin_listen);
    let cookies = if settings.cookies.is_some() { ", sessions in cookies" } else { "" };
    format!(
        "pool {}, app client {}, below {} on {port}{cookies}",
        pool.name,
        settings.client_id.as_str(),
        settings.prefix.as_str()
    )
}

fn listen_addresses(config: &Config) -> impl Iterator<Item = (&'static str, &crate::net::listen::ListenAddress)> {
    let grpc = config.grpc.listen.iter().map(|address| ("gRPC", address));
    let http = config.http.iter().map(|http| ("HTTP", &http.listen));
    let account = config.account.iter().filter_map(|account| account.listen.as_ref()).map(|it| ("account API", it));
    grpc.chain(http).chain(account).chain([("admin", &config.admin_listen)])
}

fn listeners(config: &Config) -> String {
    list(listen_addresses(config).map(|(name, address)| format!("{name} {address}")))
}

fn revocations(config: &Config) -> String {
    match &config.revocation.keep {
        Keep::Memory => "in memory: they end with the process".into(),
        Keep::File(path) => format!("in the file {}", path.display()),
        Keep::Store(store) => format!("in the store {}", store.url),
    }
}

/// Joins items. A long list is cut, with the number of further items.
fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    let shown = items.iter().take(MAX_ITEMS).map(String::as_str).collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(MAX_ITEMS) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
