//! Options of the commands that operators use against a running instance: `revoke` and `revocations`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::examples;
use super::instance::InstanceOptions;
use crate::clock::{UnixTime, parse_rfc3339};
use crate::revocation::Key;

/// Options of all commands of operators.
#[derive(Args, Clone, Debug)]
pub struct OperatorOptions {
    /// The instance
    #[command(flatten)]
    pub instance: InstanceOptions,
    /// File with the token of the operators; required unless --admin-cert-file authorizes the operator
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Tokens that a command is about.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
pub struct Target {
    /// User whose tokens it is about, by the claim `sub`
    #[arg(long, value_name = "SUB")]
    pub sub: Option<String>,
    /// Session whose tokens it is about, by the claim `origin_jti`
    #[arg(long, value_name = "ID")]
    pub origin_jti: Option<String>,
    /// One token, by the claim `jti`
    #[arg(long, value_name = "ID")]
    pub jti: Option<String>,
}

impl Target {
    /// Returns the name of the claim and its value.
    pub fn claim(&self) -> Option<(&'static str, &str)> {
        let claims = [("sub", &self.sub), ("origin_jti", &self.origin_jti), ("jti", &self.jti)];
        claims.into_iter().find_map(|(name, value)| value.as_deref().map(|value| (name, value)))
    }
}

/// Options of `revoke`.
#[derive(Args, Clone, Debug)]
pub struct RevokeOptions {
    /// Tokens to revoke
    #[command(flatten)]
    pub target: Target,
    /// Pool of the tokens, by its name or id [default: the only pool of the instance]
    #[arg(long, value_name = "POOL")]
    pub pool: Option<String>,
    /// With --sub: revoke the tokens of sign-ins up to this time; RFC 3339 or Unix seconds [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub before: Option<UnixTime>,
    /// Reason for the audit log, at most 200 characters
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The instance and its token
    #[command(flatten)]
    pub operator: OperatorOptions,
}

/// Options of `revocations`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RevocationsOptions {
    /// Action; `list` if unset.
    #[command(subcommand)]
    pub action: Option<RevocationsAction>,
    /// Options of `list`.
    #[command(flatten)]
    pub list: ListOptions,
}

impl RevocationsOptions {
    /// Returns the action, with its options.
    pub fn action(self) -> RevocationsAction {
        self.action.unwrap_or(RevocationsAction::List(self.list))
    }
}

/// Actions of `revocations`.
#[derive(Clone, Debug, Subcommand)]
pub enum RevocationsAction {
    /// List the revocations in effect; with a claim, the one of that claim
    #[command(after_help = examples::text("revocations list"))]
    List(ListOptions),
    /// Lift a revocation, so that tokens that it covered pass again
    #[command(after_help = examples::text("revocations lift"))]
    Lift(LiftOptions),
}

impl RevocationsAction {
    /// Options that all actions have.
    pub fn operator(&self) -> &OperatorOptions {
        match self {
            Self::List(list) => &list.operator,
            Self::Lift(lift) => &lift.operator,
        }
    }
}

/// Options of `revocations list`.
#[derive(Args, Clone, Debug)]
pub struct ListOptions {
    /// Revocation to list
    #[command(flatten)]
    pub target: Target,
    /// Pool of the claim, by its name or id [default: the only pool of the instance]
    #[arg(long, value_name = "POOL")]
    pub pool: Option<String>,
    /// The instance and its token
    #[command(flatten)]
    pub operator: OperatorOptions,
}

/// Options of `revocations lift`.
#[derive(Args, Clone, Debug)]
pub struct LiftOptions {
    /// Id of the revocation, as `revoke` and `revocations list` print it
    #[arg(value_name = "ID", value_parser = revocation_id)]
    pub id: String,
    /// The instance and its token
    #[command(flatten)]
    pub operator: OperatorOptions,
}

fn time(text: &str) -> Result<UnixTime, &'static str> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if is_number { text.parse().ok() } else { parse_rfc3339(text) };
    seconds.ok_or("neither RFC 3339 such as 2026-03-01T12:00:00Z nor Unix seconds")
}

fn revocation_id(text: &str) -> Result<String, &'static str> {
    text.parse::<Key>().map(|id| id.to_string()).map_err(|_| "not an id of 32 hexadecimal digits")
}
