//! What the configuration of the service needs from Envoy.

use super::places::port_of;
use crate::config::Config;
use crate::net::listen::{ListenAddress, SocketAddress};

/// Needs of a configuration.
pub(super) struct Needs {
    /// Request headers that the service has to receive, each with its use.
    pub(super) received: Vec<(String, &'static str)>,
    /// Request headers that the service sets or removes.
    pub(super) changed: Vec<String>,
    /// Identity headers, a subset of `changed`: a client must not be able to send them.
    pub(super) identity: Vec<String>,
    /// Names of the policies.
    pub(super) policies: Vec<String>,
    /// Name of a policy that reads the body.
    pub(super) reads_body: Option<String>,
    /// Maximum size of a check, in bytes.
    pub(super) max_message_bytes: usize,
    /// Path prefix of the account API.
    pub(super) account_prefix: Option<String>,
    /// Ports of the account API.
    pub(super) account_ports: Vec<String>,
}

impl Needs {
    pub(super) fn of(config: &Config) -> Self {
        let policies = &config.policy.policies;
        let all = || policies.iter();
        let source = &config.policy_source;
        let mut received = Received(Vec::new());
        received.add(&["authorization"], "the credential");
        for policy in all() {
            if let Some(header) = &policy.places.header {
                received.add(&[header.as_str()], "a credential (`from`)");
            }
            if policy.places.websocket_protocol.is_some() {
                received.add(&["sec-websocket-protocol", "upgrade"], "a credential of WebSockets (`from`)");
            }
            if policy.places.websocket_query.is_some() {
                received.add(&["upgrade"], "a credential of WebSockets (`from`)");
            }
            if policy.allows_preflight {
                received.add(&["origin", "access-control-request-method", "cookie"], "preflights (`cors_preflight`)");
            }
            if !policy.cors_origins.is_empty() {
                received.add(&["origin"], "responses to other origins (`cors_origins`)");
            }
            if policy.sign_in.is_some() {
                received.add(
                    &["accept", "sec-fetch-mode", "sec-purpose", "upgrade"],
                    "the sign-in by redirect (`sign_in`)",
                );
            }
            if policy.json_rpc.is_some() {
                received.add(&["content-type", "content-length", "content-encoding"], "bodies (`json_rpc`)");
            }
        }
        if source.browser_sessions.is_some() {
            received.add(&["cookie", "origin", "sec-fetch-site", "upgrade"], "sessions (--account-cookies)");
        }
        let identity: Vec<String> = config.policy.headers.names().map(str::to_owned).collect();
        let mut changed = identity.clone();
        let removes = |removes: bool, name: &str| removes.then(|| name.to_owned());
        changed.extend(removes(all().any(|policy| policy.removes_authorization), "authorization"));
        changed.extend(removes(config.policy.headers.hides_sessions(), "cookie"));
        let is_in_protocol = all().any(|policy| policy.places.websocket_protocol.is_some());
        changed.extend(removes(is_in_protocol, "sec-websocket-protocol"));
        let hidden =
            all().filter(|policy| policy.removes_authorization).filter_map(|policy| policy.places.header.as_ref());
        changed.extend(hidden.map(|header| header.as_str().to_owned()));
        let account = config.account.as_ref();
        let listeners = account.map(|account| account.listen.as_ref().unwrap_or(&config.admin_listen));
        Self {
            received: received.0,
            changed,
            identity,
            policies: all().map(|policy| policy.name.to_string()).collect(),
            reads_body: all().find(|policy| policy.json_rpc.is_some()).map(|policy| policy.name.to_string()),
            max_message_bytes: config.grpc.max_message_bytes,
            account_prefix: account.map(|account| account.settings.prefix.as_str().to_owned()),
            account_ports: listeners.into_iter().filter_map(port).collect(),
        }
    }
}

fn port(listener: &ListenAddress) -> Option<String> {
    match &listener.socket {
        SocketAddress::Tcp(address) => port_of(address).map(str::to_owned),
        SocketAddress::Unix(_) => None,
    }
}

struct Received(Vec<(String, &'static str)>);

impl Received {
    fn add(&mut self, names: &[&str], used_for: &'static str) {
        for name in names {
            if !self.0.iter().any(|(known, _)| known == name) {
                self.0.push(((*name).to_owned(), used_for));
            }
        }
    }
}
