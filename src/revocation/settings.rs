//! Settings of the room, made from the options.

use std::path::PathBuf;

use url::Url;

/// Settings of revocation.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where revocations are kept besides the memory.
    pub keep: Keep,
    /// Maximum number of entries (`--revocation-capacity`).
    pub capacity: usize,
    /// Time in seconds that an entry lives: the longest life of a token (`--max-token-life`) and the leeway.
    pub life: i64,
}

/// Where revocations are kept besides the memory.
#[derive(Clone, Debug)]
pub enum Keep {
    /// Nowhere: they end with the process.
    Memory,
    /// In a file of this replica.
    File(PathBuf),
    /// In a store that replicas share.
    Store(Box<StoreSettings>),
}

/// Settings of the shared store.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Address, without a password.
    pub url: StoreUrl,
    /// File with the password of the ACL user in the URL, or of the default user. Read for each connection, because
    /// passwords are rotated.
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) of the CAs that the server's certificate may come from, in place of the system's. Read for each
    /// connection as well.
    pub ca_file: Option<PathBuf>,
    /// `true` if checks end with 503 while the store is lost.
    pub required: bool,
}

/// Address of the store: `redis://[USER@]HOST[:PORT][/DATABASE]`, or `rediss://` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl(Url);

impl StoreUrl {
    /// The URL.
    pub(crate) fn as_url(&self) -> &Url {
        &self.0
    }
}

impl std::str::FromStr for StoreUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: Url = text.parse().map_err(|_| "not a URL such as redis://host:6379")?;
        if !["redis", "rediss"].contains(&url.scheme()) {
            return Err("not a URL with the scheme redis or rediss");
        }
        if url.password().is_some() {
            return Err("a password in the URL would be visible to others: use --revocation-password-file");
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err("a URL without a host");
        }
        let database = url.path().trim_start_matches('/');
        if !database.is_empty() && database.parse::<u16>().is_err() {
            return Err("the path of the URL is not the number of a database");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("a URL with a query or fragment");
        }
        Ok(Self(url))
    }
}
