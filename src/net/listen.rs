//! Listening sockets: addresses, binding and accepting.
//!
//! The prefix of an address decides whether its connections are encrypted, so it belongs to the listener from the start.
//!
//! Binding is a separate step before anything runs. A bind failure therefore ends the startup, and the real port is
//! known before the address is logged, even if port 0 was requested.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::tls::{Acceptor, Certificates, Protocol};

/// Address of a listener: `host:port`, `[::]:port` or `unix:/path`, with the prefix `tls:` or `mtls:` if connections are
/// encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// Encryption of the connections.
    pub security: Security,
    /// Socket to listen on.
    pub socket: SocketAddress,
}

/// Encryption of a listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// None.
    Plain,
    /// TLS (`tls:`).
    Tls,
    /// TLS, and clients need a certificate (`mtls:`).
    MutualTls,
}

impl Security {
    fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Tls => "tls:",
            Self::MutualTls => "mtls:",
        }
    }
}

/// `host:port`, `[::]:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// TCP host and port. The host is resolved by `bind`.
    Tcp(String),
    /// Absolute path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let prefixed = |security: Security| Some((security, text.strip_prefix(security.prefix())?));
        let encrypted = [Security::Tls, Security::MutualTls].into_iter().find_map(prefixed);
        let (security, socket) = encrypted.unwrap_or((Security::Plain, text));
        Ok(Self { security, socket: socket.parse()? })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.security.prefix(), self.socket)
    }
}

impl FromStr for SocketAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not host:port, [::]:port or unix:/path (or one of these after tls: or mtls:)";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(wrong) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(wrong)?;
        let is_v6 = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || port.parse::<u16>().is_err() || port.starts_with('+') || (host.contains(':') && !is_v6) {
            return Err(wrong);
        }
        Ok(Self::Tcp(text.into()))
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Bind failure: the address is in use, not local, or not permitted.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}")]
pub struct BindError {
    address: ListenAddress,
    why: String,
}

/// A bound socket, and the TLS of its connections.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: BoundSocket,
    tls: Option<Acceptor>,
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Maximum number of connections that wait to be accepted. The kernel applies its own limit (`net.core.somaxconn`) as
/// well.
const BACKLOG: i32 = 4096;

impl ListenAddress {
    /// Binds the address. Has to run inside a tokio runtime. A Unix socket gets the file mode `socket_mode`.
    /// `certificates` are used if the address has the prefix `tls:` or `mtls:`, and `protocol` is named by ALPN.
    ///
    /// # Errors
    /// [`BindError`], for example if the port is taken, another process listens on the socket, the path is another kind
    /// of file, or the connections are to be encrypted and there are no certificates for it.
    pub(crate) fn bind(
        &self,
        socket_mode: u32,
        certificates: Option<&Arc<Certificates>>,
        protocol: Protocol,
    ) -> Result<Listener, BindError> {
        let failed = |why: String| BindError { address: self.clone(), why };
        let tls = match self.security {
            Security::Plain => None,
            security => {
                let is_mutual = security == Security::MutualTls;
                let acceptor = certificates.and_then(|certificates| certificates.acceptor(protocol, is_mutual));
                Some(acceptor.ok_or_else(|| failed("no certificates are configured".into()))?)
            }
        };
        let socket = match &self.socket {
            SocketAddress::Tcp(address) => {
                let listener = bind_tcp(address).map_err(|error| failed(error.to_string()))?;
                let bound = listener.local_addr().map_err(|error| failed(error.to_string()))?;
                TcpListener::from_std(listener).map(|listener| BoundSocket::Tcp(listener, bound))
            }
            SocketAddress::Unix(path) => {
                let (listener, file) = bind_unix(path, socket_mode).map_err(failed)?;
                UnixListener::from_std(listener).map(|listener| BoundSocket::Unix(listener, file))
            }
        };
        Ok(Listener { socket: socket.map_err(|error| failed(error.to_string()))?, tls })
    }
}

fn bind_tcp(address: &str) -> io::Result<StdTcpListener> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    for candidate in address.to_socket_addrs()? {
        let result = match bind_socket(candidate) {
            // A host without IPv6 has no [::]. The operator wants to listen on all addresses, so use 0.0.0.0.
            Err(error) if candidate.ip() == std::net::Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
                bind_socket(SocketAddr::from(([0, 0, 0, 0], candidate.port())))
            }
            result => result,
        };
        match result {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT (97): the kernel was built or booted without IPv6. EADDRNOTAVAIL: IPv6 is disabled by sysctl.
    matches!(error.raw_os_error(), Some(97)) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn bind_socket(address: SocketAddr) -> io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// File of a bound Unix socket. Dropping this removes the file, unless another process has replaced it by its own.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.device_and_inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket cannot be removed");
        }
    }
}

