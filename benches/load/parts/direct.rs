//! The program and the null server, each asked directly.

use std::fs;

use anyhow::{Result, ensure};

use super::{COMPARISON, comparison};
use crate::Bench;
use crate::certificates::Authority;
use crate::generator::{Load, Part, Report, Target};
use crate::null_server::NullServer;
use crate::process::free_address;
use crate::program::{Program, Settings};
use crate::rounds::{Ratio, interleaved, median};
use crate::table::{Table, heading};

/// Connections, and concurrent requests on each.
const SHAPES: [(usize, usize); 3] = [(4, 8), (1, 32), (1, 1)];
/// Capacity of the cache when every token has to be verified: the tokens come in turn, and each is evicted before it
/// comes again.
const SMALL_CACHE: &str = "1000";
/// The first tokens of the input are measured then. The others, twice as many as the cache holds, are sent before each
/// measurement, so that it finds none of its own.
const MEASURED: usize = 8_000;

/// Measures and prints.
pub(crate) fn measure(bench: &Bench) -> Result<()> {
    plain(bench)?;
    variants(bench)
}

/// Cached checks over Unix sockets and TCP.
fn plain(bench: &Bench) -> Result<()> {
    heading("Cached checks, one thread, against the null server");
    let cores = bench.cores.first(1);
    let null = NullServer::start(bench, cores, 1, None)?;
    let ours = Program::start(bench, &Settings::on(cores))?;
    let null_targets = [Target::unix(&null.unix), Target::Tcp(null.tcp.clone())];
    let our_targets = [Target::unix(&ours.unix), Target::Tcp(ours.tcp.clone())];
    Load::checks(bench, Target::unix(&ours.unix), ours.pid(), 1, 1).fill(bench)?;
    let table = Table::new(&[&["load", "transport"], &COMPARISON[..], &["p50 ratio", "p99 ratio"]].concat());
    for (connections, streams) in SHAPES {
        for (transport, (null_target, our_target)) in
            ["Unix socket", "TCP"].into_iter().zip(null_targets.iter().zip(&our_targets))
        {
            let load = |target: &Target, pid| Load::checks(bench, target.clone(), pid, connections, streams);
            let columns = [load(null_target, null.pid()), load(our_target, ours.pid())];
            let reports = interleaved(bench.options.rounds, &columns, |load| load.run(bench))?;
            let (null, ours) = (&reports[0], &reports[1]);
            let latency = |value: fn(&Report) -> f64| Ratio::of(ours, null, value).to_string();
            let names = [format!("{connections}x{streams}"), transport.to_owned()];
            let cells = [&names[..], &comparison(null, ours), &[latency(|r| r.p50), latency(|r| r.p99)]];
            table.row(&cells.concat());
        }
    }
    Ok(())
}

/// Two threads, TLS, and tokens that are not in the cache.
fn variants(bench: &Bench) -> Result<()> {
    heading("Variants, 4x8, against the null server in the same setting");
    let table = Table::new(&[&["variant"], &COMPARISON[..]].concat());
    let row = |name: &str, measured: Option<usize>, null: (Target, u32), ours: (Target, u32)| {
        let columns = [null, ours].map(|(target, pid)| Load::checks(bench, target, pid, 4, 8));
        let reports = interleaved(bench.options.rounds, &columns, |load| {
            let Some(count) = measured else { return load.run(bench) };
            Load { part: Part::From(count), ..load.clone() }.fill(bench)?;
            Load { part: Part::Before(count), ..load.clone() }.run(bench)
        })?;
        table.row(&[&[name.to_owned()][..], &comparison(&reports[0], &reports[1])].concat());
        anyhow::Ok(median(&reports[1], |report| report.cpu[0]))
    };

    let cores = bench.cores.first(2);
    let null = NullServer::start(bench, cores, 2, None)?;
    let ours = Program::start(bench, &Settings { threads: 2, ..Settings::on(cores) })?;
    Load::checks(bench, Target::unix(&ours.unix), ours.pid(), 1, 1).fill(bench)?;
    let targets = [(&null.unix, null.pid()), (&ours.unix, ours.pid())].map(|(path, pid)| (Target::unix(path), pid));
    let [null_target, our_target] = targets;
    row("two threads, Unix socket", None, null_target, our_target)?;
    drop(null);
    let threads = two_threads(bench, &ours)?;
    drop(ours);

    let cores = bench.cores.first(1);
    let directory = bench.new_directory()?;
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).map(|()| path)
    };
    let authority = Authority::new("benchmark");
    let identity = authority.issue_for_servers(&["localhost"]);
    let ca = file("ca.pem", authority.certificate())?;
    let (certificate, key) = (file("tls.crt", identity.certificate)?, file("tls.key", identity.key)?);
    let address = free_address();
    let settings = Settings::on(cores)
        .with("--grpc-listen", format!("tls:{address}"))
        .with("--tls-cert-file", certificate.display().to_string())
        .with("--tls-key-file", key.display().to_string());
    let null = NullServer::start(bench, cores, 1, Some((certificate, key)))?;
    let ours = Program::start(bench, &settings)?;
    Load::checks(bench, Target::unix(&ours.unix), ours.pid(), 1, 1).fill(bench)?;
    let null_target = Target::Tls(null.tls.clone().unwrap_or_default(), ca.clone());
    row("TLS over TCP", None, (null_target, null.pid()), (Target::Tls(address, ca), ours.pid()))?;
    let null_target = (Target::unix(&null.unix), null.pid());
    drop(ours);

    let ours = Program::start(bench, &Settings::on(cores).with("--token-cache-capacity", SMALL_CACHE))?;
    let name = "every token new: signature verified, Unix socket";
    let cpu = row(name, Some(MEASURED), null_target, (Target::unix(&ours.unix), ours.pid()))?;
    let hits = ours.metric("cognito_authz_token_cache_hits_total")?;
    ensure!(hits == 0.0, "{hits} tokens were found in a cache that should have evicted them");
    println!("\nA check of a new token costs {cpu:.0} µs of CPU, with the gRPC call.");
    println!("With two threads, only CPU per request counts if the generator shares a core with one of them.");
    println!("CPU of two threads, relative to two processes with one thread each on the same cores: {threads}.");
    Ok(())
}

/// Compares the program's two threads with two processes, which share nothing. Unlike a comparison with one thread, this
/// does not depend on what else runs on the second core.
fn two_threads(bench: &Bench, threads: &Program) -> Result<Ratio> {
    let settings = Settings::on(bench.cores.first(2));
    let processes = [Program::start(bench, &settings)?, Program::start(bench, &settings)?];
    for process in &processes {
        Load::checks(bench, Target::unix(&process.unix), process.pid(), 1, 1).fill(bench)?;
    }
    let [one, other] = &processes;
    let pair = Target::UnixPair([one.unix.clone(), other.unix.clone()]);
    let columns = [
        Load { pids: vec![one.pid(), other.pid()], ..Load::checks(bench, pair, 0, 4, 8) },
        Load::checks(bench, Target::unix(&threads.unix), threads.pid(), 4, 8),
    ];
    let reports = interleaved(bench.options.rounds, &columns, |load| load.run(bench))?;
    Ok(Ratio::of(&reports[1], &reports[0], |report| report.cpu.iter().sum()))
}
