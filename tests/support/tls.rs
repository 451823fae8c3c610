//! TLS: the files of the service's certificates, and a client.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use h2::client::SendRequest;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use prost::Message;
use prost::bytes::{Buf, Bytes};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::PATIENCE;
use super::certificates::{Authority, Identity};
use super::client::{Answer, bearer};
use crate::limits::{CHECK, framed, head};

pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// Name in the service's certificate.
pub(crate) const SERVICE: &str = "authz.test";

/// Certificate, key and CA of clients, in the layout of a Secret that Kubernetes mounts: each is a link to a file below
/// `..data`, which is a link to the directory of a version.
pub(crate) struct TlsFiles {
    directory: TempDir,
    versions: std::cell::Cell<u32>,
}

impl TlsFiles {
    pub(crate) fn new(identity: &Identity, client_ca: &str) -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap(), versions: std::cell::Cell::new(0) };
        files.mount(identity, client_ca);
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(format!("..data/{name}"), files.at(name)).unwrap();
        }
        files
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    /// Options that name certificate and key.
    pub(crate) fn flags(&self) -> [String; 4] {
        let (certificate, key) = (self.path("tls.crt"), self.path("tls.key"));
        ["--tls-cert-file".into(), certificate, "--tls-key-file".into(), key]
    }

    /// Switches `..data` to the directory of a new version, and removes the directory of the previous one.
    pub(crate) fn mount(&self, identity: &Identity, client_ca: &str) {
        let version = self.versions.get() + 1;
        self.versions.set(version);
        let folder = |version: u32| format!("..version_{version}");
        let new = self.at(&folder(version));
        fs::create_dir(&new).unwrap();
        for (name, content) in [("tls.crt", &*identity.certificate), ("tls.key", &identity.key), ("ca.crt", client_ca)]
        {
            fs::write(new.join(name), content).unwrap();
        }
        symlink(folder(version), self.at("..data_tmp")).unwrap();
        fs::rename(self.at("..data_tmp"), self.at("..data")).unwrap();
        if version > 1 {
            fs::remove_dir_all(self.at(&folder(version - 1))).unwrap();
        }
    }
}

/// TLS client.
#[derive(Clone)]
pub(crate) struct TlsClient {
    pub(crate) config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Creates a client for gRPC (`h2`) or for HTTP/1.1 (`http/1.1`).
    pub(crate) fn new(
        trusted: &[&Authority],
        identity: Option<&Identity>,
        version: &'static SupportedProtocolVersion,
        alpn: &[&str],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for authority in trusted {
            roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key }) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { config: Arc::new(config) }
    }

    pub(crate) fn grpc(trusted: &[&Authority], identity: Option<&Identity>) -> Self {
        Self::new(trusted, identity, &TLS13, &["h2"])
    }

    pub(crate) fn http(trusted: &[&Authority], identity: Option<&Identity>) -> Self {
        Self::new(trusted, identity, &TLS13, &["http/1.1"])
    }

    /// Connects to an address in the form that the service logs: `tls:host:port`.
    pub(crate) async fn connect(&self, address: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let address = address.trim_start_matches('m').trim_start_matches("tls:");
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(SERVICE).unwrap();
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }

    /// Opens an HTTP/2 connection.
    pub(crate) async fn http2(&self, address: &str) -> Result<SendRequest<Bytes>, String> {
        let stream = self.connect(address).await.map_err(|error| error.to_string())?;
        let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        sender.ready().await.map_err(|error| error.to_string())
    }

    /// Returns the alert by which the server refuses the client's certificate. With TLS 1.3 it arrives only after the
    /// client's side of the handshake, and a client that sends more before it may get a reset instead.
    pub(crate) async fn refusal(&self, address: &str) -> String {
        let alert = async {
            match self.connect(address).await {
                Ok(mut stream) => stream.read_u8().await.unwrap_err(),
                Err(error) => error,
            }
        };
        tokio::time::timeout(PATIENCE, alert).await.unwrap_or_else(|_| panic!("the client is not refused")).to_string()
    }

    /// Sends a check over a new connection, and returns its status or the reason of any failure.
    pub(crate) async fn check(&self, address: &str, token: &str) -> Result<u16, String> {
        let stream = self.connect(address).await.map_err(|error| error.to_string())?;
        let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
        let check = async {
            let mut sender = sender.ready().await.map_err(|error| error.to_string())?;
            check_over(&mut sender, token).await
        };
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            biased;
            ended = connection.as_mut() => Err(ended.map_or_else(|error| error.to_string(), |()| "closed".into())),
            result = check => result,
        }
    }

    /// Sends a GET over a new connection. Returns status and body.
    pub(crate) async fn get(&self, address: &str, path: &str) -> Result<(u16, String), String> {
        let response = self.send(address, http::Request::get(path).body(Full::default()).unwrap()).await?;
        Ok((response.status().as_u16(), response.into_body()))
    }

    /// Sends a request over a new connection.
    pub(crate) async fn send(
        &self,
        address: &str,
        mut request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<String>, String> {
        let stream = self.connect(address).await.map_err(|error| error.to_string())?;
        let text = |error: hyper::Error| {
            std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let connection = tokio::spawn(connection);
        request.headers_mut().insert("host", SERVICE.parse().unwrap());
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => return Err(connection.await.unwrap().map_or_else(text, |()| error.to_string())),
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(text)?.to_bytes();
        Ok(http::Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap()))
    }
}

/// Sends a check over an open connection, and returns its status.
pub(crate) async fn check_over(sender: &mut SendRequest<Bytes>, token: &str) -> Result<u16, String> {
    let send = async {
        let (answer, mut body) = sender.send_request(head(CHECK, &[]), false)?;
        body.send_data(framed(&bearer(token)), true)?;
        let mut body = answer.await?.into_body();
        let mut received = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            received.extend_from_slice(&data);
        }
        Ok::<_, h2::Error>(received)
    };
    let received = tokio::time::timeout(Duration::from_secs(5), send).await.map_err(|_| "no response within 5 s")?;
    let received = received.map_err(|error| error.to_string())?;
    let mut message = received.as_slice();
    message.advance(5); // the prefix of gRPC
    Ok(Answer::from(CheckResponse::decode(message).unwrap()).status)
}
