//! What the generator's process does: it drives connections, and prints a [`Report`] as JSON.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, sleep_until};

use super::connection::{Allowed, Connector, Form};
use super::{Kind, Load, Part, Report, Schedule, Target, WARM_UP};
use crate::Bench;
use crate::machine::cpu_seconds;

/// Runs a load, given as JSON, and prints the result.
pub(crate) fn main(load: &str) -> Result<()> {
    let load: Load = serde_json::from_str(load)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let report = LocalSet::new().block_on(&runtime, drive(load))?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Connects from this process as soon as the server listens, and waits for the answer to one check.
pub(crate) fn first_answer(bench: &Bench, socket: &Path) -> Result<()> {
    let load = Load { part: Part::Before(1), ..Load::checks(bench, Target::unix(socket), 0, 1, 1) };
    let (connector, form, messages) = (Connector::new(load.target.clone())?, Form::new(load.kind), messages(&load)?);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let begin = Instant::now();
        let sender = loop {
            match connector.connect().await {
                Ok((sender, _)) => break sender,
                Err(error) => ensure!(begin.elapsed() < Duration::from_secs(10), "a server does not listen: {error}"),
            }
            sleep(Duration::from_micros(200)).await;
        };
        let answer = form.ask(&sender, messages[0].clone()).await?;
        Allowed::new(1).judge(0, &answer)
    })
}

/// State of a run.
struct Run {
    form: Form,
    connector: Connector,
    messages: Vec<Bytes>,
    allowed: Rc<Allowed>,
    /// Number of requests sent so far.
    sent: Cell<usize>,
    /// Number of requests after which the run is over, if it is limited.
    limit: Cell<Option<usize>>,
    /// `true` while answers count.
    is_measuring: Cell<bool>,
    /// Times to an answer, in tenths of a microsecond.
    times: RefCell<Vec<u32>>,
    /// Number of concurrent requests.
    workers: usize,
    /// Requests per second, if they are sent at a steady rate.
    rate: Option<f64>,
}

/// CPU time and clock at the begin of a measurement.
struct Meter {
    begin: Instant,
    cpu: Vec<f64>,
}

impl Meter {
    fn new(pids: &[u32]) -> Result<Self> {
        let cpu = pids.iter().chain([&std::process::id()]).map(|pid| cpu_seconds(*pid)).collect::<Result<_>>()?;
        Ok(Self { begin: Instant::now(), cpu })
    }

    /// Builds the result. `seconds` is the time that the requests took.
    fn report(self, pids: &[u32], seconds: Option<f64>, mut times: Vec<u32>) -> Result<Report> {
        let elapsed = self.begin.elapsed().as_secs_f64();
        ensure!(!times.is_empty(), "no request was answered within the measurement");
        let count = times.len();
        let used: Vec<f64> = Self::new(pids)?.cpu.iter().zip(&self.cpu).map(|(after, before)| after - before).collect();
        let (own, others) = used.split_last().context("the generator's own time is always there")?;
        times.sort_unstable();
        let at = |per_mille: usize| f64::from(times[(count * per_mille / 1000).min(count - 1)]) / 10.0;
        Ok(Report {
            rate: count as f64 / seconds.unwrap_or(elapsed),
            p50: at(500),
            p99: at(990),
            p999: at(999),
            most: at(1000),
            cpu: others.iter().map(|used| used * 1e6 / count as f64).collect(),
            busy: own / elapsed,
        })
    }
}

async fn drive(load: Load) -> Result<Report> {
    let messages = messages(&load)?;
    let rate = if let Schedule::Steady(rate, _) = load.schedule { Some(rate) } else { None };
    let run = Rc::new(Run {
        form: Form::new(load.kind),
        connector: Connector::new(load.target.clone())?,
        allowed: Allowed::new(messages.len()),
        sent: Cell::new(0),
        limit: Cell::new(None),
        is_measuring: Cell::new(false),
        times: RefCell::default(),
        workers: load.connections * load.streams,
        rate,
        messages,
    });
    match load.schedule {
        Schedule::Storm(times) => storm(&run, &load, times).await,
        Schedule::Once => {
            run.limit.set(Some(run.messages.len()));
            run.is_measuring.set(true);
            let meter = Meter::new(&load.pids)?;
            let mut workers = start(&run, &load).await?;
            while let Some(worker) = workers.join_next().await {
                worker??;
            }
            meter.report(&load.pids, None, run.times.take())
        }
        Schedule::Saturate(seconds) | Schedule::Steady(_, seconds) => {
            let mut workers = start(&run, &load).await?;
            let measured = async {
                sleep(Duration::from_secs_f64(WARM_UP)).await;
                let meter = Meter::new(&load.pids)?;
                run.is_measuring.set(true);
                sleep(Duration::from_secs_f64(seconds)).await;
                run.is_measuring.set(false);
                meter.report(&load.pids, None, run.times.take())
            };
            tokio::select! {
                report = measured => report,
                Some(ended) = workers.join_next() => Err(ended?.err().context("a worker has ended")?),
            }
        }
    }
}

