//! Connections to the store ([`Link`]): one server, the primary that Sentinels name, or a cluster.
//!
//! Files with the password and the CA are read for each connection, so that both can be rotated.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use tokio::time;

use super::super::settings::StoreSettings;
use super::super::store_url::Topology;
use crate::files::{self, MAX_SECRET_BYTES, MAX_TEXT_BYTES};
use crate::logging::foreign;

/// Time limit for one TCP connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connection. Clones share it.
#[derive(Clone)]
pub(super) enum Link {
    /// To one server.
    Server(MultiplexedConnection),
    /// To a cluster.
    Cluster(ClusterConnection),
}

/// Failure of the store. The text contains nothing that the server may have copied from a command.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(in super::super) struct StoreError {
    text: String,
    /// `true` if the server answered, and a new connection would get the same answer.
    pub(super) keeps_link: bool,
}

impl StoreError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), keeps_link: false }
    }

    pub(super) fn timeout() -> Self {
        Self::new("the store does not answer in time")
    }
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        let text = match error.kind() {
            ErrorKind::Io => foreign(&error),
            ErrorKind::AuthenticationFailed => "the store rejects the user or the password".into(),
            ErrorKind::Server(ServerErrorKind::ReadOnly) => "the store is a read-only replica".into(),
            ErrorKind::Server(_) | ErrorKind::Extension => {
                format!("the store answers with the error {}", foreign(&error.code().unwrap_or("ERR")))
            }
            _ => format!("{}, {:?}", error.category(), error.kind()),
        };
        let is_state = matches!(error.code(), Some("OOM" | "MISCONF" | "NOREPLICAS" | "NOPERM"));
        Self { text, keeps_link: is_state }
    }
}

/// What a connection needs besides the address.
#[derive(Clone, Default)]
struct Secrets {
    password: Option<String>,
    /// Certificates of the CAs, in PEM form.
    ca: Option<Vec<u8>>,
}

impl Secrets {
    async fn read(settings: &StoreSettings) -> Result<Self, StoreError> {
        let (password_file, ca_file) = (settings.password_file.clone(), settings.ca_file.clone());
        let read = move || {
            let text = |path: Option<std::path::PathBuf>, what, limit| {
                let read = path.map(|path| files::read_text(&path, limit)).transpose();
                read.map_err(|error| StoreError::new(format!("the file of {what} {error}")))
            };
            let password = text(password_file, "--revocation-password-file", MAX_SECRET_BYTES)?;
            let password = password.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
            let ca = text(ca_file, "--revocation-ca-file", MAX_TEXT_BYTES)?.map(String::into_bytes);
            Ok(Self { password, ca })
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|_| Err(StoreError::new("the files of the store cannot be read")))
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: None, root_cert: self.ca.clone() }
    }
}

impl Link {
    /// Connects within the time limit.
    pub(super) async fn open(settings: &StoreSettings, limit: Duration) -> Result<Self, StoreError> {
        let connect = async {
            let secrets = Secrets::read(settings).await?;
            match &settings.url.topology {
                Topology::Single => {
                    let node = settings.url.nodes.first().ok_or_else(|| StoreError::new("no host"))?;
                    Self::server(&client(settings, &secrets, node)?).await
                }
                Topology::Sentinel(primary) => Self::primary(settings, &secrets, primary).await,
                Topology::Cluster => Self::cluster(settings, &secrets).await,
            }
        };
        time::timeout(limit, connect).await.unwrap_or_else(|_| Err(StoreError::timeout()))
    }

    async fn server(client: &Client) -> Result<Self, StoreError> {
        // Every request has a time limit of its own.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(None);
        Ok(Self::Server(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    /// Asks the Sentinels for the primary. They get the password only if they demand one.
    async fn primary(settings: &StoreSettings, secrets: &Secrets, primary: &str) -> Result<Self, StoreError> {
        let ask = async |password: Option<&str>| {
            let sentinels = settings.url.nodes.iter().map(|node| address(settings, node));
            let mut builder = SentinelClientBuilder::new(sentinels, primary, SentinelServerType::Master)?
                .set_client_to_redis_db(settings.url.database.into());
            if let Some(user) = &settings.url.user {
                builder = builder.set_client_to_redis_username(user);
            }
            if let Some(password) = &secrets.password {
                builder = builder.set_client_to_redis_password(password);
            }
            if settings.url.is_tls {
                builder = builder
                    .set_client_to_redis_tls_mode(TlsMode::Secure)
                    .set_client_to_redis_certificates(secrets.certificates())
                    .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                    .set_client_to_sentinel_certificates(secrets.certificates());
            }
            if let Some(password) = password {
                builder = builder.set_client_to_sentinel_password(password);
                if let Some(user) = &settings.url.user {
                    builder = builder.set_client_to_sentinel_username(user);
                }
            }
            builder.build()?.async_get_client().await
        };
        let client = match (ask(None).await, secrets.password.as_deref()) {
            (Err(error), Some(password)) if error.code() == Some("NOAUTH") => ask(Some(password)).await,
            (asked, _) => asked,
        };
        Self::server(&client?).await
    }

    async fn cluster(settings: &StoreSettings, secrets: &Secrets) -> Result<Self, StoreError> {
        let nodes =
            settings.url.nodes.iter().map(|node| info(settings, secrets, node)).collect::<Result<Vec<_>, _>>()?;
        let mut builder =
            ClusterClientBuilder::new(nodes).connection_timeout(CONNECT_TIMEOUT).response_timeout(MAX_WAIT).retries(2);
        if let Some(user) = &settings.url.user {
            builder = builder.username(user);
        }
        if let Some(password) = &secrets.password {
            builder = builder.password(password);
        }
        if settings.url.is_tls {
            builder = builder.tls(TlsMode::Secure).certs(secrets.certificates());
        }
        Ok(Self::Cluster(builder.build()?.get_async_connection().await?))
    }

    /// Sends commands, and returns their replies, errors included. After an error the connection may be out of step, so
    /// it must not be used again.
    pub(super) async fn send(&mut self, commands: &Pipeline, limit: Duration) -> Result<Vec<Value>, StoreError> {
        let count = commands.cmd_iter().count();
        let replies = match self {
            Self::Server(link) => link.req_packed_commands(commands, 0, count),
            Self::Cluster(link) => link.req_packed_commands(commands, 0, count),
        };
        Ok(time::timeout(limit, replies).await.map_err(|_| StoreError::timeout())??)
    }
}

/// Longest time limit of a request.
const MAX_WAIT: Duration = Duration::from_secs(10);

fn address(settings: &StoreSettings, (host, port): &(String, u16)) -> ConnectionAddr {
    if settings.url.is_tls {
        ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host.clone(), *port)
    }
}

fn info(settings: &StoreSettings, secrets: &Secrets, node: &(String, u16)) -> Result<ConnectionInfo, RedisError> {
    let mut redis = RedisConnectionInfo::default().set_db(settings.url.database.into()).set_skip_set_lib_name();
    if let Some(user) = &settings.url.user {
        redis = redis.set_username(user);
    }
    if let Some(password) = &secrets.password {
        redis = redis.set_password(password);
    }
    Ok(address(settings, node).into_connection_info()?.set_redis_settings(redis))
}

fn client(settings: &StoreSettings, secrets: &Secrets, node: &(String, u16)) -> Result<Client, RedisError> {
    let info = info(settings, secrets, node)?;
    if settings.url.is_tls { Client::build_with_tls(info, secrets.certificates()) } else { Client::open(info) }
}
