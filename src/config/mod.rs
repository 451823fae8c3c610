//! Configuration: reads flags, environment, `.env` and the policy file into one [`Config`], or returns an error.
//!
//! Each value is parsed into the type that the rest of the program uses. Rules about several options are checked by
//! topic: `flag_pool`, `account`, `browser`, `policy`. Each error is one sentence that names the option and the
//! source of its value, or the place in the policy file.
//!
//! No two files of this folder import each other. Start from [`read`].

pub(crate) mod account;
pub(crate) mod admin;
mod browser;
mod compile;
mod dot_env;
mod error;
pub mod file;
pub mod options;
pub(crate) mod parse;
pub mod policy;
mod pool;
mod print;
mod revocation;
mod source;
mod telemetry;
mod tls;
mod unread;
mod usage;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use serde_json::Value;

use self::account::{AccountConfig, CLIENT_SECRET};
use self::admin::AdminToken;
pub use self::error::ConfigError;
use self::error::Errors;
use self::file::PolicyFile;
use self::options::{
    CheckConfigOptions, Cli, Command, DoctorOptions, ExplainOptions, InstanceOptions, LogLevelOptions, LogOptions,
    OperatorOptions, Options, RevocationOptions, RevocationsAction, RevokeOptions, SchemaOptions, TestPolicyOptions,
    option_ids, variable,
};
use self::policy::{CompiledPolicy, PolicySource, UNSERVED_RESOURCES};
use self::source::{Layers, Sources, missing};
pub use self::unread::Unread;
use self::usage::usage_error;
use crate::authz::TimeLimits;
use crate::authz::denial::Realm;
use crate::files::{self, MAX_TEXT_BYTES};
use crate::logging;
use crate::net::callers::Network;
use crate::net::listen::ListenAddress;
use crate::net::tls::Certificates;

/// Command and its configuration.
#[derive(Debug)]
pub enum Invocation {
    /// `serve`, or no command.
    Serve(Box<Config>),
    /// `check-config`, with a configuration that has no errors.
    CheckConfig(Box<Config>, Online),
    /// `healthcheck`.
    Healthcheck(InstanceOptions),
    /// `explain`.
    Explain(Box<Config>, Box<Request>),
    /// `doctor`.
    Doctor(Box<Config>, Box<Examination>),
    /// `test-policy`, with the path of the file of test cases.
    TestPolicy(Box<Config>, PathBuf),
    /// `revoke`.
    Revoke(RevokeOptions),
    /// `revocations`.
    Revocations(RevocationsAction),
    /// `log-level`.
    LogLevel(LogLevelOptions),
    /// `config-schema --test-table`.
    TableSchema,
    /// Text to print on standard output: help, version or the JSON Schema.
    Print(String),
}

/// `true` if a command may use the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Online(pub bool);

/// Request of `explain`, without its token.
#[derive(Debug, Default)]
pub struct Request {
    /// HTTP method.
    pub method: String,
    /// Host.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Policy that Envoy's route names in its context extension.
    pub policy: Option<String>,
    /// Headers, with lower-case names.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Option<Vec<u8>>,
    /// `true` if the output is JSON.
    pub json: bool,
}

/// Parts that `doctor` examines in addition to the configuration.
#[derive(Debug, Default)]
pub struct Examination {
    /// `true` if it may use the network.
    pub online: bool,
    /// Files of Envoy's configuration.
    pub envoy: Vec<PathBuf>,
    /// `true` if the output is JSON.
    pub json: bool,
    /// Variables that look like settings, and that nothing reads.
    pub unread: Vec<Unread>,
}

/// Configuration of the service.
#[derive(Debug)]
pub struct Config {
    /// Pools, policies and headers at startup.
    pub policy: CompiledPolicy,
    /// Source that they are read from again.
    pub policy_source: PolicySource,
    /// Time between fetches of a key set.
    pub jwks_refresh_interval: Duration,
    /// Limits of the times in tokens.
    pub limits: TimeLimits,
    /// Revocation.
    pub revocation: crate::revocation::Settings,
    /// `realm` of challenges.
    pub realm: Realm,
    /// Maximum number of tokens in the cache.
    pub token_cache_capacity: u64,
    /// Maximum size of the cache, in bytes.
    pub token_cache_max_bytes: u64,
    /// Settings of the gRPC port.
    pub grpc: GrpcConfig,
    /// HTTP form of the check; `None` if it is not served.
    pub http: Option<HttpConfig>,
    /// Account API; `None` if it is off.
    pub account: Option<AccountConfig>,
    /// Address of the admin port.
    pub admin_listen: ListenAddress,
    /// Certificates of the listeners; `None` if no listener has TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// Token that operators show to the admin port.
    pub(crate) admin_token: Option<AdminToken>,
    /// Time between "not ready" and the closing of listeners, at shutdown.
    pub shutdown_delay: Duration,
    /// Time for in-flight requests after that.
    pub shutdown_deadline: Duration,
    /// Traces; `None` if they are off.
    pub telemetry: Option<crate::telemetry::Settings>,
    /// Settings of the log.
    pub log: logging::Settings,
    /// Warnings about the configuration.
    pub warnings: Vec<String>,
    /// What defaults decided because of other settings.
    pub notes: Vec<String>,
    /// Every option with its value and its source, for `/config`.
    pub effective: Value,
}

