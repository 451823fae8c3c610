//! Configuration: from flags, environment and `.env` to one [`Config`], which is either right or absent.
//!
//! Values parse straight into the types of the rooms that use them; what concerns several options at once is checked
//! in [`Config::new`]. Every error is one sentence that names the option and where its value stands.

pub mod account;
pub mod browser;
pub mod file;
pub mod options;
pub mod rules;
pub mod source;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use serde_json::{Map, Value, json};
use url::{Host, Url};

use self::account::{AccountConfig, AccountOptions, CLIENT_SECRET};
use self::file::PolicyFile;
use self::options::{
    AcceptedClient, Cli, Command, ExplainOptions, HealthcheckOptions, Options, TestPolicyOptions, variable,
};
use self::rules::{AccountClient, Rules, RulesSource};
use self::source::{Layers, Source};
use crate::authz::denial::Realm;
use crate::files;
use crate::jwks::KeySet;
use crate::jwks::fetch::MAX_DOCUMENT_BYTES;
use crate::logging::{LogFormat, LogLevel};
use crate::net::listen::ListenAddress;
use crate::user_pool::{Clients, UserPool};

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Serve.
    Serve(Box<Config>),
    /// The configuration has been read and is right.
    CheckConfig(Box<Config>),
    /// Ask a running instance.
    Healthcheck(HealthcheckOptions),
    /// Go through one check.
    Explain(Box<Config>, Box<Request>),
    /// Check a table of requests.
    TestPolicy(Box<Config>, PathBuf),
    /// Print this and end well: help, version.
    Print(String),
}

/// The request that `explain` is asked about, without its token.
#[derive(Debug, Default)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Host.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// The policy that Envoy's route names.
    pub policy: Option<String>,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Whether the answer is JSON.
    pub json: bool,
}

/// The configuration of the service.
#[derive(Debug)]
pub struct Config {
    /// Pools and policies to begin with.
    pub rules: Rules,
    /// Where they are read again.
    pub rules_source: RulesSource,
    /// Time between fetches of keys.
    pub jwks_refresh_interval: Duration,
    /// Clock skew, seconds.
    pub leeway: i64,
    /// `realm` of challenges.
    pub realm: Realm,
    /// Most tokens in the cache.
    pub token_cache_capacity: u64,
    /// Most bytes in the cache.
    pub token_cache_max_bytes: u64,
    /// Settings of the gRPC port.
    pub grpc: GrpcConfig,
    /// The account API, unless it is off.
    pub account: Option<AccountConfig>,
    /// Address of the admin port.
    pub admin_listen: ListenAddress,
    /// Time between saying "not ready" and closing.
    pub shutdown_delay: Duration,
    /// Time for running checks after that.
    pub shutdown_deadline: Duration,
    /// Form of the log; unset is for the terminal to decide.
    pub log_format: Option<LogFormat>,
    /// Level of the log.
    pub log_level: LogLevel,
    /// What is odd but no error, for the log.
    pub warnings: Vec<String>,
    /// Every option, its value and where it stands, for `/config`.
    pub effective: Value,
}

/// Settings of the gRPC port.
#[derive(Clone, Debug)]
pub struct GrpcConfig {
    /// Addresses.
    pub listen: Vec<ListenAddress>,
    /// Mode of Unix sockets.
    pub socket_mode: u32,
    /// Threads; unset is one per core.
    pub threads: Option<u16>,
    /// Most connections at a time.
    pub max_connections: u32,
    /// Most streams of a connection.
    pub max_streams: u32,
    /// Most bytes of a message.
    pub max_message_bytes: usize,
}

/// One sentence for whoever starts the program: what is wrong, with which option, and where its value stands.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(sentence: impl AsRef<str>) -> Self {
        // One sentence is one line, whatever stands in the value that is quoted.
        Self(sentence.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }
}

