//! What the agent may not be denied, shown by its absence: the kernel's functions, and the agent's own words.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use maplatency_agent::engine::{Engine, TierChoice};
use maplatency_bpf::Tier;
use maplatency_bpf::sys::{self, Map, MapSpec, MapType};
use maplatency_core::MapLatencyProbe;
use maplatency_core::vocabulary::Operation;
use maplatency_e2e::capabilities::{Capability, keep, with_only};
use maplatency_e2e::process::workspace_binary;
use maplatency_e2e::workload::Workload;

/// What the agents' container is given; the operator's own test compares.
const GRANTED: [Capability; 1] = [Capability::SysAdmin];
/// All that BPF programs need of the kernel, and more that has to do with what agents do.
const OTHERS: [Capability; 4] = [
    Capability::Bpf,
    Capability::Perfmon,
    Capability::SysPtrace,
    Capability::DacReadSearch,
];

fn agent(kept: &[Capability], arguments: &[&str], spec: &str) -> Result<Output> {
    let mut command = Command::new(workspace_binary("maplatency-agent")?);
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    keep(&mut command, kept);
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().context("a pipe was asked for")?;
    // One that refuses to start reads nothing.
    let _ = input.write_all(spec.as_bytes());
    drop(input);
    Ok(child.wait_with_output()?)
}

fn run(kept: &[Capability], tier: &str, spec: &str) -> Result<Output> {
    agent(
        kept,
        &[
            "run", "-f", "-", "--for", "2s", "-o", "json", "--tier", tier,
        ],
        spec,
    )
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The tiers that this kernel takes.
fn tiers() -> Vec<Tier> {
    [Tier::Fentry, Tier::Tracepoint, Tier::TpBtf]
        .into_iter()
        .filter(|it| Engine::load(TierChoice::Only(*it)).is_ok())
        .collect()
}

#[test]
fn with_what_it_is_granted_the_agent_does_all_it_does_with_every_capability() -> Result<()> {
    let arguments = [
        "--rate",
        "20000",
        "--for",
        "60s",
        "--no-refresh",
        "--name",
        "granted",
    ];
    let mut workload = Workload::start(&arguments)?;
    workload.go()?;
    let (id, pid) = (workload.ready().map_id, i64::from(workload.ready().pid));
    let spec = format!(
        "
apiVersion: maplatency.dev/v1alpha1
kind: MapLatencyProbe
metadata: {{name: granted}}
spec:
  maps: [{{ids: [{id}]}}, {{heldBy: {{commands: [no-such-command]}}}}, {{pinPaths: [/sys/fs/bpf/no-such-pin]}}]
  operations: [Lookup]
  activeReads: {{periodMilliseconds: 10}}
  outliers: {{thresholdMicroseconds: 1, perSecond: 10}}
  aggregation: {{strategy: SlidingWindow, lastOperations: 256}}
"
    );
    let all = [&GRANTED[..], &OTHERS].concat();
    for tier in tiers() {
        let [with_all, granted] = [&all[..], &GRANTED].map(|kept| {
            let output = run(kept, &tier.to_string(), &spec)?;
            ensure!(
                output.status.success(),
                "{tier} with {kept:?}: {}",
                said(&output)
            );
            let probe: MapLatencyProbe = serde_json::from_slice(&output.stdout)?;
            let status = probe.status.context("a status")?;
            let lookups = status
                .operations
                .iter()
                .find(|it| it.operation == Operation::Lookup);
            let active = lookups.and_then(|it| it.active.as_ref());
            let outliers = status.outliers.as_ref().map_or(0, |it| it.slowest.len());
            ensure!(
                lookups.is_some_and(|it| it.count > 1_000)
                    && active.is_some_and(|it| it.count > 10)
                    && outliers > 0
                    && status
                        .callers
                        .iter()
                        .filter_map(|it| it.process.as_ref())
                        .any(|it| it.pid == pid)
                    && !status.exact.is_empty(),
                "{tier} with {kept:?}: {status:?}"
            );
            let told: Vec<_> = status
                .conditions
                .into_iter()
                .map(|it| (it.type_, it.status, it.reason, it.message))
                .collect();
            Ok(told)
        });
        assert_eq!(with_all?, granted?, "{tier}");
    }
    Ok(())
}

#[test]
fn without_sys_admin_the_agent_says_what_it_lacks_and_how_to_get_it() -> Result<()> {
    let spec = "{apiVersion: maplatency.dev/v1alpha1, kind: MapLatencyProbe, metadata: {name: x}, spec: {maps: [{names: ['*']}]}}";
    for kept in [&OTHERS[..], &[]] {
        let output = run(kept, "Auto", spec)?;
        let said = said(&output);
        ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
        for part in [
            "error: could not load the probes: the agent lacks CAP_SYS_ADMIN",
            "BPF_MAP_GET_NEXT_ID",
            "capabilities.add: [SYS_ADMIN]",
        ] {
            ensure!(said.contains(part), "{part:?} is not in: {said}");
        }
    }
    Ok(())
}

/// Why no less is granted, and no more.
#[test]
fn the_kernel_lists_and_opens_maps_for_sys_admin_alone_which_stands_for_bpf_and_perfmon()
-> Result<()> {
    let spec = MapSpec {
        name: "capabilities",
        map_type: MapType::HASH,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        flags: 0,
    };
    let map = Map::create(&spec)?;
    let id = map.id()?;
    let (listed, opened, made) = with_only(&OTHERS, || {
        (
            sys::map_ids().map_err(|it| it.raw_os_error()),
            Map::from_id(id).map_err(|it| it.errno()).err(),
            Map::create(&spec).is_ok(),
        )
    })?;
    assert_eq!(listed, Err(Some(libc::EPERM)), "BPF_MAP_GET_NEXT_ID");
    assert_eq!(opened, Some(Some(libc::EPERM)), "BPF_MAP_GET_FD_BY_ID");
    assert!(made, "CAP_BPF makes maps");

    let granted = with_only(&GRANTED, || {
        (
            sys::map_ids().is_ok(),
            Map::from_id(id).is_ok(),
            Map::create(&spec).is_ok(),
        )
    })?;
    assert_eq!(granted, (true, true, true));
    Ok(())
}

/// Maps that are made for a try, as by `helm test`.
#[test]
fn without_bpf_the_example_says_what_it_lacks() -> Result<()> {
    let unprivileged = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")?;
    if unprivileged.trim() == "0" {
        return maplatency_e2e::not_run(
            "the example without CAP_BPF",
            "everybody may make maps here",
        );
    }
    let output = agent(&[], &["example"], "")?;
    let said = said(&output);
    ensure!(
        output.status.code() == Some(1) && said.contains("error: making a map needs CAP_BPF"),
        "{}: {said}",
        output.status
    );
    Ok(())
}