/// Settings of the gRPC port.
#[derive(Clone, Debug)]
pub struct GrpcConfig {
    /// Addresses to listen on.
    pub listen: Vec<ListenAddress>,
    /// File mode of Unix sockets.
    pub socket_mode: u32,
    /// Number of threads; one per core if unset.
    pub threads: Option<u16>,
    /// Maximum number of open connections.
    pub max_connections: u32,
    /// Maximum number of concurrent streams per connection.
    pub max_streams: u32,
    /// Maximum size of a message, in bytes.
    pub max_message_bytes: usize,
}

/// Settings of the HTTP form of the check.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Address to listen on.
    pub listen: ListenAddress,
    /// Networks whose hosts may ask.
    pub callers: Vec<Network>,
}

/// Reads the command line `args` (without the name of the program), `environment`, and `.env` in `directory`.
///
/// # Errors
/// Every error that was found.
pub fn read(
    args: impl Iterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
    directory: &Path,
) -> Result<Invocation, ConfigError> {
    let args: Vec<OsString> = std::iter::once("cognito-authz".into()).chain(args).collect();
    // Without the layers first: help is shown even if `.env` is malformed, and shows no value of this environment.
    let plain = print::command_line().try_get_matches_from(&args);
    if let Err(error) = &plain
        && matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
    {
        return Ok(Invocation::Print(error.render().to_string()));
    }
    let names = option_ids().into_iter().map(|id| variable(&id));
    let others = [CLIENT_SECRET].into_iter().chain(telemetry::VARIABLES).map(str::to_owned);
    let wanted: Vec<String> = names.chain(others).collect();
    let is_text = plain.is_ok_and(|plain| plain.subcommand_name().is_some_and(|name| print::TEXTS.contains(&name)));
    let mut layers = if is_text { Layers::default() } else { Layers::read(environment, directory, &wanted)? };
    let mut errors = Errors::default();
    let matches = match usage::matches(Cli::command, &args, &mut layers, &mut errors) {
        Ok(matches) => matches,
        Err(error) => {
            errors.add(usage_error(&error, &args, &layers));
            return errors.end().map(|()| Invocation::Print(String::new()));
        }
    };
    let parsed = Cli::from_arg_matches(&matches).map_err(|error| usage_error(&error, &args, &layers))?;
    let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    if errors.has_any() {
        // Without the values, nothing else of the configuration can be judged except for the form of the policy file.
        if let Ok(Some(path)) = matches.try_get_one::<PathBuf>("config") {
            let sources = Sources::new(matches, &layers);
            let form = compile::check_form(path);
            errors.keep(form.map_err(|error| error.map(|why| sources.error("config", why))));
        }
        return errors.end().map(|()| Invocation::Print(String::new()));
    }
    let config = |options| Config::new(options, matches, &layers).map(Box::new);
    match parsed.command {
        None => Ok(Invocation::Serve(config(parsed.options)?)),
        Some(Command::Serve(options)) => Ok(Invocation::Serve(config(options)?)),
        Some(Command::CheckConfig(CheckConfigOptions { online, options })) => {
            Ok(Invocation::CheckConfig(config(options)?, Online(online)))
        }
        Some(Command::ConfigSchema(SchemaOptions { test_table: true })) => Ok(Invocation::TableSchema),
        Some(Command::ConfigSchema(_)) => Ok(Invocation::Print(format!("{:#}\n", PolicyFile::schema().to_value()))),
        Some(Command::Completions(options)) => Ok(Invocation::Print(print::completions(options.shell))),
        Some(Command::Man) => Ok(Invocation::Print(print::manual())),
        Some(Command::Healthcheck(options)) => Ok(Invocation::Healthcheck(options)),
        Some(Command::Explain(explain)) => {
            let ExplainOptions { method, host, path, context, header, body, json, mut options } = explain;
            only_check(&mut options);
            let policy = context.into_iter().next_back().map(|(_, policy)| policy);
            let read = |path: PathBuf| {
                let error = |why| ConfigError::new(format!("--body: {}: {why}", path.display()));
                files::read_version(&path, MAX_TEXT_BYTES).map(|(bytes, _)| bytes).map_err(error)
            };
            let body = body.map(read).transpose()?;
            let request = Request { method, host, path, policy, headers: header, body, json };
            Ok(Invocation::Explain(config(options)?, Box::new(request)))
        }
        Some(Command::Doctor(DoctorOptions { online, envoy, json, options })) => {
            let examination = Examination { online, envoy, json, unread: layers.unread(&wanted) };
            Ok(Invocation::Doctor(config(options)?, Box::new(examination)))
        }
        Some(Command::TestPolicy(TestPolicyOptions { file: None, .. })) => {
            let why = "test-policy: the file with the table of tests is missing (from the command line)";
            Err(ConfigError::new(why).with_note(NO_TABLE))
        }
        Some(Command::TestPolicy(TestPolicyOptions { file: Some(file), mut options })) => {
            only_check(&mut options);
            Ok(Invocation::TestPolicy(config(options)?, file))
        }
        Some(Command::Revoke(options)) => {
            if options.target.claim().is_none() {
                return Err(ConfigError::new("--sub, --origin-jti or --jti is required (from the command line)"));
            }
            if options.before.is_some() && options.target.sub.is_none() {
                return Err(ConfigError::new("--before: only together with --sub (from the flag)"));
            }
            has_credential(&options.operator)?;
            Ok(Invocation::Revoke(options))
        }
        Some(Command::Revocations(options)) => {
            let action = options.action();
            has_credential(action.operator())?;
            Ok(Invocation::Revocations(action))
        }
        Some(Command::LogLevel(options)) => {
            has_credential(&options.operator)?;
            Ok(Invocation::LogLevel(options))
        }
    }
}

