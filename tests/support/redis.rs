//! Servers of the shared store: [`Redis`] for a real one, and [`Proxy`] for the network in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::tool::{Tool, free_port};

/// Stream of the service.
pub(crate) const KEY: &str = "{cognito-authz}:revocations";

/// Programs that the tests run: Debian's Redis, and Valkey.
pub(crate) const REDIS: &str = "redis-server";
pub(crate) const VALKEY: &str = "valkey-server";

/// Redis or Valkey, running or stopped. It forgets its data when it is killed, unless it has saved them.
pub(crate) struct Redis {
    program: &'static str,
    process: Option<Tool>,
    pub(crate) port: u16,
    arguments: Vec<String>,
    directory: TempDir,
    /// URL with the credentials of an administrator.
    admin: String,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub(crate) async fn start() -> Self {
        Self::with(REDIS, &[]).await
    }

    /// Starts a server with these options.
    pub(crate) async fn with(program: &'static str, arguments: &[&str]) -> Self {
        let mut server = Self::new(program, arguments);
        // Another process may take the port before the server listens.
        for _ in 0..3 {
            server.port = free_port();
            server.admin = format!("redis://127.0.0.1:{}", server.port);
            match server.resume().await {
                Ok(()) => return server,
                Err(log) => assert!(log.contains("in use"), "{log}"),
            }
        }
        panic!("no free port");
    }

    /// A server that is not started yet. Its directory can get files that the options name.
    pub(crate) fn new(program: &'static str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let admin = format!("redis://127.0.0.1:{port}");
        Self { program, process: None, port, arguments, directory, admin }
    }

    /// Adds an option for the next start.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
    }

    /// Directory of the server.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Creates a file in the directory of the server.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Starts the server again, at the same address.
    ///
    /// # Errors
    /// The log of the server, if it ends before it answers.
    pub(crate) async fn resume(&mut self) -> Result<(), String> {
        let port = self.port.to_string();
        let mut arguments: Vec<String> =
            ["--port", &port, "--bind", "127.0.0.1", "--save", ""].map(String::from).into();
        arguments.extend(self.arguments.iter().cloned());
        let mut process = Tool::start(self.program, &arguments, &[], self.directory.path());
        let client = Client::open(&*self.admin).unwrap();
        process
            .comes_up("answers", async || match connect(&client).await {
                Ok(mut link) => redis::cmd("PING").query_async::<String>(&mut link).await.is_ok(),
                Err(_) => false,
            })
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Kills the server and starts it without data, at the same address.
    pub(crate) async fn restart_empty(&mut self) {
        self.kill();
        self.resume().await.unwrap();
    }

    /// URL for the service.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command, as an administrator.
    pub(crate) async fn command<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_command(command).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// As [`command`](Self::command), with the error of the server.
    pub(crate) async fn try_command<T: FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let mut link = connect(&Client::open(&*self.admin).unwrap()).await?;
        let mut request = redis::cmd(command[0]);
        request.arg(&command[1..]);
        request.query_async(&mut link).await
    }

    /// Number of records in the stream.
    pub(crate) async fn records(&self) -> usize {
        self.command(&["XLEN", KEY]).await
    }

    /// Appends records about this many other users, made from the first record.
    pub(crate) async fn fill(&self, count: usize) {
        // The third to the nineteenth byte are the key.
        let script = "local r = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][2][2] \
                      for i = 1, ARGV[1] do \
                      local key = string.gsub(string.sub(redis.sha1hex(i), 1, 32), '..', \
                      function (byte) return string.char(tonumber(byte, 16)) end) \
                      redis.call('XADD', KEYS[1], '*', 'r', string.sub(r, 1, 3) .. key .. string.sub(r, 20)) end";
        let () = self.command(&["EVAL", script, "1", KEY, &count.to_string()]).await;
    }
}

/// Sentinel that watches a server under the name `mymaster`.
pub(crate) struct Sentinel {
    _process: Tool,
    pub(crate) port: u16,
    _directory: TempDir,
}

impl Sentinel {
    pub(crate) async fn start(primary: u16) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = directory.path().join("sentinel.conf");
        let lines = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {primary} 1\n\
             sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n"
        );
        std::fs::write(&file, lines).unwrap();
        let mut process = Tool::start(REDIS, &[file.to_str().unwrap(), "--sentinel"], &[], directory.path());
        let client = Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        process.comes_up("answers", async || connect(&client).await.is_ok()).await.unwrap();
        Self { _process: process, port, _directory: directory }
    }

    /// `true` once it knows a server that can take over.
    pub(crate) async fn knows_copy(&self) -> bool {
        let client = Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut link = connect(&client).await.unwrap();
        let mut command = redis::cmd("SENTINEL");
        command.arg("REPLICAS").arg("mymaster");
        let known: Vec<Vec<String>> = command.query_async(&mut link).await.unwrap();
        known.iter().any(|copy| copy.join(" ").contains("master-link-status ok"))
    }
}

async fn connect(client: &Client) -> redis::RedisResult<MultiplexedConnection> {
    let limit = Some(Duration::from_secs(20));
    let config = AsyncConnectionConfig::new().set_connection_timeout(limit).set_response_timeout(limit);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// State of a [`Proxy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// Bytes pass.
    Open,
    /// Connections stay open, but nothing passes, and new ones get no answer.
    Frozen,
    /// Connections are closed, and new ones as well.
    Closed,
}

/// TCP proxy in front of a server. It ends with its runtime.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    /// State, and the number of times that the target changed.
    state: Arc<watch::Sender<(Network, u64)>>,
    target: Arc<AtomicU16>,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(watch::Sender::new((Network::Open, 0)));
        let target = Arc::new(AtomicU16::new(target));
        let (accepted, current) = (Arc::clone(&state), Arc::clone(&target));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(pass(client, current.load(Ordering::Acquire), accepted.subscribe()));
            }
        });
        Self { port, state, target }
    }

    /// Closes all connections, and passes new ones to another server, as a name does whose address changes.
    pub(crate) fn redirect(&self, target: u16) {
        self.target.store(target, Ordering::Release);
        self.state.send_modify(|state| state.1 += 1);
    }

    pub(crate) fn set(&self, network: Network) {
        self.state.send_modify(|state| state.0 = network);
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

async fn pass(client: TcpStream, target: u16, mut state: watch::Receiver<(Network, u64)>) {
    let mut closing = state.clone();
    let (_, changes) = *closing.borrow();
    let pass = async {
        state.wait_for(|(state, _)| *state == Network::Open).await.unwrap();
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
        let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
        tokio::select! {
            () = copy(client_in, server_out, state.clone()) => (),
            () = copy(server_in, client_out, state.clone()) => (),
        }
    };
    tokio::select! {
        () = pass => (),
        _ = closing.wait_for(|(state, now)| *state == Network::Closed || *now != changes) => (),
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<(Network, u64)>,
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        state.wait_for(|(state, _)| *state == Network::Open).await.unwrap();
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
