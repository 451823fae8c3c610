//! Start, size, and resident memory with cached tokens.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Bench;
use crate::generator::{Load, Target, first_answer};
use crate::machine::{Memory, memory};
use crate::null_server::NullServer;
use crate::program::{Program, Settings};
use crate::rounds::{Ratio, interleaved, middle};
use crate::table::{Table, count, heading};

/// Number of starts.
const STARTS: usize = 20;
/// Number of tokens that are signed, and then sent, at once.
const CHUNK: usize = 10_000;
/// Numbers of tokens at which the memory is read.
const STOPS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Measures and prints.
pub(crate) fn measure(bench: &Bench) -> Result<()> {
    starts(bench)?;
    cached_tokens(bench)
}

/// Time from the start of a process to the answer to its first check, and the size of the program.
fn starts(bench: &Bench) -> Result<()> {
    heading("Start and size");
    let cores = bench.cores.first(1);
    let mut times = [(); 3].map(|()| Vec::new());
    for _ in 0..STARTS {
        let begin = Instant::now();
        let command = &mut Command::new(&bench.options.program);
        ensure!(command.arg("--version").env_clear().stdout(Stdio::null()).status()?.success(), "--version fails");
        times[0].push(begin.elapsed());

        let directory = bench.new_directory()?;
        let begin = Instant::now();
        let program = Program::spawn(bench, &Settings::on(cores), &directory)?;
        first_answer(bench, &program.unix)?;
        times[1].push(begin.elapsed());
        drop(program);

        let begin = Instant::now();
        let null = NullServer::spawn(bench, cores, 1, None)?;
        first_answer(bench, &null.unix)?;
        times[2].push(begin.elapsed());
    }
    let table = Table::new(&["from start to", "least ms", "median ms", "most ms"]);
    let names = ["end of `--version`", "answer to the first check, keys from a file", "the same, null server"];
    for (name, times) in names.into_iter().zip(times) {
        let mut times: Vec<f64> = times.iter().map(|time: &Duration| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        let values = [times[0], middle(&times), times[STARTS - 1]].map(|time| format!("{time:.1}"));
        table.row(&[&[name.to_owned()][..], &values].concat());
    }
    let size = fs::metadata(&bench.options.program)?.len() as f64 / 1e6;
    println!("\nThe program has {size:.1} MB ({}).", bench.options.program.display());
    Ok(())
}

/// Memory of one process whose cache is filled step by step.
fn cached_tokens(bench: &Bench) -> Result<()> {
    heading("Resident memory");
    let cores = bench.cores.first(1);
    let settings =
        Settings::on(cores).with("--token-cache-capacity", "2000000").with("--token-cache-max-bytes", "4GiB");
    let program = Program::start(bench, &settings)?;
    let null = NullServer::start(bench, cores, 1, None)?;
    let table = Table::new(&["process", "resident MB", "of it anonymous", "bytes per token"]);
    let row = |name: String, pid, per_token: &dyn Fn(Memory) -> String| {
        let memory = memory(pid)?;
        let values = [memory.resident, memory.anonymous].map(|megabytes| format!("{megabytes:.1}"));
        table.row(&[&[name][..], &values, &[per_token(memory)]].concat());
        anyhow::Ok(memory)
    };
    row("null server, idle".into(), null.pid(), &|_| "–".into())?;
    let idle = row("program, idle".into(), program.pid(), &|_| "–".into())?;
    let load = Load::checks(bench, Target::unix(&program.unix), program.pid(), 4, 8);
    let mut tokens = 0;
    let stops = STOPS.into_iter().filter(|stop| *stop < bench.options.tokens).chain([bench.options.tokens]);
    for stop in stops {
        while tokens < stop {
            let end = stop.min(tokens + CHUNK);
            let messages = bench.input.with_tokens(tokens..end)?;
            Load { messages, ..load.clone() }.fill(bench)?;
            tokens = end;
        }
        let count_of = |name: &str| program.metric(&format!("cognito_authz_token_cache_{name}_total"));
        let cached = count_of("misses")? - count_of("evictions")?;
        ensure!((cached - stop as f64).abs() < 0.5, "the cache has {cached} tokens, not {stop}");
        let name = format!("program, {} cached tokens", count(stop as f64));
        row(name, program.pid(), &|now| format!("{:.0}", (now.resident - idle.resident) * 1e6 / stop as f64))?;
    }
    println!("\nThe memory includes the buffers of four connections, which dominate with few tokens.");

    let plain = Program::start(bench, &settings)?;
    let last = Load { messages: bench.input.more_checks(), ..load };
    let columns = [&plain, &program].map(|program| Load {
        target: Target::unix(&program.unix),
        pids: vec![program.pid()],
        ..last.clone()
    });
    columns[0].fill(bench)?;
    let reports = interleaved(bench.options.rounds, &columns, |load| load.run(bench))?;
    let ratio = Ratio::of(&reports[1], &reports[0], |report| report.cpu[0]);
    println!("CPU of a check with all of these tokens in the cache, relative to one with at most 10,000: {ratio}.");
    Ok(())
}
