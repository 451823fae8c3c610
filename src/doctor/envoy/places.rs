//! Finds the `ext_authz` filters of a file, and the clusters that they call.

use std::collections::HashMap;

use serde_json::Value;

use super::{Report, at, get, is_type};
use crate::config::Config;
use crate::net::listen::{ListenAddress, Security, SocketAddress};

/// `ext_authz` filter.
pub(super) struct Filter<'v> {
    /// Message `ExtAuthz`.
    pub(super) config: &'v Value,
    /// `stat_prefix` of the connection manager, or another name for the reader.
    pub(super) name: String,
    /// Connection manager that has the filter.
    pub(super) manager: Option<&'v Value>,
    /// `true` for a patch that Istio merges into a filter: what is not here may be there.
    pub(super) is_partial: bool,
}

impl Filter<'_> {
    /// Name of the cluster, or the URI, that the filter calls.
    fn cluster(&self) -> Option<&str> {
        let places: [&[&str]; 3] = [
            &["grpc_service", "envoy_grpc", "cluster_name"],
            &["http_service", "server_uri", "cluster"],
            &["grpc_service", "google_grpc", "target_uri"],
        ];
        places.into_iter().find_map(|place| at(self.config, place)?.as_str())
    }

    /// `true` if it asks the HTTP form of the check.
    pub(super) fn is_http(&self) -> bool {
        get(self.config, "http_service").is_some()
    }
}

/// Surroundings of a place in the file.
#[derive(Clone, Copy)]
struct Around<'v> {
    manager: Option<&'v Value>,
    is_partial: bool,
}

/// Returns every `ext_authz` filter of a document.
pub(super) fn filters(document: &Value) -> Vec<Filter<'_>> {
    let mut found = Vec::new();
    search(document, Around { manager: None, is_partial: false }, &mut found);
    found
}

fn search<'v>(value: &'v Value, around: Around<'v>, found: &mut Vec<Filter<'v>>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| search(item, around, found)),
        Value::Object(members) => {
            if is_type(value, "ExtAuthz") {
                let of_manager = around.manager.and_then(|manager| get(manager, "stat_prefix")?.as_str());
                let name = of_manager.or_else(|| get(value, "stat_prefix")?.as_str()).unwrap_or("ext_authz").to_owned();
                let Around { manager, is_partial } = around;
                found.push(Filter { config: value, name, manager, is_partial });
            }
            let is_manager = is_type(value, "HttpConnectionManager");
            let is_patch = get(value, "operation").and_then(Value::as_str) == Some("MERGE");
            let around = Around {
                manager: if is_manager { Some(value) } else { around.manager },
                is_partial: around.is_partial || is_patch,
            };
            members.values().for_each(|member| search(member, around, found));
        }
        _ => {}
    }
}

/// Clusters of a file, by their name.
pub(super) struct Clusters<'v> {
    by_name: HashMap<&'v str, &'v Value>,
}

/// Address of an endpoint: the host and the port, or the path of a Unix socket.
type Endpoint<'v> = (&'v str, Option<u64>);

impl<'v> Clusters<'v> {
    pub(super) fn of(documents: &'v [Value]) -> Self {
        let mut clusters = Self { by_name: HashMap::new() };
        for document in documents {
            clusters.add(document);
        }
        clusters
    }

