//! The exact record of every read, written without allocating.

use std::io::{self, Write};

use anyhow::{Context, Result};

use crate::clock::SECOND;

/// A list of times with room for a number that is fixed beforehand.
///
/// Four bytes hold all but the times over 4.29 seconds, which have a small list of their own: a
/// stopped process must not falsify the maximum.
#[derive(Debug)]
pub(crate) struct Times {
    short: Vec<u32>,
    /// Position and time of each one that four bytes cannot hold, in ascending order of position.
    long: Vec<(usize, u64)>,
}

/// Times over 4.29 s that are kept exactly; more of them would mean a run of over an hour.
const LONG_TIMES: usize = 1_024;

impl Times {
    /// Room for `capacity` times, all of it resident in memory.
    pub(crate) fn with_capacity(capacity: usize) -> Result<Self> {
        let mut short = Vec::new();
        short
            .try_reserve_exact(capacity)
            .with_context(|| format!("could not reserve memory for {capacity} reads"))?;
        // Writing, with anything but zeros, makes the kernel hand out the pages now.
        short.resize(capacity, u32::MAX);
        short.clear();
        Ok(Self {
            short,
            long: Vec::with_capacity(LONG_TIMES),
        })
    }

    /// Adds a time; false when there is no room.
    #[inline]
    pub(crate) fn push(&mut self, time: u64) -> bool {
        if self.short.len() == self.short.capacity() {
            return false;
        }
        let short = u32::try_from(time).unwrap_or(u32::MAX);
        if short == u32::MAX && self.long.len() < LONG_TIMES {
            self.long.push((self.short.len(), time));
        }
        self.short.push(short);
        true
    }

    /// How many times there are.
    pub(crate) fn len(&self) -> usize {
        self.short.len()
    }

    /// The times from position `first` up to, but without, `end`, in their order.
    pub(crate) fn range(&self, first: usize, end: usize) -> impl Iterator<Item = u64> + Clone {
        let from = self.long.partition_point(|it| it.0 < first);
        let mut long = self.long[from..].iter().peekable();
        self.short[first..end]
            .iter()
            .zip(first..)
            .map(move |(&short, position)| {
                long.next_if(|it| it.0 == position)
                    .map_or(u64::from(short), |it| it.1)
            })
    }

    /// The time at `position`, which is below [`Times::len`].
    pub(crate) fn at(&self, position: usize) -> u64 {
        self.long
            .binary_search_by_key(&position, |it| it.0)
            .map_or(u64::from(self.short[position]), |found| self.long[found].1)
    }

    /// The times from position `first` up to, but without, `end`, in ascending order.
    pub(crate) fn sorted(&self, first: usize, end: usize) -> Self {
        let mut short = self.short[first..end].to_vec();
        short.sort_unstable();
        let inside = self.long.iter().filter(|it| (first..end).contains(&it.0));
        let mut times: Vec<u64> = inside.map(|it| it.1).collect();
        times.sort_unstable();
        // Whatever has no room in four bytes is at the end.
        let positions = short.len() - times.len()..;
        Self {
            short,
            long: positions.zip(times).collect(),
        }
    }

    /// All times in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + Clone {
        self.range(0, self.len())
    }
}

/// What the reader writes down about each read.
#[derive(Debug)]
pub(crate) struct Record {
    origin: u64,
    latencies: Times,
    delays: Times,
    /// The position of the first read that began in each second of the run, or later.
    seconds: Vec<usize>,
    next_second: u64,
    unrecorded: u64,
}

/// Seconds that a record can tell apart; 24 hours and a bit.
const SECONDS: usize = 90_000;

impl Record {
    /// A record of up to `capacity` reads. With `paced` it keeps how late each of them began.
    pub(crate) fn new(capacity: usize, paced: bool) -> Result<Self> {
        let mut seconds = vec![1; SECONDS];
        seconds.clear();
        Ok(Self {
            origin: 0,
            latencies: Times::with_capacity(capacity)?,
            delays: Times::with_capacity(if paced { capacity } else { 0 })?,
            seconds,
            next_second: 0,
            unrecorded: 0,
        })
    }

    /// Sets the moment that seconds are counted from. Comes before the first read.
    pub(crate) fn begin(&mut self, origin: u64) {
        self.origin = origin;
        self.next_second = origin;
    }

