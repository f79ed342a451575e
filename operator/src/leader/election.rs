//! An election, or none.

use super::{Candidate, Lost};

/// An election with this candidate. Without one, this process leads from the start and for ever.
#[derive(Debug)]
pub struct Election(pub Option<Candidate>);

impl Election {
    /// Returns when this process leads.
    pub async fn acquire(&mut self) {
        if let Some(candidate) = &mut self.0 {
            candidate.acquire().await;
        }
    }

    /// Returns when this process leads no more, and says why.
    pub async fn lost(&mut self) -> Lost {
        let Some(candidate) = &mut self.0 else {
            return std::future::pending().await;
        };
        match candidate.keep().await {
            Err(lost) => lost,
        }
    }

    /// Lets another lead at once. To be called when nothing is written any more.
    pub async fn release(&mut self) {
        if let Some(candidate) = &mut self.0 {
            candidate.release().await;
        }
    }
}
