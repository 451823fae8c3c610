//! Every option once: flag, default, help, and the type it parses into.
//!
//! The name of an option's environment variable follows from the flag, see [`variable`]. The option table in
//! the README is compared with this file by a test.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::account::AccountOptions;
use crate::authz::denial::Realm;
use crate::authz::headers::HeaderPrefix;
use crate::authz::request::is_token;
use crate::field_value::trim_text;
use crate::logging::{LogFormat, LogLevel};
use crate::net::listen::ListenAddress;
use crate::user_pool::{AcceptedUse, ClientId, UserPoolId};

/// Envoy external authorization (`ext_authz`) for Amazon Cognito user pools.
#[derive(Debug, Parser)]
#[command(
    name = "cognito-authz",
    version = crate::version(),
    args_conflicts_with_subcommands = true,
    max_term_width = 120,
    after_help = "Every option can be set in the environment, too, and in a file .env in the working directory. \
                  A flag goes before the environment, and that before the file. Lists: repeat the flag, or use commas in \
                  the environment. Durations: 250ms, 30s, 1h. Bad usage ends with status 64, a port or socket that cannot be bound with 69."
)]
pub struct Cli {
    /// What to do; `serve` when left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of `serve`.
    #[command(flatten)]
    pub options: Options,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer Envoy's checks (what happens without a command, too)
    Serve(Options),
    /// Read the whole configuration, say what is wrong with it or that nothing is, and end
    CheckConfig(Options),
    /// Print the JSON Schema of the policy file (`--config`)
    ConfigSchema,
    /// Ask a running instance whether it is ready, and end with status 0 if it is
    Healthcheck(HealthcheckOptions),
    /// Go through the steps of one check, with the token on standard input; end with status 0 if the request may pass
    Explain(ExplainOptions),
    /// Check requests with locally signed tokens against the policy file, and end with status 0 if all decisions are as expected
    TestPolicy(TestPolicyOptions),
}

/// The options of `explain`, beside those of `serve`.
#[derive(Args, Debug)]
pub struct ExplainOptions {
    /// Method of the request
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    pub method: String,
    /// Host of the request
    #[arg(long, value_name = "HOST", default_value = "")]
    pub host: String,
    /// Path of the request; a query may follow
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub path: String,
    /// Context extension that Envoy's route sends, such as policy=admin; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = context_extension)]
    pub context: Vec<(String, String)>,
    /// Another header of the request; repeatable
    #[arg(long, value_name = "NAME: VALUE", value_parser = request_header)]
    pub header: Vec<(String, String)>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The configuration
    #[command(flatten)]
    pub options: Options,
}

/// The options of `test-policy`, beside those of `serve`.
#[derive(Args, Debug)]
pub struct TestPolicyOptions {
    /// Requests and the decisions that are expected (YAML)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The configuration
    #[command(flatten)]
    pub options: Options,
}

fn context_extension(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some(("policy", value)) => Ok(("policy".to_owned(), value.to_owned())),
        Some(_) => Err("nothing depends on a context extension other than policy"),
        None => Err("not of the form NAME=VALUE"),
    }
}

fn request_header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').ok_or("not of the form NAME: VALUE")?;
    if !is_token(name.as_bytes()) {
        return Err("not a header's name");
    }
    if name.eq_ignore_ascii_case("authorization") {
        return Err("the token comes on standard input");
    }
    Ok((name.to_ascii_lowercase(), trim_text(value).to_owned()))
}

/// The options of `healthcheck`.
#[derive(Args, Debug)]
pub struct HealthcheckOptions {
    /// Admin address of the instance
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9190")]
    pub admin: Url,
}

