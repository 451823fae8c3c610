//! Certificates of the listeners, from the options. An option that would have no effect is an error: an operator who
//! sets it expects encrypted connections or verified clients.

use std::sync::Arc;

use super::error::ConfigError;
use super::options::Options;
use super::source::{Sources, missing};
use crate::net::listen::Security;
use crate::net::tls::{Certificates, TlsFiles};

/// Reads the certificates. Returns `None` if no listener needs them.
pub(super) fn certificates(options: &Options, sources: Sources<'_>) -> Result<Option<Arc<Certificates>>, ConfigError> {
    let tls = &options.tls;
    if tls.is_unused {
        return Ok(None);
    }
    let has = |wanted: Security| options.listeners().any(|address| address.security == wanted);
    let (has_tls, has_mutual) = (has(Security::Tls), has(Security::MutualTls));
    for (id, is_set, is_used, prefixes) in [
        ("tls_cert_file", tls.tls_cert_file.is_some(), has_tls || has_mutual, "tls: or mtls:"),
        ("tls_key_file", tls.tls_key_file.is_some(), has_tls || has_mutual, "tls: or mtls:"),
        ("tls_client_ca_file", tls.tls_client_ca_file.is_some(), has_mutual, "mtls:"),
        ("tls_client_names", !tls.tls_client_names.is_empty(), has_mutual, "mtls:"),
    ] {
        if is_set && !is_used {
            let why = format_args!("no listener uses it; write {prefixes} before the address of one");
            return Err(sources.error(id, why));
        }
    }
    if !has_tls && !has_mutual {
        return Ok(None);
    }
    let certificate = tls.tls_cert_file.clone();
    let certificate =
        certificate.ok_or_else(|| missing("tls_cert_file", "the certificate for addresses with tls: or mtls:"))?;
    let key = tls.tls_key_file.clone().ok_or_else(|| missing("tls_key_file", "the key of the certificate"))?;
    if has_mutual && tls.tls_client_ca_file.is_none() {
        return Err(missing("tls_client_ca_file", "the CA of clients, for addresses with mtls:"));
    }
    let client_names = tls.tls_client_names.clone().into();
    let files = TlsFiles { certificate, key, client_ca: tls.tls_client_ca_file.clone(), client_names };
    let certificates = Certificates::open(files).map_err(|error| sources.error(error.option, &error))?;
    Ok(Some(Arc::new(certificates)))
}
