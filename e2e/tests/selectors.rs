//! Maps are selected by where they are pinned and by who holds them open.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use maplatency_agent::engine::{Engine, HoldersError, TierChoice};
use maplatency_agent::monitor::{Monitor, ProbeSnapshot};
use maplatency_bpf::sys::Map;
use maplatency_core::vocabulary::{MapType, Operation};
use maplatency_e2e::caller::{Caller, Job, Thread};
use maplatency_e2e::measure::{request, snapshot, total};
use maplatency_e2e::not_run;
use maplatency_e2e::process::workspace_binary;
use maplatency_e2e::seccomp::{Refused, refuse};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

fn caller(lookups: u64) -> Result<Caller> {
    let thread = Thread {
        operations: vec![Operation::Lookup],
        rounds: lookups,
        cpus: vec![],
    };
    Caller::start(&Job {
        map_type: MapType::Hash,
        threads: vec![thread],
    })
}

/// Another process that looks key 0 up.
fn look_up(map_id: u32, times: u64) -> Result<()> {
    let status = Command::new(workspace_binary("maplatency-caller")?)
        .args(["lookup", &map_id.to_string(), &times.to_string()])
        .status()?;
    ensure!(status.success(), "the caller failed: {status}");
    Ok(())
}

fn has(probe: &ProbeSnapshot, map_id: u32) -> bool {
    probe.maps.iter().any(|it| it.id == map_id)
}

/// Waits for what the next two slices have to show. The first of them may have begun already.
async fn soon(
    monitor: &Monitor,
    name: &str,
    fits: impl Fn(&ProbeSnapshot) -> bool,
) -> Result<ProbeSnapshot> {
    let mut snapshots = monitor.snapshots();
    snapshots.borrow_and_update();
    for _ in 0..2 {
        snapshots.changed().await?;
        let latest = snapshots.borrow_and_update().clone();
        let probe = latest.probes.iter().find(|it| it.name == name);
        let probe = probe.context("the probe has gone")?;
        ensure!(probe.problems.is_empty(), "{:?}", probe.problems);
        if fits(probe) {
            return Ok(probe.clone());
        }
    }
    bail!("two slices do not show it: {snapshots:?}")
}

/// A bpffs of this test's own.
struct Bpffs(tempfile::TempDir);

