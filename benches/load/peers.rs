//! Other servers that Envoy asks about requests, in a configuration that verifies the tokens of the benchmark.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Bench;
use crate::process::{Process, get};
use crate::token::{CLIENT, ISSUER};

const OPA_POLICY: &str = include_str!("peers/opa.rego");
/// Entries of OPA's cache of verified tokens, if that is on: more than the benchmark has tokens.
const OPA_CACHED: u32 = 20_000;
/// Time limit for a start.
const START: Duration = Duration::from_secs(60);

/// How Envoy asks a server.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Protocol {
    Grpc,
    Http,
}

/// Running server.
pub(crate) struct Peer {
    process: Process,
    /// Socket for checks.
    pub(crate) unix: PathBuf,
    pub(crate) protocol: Protocol,
}

impl Peer {
    /// Starts OPA with its plug-in for Envoy. By default, its cache of verified tokens is off.
    pub(crate) fn opa(bench: &Bench, program: &Path, cores: &[usize], is_cached: bool) -> Result<Self> {
        let directory = bench.new_directory()?;
        let (unix, admin) = (directory.join("grpc"), directory.join("admin"));
        let mut config = json!({"plugins": {"envoy_ext_authz_grpc": {
            "addr": format!("unix://{}", unix.display()),
            "path": "cognito/allow",
            "skip-request-body-parse": true,
        }}});
        if is_cached {
            config["caching"] =
                json!({"inter_query_builtin_value_cache": {"named": {"io_jwt": {"max_num_entries": OPA_CACHED}}}});
        }
        let data = json!({"keys": fs::read_to_string(bench.input.keys())?, "issuer": ISSUER, "client": CLIENT});
        let write = |name: &str, value: &Value| fs::write(directory.join(name), value.to_string());
        // JSON is YAML.
        write("config.yaml", &config)?;
        write("data.json", &data)?;
        fs::write(directory.join("policy.rego"), OPA_POLICY)?;
        let mut command = Command::new(program);
        command
            .args(["run", "--server", "--disable-telemetry", "--log-level=error", "--config-file=config.yaml"])
            .arg(format!("--addr=unix://{}", admin.display()))
            .args(["policy.rego", "data.json"]);
        let mut process = Process::start(&mut command, cores, &directory)?;
        process.comes_up(START, || get(&admin, "/health?plugins").is_ok() && UnixStream::connect(&unix).is_ok())?;
        Ok(Self { process, unix, protocol: Protocol::Grpc })
    }

    /// Starts oauth2-proxy, which accepts bearer tokens and makes the response itself. It has no rule for `token_use`, and
    /// adds fewer headers than the others.
    pub(crate) fn oauth2_proxy(bench: &Bench, program: &Path, cores: &[usize], keys: &str) -> Result<Self> {
        let directory = bench.new_directory()?;
        let unix = directory.join("http");
        let mut command = Command::new(program);
        command
            .args(["--provider=oidc", "--skip-oidc-discovery=true", "--skip-jwt-bearer-tokens=true"])
            .args(["--oidc-issuer-url", ISSUER, "--oidc-jwks-url", keys, "--client-id", CLIENT])
            .args(["--oidc-audience-claim=client_id", "--oidc-email-claim=sub", "--oidc-groups-claim=cognito:groups"])
            // It does not start without these, and needs them only for a sign-in.
            .args(["--login-url=http://127.0.0.1:9/", "--redeem-url=http://127.0.0.1:9/", "--client-secret=unused"])
            .args(["--cookie-secret=0123456789abcdef0123456789abcdef", "--email-domain=*"])
            .args(["--upstream=static://200", "--reverse-proxy=true", "--set-xauthrequest=true"])
            .args(["--request-logging=false", "--auth-logging=false", "--standard-logging=false"])
            .arg(format!("--http-address=unix://{}", unix.display()));
        let mut process = Process::start(&mut command, cores, &directory)?;
        process.comes_up(START, || get(&unix, "/ping").is_ok())?;
        Ok(Self { process, unix, protocol: Protocol::Http })
    }

    /// Id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// First line of what a program prints about its version.
pub(crate) fn version(program: &Path, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).env_clear().output();
    let output = output.with_context(|| format!("{} cannot be started", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
