//! Collects mistakes with their fields.

use std::fmt;
use std::str::FromStr;

use super::{InvalidSpec, Problem};

pub(super) fn check_globs<T: FromStr<Err: fmt::Display>>(
    path: &str,
    patterns: &[String],
    room: Room,
    empty: Empty,
    problems: &mut Problems,
) -> Vec<T> {
    problems.set(path, patterns, room.items, empty);
    let mut globs = Vec::with_capacity(patterns.len());
    for (n, pattern) in patterns.iter().enumerate() {
        let length = pattern.chars().count();
        if length > room.characters {
            let most = room.characters;
            let advice = format!("has {length} characters; at most {most} are allowed");
            problems.add(format!("{path}[{n}]"), advice);
            continue;
        }
        match pattern.parse() {
            Ok(glob) => globs.push(glob),
            Err(error) => problems.add(format!("{path}[{n}]"), format!("{pattern:?} {error}")),
        }
    }
    globs
}

/// What a list of patterns may hold.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// Patterns.
    pub(super) items: usize,
    /// Characters of each.
    pub(super) characters: usize,
}

/// Of commands, whoever's they are.
pub(super) const COMMANDS: Room = Room {
    items: 8,
    characters: 63,
};

/// What an empty list is.
#[derive(Clone, Copy)]
pub(super) enum Empty {
    Fine,
    /// A mistake, while the field may be left out.
    Wrong,
    /// A mistake in a field that has to be there.
    WrongAndNeeded,
}

impl Empty {
    /// In one of several fields of which at least one has to be there.
    pub(super) fn among<const N: usize>(given: [bool; N]) -> Self {
        if given.into_iter().filter(|it| *it).count() == 1 {
            Self::WrongAndNeeded
        } else {
            Self::Wrong
        }
    }
}

/// Collects mistakes, so that a user sees all of them at once.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, field: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Problem {
            field: field.into(),
            advice: advice.into(),
        });
    }

    pub(super) fn length(&mut self, field: &str, length: usize, most: usize, empty: Empty) {
        if length > most {
            self.add(
                field,
                format!("has {length} items; at most {most} are allowed"),
            );
        }
        match (length, empty) {
            (0, Empty::Wrong) => {
                self.add(field, "is empty; list at least one, or leave the field out");
            }
            (0, Empty::WrongAndNeeded) => self.add(field, "is empty; list at least one"),
            _ => (),
        }
    }

    /// A list in which nothing may stand twice.
    pub(super) fn set<T: PartialEq + fmt::Debug>(
        &mut self,
        field: &str,
        items: &[T],
        most: usize,
        empty: Empty,
    ) {
        self.length(field, items.len(), most, empty);
        for (n, item) in items.iter().enumerate() {
            if items[..n].contains(item) {
                let advice = format!("{item:?} stands there twice; keep one of them");
                self.add(format!("{field}[{n}]"), advice);
            }
        }
    }

    pub(super) fn range(&mut self, field: &str, value: i64, least: u32, most: u32) -> u64 {
        if (i64::from(least)..=i64::from(most)).contains(&value) {
            return u64::try_from(value).unwrap_or_default();
        }
        self.add(
            field,
            format!("is {value}; write a number from {least} to {most}"),
        );
        u64::from(least)
    }

    pub(super) fn into_result<T>(self, value: impl FnOnce() -> T) -> Result<T, InvalidSpec> {
        if self.0.is_empty() {
            Ok(value())
        } else {
            Err(InvalidSpec(self.0))
        }
    }
}
