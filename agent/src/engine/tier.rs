//! Which hooks run on this kernel, and why not better ones.

use std::fmt;

use aya::programs::ProgramError;
use maplatency_bpf::Tier;
use nix::errno::Errno;

use super::LoadError;
use crate::error::chain;

/// The hooks that a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TierChoice {
    /// The first that the kernel takes, or the one of the last two that costs less with this host's system calls.
    #[default]
    Auto,
    /// These or none.
    Only(Tier),
}

impl TierChoice {
    /// The tiers to try, in this order.
    pub(super) fn candidates(self) -> Vec<Tier> {
        match self {
            Self::Auto => Tier::ALL.to_vec(),
            Self::Only(tier) => vec![tier],
        }
    }
}

/// A tier that does not run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which one.
    pub tier: Tier,
    /// Why not, in a few words.
    pub reason: String,
}

impl Refusal {
    /// Puts an error of loading into a few words.
    #[must_use]
    pub fn new(tier: Tier, error: &LoadError) -> Self {
        Self {
            tier,
            reason: reason(error),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} refused: {}", self.tier, self.reason)
    }
}

/// The kernel's own word, without the verifier's log.
fn reason(error: &LoadError) -> String {
    let LoadError::Program { step, source, .. } = error else {
        return chain(error);
    };
    word_of(source, step)
}

/// What the kernel said to a program at a step, without the verifier's log.
pub(super) fn word_of(error: &ProgramError, step: &str) -> String {
    let io_error = match error {
        ProgramError::LoadError { io_error, .. } | ProgramError::IOError(io_error) => io_error,
        ProgramError::SyscallError(call) => &call.io_error,
        other => return format!("{other} at {step}"),
    };
    match io_error.raw_os_error() {
        Some(number) => format!("{:?} at {step}", Errno::from_raw(number)),
        None => format!("{io_error} at {step}"),
    }
}

/// The tier that runs, and the better ones that do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningTier {
    /// What runs.
    pub tier: Tier,
    /// What was tried before.
    pub refusals: Vec<Refusal>,
}

impl fmt::Display for RunningTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tier)?;
        let refusals: Vec<String> = self.refusals.iter().map(ToString::to_string).collect();
        if refusals.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", refusals.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_tells_why_no_better_one_runs() {
        let eperm = std::io::Error::from_raw_os_error(libc::EPERM);
        let error = LoadError::Program {
            step: "load",
            program: "enter_bpf",
            source: ProgramError::IOError(eperm),
        };
        let running = RunningTier {
            tier: Tier::Tracepoint,
            refusals: vec![Refusal::new(Tier::Fentry, &error)],
        };
        assert_eq!(
            running.to_string(),
            "Tracepoint (Fentry refused: EPERM at load)"
        );
    }

    #[test]
    fn the_first_tier_needs_no_excuse() {
        let running = RunningTier {
            tier: Tier::Fentry,
            refusals: vec![],
        };
        assert_eq!(running.to_string(), "Fentry");
    }
}
