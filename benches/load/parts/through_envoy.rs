//! The program and the null server behind Envoy, beside Envoy's own `jwt_authn`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Bench;
use crate::generator::{Kind, Load, Part, Report, Schedule, Target};
use crate::null_server::NullServer;
use crate::process::{Process, get, tool};
use crate::program::{Program, Settings};
use crate::rounds::{Ratio, added, interleaved, median};
use crate::table::{Table, count, heading};
use crate::token::ISSUER;

/// Routes in the order of the tables. The last two ask a server.
const ROUTES: [&str; 5] =
    ["plain", "jwt_authn", "jwt_authn, its cache on", "ext_authz, null server", "ext_authz, program"];
const PLAIN: usize = 0;
const NULL: usize = 3;
const OURS: usize = 4;

/// Measures and prints.
pub(crate) fn measure(bench: &Bench) -> Result<()> {
    heading("Through Envoy, one worker, servers on a Unix socket");
    let Some(program) = tool("envoy") else {
        println!("Skipped: there is no Envoy. `tests/tools/setup` installs it into `tests/tools/venv`.");
        return Ok(());
    };
    let cores = bench.cores.behind_envoy();
    let null = NullServer::start(bench, cores, 1, None)?;
    let ours = Program::start(bench, &Settings::on(cores))?;
    let envoy = Envoy::start(bench, &program, &null.unix, &ours.unix)?;
    let loads = |connections, streams| {
        let load = |(route, address): (usize, &String)| Load {
            target: Target::Tcp(address.clone()),
            kind: Kind::Get,
            messages: bench.input.tokens.clone(),
            part: Part::All,
            connections,
            streams,
            schedule: Schedule::Saturate(bench.options.seconds),
            pids: match route {
                NULL => vec![envoy.process.pid(), null.pid()],
                OURS => vec![envoy.process.pid(), ours.pid()],
                _ => vec![envoy.process.pid()],
            },
        };
        envoy.addresses.iter().enumerate().map(load).collect::<Vec<_>>()
    };
    for load in loads(4, 8) {
        load.fill(bench)?;
    }
    let run =
        |connections, streams| interleaved(bench.options.rounds, &loads(connections, streams), |load| load.run(bench));

    println!("Latency, 1x1:\n");
    let reports = run(1, 1)?;
    let table = Table::new(&[
        "route",
        "p50 µs",
        "p99 µs",
        "p50 added to plain, µs",
        "p99 added to plain, µs",
        "p50 relative to the null server",
        "p99 relative to the null server",
    ]);
    let (plain, base) = (&reports[PLAIN], &reports[NULL]);
    for (name, route) in ROUTES.iter().zip(&reports) {
        table.row(&[
            (*name).to_owned(),
            format!("{:.0}", median(route, |r| r.p50)),
            format!("{:.0}", median(route, |r| r.p99)),
            format!("{:.0}", added(route, plain, |r| r.p50)),
            format!("{:.0}", added(route, plain, |r| r.p99)),
            Ratio::of(route, base, |r| r.p50).to_string(),
            Ratio::of(route, base, |r| r.p99).to_string(),
        ]);
    }

    println!("\nThroughput, 4x8:\n");
    let reports = run(4, 8)?;
    let table = Table::new(&[
        "route",
        "requests/s",
        "relative to the null server",
        "Envoy's CPU µs per request",
        "relative to plain",
        "CPU µs of the server",
        "generator busy",
    ]);
    let (plain, base) = (&reports[PLAIN], &reports[NULL]);
    for (name, route) in ROUTES.iter().zip(&reports) {
        let server = |report: &Report| report.cpu.get(1).copied().unwrap_or(f64::NAN);
        let server = median(route, server);
        table.row(&[
            (*name).to_owned(),
            count(median(route, |r| r.rate)),
            Ratio::of(route, base, |r| r.rate).to_string(),
            format!("{:.0}", median(route, |r| r.cpu[0])),
            Ratio::of(route, plain, |r| r.cpu[0]).to_string(),
            if server.is_nan() { "–".to_owned() } else { format!("{server:.1}") },
            format!("{:.0} %", median(route, |r| r.busy) * 100.0),
        ]);
    }
    Ok(())
}

/// Running Envoy with one listener per route.
struct Envoy {
    process: Process,
    addresses: Vec<String>,
}

impl Envoy {
    fn start(bench: &Bench, program: &Path, null: &Path, ours: &Path) -> Result<Self> {
        let directory = bench.new_directory()?;
        let keys = fs::read_to_string(bench.input.keys())?;
        let admin = directory.join("admin");
        let filters = [vec![], vec![jwt(&keys, false)], vec![jwt(&keys, true)], vec![authz(0)], vec![authz(1)]];
        let listeners: Vec<Value> =
            filters.into_iter().enumerate().map(|(number, filters)| listener(number, filters)).collect();
        let bootstrap = json!({
            "admin": {"address": {"pipe": {"path": admin}}},
            "static_resources": {"listeners": listeners, "clusters": [cluster(0, null), cluster(1, ours)]},
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
        let addresses = (0..ROUTES.len()).map(address).collect::<Option<_>>().context("Envoy names no port")?;
        Ok(Self { process, addresses })
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

/// Envoy's own verification, with six headers as the servers add them.
fn jwt(keys: &str, is_cached: bool) -> Value {
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
fn authz(cluster: usize) -> Value {
    let settings = json!({
        "transport_api_version": "V3",
        "failure_mode_allow": false,
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster.to_string()}, "timeout": "5s"},
    });
    json!({"name": "authz", "typed_config": typed("http.ext_authz.v3.ExtAuthz", settings)})
}

fn cluster(number: usize, socket: &Path) -> Value {
    let options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    });
    let endpoint = json!({"endpoint": {"address": {"pipe": {"path": socket}}}});
    json!({
        "name": number.to_string(),
        "type": "STATIC",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {"cluster_name": number.to_string(), "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}
