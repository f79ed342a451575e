//! Loads the programs, attaches them, and checks that they see what they must see.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::thread;
use std::time::Duration;

use aya::maps::{Array, HashMap, MapData, PerCpuArray, Queue, RingBuf};
use aya::programs::{BtfTracePoint, FEntry, FExit, RawTracePoint, TracePoint};
use aya::{Btf, Ebpf, EbpfLoader};
use maplatency_bpf::Tier;
use maplatency_bpf::layout::{Config, Role};
use maplatency_bpf::sys;
use maplatency_core::budget::Detail;
use nix::sys::resource::{UsageWho, getrusage};
use tracing::{debug, info, warn};

use super::Engine;
use super::callers::Callers;
use super::calls::Calls;
use super::drain::Blocks;
use super::handover::Handover;
use super::load_error::{CHECK_CALLS, LoadError, refused};
use super::outliers::Outliers;
use super::parts::{opened, program, program_fd, typed};
use super::slots::Slots;
use super::tier::{Refusal, RunningTier, TierChoice};
use super::{preemption, tracefs};
use crate::error::chain;

/// What the kernel calls the inside of bpf(2).
const FUNCTION: &str = "__sys_bpf";
/// What does the look-up in it.
const LOOKUP_FUNCTION: &str = "bpf_map_copy_value";
/// Why a tier is left out that loads.
const SKIPS_UNNOTICED: &str =
    "may skip calls unnoticed, as this kernel preempts fully and is older than 6.7";
/// Slices 0 and 1 would be taken for those of blocks that nothing was counted in.
const FIRST_SLICE: u32 = 2;
/// How long to sleep for the same, as often as needed.
const SLEEPS: [Duration; 5] = [
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];