/// The options of `serve` and `check-config`.
#[derive(Args, Debug)]
pub struct Options {
    /// The pool. Its id decides the region
    #[arg(long, value_name = "ID", help_heading = "User pool")]
    pub user_pool_id: Option<UserPoolId>,
    /// App client whose tokens are accepted; repeatable. `any` skips the check
    #[arg(long, value_name = "ID", help_heading = "User pool")]
    pub client_id: Vec<AcceptedClient>,
    /// Region, for a cross-check: the pool's id has it, too
    #[arg(long, value_name = "REGION", help_heading = "User pool")]
    pub region: Option<String>,
    /// Base URL of the user-pool API and, unless --jwks-url is given, of the keys [default: of the pool's partition]
    #[arg(long, value_name = "URL", help_heading = "User pool")]
    pub cognito_endpoint: Option<Url>,
    /// Accepted `iss`, instead of both issuer formats of the pool; repeatable. Compared, never fetched
    #[arg(long, value_name = "TEXT", help_heading = "User pool")]
    pub issuer: Vec<String>,
    /// Allow plain http:// to hosts other than loopback
    #[arg(long, value_name = "BOOL", help_heading = "User pool", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub allow_insecure_endpoints: bool,

    /// File with more pools, and with policies, routes and headers (YAML); read again when it changes, and on SIGHUP
    #[arg(long, value_name = "FILE", help_heading = "Policy")]
    pub config: Option<PathBuf>,

    /// Where keys are fetched [default: beside the issuer]
    #[arg(long, value_name = "URL", help_heading = "Keys")]
    pub jwks_url: Option<Url>,
    /// Keys to begin with, until the first set is fetched
    #[arg(long, value_name = "FILE", help_heading = "Keys")]
    pub jwks_file: Option<PathBuf>,
    /// Time between fetches, give or take a tenth; at most 50m
    #[arg(long, value_name = "DURATION", help_heading = "Keys", default_value = "15m", value_parser = refresh_interval)]
    pub jwks_refresh_interval: Duration,

    /// Kinds of token that are accepted
    #[arg(long, value_name = "USE", help_heading = "Check", default_value = "access")]
    pub token_use: TokenUseOption,
    /// Clock skew allowed for `exp` and `nbf`; whole seconds, at most 60s
    #[arg(long, value_name = "DURATION", help_heading = "Check", default_value = "30s", value_parser = leeway)]
    pub leeway: Duration,
    /// Start of the names of the identity headers
    #[arg(long, value_name = "PREFIX", help_heading = "Check", default_value = "x-auth-")]
    pub header_prefix: HeaderPrefix,
    /// `realm` of the challenges
    #[arg(long, value_name = "TEXT", help_heading = "Check", default_value = "api")]
    pub realm: Realm,
    /// Verified tokens to remember; 0 for none
    #[arg(long, value_name = "COUNT", help_heading = "Check", default_value = "50000")]
    pub token_cache_capacity: u64,
    /// Memory for them, whichever limit is met first; 0 for none
    #[arg(long, value_name = "BYTES", help_heading = "Check", default_value = "64MiB")]
    pub token_cache_max_bytes: ByteSize,

    /// Where Envoy asks: `host:port`, `[::]:port` or `unix:/path`; repeatable
    #[arg(long, value_name = "ADDRESS", help_heading = "gRPC", default_value = "127.0.0.1:9191")]
    pub grpc_listen: Vec<ListenAddress>,
    /// Mode of Unix sockets, octal
    #[arg(long, value_name = "MODE", help_heading = "gRPC", default_value = "0660", value_parser = socket_mode)]
    pub grpc_socket_mode: u32,
    /// Threads that serve checks [default: one per core]
    #[arg(long, value_name = "COUNT", help_heading = "gRPC", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub grpc_threads: Option<u16>,
    /// Connections at a time; more are closed at once
    #[arg(long, value_name = "COUNT", help_heading = "gRPC", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..))]
    pub grpc_max_connections: u32,
    /// Streams at a time of one connection; more are refused
    #[arg(long, value_name = "COUNT", help_heading = "gRPC", default_value = "1024", value_parser = clap::value_parser!(u32).range(1..))]
    pub grpc_max_streams: u32,
    /// Size of a check; has to exceed Envoy's `max_request_bytes`, if bodies are sent
    #[arg(long, value_name = "BYTES", help_heading = "gRPC", default_value = "16MiB")]
    pub grpc_max_message_bytes: ByteSize,

