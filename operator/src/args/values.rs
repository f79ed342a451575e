//! What the values of flags may be.

use std::ops::RangeInclusive;
use std::time::Duration;

pub(super) fn report_period(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_secs(10);
    duration(text, range, "from 100ms to 10s")
}

pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(3)..=Duration::from_hours(24 * 3660);
    duration(text, range, "from 3s to 3660days")
}

pub(super) fn spread(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(1)..=Duration::from_hours(24);
    duration(text, range, "from 1s to 24h")
}

pub(super) fn review_period(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(5)..=Duration::from_hours(1);
    duration(text, range, "from 5s to 1h")
}

pub(super) fn lease_duration(text: &str) -> Result<Duration, String> {
    let words = "from 3s to 10m, in whole seconds";
    let range = Duration::from_secs(3)..=Duration::from_mins(10);
    match duration(text, range, words)? {
        lease if lease.subsec_nanos() == 0 => Ok(lease),
        _ => Err(format!("write a duration {words}")),
    }
}

fn duration(text: &str, range: RangeInclusive<Duration>, words: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if range.contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("write a duration {words}"))
    }
}

pub(super) fn process_name(text: &str) -> Result<String, String> {
    let fits = (1..=253).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("write the name of the pod: 1 to 253 printable characters".to_owned())
    }
}

pub(super) fn operator_url(text: &str) -> Result<String, String> {
    maplatency_proto::operator_url(text).map(|_| text.to_owned())
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fine = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fine {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 63 lowercase letters, digits and '-'".to_owned())
    }
}
