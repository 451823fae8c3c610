//! Latency at a steady rate while something else happens, in pairs with and without it.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::generator::{Load, Part, Report, Running, Schedule, Target};
use crate::keys::KeyServer;
use crate::machine::pin_thread;
use crate::process::wait_until;
use crate::program::{Program, Settings};
use crate::redis::Redis;
use crate::rounds::{Ratio, interleaved, median};
use crate::table::{Table, count, heading};
use crate::{Bench, policies, revocations};

/// Share of the saturated rate.
const SHARE: f64 = 1.0 / 3.0;
/// Shortest length of a measurement in seconds: long enough for the store to be lost and to come back.
const SHORTEST: f64 = 3.0;
/// Time between two changes of the policy file.
const REWRITE: Duration = Duration::from_millis(200);
/// Number of tokens of the usual requests when other ones flood the cache, the cache's capacity, and the rate of the flood.
const HOT: usize = 200;
const SMALL_CACHE: &str = "1000";
const FLOOD: f64 = 2_000.0;
/// Time between two losses of the store, unless the program needs longer to notice that it is back.
const LOSS: Duration = Duration::from_secs(1);
/// Number of revocations in the store.
const REVOCATIONS: usize = 1_000;
/// Token for the admin port.
const ADMIN_TOKEN: &str = "a-token-for-operators-of-the-benchmark";

/// Something that happens during a measurement.
struct Disturbance<'d> {
    name: &'static str,
    program: Program,
    /// Messages of the steady load.
    part: Part,
    /// Makes it happen until the flag is set. The second argument is `false` in measurements without it. Returns how
    /// often it happened.
    happen: &'d (dyn Fn(&Program, bool, &AtomicBool) -> Result<f64> + Sync),
}

/// Measures and prints.
pub(crate) fn measure(bench: &Bench) -> Result<()> {
    heading("Latency at a third of the saturated rate, 4x8, Unix socket");
    println!("µs without → with, and the ratio. Noise explains ratios somewhat above 1.\n");
    let columns = ["while", "requests/s", "how often", "p50", "p99", "p99.9", "p50 ratio", "p99 ratio", "p99.9 ratio"];
    let table = Table::new(&columns);
    keys(bench, &table)?;
    policy(bench, &table)?;
    flood(bench, &table)?;
    store(bench, &table)
}

fn keys(bench: &Bench, table: &Table) -> Result<()> {
    let server = KeyServer::start()?;
    let settings = Settings { keys: Some(server.url.clone()), ..Settings::on(bench.cores.first(1)) };
    let program = Program::start(bench, &settings.with("--jwks-refresh-interval", "1s"))?;
    let happen = |_: &Program, is_on: bool, stop: &AtomicBool| {
        let before = server.answers();
        server.rotate(is_on);
        wait_for(stop);
        Ok((server.answers() - before) as f64)
    };
    let name = "the keys are replaced at each fetch, once a second";
    row(bench, table, &Disturbance { name, program, part: Part::All, happen: &happen })
}

fn policy(bench: &Bench, table: &Table) -> Result<()> {
    let directory = bench.new_directory()?;
    let (file, new) = (directory.join("policy.yaml"), directory.join("new"));
    let texts = [1_000, 999].map(policies::with_routes);
    fs::write(&file, &texts[0])?;
    let settings = Settings::on(bench.cores.first(1)).with("--config", file.display().to_string());
    let program = Program::start(bench, &settings)?;
    let happen = |program: &Program, is_on: bool, stop: &AtomicBool| {
        let pid = i32::try_from(program.pid()).ok().and_then(Pid::from_raw).context("a process id")?;
        let reloads = || program.metric("cognito_authz_config_reloads_total{result=\"success\"}");
        let before = reloads()?;
        let mut number = 0;
        while is_on && !stop.load(Ordering::Relaxed) {
            number += 1;
            fs::write(&new, &texts[number % 2])?;
            fs::rename(&new, &file)?;
            kill_process(pid, Signal::HUP)?;
            std::thread::sleep(REWRITE);
        }
        wait_for(stop);
        Ok(reloads()? - before)
    };
    let name = "the policy file (1,000 routes) is replaced and reloaded every 200 ms";
    row(bench, table, &Disturbance { name, program, part: Part::All, happen: &happen })
}