fn bind_unix(path: &Path, mode: u32) -> Result<(StdUnixListener, SocketFile), String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.to_string()),
        Ok(file) if !file.file_type().is_socket() => return Err("the path exists and is not a socket".into()),
        Ok(_) => match StdUnixStream::connect(path) {
            Ok(_) => return Err("another process listens on this socket".into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {} // stale: its process has ended
            Err(error) => {
                return Err(format!("the path is a socket and a connection to it fails, so it may be in use: {error}"));
            }
        },
    }
    // Bound under a temporary name and renamed, so that the socket never appears with another mode, and a stale one is
    // replaced atomically. The temporary name is short because a socket's path has at most 107 bytes.
    let temporary = path.with_file_name(format!(".{}", std::process::id()));
    let bind = || {
        let listener = StdUnixListener::bind(&temporary)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
        let file = fs::symlink_metadata(&temporary)?;
        fs::rename(&temporary, path)?;
        listener.set_nonblocking(true)?;
        Ok((listener, SocketFile { path: path.to_owned(), device_and_inode: (file.dev(), file.ino()) }))
    };
    bind().map_err(|error: io::Error| {
        // The name contains our process id, so the file is ours. Removing it fails if it was never created.
        drop(fs::remove_file(&temporary));
        error.to_string()
    })
}

impl Listener {
    /// Returns the address with its prefix, and with the real port if port 0 was requested.
    pub(crate) fn address(&self) -> String {
        let security = match &self.tls {
            None => Security::Plain,
            Some(tls) if tls.is_mutual() => Security::MutualTls,
            Some(_) => Security::Tls,
        };
        let socket = match &self.socket {
            BoundSocket::Tcp(_, address) => SocketAddress::Tcp(address.to_string()),
            BoundSocket::Unix(_, file) => SocketAddress::Unix(file.path.clone()),
        };
        ListenAddress { security, socket }.to_string()
    }

    /// TLS of the connections. Without it they are not encrypted.
    pub(crate) fn tls(&self) -> Option<&Acceptor> {
        self.tls.as_ref()
    }

    async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            BoundSocket::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            BoundSocket::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// Accepts connections and passes each to `serve`. Never returns.
    ///
    /// After an error the next attempt waits, because errors such as exhausted descriptors or memory would otherwise
    /// make the loop spin. A connection that broke before it was accepted causes no wait.
    pub(crate) async fn accept_all(&self, mut serve: impl FnMut(Stream)) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.accept().await {
                Ok(stream) => {
                    pause = FIRST_PAUSE;
                    serve(stream);
                }
                Err(error) if affects_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(address = self.address(), %error, pause_ms = pause.as_millis(), "cannot accept connections");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }
}

/// Wait after the first failed attempt. It doubles with each further failure, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Returns `true` for errors that concern only the connection being accepted (accept(2), "Error handling").
fn affects_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, InvalidInput, NotConnected,
    };
    // InvalidInput (EINVAL): TCP_NODELAY was set on a connection that is closed already.
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | InvalidInput | NotConnected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in
            ["127.0.0.1:9191", "[::]:0", "[::1]:80", "localhost:1", "unix:/run/a.sock", "tls:[::]:1", "mtls:unix:/a"]
        {
            assert_eq!(good.parse::<ListenAddress>().map(|address| address.to_string()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            ":80",
            "9191",
            "a",
            "a:",
            "a:b",
            "a:65536",
            "a:+1",
            "::1:80",
            "unix:",
            "unix:a.sock",
            "unix://",
            "http://a:80/",
            "tls:",
            "tls:a",
            "tls:mtls:a:1",
            "TLS:a:1",
            "unix:tls:/a",
        ] {
            let parsed = bad.parse::<ListenAddress>();
            assert!(parsed.is_err() || bad == "unix://", "{bad}: {parsed:?}");
        }
    }

    fn unix(path: &Path) -> Result<Listener, String> {
        format!("unix:{}", path.display())
            .parse::<ListenAddress>()
            .unwrap()
            .bind(0o640, None, Protocol::Grpc)
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_unix_socket_is_replaced_only_if_it_is_stale() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authz.sock");

        let live = unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(unix(&path).unwrap_err().contains("another process listens"));
        drop(live);
        assert!(!path.exists(), "dropping the listener removes the file");

        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves a stale socket behind");
        let replaced = unix(&path).unwrap();
        assert_eq!(replaced.address(), format!("unix:{}", path.display()));

        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(unix(&path).unwrap_err().contains("not a socket"));
        drop(replaced);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious", "a file of another process is not removed");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_and_port_zero_is_known() {
        let first = "127.0.0.1:0".parse::<ListenAddress>().unwrap().bind(0, None, Protocol::Http).unwrap();
        assert!(!first.address().ends_with(":0"));
        let taken = first.address().parse::<ListenAddress>().unwrap().bind(0, None, Protocol::Http).unwrap_err();
        assert!(taken.to_string().starts_with(&format!("cannot listen on {}: ", first.address())), "{taken}");
        let any = "[::]:0".parse::<ListenAddress>().unwrap().bind(0, None, Protocol::Http).unwrap();
        let port = any.address().rsplit_once(':').unwrap().1.to_owned();
        assert!(TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok(), "[::] serves IPv4 as well");
    }
}
