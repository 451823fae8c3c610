//! Runs programs of the tool environment (`tests/tools/setup`) as child processes that end with the tests.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Time limit for the start of a tool, long enough for a machine that is busy with other tests.
const START: Duration = Duration::from_secs(60);

fn path(name: &str) -> PathBuf {
    let venv = std::env::var_os("COGNITO_AUTHZ_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/venv"), PathBuf::from);
    venv.join("bin").join(name)
}

/// Returns the path of a tool that a developer's machine may do without, and says so if it is not installed. `option` is
/// the option of `tests/tools/setup` that installs it. Panics in CI, which must have every tool.
#[track_caller]
#[expect(clippy::print_stderr, reason = "says that a test is skipped")]
pub(crate) fn optional(name: &str, option: &str) -> Option<PathBuf> {
    let found = Some(path(name)).filter(|path| path.is_file());
    if found.is_none() {
        let missing = format!("{name} is missing: run tests/tools/setup {option}");
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        eprintln!("SKIPPED: {missing}");
    }
    found
}

/// Returns the path of a tool. Panics if it is not installed.
#[track_caller]
pub(crate) fn program(name: &str) -> PathBuf {
    let path = path(name);
    assert!(
        path.is_file(),
        "{} is missing: run tests/run or tests/tools/setup, or set COGNITO_AUTHZ_TOOLS to an existing environment",
        path.display()
    );
    path
}

/// `true` if `setpriv` can make the kernel kill a child when its parent dies. (The system call for it is `unsafe` in
/// Rust.) Otherwise only [`Tool`]'s `Drop` ends the child, which does not run if the test process is killed.
static HAS_SETPRIV: LazyLock<bool> = LazyLock::new(|| {
    let command = ["--pdeathsig", "KILL", "true"];
    Command::new("setpriv").args(command).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
});

/// Returns a free port for a server that is stopped and started again. In between, the kernel does not assign it to a
/// client, because it is below the range of client ports (`ip_local_port_range`).
pub(crate) fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(20_000..30_000)).find(is_free).unwrap()
}

/// Running tool. Dropping it kills the process.
pub(crate) struct Tool {
    name: &'static str,
    process: Child,
    log: PathBuf,
    /// File that receives its standard output.
    pub(crate) output: PathBuf,
}

impl Tool {
    /// Starts a tool in `directory`, which also receives its output. Of this process's environment it inherits only
    /// `PATH`.
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

    /// Waits until `condition` is true, and panics if that takes longer than [`START`].
    ///
    /// # Errors
    /// The log of the tool, if it ends before.
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

    /// Sends SIGTERM and waits until the tool has ended.
    pub(crate) async fn terminate(&mut self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let start = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < START, "{} does not end\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Standard output and standard error so far.
    fn log(&self) -> String {
        [&self.output, &self.log].map(|path| fs::read_to_string(path).unwrap_or_default()).concat()
    }
}

impl Drop for Tool {
    #[expect(clippy::print_stderr, reason = "a failed test shows the output of its tools")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("The log of {}:\n{}", self.name, self.log());
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
