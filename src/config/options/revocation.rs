//! Options of revocation: where it is kept, and its limits.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::config::parse::duration_between;
use crate::revocation::StoreUrl;

/// Options of revocation.
#[derive(Args, Debug)]
pub struct RevocationOptions {
    /// Redis or Valkey that all replicas share: `redis://[USER@]HOST[:PORT][/DATABASE]`, `redis-sentinel://[USER@]HOST,…/PRIMARY[/DATABASE]` or `redis-cluster://[USER@]HOST,…`; with `rediss` for TLS [default: each replica keeps its own revocations, in memory]
    #[arg(long, value_name = "URL", help_heading = "Revocation")]
    pub revocation_url: Option<StoreUrl>,
    /// File of a single replica that has no store, so that revocations survive a restart
    #[arg(long, value_name = "FILE", help_heading = "Revocation")]
    pub revocation_file: Option<PathBuf>,
    /// File with the password of the store's user
    #[arg(long, value_name = "FILE", help_heading = "Revocation")]
    pub revocation_password_file: Option<PathBuf>,
    /// Certificates (PEM) of the CA of the store [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "Revocation")]
    pub revocation_ca_file: Option<PathBuf>,
    /// While the store is lost: answer 503 instead of going on with what is known
    #[arg(long, value_name = "BOOL", help_heading = "Revocation", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub revocation_required: bool,
    /// Maximum number of revocations. Further ones are refused, none is forgotten before its time
    #[arg(long, value_name = "COUNT", help_heading = "Revocation", default_value = "1000000", value_parser = clap::value_parser!(u32).range(1..))]
    pub revocation_capacity: u32,
    /// Maximum life of a token (`exp` minus `iat`), and so the time for which revocations are kept; whole seconds, 5m to 30d
    #[arg(long, value_name = "DURATION", help_heading = "Revocation", default_value = "24h", value_parser = token_life)]
    pub max_token_life: Duration,
}

fn token_life(text: &str) -> Result<Duration, String> {
    let life = duration_between(text, Duration::from_secs(5 * 60), Duration::from_secs(30 * 24 * 3600))?;
    if life.subsec_nanos() != 0 {
        return Err("not a whole number of seconds".into());
    }
    Ok(life)
}