/// Text after the error for `test-policy` without a table.
const NO_TABLE: &str = r"
  cognito-authz test-policy TABLE --config POLICY-FILE

A table has requests, and the decisions that are expected of the policy file:

tests:
- name: a request without a token is denied
  request: {method: GET, path: /orders/7}
  expect: {decision: deny, reason: missing_credential}
- name: a user may read orders
  request: {method: GET, path: /orders/7}
  token: {groups: [staff], scope: orders/read}
  expect: {decision: allow}

docs/policy-testing.md#testing-a-policy-in-ci describes every member; `cognito-authz config-schema --test-table` prints the
JSON Schema. No network is used, and no user pool: the tokens are signed for the run.
";

/// Turns off what is not part of a check, for a command that only runs checks. Its files may be missing there.
fn only_check(options: &mut Options) {
    options.account.account_api = Some(false);
    options.account.browser.is_unused = true;
    options.tls.is_unused = true;
    options.trace.is_unused = true;
    options.admin_token_file = None;
}

/// Checks that an operator's command has a token or a certificate.
fn has_credential(options: &OperatorOptions) -> Result<(), ConfigError> {
    let has_one = options.admin_token_file.is_some() || options.instance.admin_cert_file.is_some();
    let what = "the file with the token of the operators, or --admin-cert-file,";
    has_one.then_some(()).ok_or_else(|| missing("admin_token_file", what))
}