impl Engine {
    /// Loads and attaches the probes, by the first of the chosen tiers that works. They count nothing before a probe is added.
    ///
    /// Call it on a thread that lives as long as the engine is used: where tracefs is not mounted, it is mounted
    /// for the calling thread alone.
    pub fn load(choice: TierChoice) -> Result<Self, LoadError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LoadError::NotRoot);
        }
        if !has_sys_admin() {
            return Err(LoadError::NotPermitted);
        }
        let btf = Btf::from_sys_fs().map_err(LoadError::Btf)?;
        let mut refusals = Vec::new();
        let mut last = None;
        for tier in choice.candidates() {
            if tier == Tier::Tracepoint && preemption::skips_tracepoints_unnoticed() {
                if choice == TierChoice::Auto {
                    let reason = SKIPS_UNNOTICED.to_owned();
                    refusals.push(Refusal { tier, reason });
                    continue;
                }
                warn!(%tier, "The hooks {SKIPS_UNNOTICED}; TpBtf skips none");
            }
            match Self::load_tier(tier, &btf) {
                Ok(mut engine) => {
                    if tier == Tier::Tracepoint
                        && choice == TierChoice::Auto
                        && let Some((cheaper, reason)) = engine.cheaper(&btf)?
                    {
                        refusals.push(Refusal { tier, reason });
                        engine = cheaper;
                    }
                    // Its work is done.
                    drop(engine.ebpf.take_map("call_counts"));
                    engine.tier.refusals = refusals;
                    info!(tier = %engine.tier, "Loaded the probes");
                    return Ok(engine);
                }
                Err(error) if !error.is_of_the_hooks() => return Err(error),
                Err(error) => {
                    debug!(%tier, error = chain(&error), "A tier does not work here");
                    refusals.push(Refusal::new(tier, &error));
                    last = Some(error);
                }
            }
        }
        // Where one tier was asked for, its own error tells more than a list of one.
        Err(match (choice, last) {
            (TierChoice::Only(tier), Some(error)) => LoadError::OnlyTier {
                tier,
                source: Box::new(error),
            },
            _ => LoadError::NoTier(refusals),
        })
    }

    /// Another tier, where the host's system calls make it cost less, and why that is.
    fn cheaper(&mut self, btf: &Btf) -> Result<Option<(Self, String)>, LoadError> {
        let calls = Calls::watch(&mut self.ebpf, btf)?;
        let percent_bpf = calls.share() * 100.0;
        info!(percent_bpf, "Watched the host's system calls for a second");
        if !calls.are_bpf_enough() {
            return Ok(None);
        }
        let reason = format!("costs more, as {percent_bpf:.0} % of system calls are bpf(2)");
        Ok(Self::load_tier(Tier::TpBtf, btf)
            .inspect_err(|error| debug!(error = chain(error), "TpBtf does not work here"))
            .ok()
            .map(|it| (it, reason)))
    }

    fn load_tier(tier: Tier, btf: &Btf) -> Result<Self, LoadError> {
        if tier == Tier::Tracepoint {
            tracefs::ensure()?;
        }
        let cpus = sys::possible_cpus().map_err(LoadError::Cpus)?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(btf))
            // Task storage, which only the kernel side touches.
            .allow_unsupported_maps()
            .map_max_entries("run_logs", super::count(cpus))
            .load(tier.object())
            .map_err(LoadError::Object)?;

        for name in ["identify", "take_role"] {
            raw_tracepoint(&mut ebpf, name)
                .load()
                .map_err(refused("load", name))?;
        }
        let identify = program_fd(&mut ebpf, "identify")?;
        let role = program_fd(&mut ebpf, "take_role")?;
        sys::run_raw_tracepoint(identify.as_fd(), 0).map_err(LoadError::Identify)?;
        attach(tier, &mut ebpf, btf)?;

        let own_maps = own_maps(&ebpf)?;
        let own = opened(&ebpf, "config")?;
        let config = typed(&mut ebpf, "config", Array::try_from)?;
        check(&config, &own, role.as_fd())?;
        Ok(Self {
            tier: RunningTier {
                tier,
                refusals: vec![],
            },
            targets: typed(&mut ebpf, "targets", HashMap::try_from)?,
            newcomers: typed(&mut ebpf, "newcomers", HashMap::try_from)?,
            probes: typed(&mut ebpf, "probes", Array::try_from)?,
            globs: typed(&mut ebpf, "globs", Array::try_from)?,
            losses: typed(&mut ebpf, "losses", PerCpuArray::try_from)?,
            blocks: Blocks::new(
                opened(&ebpf, "block_of")?,
                opened(&ebpf, "blocks")?,
                typed(&mut ebpf, "free_blocks", Queue::try_from)?,
            ),
            callers: Callers::new(
                typed(&mut ebpf, "caller_of", HashMap::try_from)?,
                opened(&ebpf, "callers")?,
                typed(&mut ebpf, "free_callers", Queue::try_from)?,
            )
            .map_err(|source| LoadError::Map {
                map: "free_callers",
                source: source.into(),
            })?,
            outliers: Outliers::new(
                typed(&mut ebpf, "outliers", RingBuf::try_from)?,
                typed(&mut ebpf, "outlier_counts", Array::try_from)?,
                typed(&mut ebpf, "thresholds", HashMap::try_from)?,
            ),
            handover: Handover::new(opened(&ebpf, "operation_rings")?),
            // Tasks remember generation 0 before they know any.
            callers_generation: 1,
            detail: Detail::default(),
            hooks: ["enter_bpf", "exit_bpf", "on_switch"]
                .into_iter()
                .map(|it| program_fd(&mut ebpf, it))
                .collect::<Result<_, _>>()?,
            slots: Slots::default(),
            slice: FIRST_SLICE,
            wanted: std::collections::BTreeMap::new(),
            newest_map: 0,
            config,
            role,
            own_maps,
            by_identity: 0,
            holders: super::holders::Lister::default(),
            ebpf,
        })
    }
}

/// Whether this thread has `CAP_SYS_ADMIN`, which stands for `CAP_BPF` and `CAP_PERFMON`, too (`bpf_capable` in the kernel's
/// include/linux/capability.h). Where it cannot be told, the first system call that lacks it tells.
fn has_sys_admin() -> bool {
    const BIT: u32 = 21;
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|it| it.strip_prefix("CapEff:"))
        .and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
    effective.is_none_or(|it| it >> BIT & 1 == 1)
}

/// One of the programs is loaded for a moment only, or never.
pub(super) fn loaded(ebpf: &Ebpf) -> impl Iterator<Item = &aya::programs::Program> {
    let programs = ebpf.programs().map(|it| it.1);
    programs.filter(|it| it.fd().is_ok())
}

/// The maps of every program that is loaded, as the kernel tells them.
fn own_maps(ebpf: &Ebpf) -> Result<BTreeSet<u32>, LoadError> {
    let mut ids = BTreeSet::new();
    for program in loaded(ebpf) {
        let info = program.info().map_err(LoadError::OwnMaps)?;
        let maps = info.map_ids().map_err(LoadError::OwnMaps)?;
        ids.extend(maps.unwrap_or_default());
    }
    Ok(ids)
}

