//! Server of key sets, in this process.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::token::{SigningKey, jwks};

/// Server at work. It ends with the benchmark.
pub(crate) struct KeyServer {
    /// URL of the key set.
    pub(crate) url: String,
    state: Arc<State>,
}

struct State {
    /// Two key sets, both with the key that signs the tokens, each with another second one.
    sets: [String; 2],
    rotates: AtomicBool,
    answers: AtomicUsize,
}

impl KeyServer {
    /// Starts the server. It serves the same set until it is told to rotate.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/", listener.local_addr()?);
        let third = SigningKey::generate("dGhpcmQ=");
        let sets = [SigningKey::other(), &third].map(|second| jwks(&[SigningKey::shared(), second]));
        let state = Arc::new(State { sets, rotates: AtomicBool::default(), answers: AtomicUsize::default() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that leaves early asks again.
                shared.answer(stream).ok();
            }
        });
        Ok(Self { url, state })
    }

    /// From now on each response has another set than the one before, or all have the same.
    pub(crate) fn rotate(&self, rotates: bool) {
        self.state.rotates.store(rotates, Ordering::Relaxed);
    }

    /// Number of responses so far.
    pub(crate) fn answers(&self) -> usize {
        self.state.answers.load(Ordering::Relaxed)
    }
}

impl State {
    fn answer(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        for line in BufReader::new(&stream).lines() {
            if line?.is_empty() {
                break;
            }
        }
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        let set = if self.rotates.load(Ordering::Relaxed) { &self.sets[number % 2] } else { &self.sets[0] };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
        write!(stream, "{head} {}\r\n\r\n{set}", set.len())?;
        Ok(())
    }
}
