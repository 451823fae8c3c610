//! Options of TLS, for the listeners whose addresses begin with `tls:` or `mtls:`.

use std::path::PathBuf;

use clap::Args;

use crate::net::tls::ClientName;

/// Certificates of all listeners with TLS.
#[derive(Args, Debug)]
pub struct TlsOptions {
    /// Certificate for addresses with tls: or mtls:, followed by its intermediate certificates (PEM). All TLS files are read again when they change
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub tls_key_file: Option<PathBuf>,
    /// CA certificates for addresses with mtls: (PEM): clients need a certificate that one of them signed
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub tls_client_ca_file: Option<PathBuf>,
    /// Subject alternative name that such a client needs, a DNS name or a URI, compared as a whole; repeatable [default: every client of the CA is accepted]
    #[arg(long, value_name = "NAME", help_heading = "TLS")]
    pub tls_client_names: Vec<ClientName>,
    /// `true` for commands that open no listener: the files are not read.
    #[arg(skip)]
    pub is_unused: bool,
}
