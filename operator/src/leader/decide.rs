//! What to do about the lease, from what was seen of it.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::LeaseSpec;

/// How long a record counts that does not say how long its holder keeps it.
const UNSAID: Duration = Duration::from_secs(15);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no lease.
    Create,
    /// It was given back, or its holder has not renewed it in time.
    Take,
    /// This process holds it.
    Renew,
    /// Another holds it, for so long unless it renews.
    Wait(Duration),
}

/// Decides for `me`. The record is as it is since `observed_since` by this process's own clock; what it says of points
/// in time was written by another clock and is not looked at. Where there is none, the holder of one that was deleted
/// may act until `promised_until`.
pub fn decide(
    lease: Option<&LeaseSpec>,
    me: &str,
    observed_since: Instant,
    promised_until: Option<Instant>,
    now: Instant,
) -> Step {
    let Some(lease) = lease else {
        let rest = promised_until.map(|it| it.saturating_duration_since(now));
        return match rest {
            None | Some(Duration::ZERO) => Step::Create,
            Some(rest) => Step::Wait(rest),
        };
    };
    match lease.holder_identity.as_deref() {
        None | Some("") => Step::Take,
        Some(holder) if holder == me => Step::Renew,
        Some(_) => {
            let unchanged = now.saturating_duration_since(observed_since);
            match promised(lease).checked_sub(unchanged) {
                None | Some(Duration::ZERO) => Step::Take,
                Some(rest) => Step::Wait(rest),
            }
        }
    }
}

/// For how long the holder may act after it has renewed: what it wrote itself, since ours may differ.
pub fn promised(lease: &LeaseSpec) -> Duration {
    let seconds = lease.lease_duration_seconds;
    let seconds = seconds.and_then(|it| u64::try_from(it).ok());
    seconds.map_or(UNSAID, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::Timestamp;

    fn lease(holder: Option<&str>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(6),
            ..LeaseSpec::default()
        }
    }

    fn after(milliseconds: u64, lease: &LeaseSpec) -> Step {
        let since = Instant::now();
        let now = since + Duration::from_millis(milliseconds);
        decide(Some(lease), "me", since, None, now)
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken_at_once() {
        let now = Instant::now();
        assert_eq!(decide(None, "me", now, None, now), Step::Create);
        assert_eq!(after(0, &lease(None)), Step::Take);
        assert_eq!(after(0, &lease(Some(""))), Step::Take);
    }

    #[test]
    fn a_lease_of_another_is_taken_when_its_record_has_not_changed_for_as_long_as_it_says() {
        let theirs = lease(Some("other"));
        assert_eq!(after(0, &theirs), Step::Wait(Duration::from_secs(6)));
        assert_eq!(after(5_999, &theirs), Step::Wait(Duration::from_millis(1)));
        assert_eq!(after(6_000, &theirs), Step::Take);
        assert_eq!(after(60_000, &theirs), Step::Take);
    }

    #[test]
    fn the_times_that_another_clock_wrote_do_not_matter() {
        for second in [-10_000_000_000, 0, 100_000_000_000] {
            let mut theirs = lease(Some("other"));
            let time = MicroTime(Timestamp::from_second(second).unwrap());
            theirs.renew_time = Some(time.clone());
            theirs.acquire_time = Some(time);
            assert_eq!(after(5_000, &theirs), Step::Wait(Duration::from_secs(1)));
            assert_eq!(after(6_000, &theirs), Step::Take);
        }
    }

    #[test]
    fn after_a_lease_was_deleted_its_holder_still_has_the_time_that_it_was_promised() {
        let now = Instant::now();
        let rest = Duration::from_secs(3);
        let until = Some(now + rest);
        assert_eq!(decide(None, "me", now, until, now), Step::Wait(rest));
        assert_eq!(decide(None, "me", now, until, now + rest), Step::Create);
    }

    #[test]
    fn the_holder_renews_however_late_it_looks() {
        assert_eq!(after(0, &lease(Some("me"))), Step::Renew);
        assert_eq!(after(60_000, &lease(Some("me"))), Step::Renew);
    }

    #[test]
    fn a_record_that_does_not_say_how_long_it_counts_is_not_taken_at_once() {
        for seconds in [None, Some(-1)] {
            let mut theirs = lease(Some("other"));
            theirs.lease_duration_seconds = seconds;
            assert_eq!(after(14_000, &theirs), Step::Wait(Duration::from_secs(1)));
            assert_eq!(after(15_000, &theirs), Step::Take);
        }
    }
}