/// Opens the connections, and starts a worker for each concurrent request.
async fn start(run: &Rc<Run>, load: &Load) -> Result<JoinSet<Result<()>>> {
    let mut workers = JoinSet::new();
    for connection in 0..load.connections {
        let (sender, _) = run.connector.connect().await.context("no connection")?;
        for stream in 0..load.streams {
            workers.spawn_local(work(Rc::clone(run), sender.clone(), connection * load.streams + stream));
        }
    }
    Ok(workers)
}

/// Sends one request after the other.
async fn work(run: Rc<Run>, sender: SendRequest<Bytes>, number: usize) -> Result<()> {
    let gap = run.rate.map(|rate| Duration::from_secs_f64(run.workers as f64 / rate));
    // Workers begin one after the other, not all at once.
    let mut due = Instant::now() + gap.unwrap_or_default().mul_f64(number as f64 / run.workers as f64);
    while let Some(message) = run.next() {
        let mut begin = Instant::now();
        if let Some(gap) = gap {
            if due > begin {
                sleep_until(due.into()).await;
                // The timer's delay, up to a millisecond, is not the server's.
                begin = Instant::now();
            } else {
                // The previous answer was late, and so this request is: it has waited since it was due.
                begin = due;
            }
            due += gap;
        }
        run.ask(&sender, message).await?;
        if run.is_measuring.get() {
            run.record(begin);
        }
    }
    Ok(())
}

impl Run {
    /// Number of the next message; `None` if the run is over.
    fn next(&self) -> Option<usize> {
        let sent = self.sent.get();
        if self.limit.get().is_some_and(|limit| sent >= limit) {
            return None;
        }
        self.sent.set(sent + 1);
        Some(sent % self.messages.len())
    }

    async fn ask(&self, sender: &SendRequest<Bytes>, number: usize) -> Result<()> {
        let answer = self.form.ask(sender, self.messages[number].clone()).await?;
        if self.form.kind == Kind::Check { self.allowed.judge(number, &answer) } else { Ok(()) }
    }

    fn record(&self, begin: Instant) {
        let tenths = u32::try_from(begin.elapsed().as_nanos() / 100).unwrap_or(u32::MAX);
        self.times.borrow_mut().push(tenths);
    }
}

/// Opens all connections at once, sends one request on each, and closes them, several times.
async fn storm(run: &Rc<Run>, load: &Load, count: u32) -> Result<Report> {
    let meter = Meter::new(&load.pids)?;
    let mut seconds = 0.0;
    for _ in 0..count {
        let begin = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..load.connections {
            let run = Rc::clone(run);
            clients.spawn_local(async move {
                let (sender, connection) = run.connector.connect().await?;
                let message = run.next().context("the number of requests has no limit")?;
                run.ask(&sender, message).await?;
                run.record(begin);
                Ok::<_, anyhow::Error>((sender, connection))
            });
        }
        let mut connections = Vec::new();
        while let Some(client) = clients.join_next().await {
            connections.push(client??);
        }
        seconds += begin.elapsed().as_secs_f64();
        for (sender, connection) in connections {
            drop(sender);
            connection.await?;
        }
    }
    meter.report(&load.pids, Some(seconds), run.times.take())
}

/// Reads the messages of the load.
fn messages(load: &Load) -> Result<Vec<Bytes>> {
    let mut rest = Bytes::from(fs::read(&load.messages)?);
    let mut messages = Vec::new();
    match load.kind {
        Kind::Check => {
            while let Some(length) = rest.get(1..5) {
                let length = u32::from_be_bytes(length.try_into()?);
                messages.push(rest.split_to(5 + usize::try_from(length)?));
            }
        }
        Kind::Get => {
            let tokens = std::str::from_utf8(&rest)?.lines();
            messages.extend(tokens.map(|token| Bytes::from(format!("Bearer {token}"))));
        }
    }
    match load.part {
        Part::All => (),
        Part::Before(count) => messages.truncate(count),
        Part::From(count) => drop(messages.drain(..count.min(messages.len()))),
    }
    ensure!(!messages.is_empty(), "{} has no messages", load.messages.display());
    Ok(messages)
}
