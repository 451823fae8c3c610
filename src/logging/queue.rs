//! The queue of lines, and the thread that writes them to standard output.
//!
//! The last quarter of the queue is for lines without a cap: lines that clients cause are left out before
//! ([`Queue::is_crowded`]). Nothing that is left out is counted as written, and nothing is counted twice.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::Handle;

/// Length of the queue, in lines.
pub(super) const LENGTH: usize = 8192;
/// Length from which on there is no place for lines that clients cause.
pub(super) const CROWDED: usize = LENGTH / 4 * 3;
/// Size in bytes of a write, from which on further lines wait for the next one.
const TOGETHER: usize = 64 * 1024;
/// Time between two [`Handle::tick`]s.
const TICK: Duration = Duration::from_secs(1);
/// Time for the lines that are queued at the end.
const GRACE: Duration = Duration::from_secs(1);

/// Line, or nothing, to wake the thread.
type Message = Option<Vec<u8>>;
/// End of the queue from which lines are taken.
pub(super) type Queued = Receiver<Message>;

/// Queue of lines.
#[derive(Debug)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    /// Number of lines in the queue.
    waiting: AtomicUsize,
    lost: AtomicU64,
    ending: AtomicBool,
}

impl Queue {
    /// Creates a queue, and its other end.
    pub(super) fn new() -> (Self, Queued) {
        let (sender, receiver) = mpsc::sync_channel(LENGTH);
        let (waiting, lost, ending) = Default::default();
        (Self { sender, waiting, lost, ending }, receiver)
    }

    /// `true` if the rest of the queue is for lines without a cap.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= CROWDED
    }

    /// Number of lines since the start for which there was no place, or that standard output did not take.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Counts lost lines.
    pub(super) fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    fn push(&self, line: &[u8]) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.sender.try_send(Some(line.to_vec())).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lose(1);
        }
    }
}

thread_local! {
    /// On the thread of the log: the lines that it logs itself. They need no place in the queue, which can be full.
    static OWN: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Makes writers that append to the queue.
#[derive(Debug)]
pub(super) struct Lines(pub(super) Handle);

impl<'l> MakeWriter<'l> for Lines {
    type Writer = Line<'l>;

    fn make_writer(&'l self) -> Line<'l> {
        Line(&self.0.0.queue)
    }
}

/// Writer of one line, which has to be written at once.
pub(super) struct Line<'l>(&'l Queue);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_own = OWN.try_with(|own| match &mut *own.borrow_mut() {
            Some(own) => {
                own.extend_from_slice(line);
                true
            }
            None => false,
        });
        if !is_own.unwrap_or(false) {
            self.0.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that writes the lines. Dropping it ends the thread after the queued lines, or after a second.
#[derive(Debug)]
pub(super) struct Writer {
    handle: Handle,
    /// Closes when the thread has ended.
    ended: Receiver<()>,
}

impl Writer {
    /// Starts the thread. It calls `enter` first, and keeps the value until its end.
    pub(super) fn start<T>(
        handle: Handle,
        lines: Queued,
        out: impl Write + Send + 'static,
        enter: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let (running, ended) = mpsc::channel();
        let of_thread = handle.clone();
        thread::Builder::new().name("log".into()).spawn(move || {
            let _running: mpsc::Sender<()> = running;
            let _entered = enter();
            write_all(&of_thread, &lines, out);
        })?;
        Ok(Self { handle, ended })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let queue = &self.handle.0.queue;
        queue.ending.store(true, Ordering::Release);
        // A full queue has no place for this, but then the thread is awake.
        drop(queue.sender.try_send(None));
        self.ended.recv_timeout(GRACE).ok();
    }
}

/// Writes lines until the log ends.
fn write_all(handle: &Handle, lines: &Queued, mut out: impl Write) {
    OWN.set(Some(Vec::new()));
    let queue = &handle.0.queue;
    let mut buffer = Vec::new();
    let mut next = Instant::now() + TICK;
    loop {
        let mut line = lines.recv_timeout(next.saturating_duration_since(Instant::now())).ok().flatten();
        let is_ending = queue.ending.load(Ordering::Acquire);
        let mut count = 0;
        while let Some(text) = line {
            queue.waiting.fetch_sub(1, Ordering::Relaxed);
            buffer.extend_from_slice(&text);
            count += 1;
            line = if buffer.len() < TOGETHER { lines.try_recv().ok().flatten() } else { None };
        }
        let is_last = is_ending && buffer.len() < TOGETHER;
        if is_last || Instant::now() >= next {
            handle.tick();
            let own = OWN.replace(Some(Vec::new())).unwrap_or_default();
            count += u64::from(!own.is_empty());
            buffer.extend_from_slice(&own);
            next = Instant::now() + TICK;
        }
        if !buffer.is_empty() && out.write_all(&buffer).and_then(|()| out.flush()).is_err() {
            queue.lose(count);
        }
        buffer.clear();
        buffer.shrink_to(2 * TOGETHER);
        if is_last {
            return;
        }
    }
}
