//! Why a message is refused, and the checks that several messages share.

use std::fmt;
use std::time::Duration;

use maplatency_core::histogram::InvalidHistogram;

/// A message that breaks the protocol: which field, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidMessage {
    /// Path of the field, such as `report.probes[0].rows[3].cpu`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A message or choice that has to be there is not.
    #[error("is missing")]
    Missing,
    /// A text that is not of the form that the field asks for.
    #[error("is not {0}")]
    Form(&'static str),
    /// A number beyond its range.
    #[error("is {value}, not within {least} to {most}")]
    Range {
        /// The number.
        value: i128,
        /// Smallest that is allowed.
        least: i128,
        /// Largest that is allowed.
        most: i128,
    },
    /// A list with too many items.
    #[error("has {length} items; at most {most} are allowed")]
    Length {
        /// Number of items.
        length: usize,
        /// Largest that is allowed.
        most: usize,
    },
    /// A number that names nothing known to this version.
    #[error("is {0}, which this version does not know")]
    Unknown(i64),
    /// The same key stands there twice.
    #[error("repeats an item before it")]
    Repeated,
    /// Buckets and counts that make up no histogram.
    #[error("is no histogram: {0}")]
    Histogram(InvalidHistogram),
}

impl InvalidMessage {
    pub(crate) fn new(field: impl Into<String>, problem: Problem) -> Self {
        Self {
            field: field.into(),
            problem,
        }
    }

    /// Puts the name of the message that holds the field in front.
    pub(crate) fn within(mut self, outer: impl fmt::Display) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

/// The outcome of one check.
pub(crate) type Checked<T> = Result<T, InvalidMessage>;

pub(crate) fn present<T>(field: &str, value: Option<T>) -> Checked<T> {
    value.ok_or_else(|| InvalidMessage::new(field, Problem::Missing))
}

pub(crate) fn form(
    field: &str,
    value: String,
    form: &'static str,
    holds: impl Fn(&str) -> bool,
) -> Checked<String> {
    if holds(&value) {
        Ok(value)
    } else {
        Err(InvalidMessage::new(field, Problem::Form(form)))
    }
}

/// Text for people or of the kernel: printable and of limited length.
pub(crate) fn text(
    field: &str,
    value: String,
    most: usize,
    wanted: &'static str,
) -> Checked<String> {
    form(field, value, wanted, |it| {
        !it.is_empty() && it.len() <= most && !it.chars().any(char::is_control)
    })
}

pub(crate) fn dns_subdomain(field: &str, value: String) -> Checked<String> {
    form(
        field,
        value,
        "a DNS-1123 subdomain of at most 253 characters",
        |it| {
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            let part = |part: &str| {
                part.bytes().all(inner)
                    && !part.is_empty()
                    && !part.starts_with('-')
                    && !part.ends_with('-')
            };
            it.len() <= 253 && it.split('.').all(part)
        },
    )
}

/// A name as the kernel keeps it, in 15 bytes; a byte that is no UTF-8 becomes three.
pub(crate) fn kernel_name(field: &str, value: String) -> Checked<String> {
    form(field, value, "at most 45 bytes", |it| it.len() <= 45)
}

pub(crate) fn hexadecimal_id(field: &str, value: String) -> Checked<String> {
    form(field, value, "1 to 64 hexadecimal digits and '-'", |it| {
        (1..=64).contains(&it.len()) && it.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
    })
}

pub(crate) fn uid(value: String) -> Checked<String> {
    form("uid", value, "1 to 64 letters, digits and '-'", |it| {
        (1..=64).contains(&it.len()) && it.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

pub(crate) fn range<T: Copy + Into<i128>>(
    field: &str,
    value: T,
    least: impl Into<i128>,
    most: impl Into<i128>,
) -> Checked<T> {
    let (least, most) = (least.into(), most.into());
    if (least..=most).contains(&value.into()) {
        Ok(value)
    } else {
        let value = value.into();
        Err(InvalidMessage::new(
            field,
            Problem::Range { value, least, most },
        ))
    }
}

/// A moment up to the year 9999, the last that a timestamp can tell.
pub(crate) fn unix_microseconds(field: &str, value: i64) -> Checked<i64> {
    range(field, value, 0, 253_402_207_200_000_000_i64)
}

/// A share of a whole.
pub(crate) fn parts_per_million(field: &str, value: u64) -> Checked<u64> {
    range(field, value, 0, 1_000_000)
}

pub(crate) fn length(field: &str, length: usize, most: usize) -> Checked<()> {
    if length <= most {
        Ok(())
    } else {
        Err(InvalidMessage::new(field, Problem::Length { length, most }))
    }
}

/// Converts every item, and names the one that is refused.
pub(crate) fn each<T, U>(
    field: &str,
    items: impl IntoIterator<Item = T>,
    mut convert: impl FnMut(T) -> Checked<U>,
) -> Checked<Vec<U>> {
    items
        .into_iter()
        .enumerate()
        .map(|(at, it)| convert(it).map_err(|e| e.within(format_args!("{field}[{at}]"))))
        .collect()
}

/// Names an item as a repetition, in the place of its key.
pub(crate) fn repeated(field: &str, at: usize, key: &str) -> InvalidMessage {
    InvalidMessage::new(format!("{field}[{at}].{key}"), Problem::Repeated)
}

/// 584 years fit.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
