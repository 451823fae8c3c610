//! Service under test: in this process ([`TestApp`]), or as a process of its own ([`Program`]).

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cognito_authz::app;
use cognito_authz::config::{self, Invocation};
use tokio::sync::{Notify, oneshot};

use super::token::{CLIENT, POOL};

/// Time limit for events that should happen almost at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Default flags of a service: free ports, the test pool, one thread for checks, and a short shutdown deadline, because
/// the clients of a test do not run while its thread waits for the service to end.
const FLAGS: [(&str, &str); 6] = [
    ("--grpc-listen", "127.0.0.1:0"),
    ("--admin-listen", "127.0.0.1:0"),
    ("--grpc-threads", "1"),
    ("--shutdown-deadline", "100ms"),
    ("--user-pool-id", POOL),
    ("--client-id", CLIENT),
];

/// Flags of a service whose account API can serve the sign-in by redirect.
pub(crate) const SIGN_IN: [&str; 5] = [
    "--account-cookies",
    "--hosted-ui-domain",
    "auth.example.com",
    "--oauth-redirect-uris",
    "https://app.example.com/auth/oauth/callback",
];

fn flags(more: &[&str]) -> Vec<OsString> {
    let is_set = |flag: &str| flag != "--grpc-listen" && more.contains(&flag);
    let defaults = FLAGS.iter().filter(|(flag, _)| !is_set(flag)).flat_map(|(flag, value)| [*flag, *value]);
    defaults.chain(more.iter().copied()).map(OsString::from).collect()
}

/// Service on a thread of this process. Dropping it shuts the service down.
pub(crate) struct TestApp {
    pub(crate) grpc: Vec<String>,
    pub(crate) admin: String,
    /// Address of the HTTP form; empty without `--http-listen`.
    pub(crate) http: String,
    stop: Option<oneshot::Sender<()>>,
    /// Requests a reload of the policy file, as SIGHUP does for the program.
    pub(crate) reload_requests: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl TestApp {
    /// Starts the service with these flags in addition to the default ones. A flag given here replaces its default;
    /// `--grpc-listen` adds an address.
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::start_with(&[], more)
    }

    /// As [`TestApp::start`], with these environment variables.
    pub(crate) fn start_with(environment: &[(String, String)], more: &[&str]) -> Self {
        let variables = environment.iter().map(|(name, value)| (name.into(), value.into()));
        let invocation = config::read(flags(more).into_iter(), variables, Path::new("/nonexistent")).unwrap();
        let Invocation::Serve(config) = invocation else { panic!("not serve") };
        let (bound, addresses) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let reload_requests = Arc::new(Notify::new());
        let requests = Arc::clone(&reload_requests);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let app = app::bind(*config, None).await.unwrap();
                bound.send((app.grpc_addresses(), app.admin_address(), app.http_address())).unwrap();
                app.run(async { drop(stopped.await) }, requests).await.unwrap();
            });
            runtime.shutdown_background();
        });
        let (grpc, admin, http) = addresses.recv_timeout(PATIENCE).unwrap();
        Self { grpc, admin, http: http.unwrap_or_default(), stop: Some(stop), reload_requests, thread: Some(thread) }
    }

    /// Begins the shutdown, without waiting for its end.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until the service has ended.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !std::thread::panicking() {
                result.unwrap();
            }
        }
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop();
        self.join();
    }
}

/// Program as a process. Dropping it kills the process.
pub(crate) struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Lines of standard output that were read so far.
    pub(crate) log: Vec<String>,
    pub(crate) grpc: Vec<String>,
    pub(crate) admin: String,
    /// Address of the account API's own port; empty without `--account-listen`.
    pub(crate) account: String,
    /// Address of the HTTP form; empty without `--http-listen`.
    pub(crate) http: String,
}

impl Program {
    /// Starts the program with these flags in addition to the default ones, and waits until it listens.
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::start_with(&[], more)
    }

    /// As [`Program::start`], with these environment variables.
    pub(crate) fn start_with(environment: &[(String, String)], more: &[&str]) -> Self {
        let mut command = Self::command(&flags(more));
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Self::listening(command)
    }

    /// As [`Program::start`], with a limit for the number of open files and sockets.
    pub(crate) fn start_limited(descriptors: u32, more: &[&str]) -> Self {
        Self::start_under(&format!("ulimit -n {descriptors}"), more)
    }

    /// As [`Program::start`], from a shell that has run this command.
    pub(crate) fn start_under(shell: &str, more: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let script = format!("{shell}; exec \"$@\"");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_cognito-authz")]).args(flags(more));
        command.env_clear().current_dir("/").stdin(Stdio::null());
        Self::listening(command)
    }

    /// Starts the program with this command, and waits until it listens.
    pub(crate) fn listening(mut command: Command) -> Self {
        let has = |flag: &str| command.get_args().any(|arg| arg == flag);
        let (has_account, has_http) = (has("--account-listen"), has("--http-listen"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let (admin, account, http) = (String::new(), String::new(), String::new());
        let mut program = Self { child, lines, log: Vec::new(), grpc: Vec::new(), admin, account, http };
        while program.admin.is_empty()
            || has_account && program.account.is_empty()
            || has_http && program.http.is_empty()
        {
            let line = program.wait_for_line("\"listening\"");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            let address = line["fields"]["address"].as_str().unwrap().to_owned();
            match line["fields"]["listener"].as_str() {
                Some("grpc") => program.grpc.push(address),
                Some("account") => program.account = address,
                Some("http") => program.http = address,
                _ => program.admin = address,
            }
        }
        program
    }

    /// Returns a command for the program, with an empty environment and in a directory without `.env`.
    pub(crate) fn command(args: &[OsString]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cognito-authz"));
        command.args(args).env_clear().current_dir("/").stdin(Stdio::null());
        command
    }

    /// Waits for a log line that contains this text.
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        loop {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line with {text} in {:#?}", self.log));
            self.log.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by name, with the `kill` that every shell has.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until the program has ended, and reads the rest of its log.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.log.extend(self.lines.iter());
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs the program to its end. Returns exit code, standard output and standard error.
pub(crate) fn run(args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    run_with(args, environment, Stdio::null(), &[])
}

/// As [`run`], with this standard input, which has to fit into a pipe's buffer.
pub(crate) fn run_with_input(args: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    run_with(args, &[], Stdio::piped(), input)
}

fn run_with(args: &[&str], environment: &[(&str, &str)], stdin: Stdio, input: &[u8]) -> (Option<i32>, String, String) {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let mut child = Program::command(&args)
        .envs(environment.iter().copied())
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        // Writing fails if the program rejects its options and ends without reading.
        drop(stdin.write_all(input));
    }
    // Read while the program runs: it waits when a pipe is full.
    let stdout = read_all(child.stdout.take().unwrap());
    let stderr = read_all(child.stderr.take().unwrap());
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            drop(child.kill());
            panic!("the program does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = child.wait().unwrap();
    (status.code(), stdout.join().unwrap(), stderr.join().unwrap())
}

/// Reads a pipe to its end, on a thread.
fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}
