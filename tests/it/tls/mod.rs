//! TLS and mutual TLS of the listeners, with real handshakes.
//!
//! - [`clients`]: accepted and refused clients; [`protocols`]: other protocols, half-open handshakes, slow readers.
//! - [`reload`]: certificates that change; [`options`]: the command line, and `healthcheck` over TLS.
//! - [`operators`]: operators' commands over TLS, and their certificates.

mod clients;
mod operators;
mod options;
mod protocols;
mod reload;

use std::path::Path;

use crate::support::certificates::Authority;
use crate::support::client::get;
use crate::support::service::Program;
use crate::support::tls::{SERVICE, TlsFiles};
use crate::support::token::{SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

/// JWKS URL that refuses connections.
const NOWHERE: &str = "http://127.0.0.1:9/";

/// Program with certificates. Its first gRPC address is not encrypted, and neither is its admin port unless a flag says
/// so.
struct Stage {
    program: Program,
    /// CA of the service's certificate.
    authority: Authority,
    /// CA of clients.
    clients: Authority,
    files: TlsFiles,
    token: String,
}

impl Stage {
    /// Starts the program with these flags. Without `mtls:` among them, no CA of clients is configured.
    async fn start(flags: &[&str]) -> Self {
        let (authority, clients) = (Authority::new("service"), Authority::new("clients"));
        let files = TlsFiles::new(&authority.issue(&[SERVICE]), &clients.certificate());
        std::fs::write(files.path("jwks.json"), jwks(&[SigningKey::shared()])).unwrap();
        let (keys, ca, tls) = (files.path("jwks.json"), files.path("ca.crt"), files.flags());
        let mut all = vec!["--jwks-url", NOWHERE, "--jwks-file", &keys];
        all.extend(tls.iter().map(String::as_str));
        if flags.iter().any(|flag| flag.starts_with("mtls:")) {
            all.extend(["--tls-client-ca-file", &ca]);
        }
        all.extend(flags);
        let program = Program::start(&all);
        let token = TokenBuilder::access().sign(SigningKey::shared());
        let stage = Self { program, authority, clients, files, token };
        if !stage.program.admin.contains("tls:") {
            eventually("ready", PATIENCE, async || get(&stage.program.admin, "/readyz").await.0 == 200).await;
        }
        stage
    }

    /// Address of the second gRPC listener, which has TLS.
    fn grpc(&self) -> &str {
        &self.program.grpc[1]
    }

    /// Writes a file beside the certificates, and returns its path.
    fn write(&self, name: &str, content: &str) -> String {
        let path = self.files.path(name);
        std::fs::write(Path::new(&path), content).unwrap();
        path
    }
}
