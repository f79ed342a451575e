//! Holds the threads back until all are ready, so that they share one start.

use std::sync::{Condvar, Mutex, PoisonError};

/// Opens once, with the moment from which every thread counts.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        origin: u64,
    },
    Abandoned,
}

impl Gate {
    /// Lets the threads begin.
    pub(crate) fn open(&self, origin: u64) {
        self.turn(State::Open { origin });
    }

    /// Sends the threads away. Does nothing once the gate is open.
    pub(crate) fn abandon(&self) {
        self.turn(State::Abandoned);
    }

    fn turn(&self, to: State) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Closed) {
            *state = to;
            self.changed.notify_all();
        }
    }

    /// Waits for the start; none if there will be no start.
    pub(crate) fn wait(&self) -> Option<u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self
            .changed
            .wait_while(state, |state| matches!(state, State::Closed))
            .unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Open { origin } => Some(origin),
            State::Closed | State::Abandoned => None,
        }
    }
}
