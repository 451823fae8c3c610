//! Log lines about events that a client can cause at any rate.

use std::time::Duration;

use tokio::time::Instant;

/// Minimum time between two log lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Events that are logged at most once per minute.
#[derive(Debug, Default)]
pub(crate) struct Occasional {
    /// Number of events since the last log line.
    count: u64,
    logged: Option<Instant>,
}

impl Occasional {
    /// Counts an event. Returns the number of events since the last log line if it is time for another one.
    pub(crate) fn count(&mut self) -> Option<u64> {
        self.count += 1;
        if self.logged.is_some_and(|at| at.elapsed() < INTERVAL) {
            return None;
        }
        self.logged = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_event_is_logged_and_later_ones_once_per_minute() {
        let mut events = Occasional::default();
        assert_eq!([events.count(), events.count(), events.count()], [Some(1), None, None]);
        tokio::time::advance(INTERVAL).await;
        assert_eq!([events.count(), events.count()], [Some(3), None]);
    }
}
