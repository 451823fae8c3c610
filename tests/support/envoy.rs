//! Runs the real Envoy with `deploy/envoy/envoy.yaml`, changed to other addresses, longer time limits, and what the
//! test needs.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::get;
use super::tool::{Tool, program};
use super::{PATIENCE, eventually};

/// Listeners of the file. The first sends checks over a Unix socket, the second over TCP.
pub(crate) const LISTENERS: [&str; 2] = ["ingress_uds", "ingress_tcp"];
/// Cluster of the service for each of [`LISTENERS`].
const CLUSTERS: [&str; 2] = ["cognito_authz_uds", "cognito_authz_tcp"];
/// Name of the filter that asks the service.
pub(crate) const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
const RBAC: &str = "envoy.filters.http.rbac";

/// Content of the file, with YAML aliases expanded.
static SHIPPED: LazyLock<Value> = LazyLock::new(|| shipped("envoy.yaml"));

/// Reads a file of `deploy/envoy`.
fn shipped(name: &str) -> Value {
    yaml(&fs::read_to_string(format!("{}/deploy/envoy/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap())
}

/// Reads YAML, with aliases expanded.
fn yaml(text: &str) -> Value {
    let load = "import json, sys, yaml; json.dump(yaml.safe_load(sys.argv[1]), sys.stdout)";
    let output = Command::new(program("python")).args(["-c", load, text]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Builder for Envoy's configuration. Its methods panic if a part that they change does not exist.
pub(crate) struct Bootstrap(Value);

impl Bootstrap {
    /// Starts from the file, with these addresses of the service (`unix:/path` and `host:port`) and of the application.
    pub(crate) fn new(service: &[String], application: &str) -> Self {
        let mut bootstrap = Self(SHIPPED.clone());
        bootstrap.0["admin"]["address"] = tcp("127.0.0.1:0");
        for name in LISTENERS {
            bootstrap.listener(name)["address"] = tcp("127.0.0.1:0");
            // A busy machine could miss the file's time limits. The tour (`deploy/local/up`) tests those.
            let grpc = &mut bootstrap.ext_authz(name)["grpc_service"];
            grpc["timeout"] = json!("15s");
            if !grpc["retry_policy"].is_null() {
                grpc["retry_policy"]["retry_back_off"]["max_interval"] = json!("15s");
            }
        }
        let unix = service.iter().find_map(|address| address.strip_prefix("unix:")).unwrap();
        let host = service.iter().find(|address| !address.starts_with("unix:")).unwrap();
        let addresses = [json!({"pipe": {"path": unix}}), tcp(host)];
        for (name, address) in CLUSTERS.into_iter().zip(addresses).chain([("app", tcp(application))]) {
            let cluster = bootstrap.cluster(name);
            cluster["connect_timeout"] = json!("5s");
            cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = address;
        }
        bootstrap
    }

    /// Starts from the file and the examples of the HTTP form in `docs/proxies.md`, with these addresses of the service
    /// (`host:port`) and of the application.
    pub(crate) fn over_http(service: &[&str], application: &str) -> Self {
        let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/proxies.md")).unwrap();
        let (_, section) = document.split_once("\n## Envoy over HTTP\n").unwrap();
        let mut examples = section.split("```yaml\n").skip(1).map(|rest| yaml(rest.split("```").next().unwrap()));
        let (mut filter, mut cluster) = (examples.next().unwrap(), examples.next().unwrap());
        let mut bootstrap = Self::new(&["unix:/nonexistent".into(), service[0].into()], application);
        let endpoint = |address: &&str| json!({"endpoint": {"address": tcp(address)}});
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = service.iter().map(endpoint).collect();
        cluster["connect_timeout"] = json!("5s");
        bootstrap.0["static_resources"]["clusters"].as_array_mut().unwrap().push(cluster);
        filter["http_service"]["server_uri"]["timeout"] = json!("15s");
        for listener in LISTENERS {
            let settings = bootstrap.ext_authz(listener);
            assert!(settings.as_object_mut().unwrap().remove("grpc_service").is_some());
            settings["http_service"] = filter["http_service"].clone();
            bootstrap.remove_rbac(listener);
            bootstrap.manager(listener)["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
        }
        bootstrap
    }

    /// Traces the requests of a listener with the first two examples in `docs/tracing.md`, and exports them to this address.
    pub(crate) fn trace(&mut self, listener: &str, collector: &str) {
        let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tracing.md")).unwrap();
        let (_, section) = document.split_once("\n## Envoy\n").unwrap();
        let mut examples = section.split("```yaml\n").skip(1).map(|rest| yaml(rest.split("```").next().unwrap()));
        let (manager, mut cluster) = (examples.next().unwrap(), examples.next().unwrap());
        self.manager(listener)["tracing"] = manager["tracing"].clone();
        cluster["connect_timeout"] = json!("5s");
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = tcp(collector);
        let clusters = self.0["static_resources"]["clusters"].as_array_mut().unwrap();
        if clusters.iter().any(|known| known["name"] == cluster["name"]) {
            return;
        }
        clusters.push(cluster);
        // Envoy collects five spans, or waits for five seconds.
        let layer = json!({"name": "tracing", "static_layer": {"tracing.opentelemetry.flush_interval_ms": 50}});
        let layers = &mut self.0["layered_runtime"]["layers"];
        if let Value::Array(layers) = layers {
            layers.push(layer);
        } else {
            *layers = json!([layer]);
        }
    }

    /// Removes the trace context that clients send, as the third example in `docs/tracing.md` does.
    pub(crate) fn remove_contexts_of_clients(&mut self, listener: &str) {
        let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tracing.md")).unwrap();
        let example = yaml(document.split("```yaml\n").nth(3).unwrap().split("```").next().unwrap());
        let mutations = &mut self.manager(listener)["early_header_mutation_extensions"][0]["typed_config"]["mutations"];
        mutations.as_array_mut().unwrap().extend(example.as_array().unwrap().clone());
    }

    /// The account API is served at this address.
    pub(crate) fn serve_account(&mut self, address: &str) {
        let endpoints = &mut self.cluster("account")["load_assignment"]["endpoints"][0];
        endpoints["lb_endpoints"][0]["endpoint"]["address"] = tcp(address);
    }

    /// Encrypts the connections to the service over TCP as `deploy/envoy/tls` does, with the certificates in `folder`.
    pub(crate) fn encrypt(&mut self, folder: &str) {
        let at = |value: &Value| value.to_string().replace("/etc/envoy/tls", folder.trim_end_matches('/'));
        for name in ["identity.yaml", "authority.yaml"] {
            fs::write(format!("{folder}/{name}"), at(&shipped(&format!("tls/{name}")))).unwrap();
        }
        let addition: Value = serde_json::from_str(&at(&shipped("tls/transport-socket.yaml"))).unwrap();
        self.cluster(CLUSTERS[1])["transport_socket"] = addition["transport_socket"].clone();
    }

    pub(crate) fn listener(&mut self, name: &str) -> &mut Value {
        named(&mut self.0["static_resources"]["listeners"], name)
    }

    pub(crate) fn cluster(&mut self, name: &str) -> &mut Value {
        named(&mut self.0["static_resources"]["clusters"], name)
    }

    /// Settings of a listener's HTTP connection manager.
    pub(crate) fn manager(&mut self, listener: &str) -> &mut Value {
        &mut self.listener(listener)["filter_chains"][0]["filters"][0]["typed_config"]
    }

    /// Settings of a listener's `ext_authz` filter.
    pub(crate) fn ext_authz(&mut self, listener: &str) -> &mut Value {
        &mut named(&mut self.manager(listener)["http_filters"], EXT_AUTHZ)["typed_config"]
    }

    /// Removes the RBAC filter, which rejects every request that the service has not allowed.
    pub(crate) fn remove_rbac(&mut self, listener: &str) {
        let Value::Array(filters) = &mut self.manager(listener)["http_filters"] else { panic!("no filters") };
        let before = filters.len();
        filters.retain(|filter| filter["name"] != RBAC);
        assert_eq!(filters.len(), before - 1);
    }

    /// Removes Envoy's CORS filter and its settings.
    pub(crate) fn remove_cors(&mut self, listener: &str) {
        let manager = self.manager(listener);
        let host = &mut manager["route_config"]["virtual_hosts"][0];
        assert!(host.as_object_mut().unwrap().remove("typed_per_filter_config").is_some());
        let Value::Array(filters) = &mut manager["http_filters"] else { panic!("no filters") };
        let before = filters.len();
        filters.retain(|filter| filter["name"] != "envoy.filters.http.cors");
        assert_eq!(filters.len(), before - 1);
    }

    /// Lets clients open `WebSocket`s, and replaces the application by one at `address`.
    pub(crate) fn serve_websockets(&mut self, listener: &str, address: &str) {
        self.manager(listener)["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
        let app = self.cluster("app");
        app["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = tcp(address);
    }

    /// Disables Envoy's protection against forged headers before the check: their removal, and the ban on underscores.
    pub(crate) fn let_forged_headers_in(&mut self, listener: &str) {
        let manager = self.manager(listener);
        assert!(!manager["early_header_mutation_extensions"].take().is_null());
        let underscores = &mut manager["common_http_protocol_options"]["headers_with_underscores_action"];
        assert_eq!(std::mem::replace(underscores, json!("ALLOW")), "REJECT_REQUEST");
    }

    /// Adds the headers whose names match `regex`, in any case, to those that the service receives.
    pub(crate) fn show_headers(&mut self, listener: &str, regex: &str) {
        let patterns = self.ext_authz(listener)["allowed_headers"]["patterns"].as_array_mut().unwrap();
        patterns.push(json!({"safe_regex": {"regex": format!("(?i){regex}")}}));
    }

    /// Adds the headers whose names match `regex` to those that the service may change.
    pub(crate) fn let_change_headers(&mut self, listener: &str, regex: &str) {
        let rules = &mut self.ext_authz(listener)["decoder_header_mutation_rules"];
        let known = rules["allow_expression"]["regex"].as_str().unwrap();
        rules["allow_expression"]["regex"] = format!("{known}|^({regex})$").into();
    }

    /// Disables Envoy's normalization of paths.
    pub(crate) fn leave_paths_alone(&mut self, listener: &str) {
        let manager = self.manager(listener);
        for (name, value) in [("normalize_path", json!(false)), ("merge_slashes", json!(false))] {
            assert_eq!(std::mem::replace(&mut manager[name], value), true);
        }
        manager["path_with_escaped_slashes_action"] = "KEEP_UNCHANGED".into();
    }

    /// Adds a copy of a listener that has its own statistics prefix.
    pub(crate) fn copy_listener(&mut self, from: &str, to: &str) {
        let mut copy = self.listener(from).clone();
        copy["name"] = to.into();
        self.0["static_resources"]["listeners"].as_array_mut().unwrap().push(copy);
        self.manager(to)["stat_prefix"] = to.into();
    }

    /// Replaces the application by one at `address` that speaks gRPC.
    pub(crate) fn make_application_grpc(&mut self, address: &str) {
        let options = self.cluster(CLUSTERS[1])["typed_extension_protocol_options"].clone();
        let app = self.cluster("app");
        app["typed_extension_protocol_options"] = options;
        app["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = tcp(address);
    }

    /// Adds a route to the application, in front of the listener's other routes, with settings for the two filters.
    pub(crate) fn add_route(&mut self, listener: &str, prefix: &str, ext_authz: Option<Value>, rbac: Option<Value>) {
        let mut route = json!({"match": {"prefix": prefix}, "route": {"cluster": "app", "timeout": "15s"}});
        for (filter, kind, settings) in
            [(EXT_AUTHZ, "ext_authz.v3.ExtAuthzPerRoute", ext_authz), (RBAC, "rbac.v3.RBACPerRoute", rbac)]
        {
            if let Some(mut settings) = settings {
                settings["@type"] = format!("type.googleapis.com/envoy.extensions.filters.http.{kind}").into();
                route["typed_per_filter_config"][filter] = settings;
            }
        }
        let routes = &mut self.manager(listener)["route_config"]["virtual_hosts"][0]["routes"];
        routes.as_array_mut().unwrap().insert(0, route);
    }
}

fn tcp(address: &str) -> Value {
    let (host, port) = address.rsplit_once(':').unwrap();
    json!({"socket_address": {"address": host, "port_value": port.parse::<u16>().unwrap()}})
}

fn named<'v>(list: &'v mut Value, name: &str) -> &'v mut Value {
    list.as_array_mut().unwrap().iter_mut().find(|value| value["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

/// Running Envoy. Dropping it kills the process.
pub(crate) struct Envoy {
    process: Tool,
    admin: String,
    addresses: BTreeMap<String, String>,
    _directory: TempDir,
}

impl Envoy {
    /// Starts Envoy and waits until it accepts requests, but not until it finds the service healthy.
    pub(crate) async fn start(bootstrap: Bootstrap) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // JSON is YAML.
        fs::write(directory.path().join("envoy.json"), bootstrap.0.to_string()).unwrap();
        let arguments =
            "-c envoy.json -l warn --concurrency 1 --admin-address-path admin --file-flush-interval-msec 20";
        // Without hot restart Envoy uses no shared memory, so several can run in parallel and none leaves any behind.
        let arguments: Vec<&str> = arguments.split(' ').chain(["--disable-hot-restart"]).collect();
        let mut process = Tool::start("envoy", &arguments, &[], directory.path());
        let admin = || fs::read_to_string(directory.path().join("admin")).unwrap_or_default();
        let is_ready = async || {
            let address = admin();
            !address.is_empty()
                && reqwest::get(format!("http://{address}/ready")).await.is_ok_and(|r| r.status() == 200)
        };
        process.comes_up("is ready", is_ready).await.unwrap_or_else(|log| panic!("Envoy has ended\n{log}"));

        let admin = admin();
        let (_, listeners) = get(&admin, "/listeners?format=json").await;
        let listeners: Value = serde_json::from_str(&listeners).unwrap();
        let address = |listener: &Value| {
            let port = &listener["local_address"]["socket_address"]["port_value"];
            (listener["name"].as_str().unwrap().to_owned(), format!("127.0.0.1:{port}"))
        };
        let addresses = listeners["listener_statuses"].as_array().unwrap().iter().map(address).collect();
        Self { process, admin, addresses, _directory: directory }
    }

    /// Address (`host:port`) of a listener.
    pub(crate) fn address(&self, listener: &str) -> &str {
        &self.addresses[listener]
    }

    /// Waits until Envoy's health checks find the service healthy in both clusters.
    pub(crate) async fn finds_the_service_healthy(&self) {
        eventually("healthy", PATIENCE, async || {
            let (_, clusters) = get(&self.admin, "/clusters?format=json").await;
            let clusters: Value = serde_json::from_str(&clusters).unwrap();
            let clusters = clusters["cluster_statuses"].as_array().unwrap();
            CLUSTERS.iter().all(|name| {
                let cluster = clusters.iter().find(|cluster| cluster["name"] == **name).unwrap();
                cluster["host_statuses"][0]["health_status"] == json!({"eds_health_status": "HEALTHY"})
            })
        })
        .await;
    }

    /// Value of a counter of a listener's `ext_authz` filter.
    pub(crate) async fn counter(&self, listener: &str, name: &str) -> u64 {
        let name = format!("http.{listener}.ext_authz.cognito.{name}");
        let (_, stats) = get(&self.admin, &format!("/stats?format=json&filter=^{name}$")).await;
        let stats: Value = serde_json::from_str(&stats).unwrap();
        stats["stats"][0]["value"].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
    }

    /// Waits until the access log has at least `lines` lines about this path, and returns them.
    pub(crate) async fn access_log(&self, path: &str, lines: usize) -> Vec<Value> {
        let read = || -> Vec<Value> {
            let log = fs::read_to_string(&self.process.output).unwrap();
            let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
            lines.filter(|line: &Value| line["path"] == path).collect()
        };
        eventually("the access log is written", PATIENCE, async || read().len() >= lines).await;
        read()
    }
}