/// Reads the command line `args` (without the program's name) over the environment and `.env` in `directory`.
///
/// # Errors
/// [`ConfigError`].
pub fn read(
    args: impl Iterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
    directory: &Path,
) -> Result<Invocation, ConfigError> {
    let names = option_ids().into_iter().map(|id| variable(&id));
    let wanted: Vec<String> = names.chain([CLIENT_SECRET.to_owned()]).collect();
    let layers = Layers::read(environment, directory, &wanted)?;
    let command = layers.under(Cli::command());
    let args: Vec<OsString> = std::iter::once("cognito-authz".into()).chain(args).collect();
    let matches = match command.try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Once more without the layers: what this environment sets is no default to show.
            let plain = Layers::default().under(Cli::command()).try_get_matches_from(args);
            return Ok(Invocation::Print(plain.err().unwrap_or(error).render().to_string()));
        }
        Err(error) => return Err(usage_error(&error, &args, &layers)),
    };
    let parsed = Cli::from_arg_matches(&matches).map_err(|error| usage_error(&error, &args, &layers))?;
    let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    match parsed.command {
        None => Ok(Invocation::Serve(Box::new(Config::new(parsed.options, matches, &layers)?))),
        Some(Command::Serve(options)) => Ok(Invocation::Serve(Box::new(Config::new(options, matches, &layers)?))),
        Some(Command::CheckConfig(options)) => {
            Ok(Invocation::CheckConfig(Box::new(Config::new(options, matches, &layers)?)))
        }
        Some(Command::ConfigSchema) => Ok(Invocation::Print(format!("{:#}\n", PolicyFile::schema().to_value()))),
        Some(Command::Healthcheck(options)) => Ok(Invocation::Healthcheck(options)),
        Some(Command::Explain(explain)) => {
            let ExplainOptions { method, host, path, context, header, json, mut options } = explain;
            options.account.account_api = false; // it is no part of a check, and may need what is not here
            let policy = context.into_iter().next_back().map(|(_, policy)| policy);
            let request = Request { method, host, path, policy, headers: header, json };
            Ok(Invocation::Explain(Box::new(Config::new(options, matches, &layers)?), Box::new(request)))
        }
        Some(Command::TestPolicy(TestPolicyOptions { file, mut options })) => {
            options.account.account_api = false;
            Ok(Invocation::TestPolicy(Box::new(Config::new(options, matches, &layers)?), file))
        }
    }
}

/// Ids of all options, in the order of the help.
pub fn option_ids() -> Vec<String> {
    let command = Cli::command();
    command.get_arguments().filter(|arg| arg.get_long().is_some()).map(|arg| arg.get_id().to_string()).collect()
}

/// clap's errors, in one sentence and with the source of the value.
fn usage_error(error: &clap::Error, args: &[OsString], layers: &Layers) -> ConfigError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    let flag = argument.split([' ', '[', '=']).next().unwrap_or_default();
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let why = match error.kind() {
        ErrorKind::UnknownArgument => {
            return ConfigError::new(format!("{flag} is not an option (from the command line)"));
        }
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            return ConfigError::new(format!("{name:?} is not a command (from the command line)"));
        }
        ErrorKind::InvalidValue if value.is_empty() => "a value is missing".to_owned(),
        ErrorKind::InvalidValue => {
            format!("not one of {}: {value:?}", context(ContextKind::ValidValue).unwrap_or_default())
        }
        ErrorKind::ValueValidation => {
            let source = std::error::Error::source(error).map_or_else(|| "not valid".to_owned(), ToString::to_string);
            format!("{source}: {value:?}")
        }
        _ => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            return ConfigError::new(format!("{} (from the command line)", line.trim_start_matches("error: ")));
        }
    };
    let id = flag.trim_start_matches('-').replace('-', "_");
    let is_flag = |arg: &OsString| {
        arg.to_str()
            .is_some_and(|arg| arg.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
    };
    let source = if args.iter().any(is_flag) { Source::Flag } else { layers.below_flags(&id) };
    ConfigError::new(format!("{flag}: {why} (from {source})"))
}