    /// The account API
    #[command(flatten)]
    pub account: AccountOptions,

    /// Where operators ask: /livez, /readyz, /metrics, /config
    #[arg(long, value_name = "ADDRESS", help_heading = "Operations", default_value = "127.0.0.1:9190")]
    pub admin_listen: ListenAddress,
    /// Time between saying "not ready" and closing the listeners
    #[arg(long, value_name = "DURATION", help_heading = "Operations", default_value = "0s", value_parser = duration)]
    pub shutdown_delay: Duration,
    /// Time for running checks after that
    #[arg(long, value_name = "DURATION", help_heading = "Operations", default_value = "10s", value_parser = duration)]
    pub shutdown_deadline: Duration,
    /// Form of the log [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT", help_heading = "Operations")]
    pub log_format: Option<LogFormat>,
    /// Least severe level of the log
    #[arg(long, value_name = "LEVEL", help_heading = "Operations", default_value = "info")]
    pub log_level: LogLevel,
}

/// The environment variable of an option, from its id (the flag in snake case).
pub fn variable(id: &str) -> String {
    match id {
        "user_pool_id" => "COGNITO_USER_POOL_ID".into(),
        "client_id" => "COGNITO_CLIENT_ID".into(),
        "region" => "AWS_REGION".into(),
        "cognito_endpoint" => "COGNITO_ENDPOINT".into(),
        other => format!("COGNITO_AUTHZ_{}", other.to_ascii_uppercase()),
    }
}

/// A value of `--client-id`.
#[derive(Clone, Debug)]
pub enum AcceptedClient {
    /// This app client.
    Client(ClientId),
    /// Every app client.
    Any,
}

impl FromStr for AcceptedClient {
    type Err = crate::user_pool::UserPoolError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "any" { Ok(Self::Any) } else { text.parse().map(Self::Client) }
    }
}

/// A value of `--token-use`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TokenUseOption {
    /// Access tokens
    #[default]
    Access,
    /// ID tokens
    Id,
    /// Both
    Any,
}

impl From<TokenUseOption> for AcceptedUse {
    fn from(option: TokenUseOption) -> Self {
        match option {
            TokenUseOption::Access => Self::Access,
            TokenUseOption::Id => Self::Id,
            TokenUseOption::Any => Self::Any,
        }
    }
}

/// A number of bytes: `512`, `64KiB`, `16MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit: u64 = match text.get(digits.len()..).map(str::trim) {
            Some("" | "B") => 1,
            Some("KiB") => 1 << 10,
            Some("MiB") => 1 << 20,
            Some("GiB") => 1 << 30,
            _ => return Err("not a number of bytes such as 65536, 64KiB or 16MiB"),
        };
        let number: u64 = digits.parse().map_err(|_| "not a number of bytes such as 65536, 64KiB or 16MiB")?;
        number.checked_mul(unit).map(Self).ok_or("too many bytes")
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = any_duration(text)?;
    if duration > Duration::from_secs(86_400) { Err("more than a day".into()) } else { Ok(duration) }
}

/// What people's sessions are measured in, and not waits: a refresh token lives for up to ten years.
pub(crate) fn long_duration(text: &str) -> Result<Duration, String> {
    let duration = any_duration(text)?;
    if duration > Duration::from_secs(3650 * 86_400) { Err("more than 3650 days".into()) } else { Ok(duration) }
}

fn any_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "not a duration such as 250ms, 30s or 1h".to_owned())
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
    let interval = duration(text)?;
    let range = Duration::from_secs(1)..=Duration::from_secs(50 * 60);
    if range.contains(&interval) { Ok(interval) } else { Err("not between 1s and 50m".into()) }
}

fn socket_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| "not a file mode such as 0660".into())
}
