//! Certificate authorities, and certificates that they sign.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// Year in which certificates expire, unless the test says another.
pub(crate) const EXPIRES: i32 = 2040;

/// A CA.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its private key, both as PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate of the CA as PEM.
    pub(crate) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for these names: DNS names, IP addresses and URIs.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        self.issue_until(names, EXPIRES)
    }

    /// As [`Authority::issue`], valid until the end of this year. A year in the past gives an expired certificate, and
    /// one after [`EXPIRES`] a certificate that tests can tell from others.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Identity {
        self.sign(names, year, 2000, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Issues a certificate that is valid only in the future.
    pub(crate) fn issue_too_early(&self, names: &[&str]) -> Identity {
        self.sign(names, 2100, 2099, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Issues a certificate that only a server may use.
    pub(crate) fn issue_for_servers(&self, names: &[&str]) -> Identity {
        self.sign(names, EXPIRES, 2000, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(&self, names: &[&str], until: i32, since: i32, usage: ExtendedKeyUsagePurpose) -> Identity {
        let (uris, others): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let others: Vec<String> = others.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(others).unwrap();
        params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
        // The subject must not matter.
        params.distinguished_name.push(DnType::CommonName, "envoy.test");
        params.not_before = date_time_ymd(since, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}
