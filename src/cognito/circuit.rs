//! Circuit breaker for calls to Cognito.
//!
//! After [`FAILURES`] failures in a row the circuit opens: calls fail at once instead of waiting for a timeout. After
//! [`PAUSE`] one call is let through as a probe; if Cognito answers it, the circuit closes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::request_id;

/// Number of consecutive failures that open the circuit.
const FAILURES: u32 = 10;
/// Time for which the circuit stays open before a probe is let through.
const PAUSE: Duration = Duration::from_secs(5);

/// Circuit breaker, shared by all calls of a client.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    opened: Option<Instant>,
    /// `true` while a probe is running.
    probing: bool,
}

/// Permission for one call. If it is dropped without a result, because the caller has gone away, it counts neither as
/// success nor as failure.
#[derive(Debug)]
pub(super) struct Pass<'c> {
    circuit: &'c Circuit,
    probe: bool,
}

impl Circuit {
    /// Returns permission for one call, or `None` while the circuit is open.
    pub(super) fn enter(&self) -> Option<Pass<'_>> {
        self.change(|state| match state.opened {
            None => Some(Pass { circuit: self, probe: false }),
            Some(opened) if opened.elapsed() >= PAUSE && !state.probing => {
                state.probing = true;
                Some(Pass { circuit: self, probe: true })
            }
            Some(_) => None,
        })
    }

    /// `true` while calls fail at once.
    pub(super) fn is_open(&self) -> bool {
        self.change(|state| state.opened.is_some())
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pass<'_> {
    /// Reports that Cognito answered, possibly with an error of its own.
    pub(super) fn answered(self) {
        let closed = self.circuit.change(|state| {
            state.failures = 0;
            state.opened.take()
        });
        if closed.is_some() {
            tracing::info!(request_id = request_id::current(), "Cognito answers again");
        }
    }

    /// Reports that Cognito could not be reached, timed out, or failed.
    pub(super) fn failed(self) {
        let opened = self.circuit.change(|state| {
            state.failures = state.failures.saturating_add(1);
            let opens = self.probe || (state.opened.is_none() && state.failures >= FAILURES);
            if opens {
                state.opened = Some(Instant::now());
            }
            opens && !self.probe
        });
        if opened {
            let request_id = request_id::current();
            tracing::warn!(request_id, failures = FAILURES, pause = ?PAUSE, "Cognito fails: it is left alone for a while");
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.circuit.change(|state| state.probing = false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(circuit: &Circuit, times: u32) {
        for _ in 0..times {
            circuit.enter().unwrap().failed();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_failures_in_a_row_open_the_circuit_and_one_answer_closes_it() {
        let circuit = Circuit::default();
        fail(&circuit, FAILURES - 1);
        circuit.enter().unwrap().answered();
        fail(&circuit, FAILURES - 1);
        assert!(circuit.enter().is_some(), "fewer than ten in a row");
        fail(&circuit, 1);
        assert!(circuit.enter().is_none());

        tokio::time::advance(PAUSE).await;
        let probe = circuit.enter().unwrap();
        assert!(circuit.enter().is_none(), "one probe at a time");
        probe.failed();
        assert!(circuit.enter().is_none(), "a failed probe opens the circuit again");

        tokio::time::advance(PAUSE).await;
        drop(circuit.enter().unwrap());
        circuit.enter().unwrap().answered();
        assert!(circuit.enter().is_some());
        fail(&circuit, FAILURES - 1);
        assert!(circuit.enter().is_some(), "counting starts again at zero");
    }

    #[tokio::test(start_paused = true)]
    async fn late_failures_of_earlier_calls_do_not_keep_the_circuit_open() {
        let circuit = Circuit::default();
        let late = circuit.enter().unwrap();
        fail(&circuit, FAILURES);
        tokio::time::advance(PAUSE).await;
        late.failed();
        assert!(circuit.enter().is_some());
    }
}
