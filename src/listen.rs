//! Listening sockets: addresses, binding, and accepting without ever spinning.
//!
//! Binding is a step of its own, before anything runs: what cannot be bound ends the start, and port 0 is known
//! by the time the process says where it listens.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// `host:port`, `[::]:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address; the host is resolved when it is bound.
    Tcp(String),
    /// A path.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not host:port, [::]:port or unix:/path";
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

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}")]
pub struct BindError {
    address: ListenAddress,
    why: String,
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener, SocketAddr),
    /// A Unix socket, with its file.
    Unix(UnixListener, SocketFile),
}

/// An accepted connection.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

/// Waiting connections; as many as the kernel allows.
const BACKLOG: i32 = 4096;

impl ListenAddress {
    /// Binds it. Must run inside a runtime.
    ///
    /// # Errors
    /// [`BindError`]: the port is taken, the socket is alive, a file of another kind stands at the path, ...
    pub fn bind(&self, socket_mode: u32) -> Result<Listener, BindError> {
        let failed = |why: String| BindError { address: self.clone(), why };
        match self {
            Self::Tcp(address) => {
                let listener = bind_tcp(address).map_err(|error| failed(error.to_string()))?;
                let bound = listener.local_addr().map_err(|error| failed(error.to_string()))?;
                TcpListener::from_std(listener)
                    .map(|listener| Listener::Tcp(listener, bound))
                    .map_err(|error| failed(error.to_string()))
            }
            Self::Unix(path) => {
                let (listener, file) = bind_unix(path, socket_mode).map_err(failed)?;
                UnixListener::from_std(listener)
                    .map(|listener| Listener::Unix(listener, file))
                    .map_err(|error| failed(error.to_string()))
            }
        }
    }
}

fn bind_tcp(address: &str) -> io::Result<StdTcpListener> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    for candidate in address.to_socket_addrs()? {
        let result = match bind_socket(candidate) {
            // Hosts without IPv6 have no [::]; every IPv4 address is what was meant there.
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
    // EAFNOSUPPORT: built or booted without; EADDRNOTAVAIL: disabled by sysctl.
    matches!(error.raw_os_error(), Some(97)) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn bind_socket(address: SocketAddr) -> io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The file of a bound Unix socket. Dropping it removes the file, unless another process has put its own there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.device_and_inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "socket could not be removed");
        }
    }
}

fn bind_unix(path: &Path, mode: u32) -> Result<(StdUnixListener, SocketFile), String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.to_string()),
        Ok(file) if !file.file_type().is_socket() => return Err("a file that is no socket stands there".into()),
        Ok(_) => match StdUnixStream::connect(path) {
            Ok(_) => return Err("another process listens on this socket".into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {} // stale: its process is gone
            Err(error) => return Err(format!("a socket stands there and cannot be tried: {error}")),
        },
    }
    // Bound under another name and moved into place, so that the socket never stands there with another mode, and
    // a stale one is replaced in one step.
    // The name is short: a socket's path has at most 107 bytes.
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
        // It is ours alone by its name; when it was never made there is nothing to remove.
        drop(fs::remove_file(&temporary));
        error.to_string()
    })
}

impl Listener {
    /// Where it listens: the real port where 0 was asked for.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(_, address) => address.to_string(),
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// Hands every connection to `serve`, for ever.
    ///
    /// A connection that broke before it was accepted is no reason to wait; anything else (no descriptors, no memory)
    /// is, or the loop would spin at full load until it is over.
    pub async fn accept_all(&self, mut serve: impl FnMut(Stream)) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.accept().await {
                Ok(stream) => {
                    pause = FIRST_PAUSE;
                    serve(stream);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(address = self.address(), %error, pause_ms = pause.as_millis(), "cannot accept connections");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, InvalidInput, NotConnected,
    };
    // InvalidInput: setting TCP_NODELAY on a connection that is gone (EINVAL).
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
        for good in ["127.0.0.1:9191", "[::]:0", "[::1]:80", "localhost:1", "unix:/run/a.sock"] {
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
        ] {
            let parsed = bad.parse::<ListenAddress>();
            assert!(parsed.is_err() || bad == "unix://", "{bad}: {parsed:?}");
        }
    }

    fn unix(path: &Path) -> Result<Listener, String> {
        ListenAddress::Unix(path.into()).bind(0o640).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_socket_is_replaced_only_when_it_is_stale() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authz.sock");

        let live = unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(unix(&path).unwrap_err().contains("another process listens"));
        drop(live);
        assert!(!path.exists(), "the file goes with the socket");

        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves a stale socket behind");
        let replaced = unix(&path).unwrap();
        assert_eq!(replaced.address(), format!("unix:{}", path.display()));

        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(unix(&path).unwrap_err().contains("no socket"));
        drop(replaced);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious", "a file that is not ours stays");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing temporary is left");
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_and_port_zero_is_known() {
        let first = "127.0.0.1:0".parse::<ListenAddress>().unwrap().bind(0).unwrap();
        assert!(!first.address().ends_with(":0"));
        let taken = first.address().parse::<ListenAddress>().unwrap().bind(0).unwrap_err();
        assert!(taken.to_string().starts_with(&format!("cannot listen on {}: ", first.address())), "{taken}");
        let any = "[::]:0".parse::<ListenAddress>().unwrap().bind(0).unwrap();
        let port = any.address().rsplit_once(':').unwrap().1.to_owned();
        assert!(TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok(), "[::] serves IPv4, too");
    }
}
