//! Options of the commands that call the admin port of a running instance: `healthcheck`, `revoke` and `revocations`.

use std::path::PathBuf;

use clap::Args;
use url::Url;

/// Admin port of a running instance, and the certificates for it.
#[derive(Args, Clone, Debug)]
pub struct InstanceOptions {
    /// Admin address of the instance; https if its listener has TLS
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9190")]
    pub admin: Url,
    /// CA certificates that sign the instance's certificate (PEM); required for https
    #[arg(long, value_name = "FILE")]
    pub admin_ca_file: Option<PathBuf>,
    /// Name that the instance's certificate has to have [default: the host of the URL]
    #[arg(long, value_name = "NAME")]
    pub admin_server_name: Option<String>,
    /// Certificate to present to an instance whose listener is mtls: (PEM)
    #[arg(long, value_name = "FILE", requires = "admin_key_file")]
    pub admin_cert_file: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "admin_cert_file")]
    pub admin_key_file: Option<PathBuf>,
}
