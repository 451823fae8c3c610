//! The program beside other servers that Envoy asks. `tests/tools/setup` does not install them, so the command line names
//! their programs.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::Bench;
use crate::envoy::{Envoy, authz, cluster, http_authz, http_cluster, jwt};
use crate::generator::{Load, Report, Target};
use crate::keys::KeyServer;
use crate::peers::{Peer, Protocol, version};
use crate::process::tool;
use crate::program::{Program, Settings};
use crate::rounds::{Ratio, added, interleaved, median};
use crate::table::{Table, count, heading};

/// Routes through Envoy before those that ask the other servers.
const FIRST: [&str; 3] = ["plain", "jwt_authn, its cache on", "ext_authz, program"];
const PLAIN: usize = 0;
const OURS: usize = 2;

/// Measures and prints.
pub(crate) fn measure(bench: &Bench) -> Result<()> {
    let options = &bench.options;
    ensure!(options.opa.is_some() || options.oauth2_proxy.is_some(), "this part needs --opa or --oauth2-proxy");
    for (program, argument) in [(&options.opa, "version"), (&options.oauth2_proxy, "--version")] {
        if let Some(program) = program {
            println!("Other server: {} ({})", version(program, argument)?, program.display());
        }
    }
    let keys = KeyServer::start()?;
    if options.opa.is_some() {
        direct(bench, &keys)?;
    }
    through_envoy(bench, &keys)
}

/// Starts the servers whose programs are known. Returns each with its name.
fn start(bench: &Bench, cores: &[usize], keys: &KeyServer) -> Result<Vec<(&'static str, Peer)>> {
    let mut peers = Vec::new();
    if let Some(opa) = &bench.options.opa {
        peers.push(("OPA", Peer::opa(bench, opa, cores, false)?));
        peers.push(("OPA, its cache on", Peer::opa(bench, opa, cores, true)?));
    }
    if let Some(proxy) = &bench.options.oauth2_proxy {
        peers.push(("oauth2-proxy", Peer::oauth2_proxy(bench, proxy, cores, &keys.url)?));
    }
    Ok(peers)
}

/// Known tokens, the servers with gRPC asked directly.
fn direct(bench: &Bench, keys: &KeyServer) -> Result<()> {
    heading("The program and others, one thread, 4x8, Unix socket");
    let cores = bench.cores.first(1);
    let ours = Program::start(bench, &Settings::on(cores))?;
    let peers = start(bench, cores, keys)?;
    let peers: Vec<_> = peers.iter().filter(|(_, peer)| peer.protocol == Protocol::Grpc).collect();
    let servers = [("program", &ours.unix, ours.pid())].into_iter();
    let servers = servers.chain(peers.iter().map(|(name, peer)| (*name, &peer.unix, peer.pid())));
    let (names, loads): (Vec<_>, Vec<_>) =
        servers.map(|(name, socket, pid)| (name, Load::checks(bench, Target::unix(socket), pid, 4, 8))).unzip();
    for load in &loads {
        load.fill(bench)?;
    }
    let reports = interleaved(bench.options.rounds, &loads, |load| load.run(bench))?;
    let table = Table::new(&[
        "server",
        "requests/s",
        "relative to the program",
        "CPU µs per request",
        "relative to the program",
        "generator busy",
    ]);
    for (name, server) in names.into_iter().zip(&reports) {
        table.row(&[
            name.to_owned(),
            count(median(server, |r| r.rate)),
            Ratio::of(server, &reports[0], |r| r.rate).to_string(),
            format!("{:.1}", median(server, |r| r.cpu[0])),
            Ratio::of(server, &reports[0], |r| r.cpu[0]).to_string(),
            format!("{:.0} %", median(server, |r| r.busy) * 100.0),
        ]);
    }
    Ok(())
}

/// All of them behind Envoy.
fn through_envoy(bench: &Bench, keys: &KeyServer) -> Result<()> {
    heading("The program and others behind Envoy, one worker, 4x8, Unix socket");
    let Some(program) = tool("envoy") else {
        println!("Skipped: there is no Envoy. `tests/tools/setup` installs it into `tests/tools/venv`.");
        return Ok(());
    };
    let cores = bench.cores.behind_envoy();
    let ours = Program::start(bench, &Settings::on(cores))?;
    let peers = start(bench, cores, keys)?;
    let key_set = fs::read_to_string(bench.input.keys())?;
    let mut filters = vec![vec![], vec![jwt(&key_set, true)], vec![authz(0)]];
    let mut clusters = vec![cluster(0, &ours.unix)];
    for (number, (_, peer)) in (1..).zip(&peers) {
        let (filter, cluster) = match peer.protocol {
            Protocol::Grpc => (authz(number), cluster(number, &peer.unix)),
            Protocol::Http => (http_authz(number), http_cluster(number, &peer.unix)),
        };
        filters.push(vec![filter]);
        clusters.push(cluster);
    }
    let envoy = Envoy::start(bench, &program, filters, &clusters)?;
    let names: Vec<String> = FIRST
        .map(str::to_owned)
        .into_iter()
        .chain(peers.iter().map(|(name, _)| format!("ext_authz, {name}")))
        .collect();
    let servers = [None, None, Some(ours.pid())].into_iter().chain(peers.iter().map(|(_, peer)| Some(peer.pid())));
    let loads = envoy.addresses.iter().zip(servers).map(|(address, server)| {
        Load::requests(bench, address, [envoy.pid()].into_iter().chain(server).collect(), 4, 8)
    });
    let loads: Vec<Load> = loads.collect();
    let forged = bench.input.with_foreign_signature()?;
    for (name, load) in names.iter().zip(&loads).skip(PLAIN + 1) {
        load.fill(bench)?;
        // A server that verifies nothing would be fast.
        let refused = Load { messages: forged.clone(), ..load.clone() }.fill(bench);
        let refused = refused.err().with_context(|| format!("{name} accepts a token with a foreign signature"))?;
        ensure!(format!("{refused:#}").contains("status 40"), "{name}: {refused:#}");
    }

    let reports = interleaved(bench.options.rounds, &loads, |load| load.run(bench))?;
    let table = Table::new(&[
        "route",
        "requests/s",
        "relative to the program",
        "Envoy's CPU µs per request",
        "added to plain",
        "CPU µs of the server",
        "relative to the program",
    ]);
    let server = |report: &Report| report.cpu.get(1).copied().unwrap_or(f64::NAN);
    for (number, (name, route)) in names.into_iter().zip(&reports).enumerate() {
        let [own, relative] = if number < OURS {
            ["–".to_owned(), "–".to_owned()]
        } else {
            [format!("{:.1}", median(route, server)), Ratio::of(route, &reports[OURS], server).to_string()]
        };
        table.row(&[
            name,
            count(median(route, |r| r.rate)),
            Ratio::of(route, &reports[OURS], |r| r.rate).to_string(),
            format!("{:.0}", median(route, |r| r.cpu[0])),
            format!("{:.0}", added(route, &reports[PLAIN], |r| r.cpu[0])),
            own,
            relative,
        ]);
    }
    Ok(())
}