impl Bpffs {
    fn mount() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let kind = Some("bpf");
        mount(kind, folder.path(), kind, MsFlags::empty(), None::<&str>)
            .context("could not mount a bpffs")?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // A folder that stays is found by whoever looks at the machine.
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_is_measured_while_its_pin_matches() -> Result<()> {
    let bpffs = Bpffs::mount()?;
    let path = bpffs.path();
    let (inside, outside) = (path.join("tc/globals"), path.join("elsewhere"));
    fs::create_dir_all(&inside)?;
    fs::create_dir(&outside)?;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let spec = format!(
        "{{maps: [{{pinPaths: ['{}/*/globals/c?']}}], operations: [Lookup]}}",
        path.display()
    );
    monitor.measure(vec![request("pins", &spec)?])?;
    snapshot(&monitor, "the probe", "pins", |it| it.maps.is_empty()).await?;

    let mut caller = caller(100)?;
    let id = caller.map_id();
    let map = Map::from_id(id)?;
    map.pin(&outside.join("other"))?;
    map.pin(&inside.join("ct"))?;
    let found = soon(&monitor, "pins", |it| has(it, id)).await?;
    assert_eq!(found.maps.len(), 1);
    tokio::task::block_in_place(|| caller.work())?;
    let counted = |count| move |it: &ProbeSnapshot| total(it).until_user.count() >= count;
    snapshot(&monitor, "the lookups", "pins", counted(100)).await?;

    fs::rename(inside.join("ct"), outside.join("ct"))?;
    let moved = soon(&monitor, "pins", |it| !has(it, id)).await?;
    assert!(moved.gone.iter().any(|it| it.id == id), "its figures stay");
    tokio::task::block_in_place(|| look_up(id, 1_000))?;
    fs::rename(outside.join("ct"), inside.join("ct"))?;
    let back = soon(&monitor, "pins", |it| has(it, id)).await?;
    assert_eq!(back.gone, []);
    tokio::task::block_in_place(|| look_up(id, 10))?;
    let (probe, _) = snapshot(&monitor, "more lookups", "pins", counted(110)).await?;
    assert_eq!(total(&probe).until_user.count(), 110);
    monitor.stop()?;
    Ok(())
}

/// Lets the calling thread, and those that it starts, see no bpffs.
fn hide_bpffs() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing)?;
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
    for line in mounts.lines().filter(|it| it.contains(" - bpf ")) {
        let point = line.split(' ').nth(4).context("mountinfo")?;
        umount2(point, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_bpffs_is_to_be_seen_a_probe_says_so_and_measures_the_rest() -> Result<()> {
    let hidden = std::thread::spawn(|| -> Result<Monitor> {
        hide_bpffs()?;
        Ok(Monitor::start(TierChoice::Auto)?)
    });
    let monitor = hidden.join().expect("it does not panic")?;
    let mut caller = caller(100)?;
    let id = caller.map_id();
    let spec = format!(
        "{{maps: [{{pinPaths: ['/sys/fs/bpf/*']}}, {{ids: [{id}]}}], operations: [Lookup]}}"
    );
    monitor.measure(vec![request("hidden", &spec)?])?;
    snapshot(&monitor, "the map", "hidden", |it| has(it, id)).await?;
    tokio::task::block_in_place(|| caller.work())?;
    let all = |it: &ProbeSnapshot| total(it).until_user.count() == 100;
    let (probe, _) = snapshot(&monitor, "the lookups", "hidden", all).await?;
    assert_eq!(
        probe.problems,
        [
            "spec.maps[].pinPaths: no bpffs is mounted where the agent sees it; mount it at /sys/fs/bpf, in a container \
             from the host"
        ]
    );
    monitor.stop()?;
    Ok(())
}

/// A memory cgroup of this test's own, with another one in it.
struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` where there is no memory controller to be had.
    fn create(name: &str) -> Option<Self> {
        let first = Path::new("/sys/fs/cgroup/memory");
        let (root, is_first) = if first.join("cgroup.procs").exists() {
            (first, true)
        } else {
            (Path::new("/sys/fs/cgroup"), false)
        };
        let outer = root.join(name);
        let enable = |at: &Path| fs::write(at.join("cgroup.subtree_control"), "+memory");
        if !is_first {
            enable(root).ok()?;
        }
        fs::create_dir(&outer).ok()?;
        let this = Self(outer);
        if !is_first {
            enable(&this.0).ok()?;
        }
        fs::create_dir(this.inner()).ok()?;
        Some(this)
    }

    fn inner(&self) -> PathBuf {
        self.0.join("box.scope")
    }

    fn take(&self, pid: u32) -> Result<()> {
        Ok(fs::write(
            self.inner().join("cgroup.procs"),
            pid.to_string(),
        )?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Both fail while a process is in them, which is killed before.
        let _ = fs::remove_dir(self.inner());
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_is_measured_while_a_process_of_a_command_and_cgroup_holds_it() -> Result<()> {
    let name = format!("maplatency-test-{}", std::process::id());
    let Some(cgroup) = Cgroup::create(&name) else {
        return not_run("heldBy", "no memory cgroup can be made");
    };
    let monitor = Monitor::start(TierChoice::Auto)?;
    let held = |by: &str| format!("{{maps: [{{heldBy: {{{by}}}}}], operations: [Lookup]}}");
    // The kernel keeps 15 characters of the command.
    let command = "commands: [maplatency-caller]";
    let in_cgroup = format!("cgroups: ['**/{name}/*.scope']");
    let both = format!("{command}, {in_cgroup}");
    let neither = format!("commands: [somebody-else], {in_cgroup}");
    monitor.measure(vec![
        request("command", &held(command))?,
        request("both", &held(&both))?,
        request("neither", &held(&neither))?,
    ])?;
    snapshot(&monitor, "the probes", "neither", |_| true).await?;

    let (mut within, without) = (caller(100)?, caller(0)?);
    let (id, other) = (within.map_id(), without.map_id());
    cgroup.take(within.pid())?;
    let found = soon(&monitor, "both", |it| has(it, id)).await?;
    assert_eq!(found.maps.len(), 1);
    let by_command = soon(&monitor, "command", |it| has(it, id) && has(it, other)).await?;
    assert!(by_command.maps.iter().all(|it| it.name == "called"));
    tokio::task::block_in_place(|| within.work())?;
    let all = |it: &ProbeSnapshot| total(it).until_user.count() >= 100;
    let (probe, last) = snapshot(&monitor, "the lookups", "both", all).await?;
    assert_eq!(total(&probe).until_user.count(), 100);
    let neither = last.probes.iter().find(|it| it.name == "neither");
    let neither = neither.context("the probe has gone")?;
    assert_eq!((neither.maps.len(), neither.cumulative.len()), (0, 0));

    // Somebody else holds it on, so that it is the holder that goes and not the map.
    let map = Map::from_id(id)?;
    drop(within);
    let gone = soon(&monitor, "both", |it| it.maps.is_empty()).await?;
    assert!(gone.gone.iter().any(|it| it.id == id));
    drop(map);
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_open_files_cannot_be_listed_a_probe_says_so_and_measures_the_rest() -> Result<()> {
    let refused = std::thread::spawn(|| -> Result<Monitor> {
        refuse(Refused::IterCreate)?;
        Ok(Monitor::start(TierChoice::Auto)?)
    });
    let monitor = refused.join().expect("it does not panic")?;
    let mut caller = caller(100)?;
    let id = caller.map_id();
    let spec = format!(
        "{{maps: [{{heldBy: {{commands: ['*']}}}}, {{ids: [{id}]}}], operations: [Lookup]}}"
    );
    let only_held = "{maps: [{heldBy: {commands: ['*']}}]}";
    monitor.measure(vec![
        request("refused", &spec)?,
        request("only-held", only_held)?,
    ])?;
    snapshot(&monitor, "the map", "refused", |it| has(it, id)).await?;
    tokio::task::block_in_place(|| caller.work())?;
    let all = |it: &ProbeSnapshot| total(it).until_user.count() == 100;
    let (probe, last) = snapshot(&monitor, "the lookups", "refused", all).await?;
    let problem = "spec.maps[].heldBy: could not list open files (`bpf_iter_create` failed: Operation not permitted (os \
                   error 1))";
    assert_eq!(
        (probe.maps.len(), &probe.problems[..]),
        (1, &[problem.to_owned()][..])
    );
    let other = last.probes.iter().find(|it| it.name == "only-held");
    let other = other.context("the probe has gone")?;
    assert_eq!((other.maps.len(), &other.problems), (0, &probe.problems));
    monitor.stop()?;
    Ok(())
}

#[test]
fn a_kernel_that_refuses_the_iterator_is_asked_once_and_its_answer_kept() -> Result<()> {
    let refused = std::thread::spawn(|| -> Result<_> {
        let mut engine = Engine::load(TierChoice::Auto)?;
        refuse(Refused::ProgLoad)?;
        Ok([engine.holders(), engine.holders()])
    });
    for (holders, error) in refused.join().expect("it does not panic")? {
        assert!(holders.is_none(), "{holders:?}");
        let error = error.context("no problem is told")?;
        assert!(matches!(error, HoldersError::Refused(_)));
        assert_eq!(
            error.to_string(),
            "the kernel refused the iterator over open files (EPERM at load); select by names, types, ids or pinPaths"
        );
    }
    Ok(())
}
