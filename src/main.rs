//! The program: reads the command line, starts the log, runs, and turns the end into an exit code. Nothing else.

use std::io::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use cognito_authz::app::{self, StartError};
use cognito_authz::config::{self, Config, Invocation};
use cognito_authz::{descriptors, explain, healthcheck, logging, test_policy};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// `EX_USAGE` of sysexits.h: bad usage or configuration.
const USAGE: u8 = 64;
/// `EX_UNAVAILABLE`: an address cannot be listened on.
const UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let directory = std::env::current_dir().unwrap_or_default();
    let invocation = match config::read(std::env::args_os().skip(1), std::env::vars_os(), &directory) {
        Ok(invocation) => invocation,
        Err(error) => return fail(USAGE, &error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    match invocation {
        Invocation::Print(text) => print(&text),
        Invocation::CheckConfig(config) => {
            for warning in &config.warnings {
                complain(&format_args!("warning: {warning}"));
            }
            print("the configuration is right\n")
        }
        Invocation::Healthcheck(options) => match runtime.block_on(healthcheck::check(&options.admin)) {
            Ok(()) => print("ready\n"),
            Err(error) => fail(1, &format_args!("{error:#}")),
        },
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
        Invocation::TestPolicy(config, file) => match runtime.block_on(test_policy::run(*config, &file, unix_now())) {
            Ok(outcome) => print_and_end(&outcome.text, outcome.failed == 0),
            Err(error) => fail(USAGE, &format_args!("{error:#}")),
        },
        Invocation::Serve(config) => {
            let code = runtime.block_on(serve(*config));
            // Not waited for: a name look-up that hangs would hold the process up.
            runtime.shutdown_background();
            code
        }
    }
}

async fn serve(config: Config) -> ExitCode {
    let _log = logging::start(config.log_format, config.log_level);
    install_crypto();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = descriptors::raise_limit() {
        tracing::warn!(%error, "the soft limit on open files stays below the hard one");
    }
    let signals = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let (mut term, mut int) = match signals {
        Ok(signals) => signals,
        Err(error) => return fail(1, &error),
    };
    let bound = match app::bind(config).await {
        Ok(bound) => bound,
        Err(error @ StartError::Bind(_)) => return fail(UNAVAILABLE, &error),
        Err(error) => return fail(1, &error),
    };
    let (first, stop) = tokio::sync::oneshot::channel();
    let second = async {
        either(&mut term, &mut int).await;
        first.send(()).ok(); // fails only when the service has ended by itself
        either(&mut term, &mut int).await;
    };
    tokio::select! {
        result = bound.run(async { drop(stop.await) }) => match result {
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

/// One line on standard error.
fn complain(message: &dyn std::fmt::Display) {
    // Whoever closed standard error does not want to hear it.
    drop(writeln!(std::io::stderr(), "cognito-authz: {message}"));
}

/// Status 0 is "yes", 1 is "no".
fn print_and_end(text: &str, yes: bool) -> ExitCode {
    let printed = print(text);
    if yes { printed } else { ExitCode::FAILURE }
}

fn install_crypto() {
    if let Err(error) = rustls::crypto::aws_lc_rs::default_provider().install_default() {
        tracing::debug!(?error, "a crypto provider was installed before");
    }
}

fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(now).unwrap_or(i64::MAX)
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