impl Config {
    fn new(options: Options, matches: &ArgMatches, layers: &Layers) -> Result<Self, ConfigError> {
        let flag = |id: &str| format!("--{}", id.replace('_', "-"));
        let error = |id: &str, why: &str| {
            ConfigError::new(format!("{}: {why} (from {})", flag(id), layers.source(matches, id)))
        };
        let missing = |id: &str, what: &str| {
            ConfigError::new(format!(
                "{}: {what} is required (no flag, no {} in the environment or .env)",
                flag(id),
                variable(id)
            ))
        };
        let mut warnings = Vec::new();

        // Lists that a flag cannot leave empty, a variable can: with nothing but commas.
        for (id, is_empty) in
            [("client_id", options.client_id.is_empty()), ("grpc_listen", options.grpc_listen.is_empty())]
        {
            if is_empty && layers.source(matches, id) != Source::Default {
                return Err(error(id, "the list is empty"));
            }
        }
        for (option, url) in [("cognito_endpoint", &options.cognito_endpoint), ("jwks_url", &options.jwks_url)] {
            if let Some(url) = url {
                check_endpoint(url, options.allow_insecure_endpoints).map_err(|why| error(option, &why))?;
            }
        }
        let pool = match options.user_pool_id {
            Some(id) => {
                if let Some(region) = options.region.filter(|region| region != id.region()) {
                    let why = format!("{region:?} is not the region of the user pool {id}");
                    match layers.source(matches, "region") {
                        Source::Flag => return Err(error("region", &why)),
                        source => warnings.push(format!("{why}; the pool's is used (from {source})")),
                    }
                }
                if options.client_id.is_empty() {
                    return Err(missing("client_id", "an app client's id, or `any`,"));
                }
                let clients =
                    clients(options.client_id).ok_or_else(|| error("client_id", "`any` stands beside app clients"))?;
                if clients == Clients::Any {
                    warnings.push("tokens of every app client of the pool are accepted (--client-id any)".into());
                }
                let mut pool = UserPool::new("default", id, clients, options.token_use.into())
                    .map_err(|why| error("user_pool_id", &why.to_string()))?;
                if let Some(endpoint) = &options.cognito_endpoint {
                    if endpoint.query().is_some() {
                        return Err(error("cognito_endpoint", "a base URL has no query"));
                    }
                    pool = pool.with_endpoint(endpoint).map_err(|why| error("cognito_endpoint", &why.to_string()))?;
                }
                if let Some(url) = options.jwks_url {
                    pool.jwks_urls = vec![url];
                }
                if options.issuer.iter().any(String::is_empty) {
                    return Err(error("issuer", "an issuer is empty"));
                }
                if !options.issuer.is_empty() {
                    pool.issuers = options.issuer;
                }
                Some(pool)
            }
            None if options.config.is_none() => return Err(missing("user_pool_id", "the user pool's id")),
            // Pools of the file only. What describes the pool of the flags would be lost without a word.
            None => {
                let of_pool = ["client_id", "cognito_endpoint", "issuer", "jwks_url", "jwks_file"];
                let given = of_pool.into_iter().find(|id| layers.source(matches, id) != Source::Default);
                if let Some(id) = given {
                    return Err(error(id, "describes the pool of the flags, and --user-pool-id is not given"));
                }
                None
            }
        };

        let jwks_seed = match &options.jwks_file {
            None => KeySet::default(),
            Some(path) => {
                let document = files::read(path, MAX_DOCUMENT_BYTES as u64)
                    .map_err(|why| error("jwks_file", &format!("{} {why}", path.display())))?;
                KeySet::parse(&document, &KeySet::default())
                    .map_err(|why| error("jwks_file", &format!("{}: {why}", path.display())))?
            }
        };
        let rules_source = RulesSource {
            pool,
            header_prefix: options.header_prefix,
            allow_insecure_endpoints: options.allow_insecure_endpoints,
            browser_sessions: options.account.browser_sessions(),
            file: options.config,
        };
        let mut rules = rules_source.read().map_err(|why| error("config", &why.to_string()))?;
        rules_source.judge(&rules).map_err(|(option, why)| error(option, &why))?;
        if let Some((_, seed)) = rules.pools.first_mut().filter(|_| rules_source.pool.is_some()) {
            *seed = jwks_seed;
        }
        warnings.append(&mut rules.warnings);
        let max_message_bytes = usize::try_from(options.grpc_max_message_bytes.0)
            .ok()
            .filter(|bytes| (1024..=1 << 30).contains(bytes))
            .ok_or_else(|| error("grpc_max_message_bytes", "not between 1KiB and 1GiB"))?;

        let secret = layers.secret(CLIENT_SECRET);
        let client = account_client(&options.account, &rules, rules_source.pool.is_some(), &error)?;
        let (admin, insecure) = (&options.admin_listen, options.allow_insecure_endpoints);
        let account = AccountConfig::new(options.account, client, admin, insecure, secret, &error, &mut warnings)?;
        let effective = effective(matches, layers);
        Ok(Self {
            rules,
            rules_source,
            jwks_refresh_interval: options.jwks_refresh_interval,
            leeway: i64::try_from(options.leeway.as_secs()).unwrap_or(60),
            realm: options.realm,
            token_cache_capacity: options.token_cache_capacity,
            token_cache_max_bytes: options.token_cache_max_bytes.0,
            grpc: GrpcConfig {
                listen: options.grpc_listen,
                socket_mode: options.grpc_socket_mode,
                threads: options.grpc_threads,
                max_connections: options.grpc_max_connections,
                max_streams: options.grpc_max_streams,
                max_message_bytes,
            },
            account,
            admin_listen: options.admin_listen,
            shutdown_delay: options.shutdown_delay,
            shutdown_deadline: options.shutdown_deadline,
            log_format: options.log_format,
            log_level: options.log_level,
            warnings,
            effective,
        })
    }
}

