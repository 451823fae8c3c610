//! Client side of a `tls:` or `mtls:` listener, for commands that call a running instance.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::TlsConnector;

use super::CertificateError;
use super::read::{VERSIONS, read_chain, read_key, read_roots};

/// Files that a client needs.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// CA certificates that sign the server's certificate (PEM).
    pub(crate) ca: PathBuf,
    /// Certificate and key that the client presents (PEM).
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// Creates a client for HTTP/1.1. It trusts only certificates of this CA, for the name that the caller asks for. Blocks.
///
/// # Errors
/// A file cannot be read or used.
pub(crate) fn connector(trust: &Trust) -> Result<TlsConnector, CertificateError> {
    let mut versions = Vec::new(); // the files are read once
    let roots = read_roots(&trust.ca, "admin_ca_file", &mut versions)?;
    let unusable = |option: &'static str| move |error| CertificateError::unusable(option, &error);
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&VERSIONS)
        .map_err(unusable("admin_ca_file"))?
        .with_root_certificates(roots);
    let mut config = match &trust.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = read_chain(certificate, "admin_cert_file", &mut versions)?;
            let key = read_key(key, "admin_key_file", &mut versions)?;
            builder.with_client_auth_cert(chain, key).map_err(unusable("admin_key_file"))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
