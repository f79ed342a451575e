//! Which hooks run is decided by what the kernel takes and by what the host does.

use anyhow::Result;
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::Monitor;
use maplatency_bpf::Tier;
use maplatency_e2e::not_run;
use maplatency_e2e::workload::Workload;

#[tokio::test(flavor = "multi_thread")]
async fn the_mix_of_system_calls_decides_where_fentry_is_refused() -> Result<()> {
    let only = |tier| Monitor::start(TierChoice::Only(tier));
    if only(Tier::Fentry).is_ok() {
        return not_run("the choice by system calls", "this kernel takes Fentry");
    }
    // Quiet: hardly any call is bpf(2).
    let quiet = Monitor::start(TierChoice::Auto)?;
    assert_eq!(quiet.tier().tier, Tier::Tracepoint, "{}", quiet.tier());
    quiet.stop()?;

    let arguments = ["--rate", "0", "--for", "20s", "--no-refresh"];
    let mut reader = Workload::start(&arguments)?;
    reader.go()?;
    let busy = Monitor::start(TierChoice::Auto)?;
    assert_eq!(busy.tier().tier, Tier::TpBtf, "{}", busy.tier());
    let why = busy.tier().to_string();
    assert!(
        why.contains("Tracepoint refused: costs more, as ")
            && why.contains(" % of system calls are bpf(2)"),
        "{why}"
    );
    busy.stop()?;
    Ok(())
}
