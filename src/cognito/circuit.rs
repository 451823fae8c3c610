//! A circuit breaker: once Cognito has failed often enough in a row, callers are told at once instead of waiting
//! for the next time-out, until one of them is let through to see whether it is back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open it.
const FAILURES: u32 = 10;
/// How long it stays open before one call is let through.
const PAUSE: Duration = Duration::from_secs(5);

/// The breaker.
#[derive(Debug, Default)]
pub struct Circuit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    opened: Option<Instant>,
    /// One call is out to see whether Cognito is back.
    probing: bool,
}

/// Leave to call. Dropped without a result (the caller has gone), it says nothing about Cognito.
#[derive(Debug)]
pub struct Pass<'c> {
    circuit: &'c Circuit,
    probe: bool,
}

impl Circuit {
    /// Leave to call, or none while the circuit is open.
    pub fn enter(&self) -> Option<Pass<'_>> {
        self.change(|state| match state.opened {
            None => Some(Pass { circuit: self, probe: false }),
            Some(opened) if opened.elapsed() >= PAUSE && !state.probing => {
                state.probing = true;
                Some(Pass { circuit: self, probe: true })
            }
            Some(_) => None,
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pass<'_> {
    /// Cognito has answered, be it with a refusal.
    pub fn answered(self) {
        let closed = self.circuit.change(|state| {
            state.failures = 0;
            state.opened.take()
        });
        if closed.is_some() {
            tracing::info!("Cognito answers again");
        }
    }

    /// Cognito could not be reached, was too slow, or failed.
    pub fn failed(self) {
        let opened = self.circuit.change(|state| {
            state.failures = state.failures.saturating_add(1);
            let opens = self.probe || (state.opened.is_none() && state.failures >= FAILURES);
            if opens {
                state.opened = Some(Instant::now());
            }
            opens && !self.probe
        });
        if opened {
            tracing::warn!(failures = FAILURES, pause = ?PAUSE, "Cognito fails: it is left alone for a while");
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
    async fn ten_failures_in_a_row_open_it_and_one_answer_closes_it() {
        let circuit = Circuit::default();
        fail(&circuit, FAILURES - 1);
        circuit.enter().unwrap().answered();
        fail(&circuit, FAILURES - 1);
        assert!(circuit.enter().is_some(), "not ten in a row");
        fail(&circuit, 1);
        assert!(circuit.enter().is_none());

        tokio::time::advance(PAUSE).await;
        let probe = circuit.enter().unwrap();
        assert!(circuit.enter().is_none(), "one is let through");
        probe.failed();
        assert!(circuit.enter().is_none(), "open for another while");

        tokio::time::advance(PAUSE).await;
        drop(circuit.enter().unwrap());
        circuit.enter().unwrap().answered();
        assert!(circuit.enter().is_some());
        fail(&circuit, FAILURES - 1);
        assert!(circuit.enter().is_some(), "counting begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_were_out_when_it_opened_do_not_keep_it_open() {
        let circuit = Circuit::default();
        let late = circuit.enter().unwrap();
        fail(&circuit, FAILURES);
        tokio::time::advance(PAUSE).await;
        late.failed();
        assert!(circuit.enter().is_some());
    }
}
