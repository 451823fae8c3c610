//! TLS of the listeners: certificates that can be replaced while the service runs, and the handshake.
//!
//! All listeners share one certificate, and each handshake uses the one in effect at its start. A reload therefore
//! changes no open connection. TLS 1.2 and 1.3 are offered. With mutual TLS, a client needs a certificate of the
//! configured CA; sessions are then never resumed, because a resumed session would skip the check of the certificate.

mod client;
mod connect;
mod read;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
pub(crate) use tokio_rustls::server::TlsStream;

pub use self::client::ClientName;
pub(crate) use self::client::{ClientCertificate, VerifiedClient};
pub(crate) use self::connect::{TlsClient, Trust};
use self::read::Loaded;
use super::occasional::Occasional;
use crate::files::Fingerprint;
use crate::logging::foreign;

/// Protocol of a listener. It decides the name that ALPN agrees on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// gRPC: HTTP/2 (`h2`).
    Grpc,
    /// HTTP/1.1 (`http/1.1`).
    Http,
}

/// Files with certificates, and the names that clients need.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate of the service, followed by its intermediate certificates (PEM).
    pub certificate: PathBuf,
    /// Private key of that certificate (PEM).
    pub key: PathBuf,
    /// CA certificates that sign certificates of clients (PEM). `mtls:` listeners need them.
    pub client_ca: Option<PathBuf>,
    /// Names of accepted clients; every client of the CA is accepted if there are none.
    pub client_names: Arc<[ClientName]>,
}

/// Reason why certificates are not loaded: the option that names the file, and a sentence that begins with its path.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct CertificateError {
    /// Id of the option.
    pub option: &'static str,
    why: String,
}

/// Certificates in effect.
pub struct Certificates {
    files: TlsFiles,
    loaded: ArcSwap<Loaded>,
}

impl fmt::Debug for Certificates {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// A file cannot be read, the key does not belong to the certificate, or the certificate is not valid now.
    pub fn open(files: TlsFiles) -> Result<Self, CertificateError> {
        let loaded = ArcSwap::from_pointee(Loaded::read(&files)?);
        Ok(Self { files, loaded })
    }

    /// Reads the files again. Blocks. Returns `true` if they have changed; they are then in effect.
    ///
    /// # Errors
    /// As [`Certificates::open`]. The previous certificates then stay in effect.
    pub(crate) fn reload(&self) -> Result<bool, CertificateError> {
        let loaded = Loaded::read(&self.files)?;
        let has_changed = loaded.versions != self.loaded.load().versions;
        self.loaded.store(Arc::new(loaded));
        Ok(has_changed)
    }

    /// Returns each file with the version in effect.
    pub(crate) fn versions(&self) -> Vec<(PathBuf, Fingerprint)> {
        self.loaded.load().versions.clone()
    }

    /// Returns the Unix time at which the certificate expires, in seconds.
    pub(crate) fn expires(&self) -> u64 {
        self.loaded.load().expires
    }

    /// Creates the acceptor of one listener. Returns `None` if it is to verify clients and no CA is configured.
    pub(crate) fn acceptor(self: &Arc<Self>, protocol: Protocol, is_mutual: bool) -> Option<Acceptor> {
        (!is_mutual || self.files.client_ca.is_some()).then(|| Acceptor {
            certificates: Arc::clone(self),
            protocol,
            is_mutual,
            failures: Arc::default(),
        })
    }
}

/// Server side of the handshakes of one listener.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    certificates: Arc<Certificates>,
    protocol: Protocol,
    is_mutual: bool,
    failures: Arc<Mutex<Occasional>>,
}

impl Acceptor {
    /// `true` if clients need a certificate.
    pub(crate) fn is_mutual(&self) -> bool {
        self.is_mutual
    }

    /// Performs the handshake. Returns the encrypted stream and, with mutual TLS, the client's verified certificate.
    /// Returns `None` if the handshake fails or has not ended at `deadline`, and logs why.
    pub(crate) async fn accept<S>(&self, stream: S, deadline: Instant) -> Option<(TlsStream<S>, VerifiedClient)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match timeout_at(deadline, self.handshake(stream)).await {
            Ok(Ok(accepted)) => return Some(accepted),
            Ok(Err(error)) => self.report(&error),
            Err(_) => tracing::debug!("a TLS handshake was not complete in time"),
        }
        None
    }

    async fn handshake<S>(&self, stream: S) -> io::Result<(TlsStream<S>, VerifiedClient)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config().ok_or_else(|| io::Error::other("no CA of clients is loaded"))?;
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        if !self.is_mutual {
            return Ok((stream, None));
        }
        // The handshake has verified the certificate, and fails without one.
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let client = certificate
            .and_then(|certificate| ClientCertificate::read(certificate, &self.certificates.files.client_names))
            .ok_or_else(|| io::Error::other("the client's certificate has no accepted name"))?;
        Ok((stream, Some(Arc::new(client))))
    }

    fn config(&self) -> Option<Arc<ServerConfig>> {
        let loaded = self.certificates.loaded.load();
        let configs = if self.is_mutual { loaded.mutual.as_ref()? } else { &loaded.plain };
        Some(Arc::clone(configs.of(self.protocol)))
    }

    /// Logs a failed handshake. A client that closes the connection is not worth a warning: load balancers probe a port
    /// this way.
    fn report(&self, error: &io::Error) {
        let is_end = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
        let failed = if is_end { None } else { self.failures.lock().unwrap_or_else(PoisonError::into_inner).count() };
        if let Some(failed) = failed {
            tracing::warn!(failed, error = foreign(error), "TLS handshakes failed");
        } else {
            tracing::debug!(error = foreign(error), "a TLS handshake failed");
        }
    }
}

#[cfg(test)]
mod tests;
