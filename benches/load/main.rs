//! Load benchmark: the program, a server that always allows, and a load generator, each a process of its own.
//!
//! ```sh
//! cargo bench --bench load                                   # all parts, in about ten minutes
//! cargo bench --bench load -- direct scale --rounds 9        # some parts, with more rounds
//! cargo bench --bench load -- --program /path/to/cognito-authz   # another build
//! ```
//!
//! It prints Markdown tables and asserts nothing about time. `docs/performance.md` describes what is measured and how to
//! read it. An answer other than "allowed" ends the benchmark with an error, so that it cannot measure refusals. Start
//! reading at [`run`]; each part is a file in `parts/`.
#![expect(clippy::print_stdout, reason = "a benchmark")]
#![expect(clippy::indexing_slicing, reason = "a benchmark may panic")]
#![expect(clippy::cast_precision_loss, reason = "counts and byte sizes become ratios with few digits")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use self::input::Input;
use self::machine::Cores;

mod envoy;
mod generator;
mod input;
mod keys;
mod machine;
mod null_server;
mod parts;
mod peers;
mod policies;
mod process;
mod program;
mod redis;
mod revocations;
mod rounds;
mod table;

#[path = "../../tests/support/certificates.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the integration tests use the rest")]
mod certificates;
#[path = "../support/request.rs"]
mod request;
#[path = "../../tests/support/token.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the integration tests use the rest")]
mod token;

const USAGE: &str = "\
cargo bench --bench load -- [PART...] [OPTION...]

Parts, in this order; by default all but `others`:
  direct   the program and a server that always allows, each asked directly
  envoy    the same behind Envoy, beside Envoy's own jwt_authn
  memory   start, size, and memory with cached tokens
  scale    large policy files, many groups, revocations and connections
  tail     latency at a steady rate during reloads, key rotation, evictions and the loss of the store
  others   other servers that Envoy asks, those that an option names

Options:
  --rounds N       interleaved rounds of each comparison (default 5)
  --seconds S      length of a measurement (default 1.5)
  --tokens N       tokens in the cache at the end of `memory` (default 100000)
  --program PATH   program to measure, in place of the one that cargo has built
  --opa PATH       OPA with its plug-in for Envoy, for the part `others`
  --oauth2-proxy PATH   oauth2-proxy, for the part `others`";

/// What the command line asks for.
struct Options {
    parts: Vec<Part>,
    rounds: usize,
    seconds: f64,
    tokens: usize,
    program: PathBuf,
    opa: Option<PathBuf>,
    oauth2_proxy: Option<PathBuf>,
}

/// A part of the benchmark: its name, and the function that measures and prints it.
#[derive(Clone, Copy)]
struct Part(&'static str, fn(&Bench) -> Result<()>);

const PARTS: [Part; 6] = [
    Part("direct", parts::direct::measure),
    Part("envoy", parts::through_envoy::measure),
    Part("memory", parts::memory::measure),
    Part("scale", parts::scale::measure),
    Part("tail", parts::tail::measure),
    Part("others", parts::others::measure),
];
/// Number of the parts that need no program of others.
const OWN_PARTS: usize = 5;

/// What all parts share.
struct Bench {
    options: Options,
    cores: Cores,
    input: Input,
    /// Directory of the run, removed at its end.
    directory: TempDir,
    directories: AtomicU32,
}

impl Bench {
    /// Creates a new directory for a process.
    fn new_directory(&self) -> Result<PathBuf> {
        let number = self.directories.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.path().join(number.to_string());
        std::fs::create_dir(&path)?;
        Ok(path)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [generator::COMMAND, settings] => generator::main(settings),
        [null_server::COMMAND, settings] => null_server::main(settings),
        _ => run(arguments).context("the benchmark failed"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The generator's output is read by the benchmark.
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Result<()> {
    let Some(options) = options(arguments)? else {
        println!("{USAGE}");
        return Ok(());
    };
    let begin = Instant::now();
    let directory = tempfile::tempdir()?;
    machine::raise_descriptor_limit()?;
    let cores = Cores::find();
    println!("{}\n{}", machine::describe(), cores.describe());
    println!("Program: {}", program::version(&options.program)?);
    println!("{} rounds of {} s each. Only ratios can be compared between machines.", options.rounds, options.seconds);
    let input = Input::create(directory.path())?;
    println!("{}", input.describe());
    let bench = Bench { options, cores, input, directory, directories: AtomicU32::new(0) };
    for Part(name, measure) in &bench.options.parts {
        measure(&bench).with_context(|| format!("part {name}"))?;
    }
    println!("\nMeasured in {:.0} s.", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Reads the command line. Returns `None` if it asks for help.
fn options(arguments: Vec<String>) -> Result<Option<Options>> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_cognito-authz"));
    let mut options =
        Options { parts: Vec::new(), rounds: 5, seconds: 1.5, tokens: 100_000, program, opa: None, oauth2_proxy: None };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value\n\n{USAGE}"));
        match &*argument {
            // Cargo adds it.
            "--bench" => (),
            "--help" | "-h" => return Ok(None),
            "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
            "--seconds" => options.seconds = value()?.parse().context("--seconds")?,
            "--tokens" => options.tokens = value()?.parse().context("--tokens")?,
            "--program" => options.program = std::fs::canonicalize(value()?).context("--program")?,
            "--opa" => options.opa = Some(std::fs::canonicalize(value()?).context("--opa")?),
            "--oauth2-proxy" => {
                options.oauth2_proxy = Some(std::fs::canonicalize(value()?).context("--oauth2-proxy")?);
            }
            name => match PARTS.iter().find(|part| part.0 == name) {
                Some(part) => options.parts.push(*part),
                None => bail!("there is no part or option {name}\n\n{USAGE}"),
            },
        }
    }
    if options.parts.is_empty() {
        options.parts = PARTS[..OWN_PARTS].to_vec();
    }
    if options.rounds == 0 || !(0.1..=600.0).contains(&options.seconds) {
        bail!("--rounds is at least 1, and --seconds is between 0.1 and 600");
    }
    Ok(Some(options))
}