fn flood(bench: &Bench, table: &Table) -> Result<()> {
    let settings = Settings::on(bench.cores.first(1)).with("--token-cache-capacity", SMALL_CACHE);
    let program = Program::start(bench, &settings)?;
    let happen = |program: &Program, is_on: bool, stop: &AtomicBool| {
        let evictions = || program.metric("cognito_authz_token_cache_evictions_total");
        let before = evictions()?;
        // Without new tokens there are as many requests, so that the load on server and generator is the same.
        let part = if is_on { Part::From(HOT) } else { Part::Before(HOT) };
        let load = Load::checks(bench, Target::unix(&program.unix), program.pid(), 1, 8);
        Running::start(bench, &Load { part, schedule: Schedule::Steady(FLOOD, window(bench)), ..load })?.finish()?;
        wait_for(stop);
        Ok(evictions()? - before)
    };
    let name = "2,000 new tokens/s evict others from a cache for 1,000";
    row(bench, table, &Disturbance { name, program, part: Part::Before(HOT), happen: &happen })
}

fn store(bench: &Bench, table: &Table) -> Result<()> {
    let Some(redis) = Redis::start(bench)? else {
        println!("\nWithout the loss of the store: `tests/tools/setup --redis` installs Redis.");
        return Ok(());
    };
    let token: PathBuf = bench.new_directory()?.join("token");
    fs::write(&token, ADMIN_TOKEN)?;
    let settings = Settings::on(bench.cores.first(1))
        .with("--revocation-url", format!("redis://{}", redis.address))
        .with("--admin-token-file", token.display().to_string());
    let program = Program::start(bench, &settings)?;
    revocations::revoke(&program.admin, ADMIN_TOKEN, REVOCATIONS)?;
    let redis = Mutex::new(redis);
    let happen = |program: &Program, is_on: bool, stop: &AtomicBool| {
        let mut redis = redis.lock().ok().context("the store's lock")?;
        let mut losses = 0.0;
        let is = |state: f64| {
            wait_until("the program notices the state of the store", Duration::from_secs(30), || {
                Ok((program.metric("cognito_authz_revocation_store_up")? - state).abs() < 0.5)
            })
        };
        while is_on && !stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            redis.kill();
            is(0.0)?;
            redis.resume()?;
            is(1.0)?;
            losses += 1.0;
            std::thread::sleep(LOSS.saturating_sub(begin.elapsed()));
        }
        wait_for(stop);
        Ok(losses)
    };
    let name = "the store of revocations is lost and comes back empty";
    row(bench, table, &Disturbance { name, program, part: Part::All, happen: &happen })
}

/// Length of a measurement in seconds.
fn window(bench: &Bench) -> f64 {
    (2.0 * bench.options.seconds).max(SHORTEST)
}

/// Waits until the measurement is over.
fn wait_for(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Measures with and without a disturbance, and prints the row.
fn row(bench: &Bench, table: &Table, disturbance: &Disturbance<'_>) -> Result<()> {
    let Disturbance { name, program, part, happen } = disturbance;
    let load = Load { part: *part, ..Load::checks(bench, Target::unix(&program.unix), program.pid(), 4, 8) };
    load.fill(bench)?;
    let rate = load.run(bench)?.rate * SHARE;
    let load = Load { schedule: Schedule::Steady(rate, window(bench)), ..load };
    let mut times = 0.0;
    let rounds = bench.options.rounds.div_ceil(2);
    let reports = interleaved(rounds, &[false, true], |is_on| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let happening = scope.spawn(|| {
                pin_thread(bench.cores.last())?;
                happen(program, *is_on, &stop)
            });
            let report = load.run(bench);
            stop.store(true, Ordering::Relaxed);
            let happened = happening.join().ok().context("the disturbance panicked")??;
            if *is_on {
                times += happened;
            }
            report
        })
    })?;
    let (without, with) = (&reports[0], &reports[1]);
    let values: [fn(&Report) -> f64; 3] = [|report| report.p50, |report| report.p99, |report| report.p999];
    let pairs = values.map(|value| format!("{:.0} → {:.0}", median(without, value), median(with, value)));
    let ratios = values.map(|value| Ratio::of(with, without, value).to_string());
    let seconds = window(bench) * rounds as f64;
    let often = format!("{} in {seconds:.0} s", count(times));
    table.row(&[&[(*name).to_owned(), count(rate), often][..], &pairs, &ratios].concat());
    Ok(())
}
