//! A stream that fails if its peer stops reading.
//!
//! hyper sets no limit on the time that a client takes to read a response. [`Progress`] sets one below hyper, on the
//! stream: a write that waits too long fails, which ends the connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Time limits for a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Time without any progress while bytes wait to be sent.
    pub(crate) stall: Duration,
    /// Time until everything that waits has been sent, even if the peer reads steadily; `None` for no limit.
    pub(crate) backlog: Option<Duration>,
    /// Time without any progress, in reading or writing, once the port closes.
    pub(crate) closing: Duration,
}

/// State of a connection: busy while the program works on a request, idle while it waits for the peer.
#[derive(Debug, Default)]
pub(crate) struct Activity(AtomicBool);

impl Activity {
    /// Sets the state. `busy` is `true` while the program works on a request that it has received.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.0.store(busy, Ordering::Relaxed);
    }

    fn is_busy(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream that applies the limits of [`Patience`].
#[derive(Debug)]
pub(crate) struct Progress<T> {
    stream: T,
    patience: Patience,
    closing: CancellationToken,
    /// Set if reads are limited as well once the port closes.
    activity: Option<Arc<Activity>>,
    backlog: Option<Backlog>,
    reading_since: Option<Instant>,
    write_timer: Timer,
    read_timer: Timer,
}

/// Bytes that wait to be sent to the peer.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    /// Time at which a write first had to wait.
    since: Instant,
    /// Time of the last progress.
    moved: Instant,
}

impl<T> Progress<T> {
    /// Creates a stream that limits writes only. `closing` is cancelled when the port closes.
    pub(crate) fn new(stream: T, patience: Patience, closing: CancellationToken) -> Self {
        Self {
            stream,
            patience,
            closing,
            activity: None,
            backlog: None,
            reading_since: None,
            write_timer: Timer::default(),
            read_timer: Timer::default(),
        }
    }

    /// Limits reads as well once the port closes: a read fails if it waits for a peer while the connection is not busy.
    #[must_use]
    pub(crate) fn with_activity(self, activity: Arc<Activity>) -> Self {
        Self { activity: Some(activity), ..self }
    }

    /// Replaces a pending write by an error once its time is over.
    fn written(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            if let Some(backlog) = &mut self.backlog {
                backlog.moved = Instant::now();
            }
            return result;
        }
        let now = Instant::now();
        let Backlog { since, moved } = *self.backlog.get_or_insert(Backlog { since: now, moved: now });
        let stall = if self.closing.is_cancelled() { self.patience.closing } else { self.patience.stall };
        let end = self.patience.backlog.map_or(moved + stall, |limit| (since + limit).min(moved + stall));
        self.write_timer.poll(cx, end).map(|()| Err(timed_out("the peer does not read")))
    }
}

fn timed_out(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// A timer that is created on first use.
#[derive(Debug, Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, cx: &mut Context<'_>, end: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if sleep.deadline() != end {
            sleep.as_mut().reset(end);
        }
        sleep.as_mut().poll(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Progress<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let this = &mut *self;
        let Some(activity) = &this.activity else { return result };
        if result.is_ready() {
            this.reading_since = None;
            return result;
        }
        let since = *this.reading_since.get_or_insert_with(Instant::now);
        if activity.is_busy() || !this.closing.is_cancelled() {
            return Poll::Pending;
        }
        let ended = this.read_timer.poll(cx, since + this.patience.closing);
        ended.map(|()| Err(timed_out("the peer sends nothing and the port closes")))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Progress<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Ends the backlog: hyper flushes when it has written everything it had, with HTTP/1.1 as with HTTP/2.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.backlog = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;

    const PATIENCE: Patience = Patience {
        stall: Duration::from_secs(10),
        backlog: Some(Duration::from_secs(30)),
        closing: Duration::from_secs(1),
    };

    fn pair(closing: &CancellationToken) -> (Progress<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(8);
        (Progress::new(ours, PATIENCE, closing.clone()), theirs)
    }

    /// Writes this many bytes and flushes. Returns the time until the end or the failure, and the failure.
    async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: usize) -> (Duration, Option<io::ErrorKind>) {
        let begin = Instant::now();
        let result = async {
            stream.write_all(&vec![0; bytes]).await?;
            stream.flush().await
        };
        let error = result.await.err().map(|error| error.kind());
        (begin.elapsed(), error)
    }

    /// Reads one byte per interval.
    fn trickle(mut stream: DuplexStream, every: Duration) {
        tokio::spawn(async move {
            loop {
                sleep(every).await;
                if stream.read_u8().await.is_err() {
                    break;
                }
            }
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_to_a_peer_that_does_not_read_fails() {
        let (mut stream, theirs) = pair(&CancellationToken::new());
        assert_eq!(write(&mut stream, 8).await, (Duration::ZERO, None), "bytes that fit into buffers do not wait");
        let (took, error) = write(&mut stream, 1).await;
        assert_eq!(error, Some(io::ErrorKind::TimedOut));
        assert!((10_000..10_100).contains(&took.as_millis()), "{took:?}");
        drop(theirs);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_has_a_time_limit_for_the_whole_backlog() {
        for (bytes, error, took) in [(8 + 5, None, 25..26), (8 + 20, Some(io::ErrorKind::TimedOut), 30..31)] {
            let (mut stream, theirs) = pair(&CancellationToken::new());
            trickle(theirs, Duration::from_secs(5));
            let result = write(&mut stream, bytes).await;
            assert_eq!(result.1, error, "{bytes}");
            assert!(took.contains(&result.0.as_secs()), "{bytes}: {:?}", result.0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_limit_starts_again_after_a_flush() {
        let (mut stream, theirs) = pair(&CancellationToken::new());
        trickle(theirs, Duration::from_secs(5));
        for _ in 0..20 {
            assert_eq!(write(&mut stream, 4).await.1, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn at_closing_a_stalled_peer_fails_at_once_and_others_after_a_second() {
        for (before, took) in [(5_000, 5_000..5_100), (200, 1_000..1_100)] {
            let closing = CancellationToken::new();
            let (mut stream, _theirs) = pair(&closing);
            let close = async {
                sleep(Duration::from_millis(before)).await;
                closing.cancel();
            };
            let closing = closing.clone();
            let write = async {
                // Servers are woken by closing as well.
                let mut write = std::pin::pin!(write(&mut stream, 9));
                tokio::select! {
                    result = write.as_mut() => return result,
                    () = closing.cancelled() => {}
                }
                write.await
            };
            let (result, ()) = tokio::join!(write, close);
            assert_eq!(result.1, Some(io::ErrorKind::TimedOut));
            assert!(took.contains(&result.0.as_millis()), "{before}: {:?}", result.0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn at_closing_reads_fail_unless_the_connection_is_busy() {
        let closing = CancellationToken::new();
        let (stream, _theirs) = pair(&closing);
        let activity = Arc::new(Activity::default());
        let mut stream = stream.with_activity(Arc::clone(&activity));
        let minute = Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, stream.read_u8()).await.is_err(), "the port is open");
        closing.cancel();
        activity.set_busy(true);
        assert!(tokio::time::timeout(minute, stream.read_u8()).await.is_err(), "the connection is busy");
        activity.set_busy(false);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
