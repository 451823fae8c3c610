//! Programs of the tool environment (`tests/tools/setup`) as child processes that do not outlive the tests.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long a tool may take to come up, on a machine that is busy with other tests.
const START: Duration = Duration::from_secs(60);

fn path(name: &str) -> PathBuf {
    let venv = std::env::var_os("COGNITO_AUTHZ_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/venv"), PathBuf::from);
    venv.join("bin").join(name)
}

/// The path of a tool that not every run of the tests needs.
pub(crate) fn optional(name: &str) -> Option<PathBuf> {
    Some(path(name)).filter(|path| path.is_file())
}

/// The path of a tool.
#[track_caller]
pub(crate) fn program(name: &str) -> PathBuf {
    let path = path(name);
    assert!(
        path.is_file(),
        "{} is missing: run tests/run, or tests/tools/setup (COGNITO_AUTHZ_TOOLS names an environment elsewhere)",
        path.display()
    );
    path
}

/// Whether there is a `setpriv` that can tie the life of a child to ours, also when we are killed. (The system call
/// for it is `unsafe` in Rust.) Without it a child is still ended by [`Tool`]'s `Drop`.
static HAS_SETPRIV: LazyLock<bool> = LazyLock::new(|| {
    let command = ["--pdeathsig", "KILL", "true"];
    Command::new("setpriv").args(command).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
});

/// A port for something that goes away and comes back. The kernel does not give it to anybody in the meantime: it lies
/// below those that clients get (`ip_local_port_range`).
pub(crate) fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(20_000..30_000)).find(is_free).unwrap()
}

/// A running tool, killed when it is dropped.
pub(crate) struct Tool {
    name: &'static str,
    process: Child,
    log: PathBuf,
    /// What it has printed on standard output.
    pub(crate) output: PathBuf,
}

impl Tool {
    /// Starts a tool in `directory`, where its output goes, too. Of our environment it sees `PATH` alone.
    pub(crate) fn start<S: AsRef<OsStr>>(
        name: &'static str,
        arguments: &[S],
        variables: &[(&str, &str)],
        directory: &Path,
    ) -> Self {
        let program = program(name);
        let mut command = if *HAS_SETPRIV {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let (output, log) = (directory.join(format!("{name}.out")), directory.join(format!("{name}.log")));
        let process = command
            .args(arguments)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(variables.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { name, process, log, output }
    }

    /// Waits until `condition` holds; fails the test when it does not in time, or when the tool has ended. `Err` is the
    /// log of a tool that ended.
    pub(crate) async fn comes_up(&mut self, what: &str, condition: impl AsyncFn() -> bool) -> Result<(), String> {
        let start = Instant::now();
        while !condition().await {
            if self.process.try_wait().unwrap().is_some() {
                return Err(self.log());
            }
            assert!(start.elapsed() < START, "{}: {what}: not within {START:?}\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn terminate(&mut self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let start = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < START, "{} does not end\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it has said: its log, and what it printed.
    fn log(&self) -> String {
        [&self.output, &self.log].map(|path| fs::read_to_string(path).unwrap_or_default()).concat()
    }
}

impl Drop for Tool {
    #[expect(clippy::print_stderr, reason = "a failed test says what the tool said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("The log of {}:\n{}", self.name, self.log());
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
