//! Address of the shared store ([`StoreUrl`]).
//!
//! | Form | Server |
//! |---|---|
//! | `redis://[USER@]HOST[:PORT][/DATABASE]` | one address |
//! | `redis-sentinel://[USER@]HOST[:PORT],…/MASTER[/DATABASE]` | the primary that Sentinels name |
//! | `redis-cluster://[USER@]HOST[:PORT],…` | Redis Cluster, with some of its nodes |
//!
//! With `rediss` in place of `redis`, every connection uses TLS.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::Host;

/// Address of the store.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    pub(super) is_tls: bool,
    /// ACL user; `None` for the default user.
    pub(super) user: Option<String>,
    pub(super) topology: Topology,
    /// Hosts and ports of the server, of the Sentinels, or of nodes of the cluster. IPv6 addresses have no brackets.
    pub(super) nodes: Vec<(String, u16)>,
    pub(super) database: u16,
}

/// Way from the nodes of the address to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// The only node is the server.
    Single,
    /// The nodes are Sentinels, which know the address of the primary with this name.
    Sentinel(String),
    /// The nodes belong to a cluster.
    Cluster,
}

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Maximum number of hosts in one address.
const MAX_NODES: usize = 32;

impl StoreUrl {
    /// `true` if connections use TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// `true` if the address names an ACL user, who needs a password.
    pub(crate) fn has_user(&self) -> bool {
        self.user.is_some()
    }
}

/// Writes the address without its user.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.is_tls { "s" } else { "" };
        let kind = match self.topology {
            Topology::Single => "",
            Topology::Sentinel(_) => "-sentinel",
            Topology::Cluster => "-cluster",
        };
        write!(f, "redis{tls}{kind}://")?;
        for (number, (host, port)) in self.nodes.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            if host.contains(':') { write!(f, "{comma}[{host}]:{port}")? } else { write!(f, "{comma}{host}:{port}")? }
        }
        if let Topology::Sentinel(master) = &self.topology {
            write!(f, "/{master}")?;
        }
        if self.database > 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for StoreUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or("not a URL such as redis://host:6379")?;
        let (is_tls, kind) = match scheme.to_ascii_lowercase().strip_prefix("redis") {
            Some(rest) => rest.strip_prefix('s').map_or((false, rest.to_owned()), |rest| (true, rest.to_owned())),
            None => (false, "unknown".to_owned()),
        };
        if rest.contains(['?', '#']) {
            return Err("a URL with a query or fragment");
        }
        if rest.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err("a URL with a space or a control character");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        if user.is_some_and(|user| user.contains(':')) {
            return Err("a password in the URL would be visible to others: use --revocation-password-file");
        }
        let user = user.map(decoded).transpose()?.filter(|user| !user.is_empty());
        let (topology, database, port) = match (&*kind, path.split_once('/').unwrap_or((path, ""))) {
            ("", (database, "")) => (Topology::Single, database, PORT),
            ("", _) => return Err("the path of the URL is not the number of a database"),
            ("-sentinel", (master, database)) => (Topology::Sentinel(master_name(master)?), database, SENTINEL_PORT),
            ("-cluster", ("", "")) => (Topology::Cluster, "", PORT),
            ("-cluster", _) => return Err("the URL of a cluster has a path; a cluster has no databases"),
            _ => {
                return Err(
                    "the scheme is not redis, redis-sentinel, redis-cluster, or one of them with rediss for TLS",
                );
            }
        };
        let nodes = hosts.split(',').map(|host| node(host, port)).collect::<Result<Vec<_>, _>>()?;
        if nodes.len() > 1 && topology == Topology::Single {
            return Err("several hosts: the scheme redis-sentinel or redis-cluster says what they are");
        }
        if nodes.len() > MAX_NODES {
            return Err("more than 32 hosts");
        }
        let database = match database {
            "" => 0,
            number => number.parse().map_err(|_| "the path of the URL is not the number of a database")?,
        };
        Ok(Self { is_tls, user, topology, nodes, database })
    }
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8().map(Cow::into_owned);
    decoded
        .ok()
        .filter(|user| !user.contains(|c: char| c.is_control() || c == ' '))
        .ok_or("the user of the URL is not text")
}

fn master_name(text: &str) -> Result<String, &'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_allowed) {
        return Err("the URL of Sentinels needs the name of the primary as its path, such as /mymaster");
    }
    Ok(text.to_owned())
}

fn node(text: &str, default_port: u16) -> Result<(String, u16), &'static str> {
    // The colons of an IPv6 address are in brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if host.is_empty() {
        return Err("a URL without a host");
    }
    let host = match Host::parse(host).map_err(|_| "the host of the URL is not valid")? {
        Host::Domain(name) => name,
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    let port = match port {
        None => default_port,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or("the port of the URL is not valid")?,
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> StoreUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_form_is_read() {
        for (text, shown) in [
            ("redis://h", "redis://h:6379"),
            ("redis://h/", "redis://h:6379"),
            ("REDISS://authz@h.example:1/3", "rediss://h.example:1/3"),
            ("redis://[::1]:7", "redis://[::1]:7"),
            ("redis://[::1]", "redis://[::1]:6379"),
            ("redis-sentinel://a,b:1/mymaster", "redis-sentinel://a:26379,b:1/mymaster"),
            ("rediss-sentinel://u@a/my-master/2", "rediss-sentinel://a:26379/my-master/2"),
            ("redis-cluster://10.0.0.1,[fe80::1]:7000", "redis-cluster://10.0.0.1:6379,[fe80::1]:7000"),
            ("rediss-cluster://u@a:7000/", "rediss-cluster://a:7000"),
        ] {
            assert_eq!(url(text).to_string(), shown);
            assert_eq!(format!("{:?}", url(text)), shown, "the user is not in logs");
        }
        assert_eq!(url("redis://a%40b@h").user.as_deref(), Some("a@b"));
        assert_eq!(url("redis://@h").user, None);
        assert!(url("rediss-cluster://h").is_tls() && !url("redis-cluster://h").is_tls());
        assert_eq!(url("redis://h:9").nodes, [("h".to_owned(), 9)]);
    }

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        for (text, reason) in [
            ("", "not a URL"),
            ("h:6379", "not a URL"),
            ("http://h", "scheme"),
            ("redis+tls://h", "scheme"),
            ("redisss://h", "scheme"),
            ("redis-sentinels://h/m", "scheme"),
            ("unix:///run/redis", "scheme"),
            ("redis://user:secret@h", "password"),
            ("redis://:secret@h", "password"),
            ("redis://u%0a@h", "user"),
            ("redis://u%ff@h", "user"),
            ("redis://", "without a host"),
            ("redis://:6379", "without a host"),
            ("redis-cluster://a,,b", "without a host"),
            ("redis://h:0", "port"),
            ("redis://h:65536", "port"),
            ("redis://h:x", "port"),
            ("redis://::1", "host"),
            ("redis://h h", "space"),
            ("redis://h<", "host"),
            ("redis://h/x", "database"),
            ("redis://h/1/2", "database"),
            ("redis://h/65536", "database"),
            ("redis://a,b", "several hosts"),
            ("redis://h?db=1", "query"),
            ("redis://h#1", "query"),
            ("redis-sentinel://h", "primary"),
            ("redis-sentinel://h//1", "primary"),
            ("redis-sentinel://h/a b", "space"),
            ("redis-sentinel://h/m/x", "database"),
            ("redis-cluster://h/1", "cluster"),
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("secret"), "{text}: {error}");
        }
        assert!(format!("redis-cluster://{}", vec!["h"; 33].join(",")).parse::<StoreUrl>().is_err());
    }
}