impl Config {
    fn new(options: Options, matches: &ArgMatches, layers: &Layers) -> Result<Self, ConfigError> {
        let sources = Sources::new(matches, layers);
        let (mut warnings, mut notes, mut errors) = (Vec::new(), Vec::new(), Errors::default());
        let policy = read_policy(&options, sources, &mut warnings);
        // Each part is built, even if another one has an error, so that all errors are reported.
        let policy = errors.keep(policy).and_then(|(source, policy)| {
            let account = AccountConfig::new(&options, &policy, sources, &mut warnings, &mut notes);
            let account = errors.keep(account)?;
            Some((source, policy, account))
        });
        let certificates = errors.keep(tls::certificates(&options, sources));
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let RevocationOptions { max_token_life, .. } = options.revocation;
        let limits = TimeLimits { leeway: seconds(options.leeway), max_life: seconds(max_token_life) };
        let revocation = errors.keep(revocation::settings(&options.revocation, limits, sources));
        let admin_token = options.admin_token_file.as_deref().map(AdminToken::read).transpose();
        let admin_token = errors.keep(admin_token.map_err(|why| sources.error("admin_token_file", why)));
        let telemetry = errors.keep(telemetry::settings(&options, sources, &mut warnings));
        let grpc = errors.keep(GrpcConfig::new(&options, sources));
        let http = errors.keep(HttpConfig::new(&options, sources));
        errors.end()?;
        let parts = (policy, certificates, revocation, admin_token, telemetry, grpc, http);
        let (
            Some(policy),
            Some(certificates),
            Some(revocation),
            Some(admin_token),
            Some(telemetry),
            Some(grpc),
            Some(http),
        ) = parts
        else {
            return Err(ConfigError::new("a part of the configuration has an error"));
        };
        let (policy_source, policy, account) = policy;
        if account.is_none() && !policy.resources.is_empty() {
            warnings.push(UNSERVED_RESOURCES.into());
        }
        let mut effective = sources.effective(CLIENT_SECRET);
        if let Value::Object(members) = &mut effective {
            members.extend(telemetry::effective(sources));
            if options.account.account_api.is_none() {
                members.insert("account-api".into(), account::decided(account.is_some(), &notes));
            }
        }
        Ok(Self {
            policy,
            policy_source,
            jwks_refresh_interval: options.jwks_refresh_interval,
            limits,
            revocation,
            realm: options.realm.clone(),
            token_cache_capacity: options.token_cache_capacity,
            token_cache_max_bytes: options.token_cache_max_bytes.0,
            grpc,
            http,
            account,
            admin_listen: options.admin_listen,
            certificates,
            admin_token,
            shutdown_delay: options.shutdown_delay,
            shutdown_deadline: options.shutdown_deadline,
            telemetry,
            log: log(&options.log),
            warnings,
            notes,
            effective,
        })
    }
}

fn log(options: &LogOptions) -> logging::Settings {
    let LogOptions { log_format: format, log_level: level, log_lines_per_second, log_allowed_ratio } = *options;
    logging::Settings { format, level, lines_per_second: log_lines_per_second, allowed_ratio: log_allowed_ratio }
}

/// Reads the pool of the flags and the policy file, and checks them against each other.
fn read_policy(
    options: &Options,
    sources: Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<(PolicySource, CompiledPolicy), ConfigError> {
    let mut errors = Errors::default();
    let of_flags = errors.keep(pool::of_flags(options, sources, warnings));
    let is_pool_known = of_flags.is_some();
    let (pool, seed) = of_flags.flatten().unzip();
    let source = PolicySource {
        pool,
        header_prefix: options.header_prefix.clone(),
        allow_insecure_endpoints: options.allow_insecure_endpoints,
        browser_sessions: account::browser_sessions(&options.account),
        sign_in: account::sign_in(&options.account),
        file: options.config.clone(),
    };
    let of_file = |error: ConfigError| error.map(|why| sources.error("config", why));
    let policy = if is_pool_known { source.read().map(Some) } else { source.check_file().map(|()| None) };
    let policy = errors.keep(policy.map_err(of_file)).flatten();
    errors.end()?;
    let mut policy = policy.ok_or_else(|| missing("user_pool_id", "the user pool's id"))?;
    source.judge(&policy).map_err(|(option, why)| sources.error(option, why))?;
    // The pool of the flags comes first.
    if let (Some(seed), Some((_, keys))) = (seed, policy.pools.first_mut()) {
        *keys = seed;
    }
    warnings.append(&mut policy.warnings);
    Ok((source, policy))
}

impl GrpcConfig {
    fn new(options: &Options, sources: Sources<'_>) -> Result<Self, ConfigError> {
        // A flag cannot be empty, but a variable can contain nothing but commas.
        if options.grpc_listen.is_empty() {
            return Err(sources.error("grpc_listen", "the list is empty"));
        }
        let max_message_bytes = usize::try_from(options.grpc_max_message_bytes.0)
            .ok()
            .filter(|bytes| (1024..=1 << 30).contains(bytes))
            .ok_or_else(|| sources.error("grpc_max_message_bytes", "not between 1KiB and 1GiB"))?;
        Ok(Self {
            listen: options.grpc_listen.clone(),
            socket_mode: options.grpc_socket_mode,
            threads: options.grpc_threads,
            max_connections: options.grpc_max_connections,
            max_streams: options.grpc_max_streams,
            max_message_bytes,
        })
    }
}

impl HttpConfig {
    fn new(options: &Options, sources: Sources<'_>) -> Result<Option<Self>, ConfigError> {
        let Some(listen) = options.http_listen.clone() else { return Ok(None) };
        if options.http_callers.is_empty() {
            return Err(sources.error("http_callers", "the list is empty"));
        }
        Ok(Some(Self { listen, callers: options.http_callers.clone() }))
    }
}

#[cfg(test)]
mod tests;
