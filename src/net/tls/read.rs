//! Reads certificates and keys, and builds the server's configuration from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::client::NamedClients;
use super::{CertificateError, Protocol, TlsFiles};
use crate::files::{self, Fingerprint, MAX_SECRET_BYTES, MAX_TEXT_BYTES};

/// Protocol versions that are offered. Older ones are refused.
pub(super) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
/// Number of attempts to read all files without one of them changing in between.
const ATTEMPTS: usize = 3;

/// Content of one version of the files.
pub(super) struct Loaded {
    pub(super) versions: Vec<(PathBuf, Fingerprint)>,
    /// Unix time at which the server's certificate expires, in seconds.
    pub(super) expires: u64,
    /// For `tls:` listeners.
    pub(super) plain: Configs,
    /// For `mtls:` listeners; `None` without a CA of clients.
    pub(super) mutual: Option<Configs>,
}

/// One configuration for each [`Protocol`].
pub(super) struct Configs {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

impl Configs {
    pub(super) fn of(&self, protocol: Protocol) -> &Arc<ServerConfig> {
        match protocol {
            Protocol::Grpc => &self.grpc,
            Protocol::Http => &self.http,
        }
    }
}

impl CertificateError {
    fn new(option: &'static str, path: &Path, why: impl std::fmt::Display) -> Self {
        Self { option, why: format!("{} {why}", path.display()) }
    }

    pub(super) fn unusable(option: &'static str, error: &rustls::Error) -> Self {
        Self { option, why: format!("the certificates cannot be used: {error}") }
    }
}

impl Loaded {
    /// Reads the files, again if one of them changes in between: certificate and key have to belong together.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, CertificateError> {
        let mut result = Self::read_once(files);
        for _ in 1..ATTEMPTS {
            let is_settled = |(path, version): &(PathBuf, Fingerprint)| {
                files::version(path).is_ok_and(|current| current == *version)
            };
            if result.as_ref().is_ok_and(|loaded| loaded.versions.iter().all(is_settled)) {
                break;
            }
            result = Self::read_once(files);
        }
        result
    }

    fn read_once(files: &TlsFiles) -> Result<Self, CertificateError> {
        let TlsFiles { certificate, key, client_ca, client_names } = files;
        let mut versions = Vec::new();
        let provider = Arc::new(default_provider());
        let chain = read_chain(certificate, "tls_cert_file", &mut versions)?;
        let expires = validity(&chain).map_err(|why| CertificateError::new("tls_cert_file", certificate, why))?;
        let private = read_key(key, "tls_key_file", &mut versions)?;
        let certified = CertifiedKey::from_der(chain, private, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::new(
                "tls_key_file",
                key,
                format_args!("is not the key of the certificate in {}", certificate.display()),
            ),
            error => CertificateError::new("tls_key_file", key, format_args!("cannot be used: {error}")),
        })?;
        let certified = Arc::new(SingleCertAndKey::from(certified));
        let verifier = client_ca.as_ref().map(|path| -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
            let roots = read_roots(path, "tls_client_ca_file", &mut versions)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
            let verifier = verifier.map_err(|error| CertificateError::new("tls_client_ca_file", path, error))?;
            Ok(Arc::new(NamedClients::new(verifier, Arc::clone(client_names))))
        });
        let verifier = verifier.transpose()?;
        let configs = |verifier: Option<Arc<dyn ClientCertVerifier>>| {
            let config = |protocol: &[u8]| server_config(&provider, &certified, verifier.clone(), protocol);
            let cannot = |error| CertificateError::new("tls_cert_file", certificate, error);
            Ok(Configs { grpc: config(b"h2").map_err(cannot)?, http: config(b"http/1.1").map_err(cannot)? })
        };
        let (plain, mutual) = (configs(None)?, verifier.map(|verifier| configs(Some(verifier))).transpose()?);
        Ok(Self { versions, expires, plain, mutual })
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    certified: &Arc<SingleCertAndKey>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    protocol: &[u8],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let is_mutual = verifier.is_some();
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(&VERSIONS)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let certified: Arc<SingleCertAndKey> = Arc::clone(certified);
    let mut config = builder.with_cert_resolver(certified);
    config.alpn_protocols = vec![protocol.to_vec()];
    if is_mutual {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

/// Checks that the server's certificate, the first of the chain, is valid now. Returns the Unix time at which it
/// expires.
fn validity(chain: &[CertificateDer<'_>]) -> Result<u64, String> {
    let first = chain.first().map(|der| Certificate::from_der(der));
    let Some(Ok(certificate)) = first else { return Err("contains a certificate that cannot be decoded".into()) };
    let validity = certificate.tbs_certificate().validity();
    let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
    let (begin, end) = (seconds(validity.not_before), seconds(validity.not_after));
    let now = UnixTime::now().as_secs();
    if now < begin {
        return Err(format!("contains a certificate that is not valid before {}", validity.not_before));
    }
    if now > end {
        return Err(format!("contains a certificate that expired at {}", validity.not_after));
    }
    Ok(end)
}

/// Reads all certificates of a file.
pub(super) fn read_chain(
    path: &Path,
    option: &'static str,
    versions: &mut Vec<(PathBuf, Fingerprint)>,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let failed = |why: &dyn std::fmt::Display| CertificateError::new(option, path, why);
    let (bytes, version) = files::read_version(path, MAX_TEXT_BYTES).map_err(|why| failed(&why))?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|why| failed(&format_args!("is not PEM: {why}")))?;
    if chain.is_empty() {
        return Err(failed(&"contains no certificate in PEM form (BEGIN CERTIFICATE)"));
    }
    versions.push((path.to_owned(), version));
    Ok(chain)
}

/// Reads the private key of a file. No error contains a part of it.
pub(super) fn read_key(
    path: &Path,
    option: &'static str,
    versions: &mut Vec<(PathBuf, Fingerprint)>,
) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let failed = |why: &dyn std::fmt::Display| CertificateError::new(option, path, why);
    let (bytes, version) = files::read_version(path, MAX_SECRET_BYTES).map_err(|why| failed(&why))?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => failed(&"contains no unencrypted private key in PEM form (BEGIN PRIVATE KEY)"),
        _ => failed(&"is not PEM"),
    })?;
    versions.push((path.to_owned(), version));
    Ok(key)
}

/// Reads a file of CA certificates. Each has to be usable.
pub(super) fn read_roots(
    path: &Path,
    option: &'static str,
    versions: &mut Vec<(PathBuf, Fingerprint)>,
) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(path, option, versions)? {
        roots.add(certificate).map_err(|error| CertificateError::new(option, path, error))?;
    }
    Ok(roots)
}
