//! Command line: commands and options with their flags, defaults, help texts and types.
//!
//! [`variable`] derives the name of an option's environment variable from the flag. `docs/reference/options.md` and
//! `commands.md` are generated from these definitions.

mod account;
mod instance;
mod log;
mod operator;
mod revocation;
mod tls;
mod trace;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

pub(super) use self::account::account_option_ids;
pub use self::account::{AccountOptions, BrowserOptions, RefreshFlowOption};
pub use self::instance::InstanceOptions;
pub use self::log::{LogLevelOptions, LogOptions};
pub use self::operator::{
    LiftOptions, ListOptions, OperatorOptions, RevocationsAction, RevocationsOptions, RevokeOptions, Target,
};
pub use self::revocation::RevocationOptions;
pub use self::tls::TlsOptions;
pub use self::trace::TraceOptions;
pub(super) use self::trace::share;
use super::file::text::{Any, Plain, WebUrl};
use super::parse::{AcceptedClient, ByteSize, TokenUseOption, duration, duration_between};
use crate::authz::denial::Realm;
use crate::authz::headers::HeaderPrefix;
use crate::authz::request::is_token;
use crate::field_value::trim_text;
use crate::net::callers::Network;
use crate::net::listen::ListenAddress;
use crate::user_pool::UserPoolId;

/// Envoy external authorization (`ext_authz`) for Amazon Cognito user pools.
#[derive(Debug, Parser)]
#[command(
    name = "cognito-authz",
    version = crate::version(),
    args_conflicts_with_subcommands = true,
    max_term_width = 120,
    after_help = "Each option can also be set in the environment, or in a file .env in the working directory. \
                  Precedence: flag, environment variable, .env, default. Lists: repeat the flag, or separate the \
                  values by commas in the environment. Durations: 250ms, 30s, 1h. Exit status: 64 for wrong usage or \
                  configuration, 69 if a port or socket cannot be bound."
)]
pub struct Cli {
    /// Command; `serve` if unset.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `serve`.
    #[command(flatten)]
    pub options: Options,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve Envoy's checks (default)
    Serve(Options),
    /// Check the whole configuration and show what it comes to; the exit status is 0 if it has no error
    CheckConfig(CheckConfigOptions),
    /// Print the JSON Schema of the policy file (`--config`), or of the tables of test-policy
    ConfigSchema(SchemaOptions),
    /// Ask a running instance if it is ready; the exit status is 0 if it is
    Healthcheck(InstanceOptions),
    /// Show each step of one check, with the token read from standard input; the exit status is 0 if the request is allowed
    Explain(ExplainOptions),
    /// Look for what does not fit: configuration, environment, Envoy's configuration, Cognito; the exit status is 1 if a finding is an error
    Doctor(DoctorOptions),
    /// Test the policy file with requests and locally signed tokens; the exit status is 0 if all decisions are as expected
    TestPolicy(TestPolicyOptions),
    /// Revoke tokens at a running instance: all of a user up to a time, those of one session, or one token
    Revoke(RevokeOptions),
    /// List or lift the revocations in effect at a running instance
    Revocations(RevocationsOptions),
    /// Show the log level of a running instance, or change it for a while
    LogLevel(LogLevelOptions),
}

/// Options of `check-config`, which also has those of `serve`.
#[derive(Args, Debug)]
pub struct CheckConfigOptions {
    /// Fetch the keys of each pool; the exit status is 1 if a pool has none
    #[arg(long)]
    pub online: bool,
    /// Configuration
    #[command(flatten)]
    pub options: Options,
}

/// Options of `config-schema`.
#[derive(Args, Clone, Copy, Debug)]
pub struct SchemaOptions {
    /// Print the JSON Schema of the tables of test-policy
    #[arg(long)]
    pub test_table: bool,
}

/// Options of `explain`, which also has those of `serve`.
#[derive(Args, Debug)]
pub struct ExplainOptions {
    /// Method of the request
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    pub method: String,
    /// Host of the request
    #[arg(long, value_name = "HOST", default_value = "")]
    pub host: String,
    /// Path of the request, with its query
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub path: String,
    /// Context extension of Envoy's route, such as policy=admin; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = context_extension)]
    pub context: Vec<(String, String)>,
    /// Header of the request; repeatable
    #[arg(long, value_name = "NAME: VALUE", value_parser = request_header)]
    pub header: Vec<(String, String)>,
    /// File with the body of the request; it is JSON unless --header says otherwise
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Configuration
    #[command(flatten)]
    pub options: Options,
}

