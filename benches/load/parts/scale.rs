//! Cost of a check when there is much of something: routes, pools, groups, revocations, connections.

use std::fs;

use anyhow::{Result, ensure};

use super::{COMPARISON, comparison};
use crate::generator::{Load, Report, Schedule, Target};
use crate::keys::KeyServer;
use crate::null_server::NullServer;
use crate::program::{Program, Settings};
use crate::rounds::{Ratio, interleaved, median};
use crate::table::{Table, heading};
use crate::{Bench, policies, revocations};

const ROUTES: usize = 1_000;
const POOLS: usize = 200;
const REVOCATIONS: usize = 1_000_000;
const CONNECTIONS: usize = 1_000;
/// Number of storms in one measurement.
const STORMS: u32 = 3;

/// Measures and prints.
pub(crate) fn measure(bench: &Bench) -> Result<()> {
    amounts(bench)?;
    connections(bench)
}

/// Large configurations and tokens.
fn amounts(bench: &Bench) -> Result<()> {
    heading("Cached checks with much of something, 4x8, Unix socket");
    let cores = bench.cores.first(1);
    let directory = bench.new_directory()?;
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).map(|()| path.display().to_string())
    };
    let keys = KeyServer::start()?;
    let routes = file("routes.yaml", policies::with_routes(ROUTES))?;
    let pools = file("pools.yaml", policies::with_pools(POOLS, &keys.url))?;
    let revoked = directory.join("revocations");
    revocations::write_file(&revoked, REVOCATIONS)?;

    let null = NullServer::start(bench, cores, 1, None)?;
    let start = |settings: Settings<'_>| Program::start(bench, &settings);
    let plain = start(Settings::on(cores))?;
    let routes = start(Settings::on(cores).with("--config", routes))?;
    let pools = start(Settings::on(cores).with("--config", pools))?;
    let revoking = start(Settings::on(cores).with("--revocation-file", revoked.display().to_string()))?;
    let known = revoking.metric("cognito_authz_revocations")?;
    ensure!((known - REVOCATIONS as f64).abs() < 0.5, "the program knows {known} revocations");

    let load = |target, pid| Load::checks(bench, Target::unix(target), pid, 4, 8);
    let many_groups = bench.input.with_many_groups()?;
    let with_groups = |load: Load| Load { messages: many_groups.clone(), ..load };
    let columns = [
        load(&null.unix, null.pid()),
        load(&plain.unix, plain.pid()),
        load(&routes.unix, routes.pid()),
        load(&pools.unix, pools.pid()),
        load(&revoking.unix, revoking.pid()),
        with_groups(load(&null.unix, null.pid())),
        with_groups(load(&plain.unix, plain.pid())),
    ];
    for column in &columns {
        column.fill(bench)?;
    }
    let reports = interleaved(bench.options.rounds, &columns, |load| load.run(bench))?;
    let [null, plain, routes, pools, revoking, null_groups, groups] = &reports[..] else { return Ok(()) };
    let table = Table::new(&[
        "case",
        "CPU µs per check",
        "relative to the plain case",
        "CPU relative to the null server, same requests",
        "requests/s relative to it",
    ]);
    for (name, ours, null) in [
        ("plain: one pool, no policy file".to_owned(), plain, null),
        (format!("policy file with {ROUTES} routes"), routes, null),
        (format!("policy file with {POOLS} pools, policies and routes"), pools, null),
        (format!("{REVOCATIONS} revocations"), revoking, null),
        ("200 groups in the token".to_owned(), groups, null_groups),
    ] {
        table.row(&[
            name,
            format!("{:.1}", median(ours, |r| r.cpu[0])),
            Ratio::of(ours, plain, |r| r.cpu[0]).to_string(),
            Ratio::of(ours, null, |r| r.cpu[0]).to_string(),
            Ratio::of(ours, null, |r| r.rate).to_string(),
        ]);
    }
    Ok(())
}

/// Many connections at once.
fn connections(bench: &Bench) -> Result<()> {
    heading("1,000 connections over TCP");
    let cores = bench.cores.first(1);
    let null = NullServer::start(bench, cores, 1, None)?;
    let ours = Program::start(bench, &Settings::on(cores))?;
    let load = |target: &String, pid| Load::checks(bench, Target::Tcp(target.clone()), pid, CONNECTIONS, 1);
    let columns = [load(&null.tcp, null.pid()), load(&ours.tcp, ours.pid())];
    columns[1].fill(bench)?;

    println!("One request at a time on each:\n");
    let reports = interleaved(bench.options.rounds, &columns, |load| load.run(bench))?;
    Table::new(&COMPARISON).row(&comparison(&reports[0], &reports[1]));

    println!("\nOpened at once, one request on each, and closed ({STORMS} times in a row):\n");
    let columns = columns.map(|load| Load { schedule: Schedule::Storm(STORMS), ..load });
    let reports = interleaved(bench.options.rounds, &columns, |load| load.run(bench))?;
    let table = Table::new(&["", "null server", "program", "ratio"]);
    let (null, ours) = (&reports[0], &reports[1]);
    for (name, value) in [
        ("ms until all connections have their answer", (|report| report.most / 1e3) as fn(&Report) -> f64),
        ("CPU µs per connection", |report| report.cpu[0]),
    ] {
        let values = [null, ours].map(|reports| format!("{:.0}", median(reports, value)));
        table.row(&[&[name.to_owned()][..], &values, &[Ratio::of(ours, null, value).to_string()]].concat());
    }
    Ok(())
}
