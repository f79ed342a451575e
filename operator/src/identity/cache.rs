//! What the API server said of tokens a short time ago.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use maplatency_proto::Token;
use ring::digest::{SHA256, digest};

use super::{Caller, Refusal};

/// How long a yes holds at most. A pod that is deleted may so be taken for an agent for this long.
const YES: Duration = Duration::from_secs(30);
/// How long a no holds. A service account may have been made a moment too late.
const NO: Duration = Duration::from_secs(5);
/// Answers that are kept.
const MOST: usize = 4096;

/// Answers by the hash of their token, so that no token stays in memory for this.
#[derive(Debug)]
pub(super) struct Cache {
    known: HashMap<[u8; 32], Known>,
    /// How long a yes holds.
    yes: Duration,
}

#[derive(Debug)]
struct Known {
    outcome: Result<Caller, Refusal>,
    until: Instant,
}

impl Cache {
    /// Empty. An answer holds no longer than until a stream is asked about again.
    pub(super) fn new(again: Duration) -> Self {
        Self {
            known: HashMap::new(),
            yes: YES.min(again),
        }
    }

    pub(super) fn get(&self, token: &Token, now: Instant) -> Option<Result<Caller, Refusal>> {
        let known = self.known.get(&hash(token))?;
        (now < known.until).then(|| known.outcome.clone())
    }

    /// Keeps an answer. Where there is no room, the one that would end first goes.
    pub(super) fn put(&mut self, token: &Token, outcome: &Result<Caller, Refusal>, now: Instant) {
        let life = match outcome {
            Ok(_) => self.yes,
            Err(refusal) if refusal.lasts() => NO,
            Err(_) => return,
        };
        if self.known.len() >= MOST {
            self.known.retain(|_, it| now < it.until);
        }
        if self.known.len() >= MOST {
            let first = self.known.iter().min_by_key(|it| it.1.until);
            if let Some(key) = first.map(|it| *it.0) {
                self.known.remove(&key);
            }
        }
        let known = Known {
            outcome: outcome.clone(),
            until: now + life,
        };
        self.known.insert(hash(token), known);
    }
}

fn hash(token: &Token) -> [u8; 32] {
    let digest = digest(&SHA256, token.secret().as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn token(text: &str) -> Token {
        Token::new(text.to_owned()).unwrap()
    }

    fn caller() -> Caller {
        Caller {
            node: "node-a".to_owned(),
            pod: "pod".to_owned(),
            expires: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn answers_hold_for_less_than_a_minute_and_only_for_their_token() {
        let (mut cache, begin) = (Cache::new(YES), Instant::now());
        cache.put(&token("yes"), &Ok(caller()), begin);
        cache.put(&token("no"), &Err(Refusal::Rejected), begin);

        assert_eq!(cache.get(&token("other"), begin), None);
        let soon = begin + Duration::from_secs(4);
        assert_eq!(cache.get(&token("yes"), soon), Some(Ok(caller())));
        assert_eq!(cache.get(&token("no"), soon), Some(Err(Refusal::Rejected)));
        let later = begin + Duration::from_secs(29);
        assert_eq!(cache.get(&token("no"), later), None);
        assert_eq!(cache.get(&token("yes"), later), Some(Ok(caller())));
        assert_eq!(cache.get(&token("yes"), begin + YES), None);
        assert!(YES < Duration::from_mins(1));
    }

    #[test]
    fn that_the_api_server_did_not_answer_is_forgotten_at_once() {
        let (mut cache, now) = (Cache::new(YES), Instant::now());
        for refusal in [Refusal::NoReview("down".to_owned()), Refusal::TooMany] {
            cache.put(&token("a"), &Err(refusal), now);
            assert_eq!(cache.get(&token("a"), now), None);
        }
    }

    #[test]
    fn garbage_does_not_fill_memory_nor_push_out_agents() {
        let (mut cache, now) = (Cache::new(YES), Instant::now());
        cache.put(&token("agent"), &Ok(caller()), now);
        for at in 0..2 * MOST {
            cache.put(&token(&format!("g{at}")), &Err(Refusal::Rejected), now);
        }
        assert!(cache.known.len() <= MOST);
        assert_eq!(cache.get(&token("agent"), now), Some(Ok(caller())));
    }
}
