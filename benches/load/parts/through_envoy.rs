//! The program and the null server behind Envoy, beside Envoy's own `jwt_authn`.

use std::fs;

use anyhow::Result;

use crate::Bench;
use crate::envoy::{Envoy, authz, cluster, jwt};
use crate::generator::{Load, Report};
use crate::null_server::NullServer;
use crate::process::tool;
use crate::program::{Program, Settings};
use crate::rounds::{Ratio, added, interleaved, median};
use crate::table::{Table, count, heading};

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
    let keys = fs::read_to_string(bench.input.keys())?;
    let filters = vec![vec![], vec![jwt(&keys, false)], vec![jwt(&keys, true)], vec![authz(0)], vec![authz(1)]];
    let clusters = vec![cluster(0, &null.unix), cluster(1, &ours.unix)];
    let envoy = Envoy::start(bench, &program, filters, &clusters)?;
    let loads = |connections, streams| {
        let load = |(route, address): (usize, &String)| {
            let server = match route {
                NULL => Some(null.pid()),
                OURS => Some(ours.pid()),
                _ => None,
            };
            let pids = [envoy.pid()].into_iter().chain(server).collect();
            Load::requests(bench, address, pids, connections, streams)
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
