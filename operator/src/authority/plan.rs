//! What is to be done next about the CA. Knows times and nothing of keys.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Certificates are valid from this long before they are made, since clocks of nodes differ.
pub(super) const BACKDATED: Duration = Duration::from_mins(10);
/// Longest time between two looks: so long a change by someone else stays unseen.
const LONGEST: Duration = Duration::from_secs(30);
const SHORTEST: Duration = Duration::from_millis(250);

/// How long things last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A CA.
    pub ca: Duration,
    /// A certificate that it signs.
    pub certificate: Duration,
    /// From when a CA is published until every agent is sure to know it.
    pub spread: Duration,
}

impl Terms {
    /// Often enough that nothing is late by more than a part of the shortest time.
    pub(super) fn between_looks(self) -> Duration {
        let shortest = self.certificate.min(self.ca).min(self.spread) / 8;
        shortest.clamp(SHORTEST, LONGEST)
    }
}

/// From when until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) made: Timestamp,
    pub(super) ends: Timestamp,
}

impl Validity {
    /// Whether the last third has begun, or it was made for a longer life than is wanted now.
    fn is_due(self, life: Duration, now: Timestamp) -> bool {
        let total = self.ends.duration_since(self.made);
        let left = self.ends.duration_since(now);
        // Clocks of replicas differ, too.
        left * 3 <= total || left > signed(life + BACKDATED)
    }
}

/// What the Secret holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The CA that signs.
    pub(super) ca: Validity,
    /// Whether there is one that will sign.
    pub(super) has_next: bool,
    /// Whether one that signed before is still trusted.
    pub(super) has_previous: bool,
    /// The certificate. `None` if it is none, or agents would not take it.
    pub(super) certificate: Option<Validity>,
}

/// One change. Each leaves everything usable, so the process may end after any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A first CA and its certificate.
    Begin,
    /// Tells agents whom to trust.
    Publish,
    /// Makes the CA that will sign.
    Prepare,
    /// Signs with it, from now on.
    Promote,
    /// Makes another certificate by the same CA.
    Renew,
    /// Trusts the CA that signed before no longer.
    Retire,
}

/// The next step. `published` is since when the ConfigMap holds exactly what it should.
pub(super) fn next(
    facts: Option<&Facts>,
    published: Option<Timestamp>,
    terms: Terms,
    now: Timestamp,
) -> Option<Step> {
    let Some(facts) = facts else {
        return Some(Step::Begin);
    };
    let has_ended = facts.ca.ends <= now;
    if has_ended && !facts.has_next {
        return Some(Step::Begin);
    }
    let Some(since) = published else {
        return Some(Step::Publish);
    };
    let spread = signed(terms.spread);
    if facts.has_next && (has_ended || now.duration_since(since) >= spread) {
        return Some(Step::Promote);
    }
    if !facts.has_next && facts.ca.is_due(terms.ca, now) {
        return Some(Step::Prepare);
    }
    let Some(certificate) = facts.certificate else {
        return Some(Step::Renew);
    };
    if certificate.is_due(terms.certificate, now) {
        return Some(Step::Renew);
    }
    // Other replicas may serve with a certificate of the old CA for a while. The order of the bundle tells who signs, so
    // it was published anew when that changed; certificates may be made anew at any time.
    let is_known = now.duration_since(since) >= spread;
    (facts.has_previous && is_known).then_some(Step::Retire)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        ca: Duration::from_mins(150),
        certificate: Duration::from_mins(15),
        spread: Duration::from_secs(100),
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn lasting(made: i64, ends: i64) -> Validity {
        Validity {
            made: at(made),
            ends: at(ends),
        }
    }

    fn fresh() -> Facts {
        Facts {
            ca: lasting(0, 9_000),
            has_next: false,
            has_previous: false,
            certificate: Some(lasting(0, 900)),
        }
    }

    fn next_at(second: i64, facts: &Facts, published: Option<i64>) -> Option<Step> {
        next(Some(facts), published.map(at), TERMS, at(second))
    }

    #[test]
    fn nothing_is_done_while_nothing_is_due() {
        assert_eq!(next_at(1, &fresh(), Some(0)), None);
        assert_eq!(next_at(599, &fresh(), Some(0)), None);
    }

    #[test]
    fn without_keys_it_begins_and_then_publishes() {
        assert_eq!(next(None, Some(at(0)), TERMS, at(1)), Some(Step::Begin));
        assert_eq!(next_at(1, &fresh(), None), Some(Step::Publish));
    }

    #[test]
    fn a_certificate_is_renewed_in_its_last_third_or_when_agents_would_not_take_it() {
        assert_eq!(next_at(600, &fresh(), Some(0)), Some(Step::Renew));
        let without = Facts {
            certificate: None,
            ..fresh()
        };
        assert_eq!(next_at(1, &without, Some(0)), Some(Step::Renew));
    }

    #[test]
    fn what_was_made_for_a_longer_life_is_replaced_once_a_shorter_one_is_wanted() {
        let long = Facts {
            certificate: Some(lasting(0, 5_000)),
            ..fresh()
        };
        assert_eq!(next_at(1, &long, Some(0)), Some(Step::Renew));
        let long = Facts {
            ca: lasting(0, 90_000),
            ..fresh()
        };
        assert_eq!(next_at(1, &long, Some(0)), Some(Step::Prepare));
    }

    #[test]
    fn a_new_ca_signs_only_after_the_bundle_with_both_was_out_long_enough() {
        let due = fresh();
        assert_eq!(next_at(6_000, &due, Some(0)), Some(Step::Prepare));
        let prepared = Facts {
            has_next: true,
            certificate: Some(lasting(5_900, 6_800)),
            ..fresh()
        };
        assert_eq!(next_at(6_000, &prepared, None), Some(Step::Publish));
        assert_eq!(next_at(6_001, &prepared, Some(6_001)), None);
        assert_eq!(next_at(6_100, &prepared, Some(6_001)), None);
        assert_eq!(next_at(6_101, &prepared, Some(6_001)), Some(Step::Promote));
    }

    #[test]
    fn the_old_ca_is_trusted_until_its_certificates_are_out_of_use() {
        let promoted = Facts {
            ca: lasting(6_000, 15_000),
            has_next: false,
            has_previous: true,
            certificate: Some(lasting(6_101, 7_001)),
        };
        assert_eq!(next_at(6_200, &promoted, Some(6_101)), None);
        assert_eq!(next_at(6_201, &promoted, Some(6_101)), Some(Step::Retire));
        let renewed = Facts {
            certificate: Some(lasting(6_199, 7_099)),
            ..promoted
        };
        assert_eq!(next_at(6_201, &renewed, Some(6_101)), Some(Step::Retire));
    }

    #[test]
    fn a_ca_that_has_ended_waits_for_nobody() {
        let alone = fresh();
        assert_eq!(next_at(9_000, &alone, Some(0)), Some(Step::Begin));
        let prepared = Facts {
            has_next: true,
            ..fresh()
        };
        assert_eq!(next_at(9_000, &prepared, Some(8_999)), Some(Step::Promote));
    }

    #[test]
    fn looks_are_often_enough_for_the_shortest_term_and_seldom_otherwise() {
        assert_eq!(TERMS.between_looks(), Duration::from_millis(12_500));
        let long = Terms {
            ca: Duration::from_hours(24 * 365),
            certificate: Duration::from_hours(24 * 30),
            spread: Duration::from_mins(15),
        };
        assert_eq!(long.between_looks(), LONGEST);
        let short = Terms {
            spread: Duration::from_millis(10),
            ..TERMS
        };
        assert_eq!(short.between_looks(), SHORTEST);
    }
}