    /// Adds a read that began at `start`, `delay` after it was due; true for the first read of a
    /// second.
    #[inline]
    pub(crate) fn push(&mut self, start: u64, latency: u64, delay: u64) -> bool {
        let new_second = start >= self.next_second;
        if new_second {
            self.turn_to(start);
        }
        if self.latencies.push(latency) {
            self.delays.push(delay);
        } else {
            self.unrecorded += 1;
        }
        new_second
    }

    #[cold]
    fn turn_to(&mut self, start: u64) {
        while self.next_second <= start {
            if self.seconds.len() < SECONDS && self.unrecorded == 0 {
                self.seconds.push(self.latencies.len());
            }
            self.next_second += SECOND;
        }
    }

    /// The moment that seconds are counted from.
    pub(crate) fn origin(&self) -> u64 {
        self.origin
    }

    /// How long each read took.
    pub(crate) fn latencies(&self) -> &Times {
        &self.latencies
    }

    /// How late each read began; empty of a reader without a schedule.
    pub(crate) fn delays(&self) -> &Times {
        &self.delays
    }

    /// How many reads there were for which there was no room.
    pub(crate) fn unrecorded(&self) -> u64 {
        self.unrecorded
    }

    /// The positions, first and end, of the reads that began in each second.
    pub(crate) fn seconds(&self) -> impl Iterator<Item = (usize, usize)> {
        let ends = self.seconds.iter().skip(1).copied();
        self.seconds
            .iter()
            .copied()
            .zip(ends.chain([self.latencies.len()]))
    }

    /// Writes every latency as a little-endian 64-bit number of nanoseconds.
    pub(crate) fn write_latencies(&self, mut to: impl Write) -> io::Result<()> {
        for latency in self.latencies.iter() {
            to.write_all(&latency.to_le_bytes())?;
        }
        to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(capacity: usize, reads: &[(u64, u64)]) -> Record {
        let mut record = Record::new(capacity, false).unwrap();
        record.begin(100);
        for &(start, latency) in reads {
            record.push(start, latency, 0);
        }
        record
    }

    #[test]
    fn times_beyond_four_bytes_stay_exact_and_in_place() {
        let mut times = Times::with_capacity(4).unwrap();
        let all = [5, 7 * SECOND, u64::from(u32::MAX), 9 * SECOND];

        for time in all {
            assert!(times.push(time));
        }

        assert_eq!(times.iter().collect::<Vec<_>>(), all);
        assert_eq!(times.range(2, 4).collect::<Vec<_>>(), all[2..]);
    }

    #[test]
    fn sorting_keeps_long_times_exact() {
        let mut times = Times::with_capacity(5).unwrap();
        for time in [9 * SECOND, 5, 7 * SECOND, 3, 8 * SECOND] {
            times.push(time);
        }

        let sorted = times.sorted(0, 4);

        let expected = [3, 5, 7 * SECOND, 9 * SECOND];
        assert_eq!(sorted.iter().collect::<Vec<_>>(), expected);
        assert_eq!([0, 1, 2, 3].map(|it| sorted.at(it)), expected);
    }

    #[test]
    fn a_full_record_counts_what_it_cannot_keep() {
        let record = record(2, &[(100, 1), (101, 2), (102, 3), (103, 4)]);

        assert_eq!(record.latencies().iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(record.unrecorded(), 2);
    }

    #[test]
    fn a_record_neither_grows_nor_moves() {
        let mut times = Times::with_capacity(100).unwrap();
        let before = times.short.as_ptr();

        while times.push(1) {}

        assert_eq!(times.len(), 100);
        assert_eq!(times.short.as_ptr(), before);
    }

    #[test]
    fn reads_belong_to_the_second_they_began_in_and_silent_seconds_stay_empty() {
        let record = record(
            9,
            &[
                (100, 1),
                (99 + SECOND, 2),
                (100 + SECOND, 3),
                (100 + 3 * SECOND, 4),
            ],
        );

        let seconds: Vec<_> = record.seconds().collect();

        assert_eq!(seconds, [(0, 2), (2, 3), (3, 3), (3, 4)]);
    }

    #[test]
    fn the_file_is_little_endian_and_in_order() {
        let mut file = Vec::new();

        record(3, &[(100, 0x0102), (200, 5 * SECOND)])
            .write_latencies(&mut file)
            .unwrap();

        assert_eq!(file[..8], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(file[8..], (5 * SECOND).to_le_bytes());
    }
}