/// Options of `doctor`, which also has those of `serve`.
#[derive(Args, Debug)]
pub struct DoctorOptions {
    /// Use the network: fetch the keys and the `OpenID` document of each pool, look up its app clients and the hosted pages, and compare the clock
    #[arg(long)]
    pub online: bool,
    /// Envoy's configuration, to compare with this one (YAML or JSON); repeatable
    #[arg(long, value_name = "FILE")]
    pub envoy: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Configuration
    #[command(flatten)]
    pub options: Options,
}

/// Options of `test-policy`, which also has those of `serve`.
#[derive(Args, Debug)]
pub struct TestPolicyOptions {
    /// Table of requests and expected decisions (YAML)
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Configuration
    #[command(flatten)]
    pub options: Options,
}

fn context_extension(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some(("policy", value)) => Ok(("policy".to_owned(), value.to_owned())),
        Some(_) => Err("the only context extension that has an effect is policy"),
        None => Err("not of the form NAME=VALUE"),
    }
}

fn request_header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').ok_or("not of the form NAME: VALUE")?;
    if !is_token(name.as_bytes()) {
        return Err("not a header name");
    }
    if name.eq_ignore_ascii_case("authorization") {
        return Err("the token is read from standard input");
    }
    Ok((name.to_ascii_lowercase(), trim_text(value).to_owned()))
}

/// Options of `serve`.
#[derive(Args, Debug)]
pub struct Options {
    /// User pool. The region is part of its id
    #[arg(long, value_name = "ID", help_heading = "User pool")]
    pub user_pool_id: Option<UserPoolId>,
    /// App client whose tokens are accepted; repeatable. `any` accepts every app client of the pool
    #[arg(long, value_name = "ID", help_heading = "User pool")]
    pub client_id: Vec<AcceptedClient>,
    /// Region, only compared with the one in --user-pool-id
    #[arg(long, value_name = "REGION", help_heading = "User pool")]
    pub region: Option<String>,
    /// Base URL of the user-pool API and, unless --jwks-url is set, of the keys [default: AWS's, by the region]
    #[arg(long, value_name = "URL", help_heading = "User pool")]
    pub cognito_endpoint: Option<WebUrl>,
    /// Accepted value of `iss`; repeatable. Compared, never fetched [default: both issuer formats of the pool]
    #[arg(long, value_name = "TEXT", help_heading = "User pool")]
    pub issuer: Vec<Plain<Any>>,
    /// Allow plain http:// to hosts other than loopback
    #[arg(long, value_name = "BOOL", help_heading = "User pool", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub allow_insecure_endpoints: bool,

    /// Policy file: pools, policies, routes and headers (YAML). Reloaded when it changes and on SIGHUP
    #[arg(long, value_name = "FILE", help_heading = "Policy")]
    pub config: Option<PathBuf>,

    /// URL of the key set [default: below the issuer]
    #[arg(long, value_name = "URL", help_heading = "Keys")]
    pub jwks_url: Option<WebUrl>,
    /// Key set to use until the first one is fetched
    #[arg(long, value_name = "FILE", help_heading = "Keys")]
    pub jwks_file: Option<PathBuf>,
    /// Time between fetches of the key set, varied by up to a tenth; 1s to 50m
    #[arg(long, value_name = "DURATION", help_heading = "Keys", default_value = "15m", value_parser = refresh_interval)]
    pub jwks_refresh_interval: Duration,

    /// Accepted kind of token
    #[arg(long, value_name = "USE", help_heading = "Check", default_value = "access")]
    pub token_use: TokenUseOption,
    /// Allowed clock skew for `exp` and `nbf`; whole seconds, at most 60s
    #[arg(long, value_name = "DURATION", help_heading = "Check", default_value = "30s", value_parser = leeway)]
    pub leeway: Duration,
    /// Prefix of the identity headers
    #[arg(long, value_name = "PREFIX", help_heading = "Check", default_value = "x-auth-")]
    pub header_prefix: HeaderPrefix,
    /// `realm` of challenges (WWW-Authenticate)
    #[arg(long, value_name = "TEXT", help_heading = "Check", default_value = "api")]
    pub realm: Realm,
    /// Maximum number of verified tokens in the cache; 0 disables it
    #[arg(long, value_name = "COUNT", help_heading = "Check", default_value = "50000")]
    pub token_cache_capacity: u64,
    /// Maximum memory of the token cache; 0 disables it
    #[arg(long, value_name = "BYTES", help_heading = "Check", default_value = "64MiB")]
    pub token_cache_max_bytes: ByteSize,

