//! Client side of a `tls:` or `mtls:` listener, for commands that call a running instance.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::CertificateError;
use super::read::{VERSIONS, read_chain, read_key, read_roots};

/// Server that a client trusts, and the files that the client needs.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// CA certificates that sign the server's certificate (PEM).
    pub(crate) ca: PathBuf,
    /// Host name or IP address that the server's certificate has to have.
    pub(crate) name: String,
    /// Certificate and key that the client presents (PEM).
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// Client for HTTP/1.1 over TLS. It trusts only certificates of one CA, for one name.
pub(crate) struct TlsClient {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsClient {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// A file cannot be read or used, or the name is neither a host name nor an IP address.
    pub(crate) fn new(Trust { ca, name, identity }: Trust) -> Result<Self, CertificateError> {
        let bad_name = || CertificateError { option: "admin_server_name", why: format!("{name:?} is not a host name") };
        let name = ServerName::try_from(name.clone()).map_err(|_| bad_name())?;
        let mut versions = Vec::new(); // the files are read once
        let roots = read_roots(&ca, "admin_ca_file", &mut versions)?;
        let unusable = |option: &'static str| move |error| CertificateError::unusable(option, &error);
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&VERSIONS)
            .map_err(unusable("admin_ca_file"))?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = read_chain(&certificate, "admin_cert_file", &mut versions)?;
                let key = read_key(&key, "admin_key_file", &mut versions)?;
                builder.with_client_auth_cert(chain, key).map_err(unusable("admin_key_file"))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Performs the handshake.
    ///
    /// # Errors
    /// The handshake fails, for example because the server's certificate is not trusted.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}