    fn add(&mut self, value: &'v Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(members) => {
                let is_cluster = get(value, "load_assignment").is_some();
                if let Some(name) = get(value, "name").and_then(Value::as_str).filter(|_| is_cluster) {
                    self.by_name.insert(name, value);
                }
                members.values().for_each(|member| self.add(member));
            }
            _ => {}
        }
    }

    fn endpoints(&self, cluster: &str) -> Vec<Endpoint<'v>> {
        let mut found = Vec::new();
        if let Some(assignment) = self.by_name.get(cluster).and_then(|cluster| get(cluster, "load_assignment")) {
            endpoints(assignment, &mut found);
        }
        found
    }

    /// Describes what a filter calls.
    pub(super) fn target(&self, filter: &Filter<'_>) -> String {
        let Some(cluster) = filter.cluster() else { return "no cluster".into() };
        let show =
            |(host, port): &Endpoint<'_>| port.map_or_else(|| (*host).to_owned(), |port| format!("{host}:{port}"));
        match self.endpoints(cluster).iter().map(show).collect::<Vec<_>>() {
            addresses if addresses.is_empty() => cluster.to_owned(),
            addresses => format!("{cluster} ({})", addresses.join(", ")),
        }
    }

    /// `true` if a filter asks this service: by the port or the socket of a listener, or by a name.
    pub(super) fn is_ours(&self, filter: &Filter<'_>, config: &Config) -> bool {
        let Some(cluster) = filter.cluster() else { return filter.is_partial };
        let endpoints = self.endpoints(cluster);
        let is_named = |name: &str| name.contains("cognito-authz") || name.contains("cognito_authz");
        let is_ours = |endpoint: &Endpoint<'_>| is_named(endpoint.0) || listener(*endpoint, config).is_some();
        is_named(cluster) || endpoints.iter().any(is_ours)
    }

    /// `true` if a cluster leads to a port of the account API, whose operations read no identity headers.
    pub(super) fn is_account(&self, cluster: &str, ports: &[String]) -> bool {
        let is_port = |(_, port): &Endpoint<'_>| port.is_some_and(|port| ports.contains(&port.to_string()));
        self.endpoints(cluster).iter().any(is_port)
    }

    /// Compares the cluster of a filter with the listener that it leads to: encryption and protocol.
    pub(super) fn examine(&self, place: &str, filter: &Filter<'_>, config: &Config, report: &mut Report) {
        let Some(name) = filter.cluster() else { return };
        let Some(cluster) = self.by_name.get(name) else { return };
        let is_encrypted =
            get(cluster, "transport_socket").is_some() || get(cluster, "transport_socket_matches").is_some();
        let found = self.endpoints(name).into_iter().find_map(|endpoint| listener(endpoint, config));
        if let Some(listener) = found {
            let expects = listener.security != Security::Plain;
            if expects != is_encrypted {
                let (ours, theirs) = if expects { ("TLS", "plaintext") } else { ("plaintext", "TLS") };
                report.error(
                    place,
                    format!("The cluster {name} speaks {theirs}, and the listener {listener} expects {ours}."),
                    "Every check fails.",
                    if expects {
                        "Add a transport_socket with UpstreamTlsContext to the cluster."
                    } else {
                        "Remove transport_socket from the cluster, or add tls: to the address of the listener."
                    },
                );
            }
        }
        if !filter.is_http() && !has_http2(cluster) {
            report.error(
                place,
                format!("The cluster {name} has no http2_protocol_options."),
                "gRPC needs HTTP/2, so every check fails.",
                "Add explicit_http_config with http2_protocol_options to typed_extension_protocol_options of the cluster.",
            );
        }
    }
}

fn endpoints<'v>(value: &'v Value, found: &mut Vec<Endpoint<'v>>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| endpoints(item, found)),
        Value::Object(members) => {
            if let Some(host) = at(value, &["socket_address", "address"]).and_then(Value::as_str) {
                found.push((host, at(value, &["socket_address", "port_value"]).and_then(Value::as_u64)));
            }
            if let Some(path) = at(value, &["pipe", "path"]).and_then(Value::as_str) {
                found.push((path, None));
            }
            members.values().for_each(|member| endpoints(member, found));
        }
        _ => {}
    }
}

/// Returns the listener of checks that has the port or the path of an endpoint. The host is not compared, because
/// Envoy and this service see different names.
fn listener<'c>((host, port): Endpoint<'_>, config: &'c Config) -> Option<&'c ListenAddress> {
    let mut listeners = config.grpc.listen.iter().chain(config.http.iter().map(|http| &http.listen));
    listeners.find(|listener| match (&listener.socket, port) {
        (SocketAddress::Unix(path), None) => path.to_str() == Some(host),
        (SocketAddress::Tcp(address), Some(port)) => port_of(address) == Some(&port.to_string()),
        _ => false,
    })
}

/// Port of `host:port`.
pub(super) fn port_of(address: &str) -> Option<&str> {
    address.rsplit_once(':').map(|(_, port)| port)
}

/// Describes the listeners of checks.
pub(super) fn listeners(config: &Config) -> String {
    let listeners = config.grpc.listen.iter().chain(config.http.iter().map(|http| &http.listen));
    listeners.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `true` if a cluster speaks HTTP/2: always, like its client, or after ALPN.
fn has_http2(value: &Value) -> bool {
    const NAMES: [&str; 4] =
        ["http2_protocol_options", "auto_config", "use_downstream_protocol_config", "use_downstream_http_config"];
    match value {
        Value::Array(items) => items.iter().any(has_http2),
        Value::Object(members) => {
            NAMES.iter().any(|name| get(value, name).is_some()) || members.values().any(has_http2)
        }
        _ => false,
    }
}
