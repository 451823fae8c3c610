//! The server that the program is compared with: the same gRPC libraries, and the least that a server which uses them as
//! intended can do. It decodes each check with prost, ignores it, and encodes a constant answer that allows it with six
//! headers. It verifies nothing.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};

use crate::Bench;
use crate::process::{Process, free_address};

/// First argument of this executable when it is the server.
pub(crate) const COMMAND: &str = "null-server";
/// Time limit for its start.
const START: Duration = Duration::from_secs(10);

#[derive(Deserialize, Serialize)]
struct Settings {
    /// Number of threads; with one, the runtime is single-threaded.
    threads: usize,
    unix: PathBuf,
    tcp: String,
    tls: Option<TlsSettings>,
}

#[derive(Deserialize, Serialize)]
struct TlsSettings {
    address: String,
    /// Files with certificate and key (PEM).
    certificate: PathBuf,
    key: PathBuf,
}

/// Running server.
pub(crate) struct NullServer {
    process: Process,
    /// Socket for checks.
    pub(crate) unix: PathBuf,
    /// Address for checks.
    pub(crate) tcp: String,
    /// Address for checks over TLS, if it has one.
    pub(crate) tls: Option<String>,
}

impl NullServer {
    /// Starts the server and waits until it listens. `identity` are the files with its certificate and key, if it serves
    /// TLS as well.
    pub(crate) fn start(
        bench: &Bench,
        cores: &[usize],
        threads: usize,
        identity: Option<(PathBuf, PathBuf)>,
    ) -> Result<Self> {
        let mut server = Self::spawn(bench, cores, threads, identity)?;
        let (unix, tcp, tls) = (server.unix.clone(), server.tcp.clone(), server.tls.clone());
        let listens = |address: &String| std::net::TcpStream::connect(address).is_ok();
        server.process.comes_up(START, || {
            std::os::unix::net::UnixStream::connect(&unix).is_ok() && listens(&tcp) && tls.iter().all(listens)
        })?;
        Ok(server)
    }

    /// Starts the server, and does not wait.
    pub(crate) fn spawn(
        bench: &Bench,
        cores: &[usize],
        threads: usize,
        identity: Option<(PathBuf, PathBuf)>,
    ) -> Result<Self> {
        let directory = bench.new_directory()?;
        let tls = identity.map(|(certificate, key)| TlsSettings { address: free_address(), certificate, key });
        let settings = Settings { threads, unix: directory.join("grpc"), tcp: free_address(), tls };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(COMMAND).arg(serde_json::to_string(&settings)?);
        let process = Process::start(&mut command, cores, &directory)?;
        let tls = settings.tls.map(|tls| tls.address);
        Ok(Self { process, unix: settings.unix, tcp: settings.tcp, tls })
    }

    /// Id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Runs the server until its process is killed.
pub(crate) fn main(settings: &str) -> Result<()> {
    let settings: Settings = serde_json::from_str(settings)?;
    let runtime = match settings.threads {
        1 => Builder::new_current_thread().enable_all().build()?,
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build()?,
    };
    runtime.block_on(async {
        let unix = UnixListenerStream::new(UnixListener::bind(&settings.unix)?);
        let tcp = TcpListenerStream::new(listen(&settings.tcp)?).map(|stream| {
            let stream: TcpStream = stream?;
            stream.set_nodelay(true)?;
            std::io::Result::Ok(stream)
        });
        if let Some(tls) = settings.tls {
            let listener = listen(&tls.address)?;
            tokio::spawn(router().serve_with_incoming(encrypted(listener, acceptor(&tls)?)));
        }
        // Tasks, because the thread of `block_on` is not one of the runtime's workers.
        let unix = tokio::spawn(router().serve_with_incoming(unix));
        let tcp = tokio::spawn(router().serve_with_incoming(tcp));
        unix.await??;
        tcp.await??;
        Ok(())
    })
}

fn router() -> Router {
    Server::builder()
        .max_concurrent_streams(1024)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .add_service(AuthorizationServer::new(Constant(allowed())))
}

fn acceptor(settings: &TlsSettings) -> Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(&settings.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&settings.key).context("the key of the certificate")?;
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Listens with the backlog of the program. With the library's, which is shorter, the kernel resets some of the connections
/// of a storm, and delays others by a second.
fn listen(address: &str) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(address.parse()?)?;
    Ok(socket.listen(4096)?)
}

/// Accepts connections, and yields them after the handshake.
fn encrypted(
    listener: TcpListener,
    acceptor: TlsAcceptor,
) -> ReceiverStream<std::io::Result<tokio_rustls::server::TlsStream<TcpStream>>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                stream.set_nodelay(true).ok();
                if let Ok(stream) = acceptor.accept(stream).await {
                    sender.send(Ok(stream)).await.ok();
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

#[derive(Clone)]
struct Constant(CheckResponse);

#[tonic::async_trait]
impl Authorization for Constant {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        std::hint::black_box(request.get_ref());
        Ok(Response::new(self.0.clone()))
    }
}

/// The answer: allowed, with the six headers that the program adds for the tokens of the benchmark.
fn allowed() -> CheckResponse {
    let headers = [
        ("x-auth-sub", "6d8d0a2e-3f2b-4c55-9a80-0d1f5d2f0b11"),
        ("x-auth-username", "6d8d0a2e-3f2b-4c55-9a80-0d1f5d2f0b11"),
        ("x-auth-client-id", "3n4b5urk1ft4fl3mg5e62d9ado"),
        ("x-auth-scope", "openid profile email api/orders.read"),
        ("x-auth-groups", "admins,editors"),
        ("x-auth-token-use", "access"),
    ]
    .map(|(key, value)| HeaderValueOption {
        header: Some(HeaderValue { key: key.into(), value: value.into(), ..Default::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    });
    let allowed = OkHttpResponse { headers: headers.into(), ..Default::default() };
    CheckResponse {
        status: Some(RpcStatus::default()),
        http_response: Some(HttpResponse::OkResponse(allowed)),
        ..Default::default()
    }
}
