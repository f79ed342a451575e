//! Why the probes could not be loaded.

use aya::programs::ProgramError;
use aya::{BtfError, EbpfError};
use maplatency_bpf::{Tier, sys};

use super::ReadError;
use super::tier::Refusal;
use super::tracefs::TracefsError;

/// The programs in which the tiers differ.
const HOOKS: [&str; 2] = ["enter_bpf", "exit_bpf"];

/// Calls by which the hooks prove themselves.
pub(super) const CHECK_CALLS: u64 = 16;

/// Why the probes could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not enough rights.
    #[error("loading probes needs root with CAP_SYS_ADMIN; run as root")]
    NotRoot,
    /// Not enough rights, though root.
    #[error(
        "the agent lacks CAP_SYS_ADMIN, without which the kernel neither lists maps (BPF_MAP_GET_NEXT_ID) nor opens them \
         by id (BPF_MAP_GET_FD_BY_ID); in a container: securityContext.capabilities.add: [SYS_ADMIN]"
    )]
    NotPermitted,
    /// The kernel does not describe its types.
    #[error(
        "the kernel offers no BTF at /sys/kernel/btf/vmlinux; it has to be built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    Btf(#[source] BtfError),
    /// No place to learn about tracepoints.
    #[error(transparent)]
    Tracefs(#[from] TracefsError),
    /// The kernel did not take the object.
    #[error("the kernel did not take the BPF object")]
    Object(#[source] EbpfError),
    /// The kernel did not take a program.
    #[error("could not {step} the program {program}")]
    Program {
        /// What was attempted.
        step: &'static str,
        /// Which one.
        program: &'static str,
        /// Why not.
        source: ProgramError,
    },
    /// A map of the object could not be used.
    #[error("could not use the BPF map {map}")]
    Map {
        /// Which one.
        map: &'static str,
        /// Why not.
        source: ReadError,
    },
    /// The kernel did not say which maps the programs use.
    #[error("could not ask the kernel which maps the probes use; that needs CAP_SYS_ADMIN")]
    OwnMaps(#[source] ProgramError),
    /// The agent could not make itself known to the kernel side.
    #[error("could not make the agent known to its own probes")]
    Identify(#[source] std::io::Error),
    /// The kernel did not say how many CPUs there may be.
    #[error("could not learn how many CPUs this host may have")]
    Cpus(#[source] sys::Error),
    /// The tier that was asked for does not work.
    #[error("the tier {tier} does not work here; --tier Auto takes the best that does")]
    OnlyTier {
        /// Which one.
        tier: Tier,
        /// Why not.
        source: Box<LoadError>,
    },
    /// No tier of hooks works.
    #[error("no hooks for bpf(2) work here: {}", list(.0))]
    NoTier(Vec<Refusal>),
    /// The hooks are attached, but do not see what they have to.
    #[error(
        "the probes are attached but saw {calls} of {CHECK_CALLS} calls and {switches} context switches of their own check; a wrong number is worse than none, so nothing is measured"
    )]
    Blind {
        /// Calls seen.
        calls: u64,
        /// Switches seen.
        switches: u64,
    },
}

impl LoadError {
    /// Whether other hooks may work all the same.
    pub(super) fn is_of_the_hooks(&self) -> bool {
        match self {
            Self::Program { program, .. } => HOOKS.contains(program),
            Self::Tracefs(_) | Self::Blind { .. } => true,
            _ => false,
        }
    }
}

fn list(refusals: &[Refusal]) -> String {
    let each: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    each.join("; ")
}

/// What became of a step with a program.
pub(super) fn refused(
    step: &'static str,
    program: &'static str,
) -> impl Fn(ProgramError) -> LoadError {
    move |source| LoadError::Program {
        step,
        program,
        source,
    }
}