fn attach(tier: Tier, ebpf: &mut Ebpf, btf: &Btf) -> Result<(), LoadError> {
    // The switch first: a call that the other two see is then always followed to its end.
    attach_event(ebpf, btf, "on_switch", "sched_switch")?;
    // The exit before the entry: no call is entered of which the exit is missed.
    match tier {
        Tier::Fentry => {
            let exit: &mut FExit = program(ebpf, "exit_bpf");
            exit.load(FUNCTION, btf)
                .map_err(refused("load", "exit_bpf"))?;
            exit.attach().map_err(refused("attach", "exit_bpf"))?;
            see_maps(ebpf, btf);
            let enter: &mut FEntry = program(ebpf, "enter_bpf");
            enter
                .load(FUNCTION, btf)
                .map_err(refused("load", "enter_bpf"))?;
            enter.attach().map_err(refused("attach", "enter_bpf"))?;
        }
        Tier::Tracepoint => {
            for (name, event) in [("exit_bpf", "sys_exit_bpf"), ("enter_bpf", "sys_enter_bpf")] {
                let hook: &mut TracePoint = program(ebpf, name);
                hook.load().map_err(refused("load", name))?;
                hook.attach("syscalls", event)
                    .map_err(refused("attach", name))?;
            }
        }
        Tier::TpBtf => {
            attach_event(ebpf, btf, "exit_bpf", "sys_exit")?;
            attach_event(ebpf, btf, "enter_bpf", "sys_enter")?;
        }
    }
    Ok(())
}

/// Without it, maps are found at the exit of the call.
fn see_maps(ebpf: &mut Ebpf, btf: &Btf) {
    let hook: &mut FEntry = program(ebpf, "see_map");
    let attached = hook
        .load(LOOKUP_FUNCTION, btf)
        .and_then(|()| hook.attach().map(drop));
    if let Err(error) = attached {
        debug!(%error, function = LOOKUP_FUNCTION, "Lookups are not seen from within");
    }
}

fn attach_event(
    ebpf: &mut Ebpf,
    btf: &Btf,
    name: &'static str,
    event: &str,
) -> Result<(), LoadError> {
    let hook: &mut BtfTracePoint = program(ebpf, name);
    hook.load(event, btf).map_err(refused("load", name))?;
    hook.attach().map_err(refused("attach", name))?;
    Ok(())
}

/// Calls bpf(2) and sleeps, and looks whether the hooks saw it. Teaches the kernel side what a map's file is.
fn check(
    config: &Array<MapData, Config>,
    own: &sys::Map,
    role: BorrowedFd<'_>,
) -> Result<(), LoadError> {
    let unreadable = |source: super::ReadError| LoadError::Map {
        map: "config",
        source,
    };
    let mut value = vec![0; own.value_size()];

    take_role(role, Role::Check).map_err(LoadError::Identify)?;
    let mut answer = Ok(true);
    for _ in 0..CHECK_CALLS {
        answer = answer.and(own.lookup(&0u32.to_ne_bytes(), &mut value));
    }
    be_switched();
    take_role(role, Role::Nobody).map_err(LoadError::Identify)?;
    answer.map_err(|it| unreadable(it.into()))?;

    let seen = config.get(&0, 0).map_err(|it| unreadable(it.into()))?;
    if seen.checked_calls == CHECK_CALLS
        && seen.checked_switches > 0
        && seen.map_file_operations != 0
    {
        return Ok(());
    }
    Err(LoadError::Blind {
        calls: seen.checked_calls,
        switches: seen.checked_switches,
    })
}

/// Sleeps until the scheduler has switched this thread. On a machine that stands still meanwhile, as a virtual one may, a
/// sleep is over before the thread has left its CPU.
fn be_switched() {
    // Where the kernel does not tell, one sleep has to do.
    let switches = || {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).ok();
        usage.map(|it| it.voluntary_context_switches())
    };
    let before = switches();
    for pause in SLEEPS {
        thread::sleep(pause);
        if before.is_none() || switches() != before {
            break;
        }
    }
}

/// Tells the kernel side what the calling thread does.
pub(super) fn take_role(program: BorrowedFd<'_>, role: Role) -> std::io::Result<()> {
    match sys::run_raw_tracepoint(program, u64::from(role as u32))? {
        0 => Ok(()),
        _ => Err(std::io::Error::other(
            "the kernel has no memory for task storage",
        )),
    }
}

fn raw_tracepoint<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut RawTracePoint {
    program(ebpf, name)
}
