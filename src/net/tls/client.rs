//! Certificates of clients: the names that are accepted, and the identity that a verified one gives.
//!
//! A name is a DNS name or a URI in the extension `subjectAltName`. Names are compared as a whole: there are no
//! patterns, and the subject's common name is ignored (RFC 9525 section 2).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, DnsName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Name of an accepted client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientName {
    /// DNS name, compared without regard to case.
    Dns(String),
    /// URI, compared byte by byte.
    Uri(String),
}

impl FromStr for ClientName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('*') {
            return Err("names are compared as a whole; there are no patterns");
        }
        if let Some((scheme, rest)) = text.split_once(':') {
            let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
            let is_uri = is_scheme && !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic());
            return if is_uri { Ok(Self::Uri(text.into())) } else { Err("not a URI such as spiffe://domain/path") };
        }
        match DnsName::try_from(text) {
            Ok(_) => Ok(Self::Dns(text.to_ascii_lowercase())),
            Err(_) => Err("neither a DNS name nor a URI such as spiffe://domain/path"),
        }
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Dns(name) | Self::Uri(name)) = self;
        f.write_str(name)
    }
}

/// The verified certificate of a connection's client; `None` if the listener is not `mtls:`.
pub(crate) type VerifiedClient = Option<Arc<ClientCertificate>>;

/// A client's certificate that the handshake has verified: it is signed by the configured CA, valid, and has an
/// accepted name.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    name: String,
}

impl ClientCertificate {
    /// Reads the identity of a certificate. Returns `None` if it has none of the accepted names.
    pub(super) fn read(certificate: &CertificateDer<'_>, accepted: &[ClientName]) -> Option<Self> {
        let names = names(certificate)?;
        let name = if accepted.is_empty() {
            let uri = names.iter().find(|name| matches!(name, ClientName::Uri(_)));
            uri.or(names.first()).map_or_else(|| fingerprint(certificate), ToString::to_string)
        } else {
            names.iter().find(|name| accepted.contains(name))?.to_string()
        };
        Some(Self { name })
    }

    /// Name for the log: the accepted name that the certificate has. If every name is accepted, its first URI, else its
    /// first DNS name, else the SHA-256 of the certificate (`sha256:…`).
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Returns the DNS names and URIs of a certificate, in order. Returns `None` if it cannot be decoded. Names in other
/// forms are left out, and so are those that no [`ClientName`] can equal.
fn names(certificate: &CertificateDer<'_>) -> Option<Vec<ClientName>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let extension = certificate.tbs_certificate().get_extension::<SubjectAltName>().ok()?;
    let Some((_, SubjectAltName(names))) = extension else { return Some(Vec::new()) };
    let name = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => match name.as_str().parse() {
            Ok(name @ ClientName::Dns(_)) => Some(name),
            _ => None,
        },
        GeneralName::UniformResourceIdentifier(uri) => match uri.as_str().parse() {
            Ok(uri @ ClientName::Uri(_)) => Some(uri),
            _ => None,
        },
        _ => None,
    };
    Some(names.iter().filter_map(name).collect())
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let hash = digest(&SHA256, certificate);
    hash.as_ref().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Verifies clients as `chain` does, and then the name.
#[derive(Debug)]
pub(super) struct NamedClients {
    chain: Arc<dyn ClientCertVerifier>,
    accepted: Arc<[ClientName]>,
}

impl NamedClients {
    pub(super) fn new(chain: Arc<dyn ClientCertVerifier>, accepted: Arc<[ClientName]>) -> Self {
        Self { chain, accepted }
    }
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(certificate, intermediates, now)?;
        match ClientCertificate::read(certificate, &self.accepted) {
            Some(_) => Ok(verified),
            None => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
