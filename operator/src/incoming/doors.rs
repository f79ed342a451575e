//! How many connections wait, and which.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Limits;
use crate::refusals::{Reason, Refusals};

/// Counts the connections that wait.
#[derive(Debug)]
pub(super) struct Doors {
    limits: Limits,
    refusals: Arc<Refusals>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_address: HashMap<IpAddr, usize>,
    all: usize,
}

/// The right to wait. Ends with the value.
#[derive(Debug)]
pub(super) struct Slot {
    doors: Arc<Doors>,
    address: IpAddr,
}

impl Doors {
    pub(super) fn new(limits: Limits, refusals: Arc<Refusals>) -> Self {
        Self {
            limits,
            refusals,
            waiting: Mutex::default(),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// `None` where too many wait.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let mut waiting = self.lock();
        let here = waiting.by_address.get(&address).copied().unwrap_or(0);
        if waiting.all >= self.limits.waiting || here >= self.limits.per_address {
            let example = format!("{address}: {here} connections without a stream");
            self.refusals.count(Reason::TooManyConnections, example);
            return None;
        }
        waiting.all += 1;
        waiting.by_address.insert(address, here + 1);
        Some(Slot {
            doors: Arc::clone(self),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut waiting = self.doors.lock();
        waiting.all -= 1;
        // Addresses without a connection leave nothing behind.
        match waiting.by_address.get_mut(&self.address) {
            Some(here) if *here > 1 => *here -= 1,
            _ => _ = waiting.by_address.remove(&self.address),
        }
    }
}

/// One connection's place: whether it waits, and since when.
#[derive(Debug)]
pub struct Place {
    doors: Arc<Doors>,
    address: IpAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    streams: usize,
    /// While it waits. `None` without a stream means that there was no room to wait again.
    slot: Option<Slot>,
    since: Instant,
}

impl Place {
    pub(super) fn new(slot: Slot) -> Self {
        Self {
            doors: Arc::clone(&slot.doors),
            address: slot.address,
            state: Mutex::new(State {
                streams: 0,
                slot: Some(slot),
                since: Instant::now(),
            }),
        }
    }

    /// A stream has shown what it is for; until the seat is dropped the connection does not wait.
    pub fn sit(self: &Arc<Self>) -> Seat {
        let mut state = self.lock();
        state.streams += 1;
        state.slot = None;
        Seat {
            place: Arc::clone(self),
        }
    }

    /// Whether it has waited for longer than `wait`, or may not wait. Counts it then.
    pub(super) fn is_overdue(&self, wait: Duration) -> bool {
        let state = self.lock();
        let is_overdue =
            state.streams == 0 && (state.slot.is_none() || state.since.elapsed() >= wait);
        if is_overdue {
            let example = format!("{}: opened no stream that lasts", self.address);
            self.doors.refusals.count(Reason::NoStream, example);
        }
        is_overdue
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream of a connection. Ends with the value.
#[derive(Debug)]
pub struct Seat {
    place: Arc<Place>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.place.lock();
        state.streams -= 1;
        if state.streams == 0 {
            state.since = Instant::now();
            state.slot = self.place.doors.enter(self.place.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const WAIT: Duration = Duration::from_hours(1);

    fn doors(per_address: usize, waiting: usize) -> Arc<Doors> {
        let limits = Limits {
            per_address,
            waiting,
            ..Limits::default()
        };
        Arc::new(Doors::new(limits, Arc::default()))
    }

    #[test]
    fn one_address_does_not_take_the_room_of_others() {
        let doors = doors(2, 3);
        let _first = doors.enter(HERE).unwrap();
        let second = doors.enter(HERE).unwrap();
        assert!(doors.enter(HERE).is_none());
        let _other = doors.enter(THERE).unwrap();
        assert!(doors.enter(THERE).is_none(), "no more over all");
        drop(second);
        assert!(doors.enter(THERE).is_some());
    }

    #[test]
    fn who_is_gone_leaves_nothing_behind() {
        let doors = doors(2, 2);
        drop((doors.enter(HERE), doors.enter(THERE)));
        let waiting = doors.lock();
        assert_eq!((waiting.all, waiting.by_address.len()), (0, 0));
    }

    #[test]
    fn a_connection_with_a_stream_does_not_wait() {
        let doors = doors(1, 1);
        let place = Arc::new(Place::new(doors.enter(HERE).unwrap()));
        assert!(!place.is_overdue(WAIT));
        assert!(place.is_overdue(Duration::ZERO));

        let seats = (place.sit(), place.sit());
        assert!(!place.is_overdue(Duration::ZERO));
        assert!(doors.enter(HERE).is_some(), "its slot is free");

        drop(seats.0);
        assert!(!place.is_overdue(Duration::ZERO), "one stream is left");
        drop(seats.1);
        assert!(!place.is_overdue(WAIT), "it waits again");
        assert!(doors.enter(HERE).is_none());
        drop(place);
        assert!(doors.enter(HERE).is_some());
    }

    #[test]
    fn where_there_is_no_room_to_wait_again_a_connection_is_over() {
        let doors = doors(1, 1);
        let place = Arc::new(Place::new(doors.enter(HERE).unwrap()));
        let seat = place.sit();
        let _another = doors.enter(THERE).unwrap();
        drop(seat);
        assert!(place.is_overdue(WAIT));
    }
}