    /// Address of the gRPC port, for Envoy: `host:port`, `[::]:port` or `unix:/path`, after `tls:` or `mtls:` if it is encrypted; repeatable
    #[arg(long, value_name = "ADDRESS", help_heading = "gRPC", default_value = "127.0.0.1:9191")]
    pub grpc_listen: Vec<ListenAddress>,
    /// File mode of Unix sockets, in octal
    #[arg(long, value_name = "MODE", help_heading = "gRPC", default_value = "0660", value_parser = socket_mode)]
    pub grpc_socket_mode: u32,
    /// Number of threads that serve checks, 1 to 256 [default: one per core]
    #[arg(long, value_name = "COUNT", help_heading = "gRPC", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub grpc_threads: Option<u16>,
    /// Maximum number of open connections; further ones are closed at once
    #[arg(long, value_name = "COUNT", help_heading = "gRPC", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..))]
    pub grpc_max_connections: u32,
    /// Maximum number of concurrent streams per connection; further ones are refused
    #[arg(long, value_name = "COUNT", help_heading = "gRPC", default_value = "1024", value_parser = clap::value_parser!(u32).range(1..))]
    pub grpc_max_streams: u32,
    /// Maximum size of a check, 1KiB to 1GiB. Must exceed Envoy's `max_request_bytes` if Envoy sends bodies
    #[arg(long, value_name = "BYTES", help_heading = "gRPC", default_value = "16MiB")]
    pub grpc_max_message_bytes: ByteSize,

    /// Address of the HTTP form of the check, for nginx, Traefik, Caddy and Envoy's `http_service` [default: not served]
    #[arg(long, value_name = "ADDRESS", help_heading = "HTTP form")]
    pub http_listen: Option<ListenAddress>,
    /// Network (CIDR) of the proxies that may ask it; repeatable. Other peers get 403
    #[arg(long, value_name = "NETWORK", help_heading = "HTTP form", default_values = ["127.0.0.0/8", "::1/128"])]
    pub http_callers: Vec<Network>,

    /// Account API
    #[command(flatten)]
    pub account: AccountOptions,

    /// Certificates of the listeners
    #[command(flatten)]
    pub tls: TlsOptions,

    /// Revocation
    #[command(flatten)]
    pub revocation: RevocationOptions,

    /// Traces
    #[command(flatten)]
    pub trace: TraceOptions,

    /// Address of the admin port, for operators: status page (/, /status), /livez, /readyz, /metrics, /config, /revocations, /log-level
    #[arg(long, value_name = "ADDRESS", help_heading = "Operations", default_value = "127.0.0.1:9190")]
    pub admin_listen: ListenAddress,
    /// File with the token that operators show to the admin port to read the status, to list, make or lift revocations, and to change the log level: at least 16 visible ASCII characters. Read again when it changes [default: /revocations and /log-level are closed to clients without a certificate, and the status is open]
    #[arg(long, value_name = "FILE", help_heading = "Operations")]
    pub admin_token_file: Option<PathBuf>,
    /// Time between "not ready" and the closing of listeners, at shutdown
    #[arg(long, value_name = "DURATION", help_heading = "Operations", default_value = "0s", value_parser = duration)]
    pub shutdown_delay: Duration,
    /// Time for in-flight requests to finish after that
    #[arg(long, value_name = "DURATION", help_heading = "Operations", default_value = "10s", value_parser = duration)]
    pub shutdown_deadline: Duration,
    /// Log
    #[command(flatten)]
    pub log: LogOptions,
}

impl Options {
    /// Addresses of all listeners.
    pub(super) fn listeners(&self) -> impl Iterator<Item = &ListenAddress> {
        self.grpc_listen.iter().chain([&self.admin_listen]).chain(&self.account.account_listen).chain(&self.http_listen)
    }
}

/// Returns the ids of all options, in the order of the help.
pub(super) fn option_ids() -> Vec<String> {
    let command = Cli::command();
    command.get_arguments().filter(|arg| arg.get_long().is_some()).map(|arg| arg.get_id().to_string()).collect()
}

/// Returns the name of an option's environment variable. `id` is the flag in snake case.
pub fn variable(id: &str) -> String {
    match id {
        "user_pool_id" => "COGNITO_USER_POOL_ID".into(),
        "client_id" => "COGNITO_CLIENT_ID".into(),
        "region" => "AWS_REGION".into(),
        "cognito_endpoint" => "COGNITO_ENDPOINT".into(),
        other => format!("COGNITO_AUTHZ_{}", other.to_ascii_uppercase()),
    }
}

fn leeway(text: &str) -> Result<Duration, String> {
    let leeway = duration(text)?;
    if leeway > Duration::from_secs(60) {
        return Err("more than 60s".into());
    }
    if leeway.subsec_nanos() != 0 {
        return Err("not a whole number of seconds".into());
    }
    Ok(leeway)
}

fn refresh_interval(text: &str) -> Result<Duration, String> {
    duration_between(text, Duration::from_secs(1), Duration::from_secs(50 * 60))
}

fn socket_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| "not a file mode such as 0660".into())
}
