//! Envoy with one listener for each set of filters. Envoy itself makes the response, after the filters.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Bench;
use crate::process::{Process, get};
use crate::token::ISSUER;

/// Running Envoy with one worker.
pub(crate) struct Envoy {
    process: Process,
    /// Address of each listener.
    pub(crate) addresses: Vec<String>,
}

impl Envoy {
    /// Starts Envoy with a listener for each set of filters, and waits until it is ready.
    pub(crate) fn start(bench: &Bench, program: &Path, filters: Vec<Vec<Value>>, clusters: &[Value]) -> Result<Self> {
        let directory = bench.new_directory()?;
        let admin = directory.join("admin");
        let count = filters.len();
        let listeners: Vec<Value> =
            filters.into_iter().enumerate().map(|(number, filters)| listener(number, filters)).collect();
        let bootstrap = json!({
            "admin": {"address": {"pipe": {"path": admin}}},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        });
        // JSON is YAML.
        fs::write(directory.join("envoy.json"), bootstrap.to_string())?;
        let mut command = Command::new(program);
        command.args(["-c", "envoy.json", "-l", "warn", "--concurrency", "1", "--disable-hot-restart"]);
        let mut process = Process::start(&mut command, bench.cores.first(1), &directory)?;
        process.comes_up(Duration::from_secs(60), || get(&admin, "/ready").is_ok())?;
        let status: Value = serde_json::from_str(&get(&admin, "/listeners?format=json")?)?;
        let address = |number: usize| {
            let (listeners, name) = (status["listener_statuses"].as_array()?, number.to_string());
            let listener = listeners.iter().find(|listener| listener["name"] == *name)?;
            let port = listener["local_address"]["socket_address"]["port_value"].as_u64()?;
            Some(format!("127.0.0.1:{port}"))
        };
        let addresses = (0..count).map(address).collect::<Option<_>>().context("Envoy names no port")?;
        Ok(Self { process, addresses })
    }

    /// Id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

fn typed(name: &str, mut settings: Value) -> Value {
    settings["@type"] = format!("type.googleapis.com/envoy.extensions.filters.{name}").into();
    settings
}

/// Listener whose filters run before a response that Envoy makes itself.
fn listener(number: usize, mut filters: Vec<Value>) -> Value {
    filters.push(json!({"name": "router", "typed_config": typed("http.router.v3.Router", json!({}))}));
    let route = json!({"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}});
    let manager = json!({
        "stat_prefix": format!("route_{number}"),
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": filters,
    });
    let manager = typed("network.http_connection_manager.v3.HttpConnectionManager", manager);
    json!({
        "name": number.to_string(),
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
    })
}

/// Envoy's own verification with a key set, with six headers as the servers add them.
pub(crate) fn jwt(keys: &str, is_cached: bool) -> Value {
    let headers = ["sub", "username", "client_id", "scope", "token_use", "jti"];
    let headers = headers.map(|claim| json!({"header_name": format!("x-auth-{claim}"), "claim_name": claim}));
    let mut provider = json!({
        "issuer": ISSUER,
        "local_jwks": {"inline_string": keys},
        "forward": true,
        "claim_to_headers": headers,
    });
    if is_cached {
        provider["jwt_cache_config"] = json!({"jwt_cache_size": 20_000});
    }
    let settings = json!({
        "providers": {"cognito": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "cognito"}}],
    });
    json!({"name": "jwt", "typed_config": typed("http.jwt_authn.v3.JwtAuthentication", settings)})
}

/// A check by one of the clusters.
pub(crate) fn authz(cluster: usize) -> Value {
    let settings = json!({
        "transport_api_version": "V3",
        "failure_mode_allow": false,
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster.to_string()}, "timeout": "5s"},
    });
    json!({"name": "authz", "typed_config": typed("http.ext_authz.v3.ExtAuthz", settings)})
}

/// A check by one of the clusters, with a copy of the request over HTTP/1.1 that has its token.
pub(crate) fn http_authz(cluster: usize) -> Value {
    let settings = json!({
        "transport_api_version": "V3",
        "failure_mode_allow": false,
        "http_service": {
            "server_uri": {"uri": "http://authz", "cluster": cluster.to_string(), "timeout": "5s"},
            "authorization_response": {"allowed_upstream_headers": {"patterns": [{"prefix": "x-auth-"}]}},
        },
    });
    json!({"name": "authz", "typed_config": typed("http.ext_authz.v3.ExtAuthz", settings)})
}

/// Cluster of an HTTP/1.1 server on a Unix socket.
pub(crate) fn http_cluster(number: usize, socket: &Path) -> Value {
    let endpoint = json!({"endpoint": {"address": {"pipe": {"path": socket}}}});
    json!({
        "name": number.to_string(),
        "type": "STATIC",
        "load_assignment": {"cluster_name": number.to_string(), "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}

/// Cluster of a gRPC server on a Unix socket.
pub(crate) fn cluster(number: usize, socket: &Path) -> Value {
    let options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    });
    let mut cluster = http_cluster(number, socket);
    cluster["typed_extension_protocol_options"] =
        json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options});
    cluster
}
