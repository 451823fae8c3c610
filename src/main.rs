//! Entry point of the program: command line, log, signals, and exit codes.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use cognito_authz::app::{self, StartError};
use cognito_authz::clock::unix_now;
use cognito_authz::config::{self, Config, ConfigError, Invocation, Online};
use cognito_authz::net::descriptors;
use cognito_authz::{check_config, doctor, explain, healthcheck, log_level, logging, revoke, test_policy};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// `EX_USAGE` of sysexits.h: wrong usage or configuration.
const USAGE: u8 = 64;
/// `EX_UNAVAILABLE` of sysexits.h: an address cannot be bound.
const UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let directory = std::env::current_dir().unwrap_or_default();
    let invocation = match config::read(std::env::args_os().skip(1), std::env::vars_os(), &directory) {
        Ok(invocation) => invocation,
        Err(error) => return refuse(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    match invocation {
        Invocation::Print(text) => print(&text),
        Invocation::TableSchema => print(&format!("{:#}\n", test_policy::schema().to_value())),
        Invocation::CheckConfig(config, Online(online)) => {
            for warning in &config.warnings {
                complain(&format_args!("warning: {warning}"));
            }
            for note in &config.notes {
                complain(&format_args!("note: {note}"));
            }
            let mut text = check_config::summary(&config);
            if online {
                install_crypto();
                let fetched = runtime.block_on(check_config::fetch_keys(&config));
                text.push_str(&fetched.text);
                if !fetched.errors.is_empty() {
                    let _: ExitCode = print(&text);
                    fetched.errors.iter().for_each(|error| complain(error));
                    runtime.shutdown_background();
                    return ExitCode::FAILURE;
                }
            }
            text.push_str("the configuration is right\n");
            // Does not wait for blocking threads: a DNS query that hangs would delay the exit.
            runtime.shutdown_background();
            print(&text)
        }
        Invocation::Healthcheck(options) => match runtime.block_on(healthcheck::check(&options)) {
            Ok(()) => print("ready\n"),
            Err(error) => fail(1, &format_args!("{error:#}")),
        },
        Invocation::Revoke(options) => end(&runtime.block_on(revoke::revoke(&options, &mut std::io::stdout()))),
        Invocation::Revocations(action) => end(&runtime.block_on(revoke::revocations(&action, &mut std::io::stdout()))),
        Invocation::LogLevel(options) => end(&runtime.block_on(log_level::run(&options, &mut std::io::stdout()))),
        Invocation::Explain(config, request) => {
            let token = match explain::read_token(std::io::stdin()) {
                Ok(token) => token,
                Err(error) => return fail(USAGE, &format_args!("the token on standard input: {error}")),
            };
            install_crypto();
            match runtime.block_on(explain::explain(*config, &request, token.as_deref(), unix_now())) {
                Ok(explanation) => print_and_end(&explanation.text, explanation.allowed),
                Err(error) => fail(1, &format_args!("{error:#}")),
            }
        }
        Invocation::Doctor(config, examination) => {
            install_crypto();
            let report = runtime.block_on(doctor::examine(&config, &examination));
            let text = if examination.json { report.to_json() } else { report.to_text() };
            let code = print_and_end(&text, !report.has_errors());
            // Does not wait for blocking threads: a DNS query that hangs would delay the exit.
            runtime.shutdown_background();
            code
        }
        Invocation::TestPolicy(config, file) => match runtime.block_on(test_policy::run(*config, &file, unix_now())) {
            Ok(outcome) => print_and_end(&outcome.text, outcome.failed == 0),
            Err(error) => match error.downcast_ref::<ConfigError>() {
                Some(errors) => refuse(errors),
                None => fail(USAGE, &format_args!("{error:#}")),
            },
        },
        Invocation::Serve(config) => {
            let code = runtime.block_on(serve(*config));
            // Does not wait for blocking threads: a DNS query that hangs would delay the exit.
            runtime.shutdown_background();
            code
        }
    }
}

async fn serve(config: Config) -> ExitCode {
    let log = match logging::start(&config.log) {
        Ok(log) => log,
        Err(error) => return fail(1, &format_args!("the log cannot be started: {error}")),
    };
    install_crypto();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    for note in &config.notes {
        tracing::info!("{note}");
    }
    if let Err(error) = descriptors::raise_limit() {
        tracing::warn!(%error, "the soft limit on open files cannot be raised to the hard limit");
    }
    let Signals { mut term, mut int, mut hup } = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return fail(1, &error),
    };
    let service = match app::bind(config, Some(log.handle())).await {
        Ok(service) => service,
        Err(error @ StartError::Bind(_)) => return fail(UNAVAILABLE, &error),
        Err(error @ StartError::Revocations(_)) => return fail(USAGE, &error),
        Err(error) => return fail(1, &error),
    };
    let (first, stop) = tokio::sync::oneshot::channel();
    let second = async {
        either(&mut term, &mut int).await;
        first.send(()).ok(); // fails only if the service has ended on its own
        either(&mut term, &mut int).await;
    };
    let reload_requests = Arc::new(Notify::new());
    let reloads = async {
        while hup.recv().await.is_some() {
            reload_requests.notify_one();
        }
        std::future::pending::<ExitCode>().await
    };
    tokio::select! {
        result = service.run(async { drop(stop.await) }, Arc::clone(&reload_requests)) => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "stopped by a failure");
                fail(1, &format_args!("{error:#}"))
            }
        },
        () = second => {
            tracing::warn!("stopped at once by a second signal");
            ExitCode::FAILURE
        }
        code = reloads => code, // never completes
    }
}

/// Signals that the service handles. SIGHUP requests a reload of the policy file and the certificates.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits for SIGTERM or SIGINT.
async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    complain(error);
    ExitCode::from(code)
}

/// Reports errors of the configuration.
fn refuse(error: &ConfigError) -> ExitCode {
    error.lines().iter().for_each(|line| complain(line));
    // Fails if standard error is closed.
    drop(std::io::stderr().write_all(error.note().as_bytes()));
    ExitCode::from(USAGE)
}

/// Writes one line to standard error.
fn complain(message: &dyn std::fmt::Display) {
    // Fails if standard error is closed; the exit code still tells the result.
    drop(writeln!(std::io::stderr(), "cognito-authz: {message}"));
}

/// Returns the exit code of a command that has printed its result.
fn end(result: &anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &format_args!("{error:#}")),
    }
}

/// Prints `text` and returns exit code 0 if `succeeded`, else 1.
fn print_and_end(text: &str, succeeded: bool) -> ExitCode {
    let printed = print(text);
    if succeeded { printed } else { ExitCode::FAILURE }
}

fn install_crypto() {
    if let Err(error) = rustls::crypto::aws_lc_rs::default_provider().install_default() {
        tracing::debug!(?error, "a crypto provider is already installed");
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
