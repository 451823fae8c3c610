//! Child processes that end with the benchmark, and what it asks them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::machine::spawn_on;

/// Time between two looks at a condition at a start.
const POLL: Duration = Duration::from_millis(2);
/// The same during a measurement, which a look must not disturb.
const SLOW_POLL: Duration = Duration::from_millis(50);

/// Child process. Dropping it kills it, also when the benchmark fails.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with an empty environment on these cores. `directory` becomes its working directory and gets
    /// its output, in the file `log`.
    pub(crate) fn start(command: &mut Command, cores: &[usize], directory: &Path) -> Result<Self> {
        let log = directory.join("log");
        let output = File::options().create(true).append(true).open(&log)?;
        command.env_clear().current_dir(directory).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let name = command.get_program().display().to_string();
        let child = spawn_on(command, cores).with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { child, log })
    }

    /// Id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `condition` is true.
    pub(crate) fn comes_up(&mut self, limit: Duration, condition: impl Fn() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !condition() {
            let is_over = self.child.try_wait()?.is_some();
            if is_over || begin.elapsed() > limit {
                let what = if is_over { "has ended" } else { "does not get ready" };
                bail!("a process {what}:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until `condition` is true, during a measurement. `what` is the condition in an error.
pub(crate) fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        ensure!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(SLOW_POLL);
    }
    Ok(())
}

/// Returns an address on loopback whose port was free a moment ago. The kernel does not assign it to a client, because
/// it is below the range of client ports (`ip_local_port_range`).
pub(crate) fn free_address() -> String {
    let is_free = |address: &String| TcpListener::bind(address).is_ok();
    let mut addresses = std::iter::repeat_with(|| format!("127.0.0.1:{}", fastrand::u16(20_000..30_000)));
    addresses.find(is_free).unwrap_or_default()
}

/// Requests a path over a Unix socket, and returns the body of a response with status 200.
pub(crate) fn get(socket: &Path, path: &str) -> Result<String> {
    request(socket, &format!("GET {path}"), "", "")
}

/// Posts JSON to a path over a Unix socket, with a bearer token, and returns the body of a response with status 200.
pub(crate) fn post(socket: &Path, path: &str, token: &str, body: &str) -> Result<String> {
    let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
    request(socket, &format!("POST {path}"), &headers, body)
}

fn request(socket: &Path, line: &str, headers: &str, body: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = body.len();
    let fixed = format!("host: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n");
    stream.write_all(format!("{line} HTTP/1.1\r\n{fixed}{headers}\r\n{body}").as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").context("a response without a head")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{line}: {}", head.lines().next().unwrap_or_default());
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { joined(body) } else { Ok(body.to_owned()) }
}

/// Joins the chunks of a body (RFC 9112 section 7.1).
fn joined(mut chunks: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        body += rest.get(..size).context("a short chunk")?;
        chunks = rest.get(size + 2..).context("a chunk without an end")?;
    }
}

/// Path of a program of the tool environment (`tests/tools/setup`), if it is installed.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let venv = std::env::var_os("COGNITO_AUTHZ_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/venv"), PathBuf::from);
    Some(venv.join("bin").join(name)).filter(|path| path.is_file())
}