/// The app client that the account API speaks for: the file's, or one of the pool of the flags. The options are the
/// account API's own to check where there are none.
fn account_client(
    options: &AccountOptions,
    rules: &Rules,
    has_flag_pool: bool,
    error: &dyn Fn(&str, &str) -> ConfigError,
) -> Result<Option<AccountClient>, ConfigError> {
    if !options.account_api {
        return Ok(None);
    }
    if let Some(client) = &rules.account {
        let taken = [
            ("account_client_id", options.account_client_id.is_some()),
            ("client_secret_file", options.client_secret_file.is_some()),
        ];
        return match taken.into_iter().find(|(_, given)| *given) {
            Some((id, _)) => Err(error(id, "the file of --config has an `account`: say it there")),
            None => Ok(Some(client.clone())),
        };
    }
    let Some((pool, _)) = rules.pools.first() else { return Ok(None) };
    if !has_flag_pool && rules.pools.len() > 1 {
        let why = "has to name the pool that the account API speaks for (`account`) when it has several (or switch the \
                   API off with --account-api=false)";
        return Err(error("config", why));
    }
    let client_id = match (&options.account_client_id, &pool.clients) {
        (Some(client), clients) if clients.accept(client) => client.clone(),
        (Some(_), _) => {
            return Err(error("account_client_id", "not one of --client-id: its tokens would be refused"));
        }
        (None, Clients::Only(accepted)) if accepted.len() == 1 => match accepted.first() {
            Some(client) => client.clone(),
            None => return Err(error("client_id", "no app client")),
        },
        (None, _) if !has_flag_pool => {
            let why = "has to name the app client that the account API speaks for (`account`) when its pool accepts \
                       several or `any` (or switch the API off with --account-api=false)";
            return Err(error("config", why));
        }
        (None, _) => {
            let why = "has to name the app client that the account API speaks for when --client-id names several \
                       or `any` (or switch it off with --account-api=false)";
            return Err(error("account_client_id", why));
        }
    };
    Ok(Some(AccountClient { pool: pool.name.clone(), client_id, secret_file: options.client_secret_file.clone() }))
}

/// The accepted app clients; none when `any` stands beside others.
pub(crate) fn clients(accepted: Vec<AcceptedClient>) -> Option<Clients> {
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

/// A URL to fetch from is https, or plain http to this machine, or typed out to be insecure.
pub(crate) fn check_endpoint(url: &Url, allow_insecure: bool) -> Result<(), String> {
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("the URL carries a user name, a password or a fragment".into());
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
        "http" => Err("plain http to another host needs --allow-insecure-endpoints".into()),
        scheme => Err(format!("{scheme} is not https")),
    }
}

/// Every option, its value, and where that stands. No option holds a secret; the one that comes in a variable is named and not shown.
fn effective(matches: &ArgMatches, layers: &Layers) -> Value {
    let mut options = Map::new();
    for id in option_ids() {
        let values: Vec<Value> = matches
            .get_raw(&id)
            .into_iter()
            .flatten()
            .map(|value| value.to_string_lossy().into_owned().into())
            .collect();
        let value = match <[Value; 1]>::try_from(values) {
            Ok([value]) => value,
            Err(values) if values.is_empty() => Value::Null,
            Err(values) => values.into(),
        };
        options
            .insert(id.replace('_', "-"), json!({"value": value, "source": layers.source(matches, &id).to_string()}));
    }
    if let Some((_, source)) = layers.secret(CLIENT_SECRET) {
        options.insert("client-secret".into(), json!({"value": "[redacted]", "source": source.to_string()}));
    }
    Value::Object(options)
}

#[cfg(test)]
mod tests;
