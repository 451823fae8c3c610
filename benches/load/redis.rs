//! Store of revocations that can be lost and come back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::Bench;
use crate::process::{Process, free_address, tool};

/// Redis, running or stopped.
pub(crate) struct Redis {
    program: PathBuf,
    directory: PathBuf,
    cores: Vec<usize>,
    /// Host and port.
    pub(crate) address: String,
    process: Option<Process>,
}

impl Redis {
    /// Starts a server. Returns `None` if none is installed.
    pub(crate) fn start(bench: &Bench) -> Result<Option<Self>> {
        let Some(program) = tool("redis-server") else { return Ok(None) };
        let (directory, cores) = (bench.new_directory()?, bench.cores.last().to_owned());
        let mut redis = Self { program, directory, cores, address: free_address(), process: None };
        redis.resume()?;
        Ok(Some(redis))
    }

    /// Starts the server again, without data, at the same address, and waits until it answers.
    pub(crate) fn resume(&mut self) -> Result<()> {
        let (host, port) = self.address.rsplit_once(':').unwrap_or_default();
        let mut command = Command::new(&self.program);
        command.args(["--bind", host, "--port", port, "--save", ""]);
        let mut process = Process::start(&mut command, &self.cores, &self.directory)?;
        process.comes_up(Duration::from_secs(10), || self.answers().is_ok_and(|is_up| is_up))?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        drop(self.process.take());
    }

    fn answers(&self) -> Result<bool> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG\r\n")
    }
}
