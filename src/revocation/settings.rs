//! Settings of the room, made from the options.

use std::path::PathBuf;

pub use super::store_url::StoreUrl;

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
