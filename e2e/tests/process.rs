//! Child processes of tests end when they should, and also when nobody tells them to.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use maplatency_e2e::{
    process::{Daemon, workspace_binary},
    wait,
};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(30);

fn shell(script: &str) -> Result<(Daemon, TempDir)> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let daemon = Daemon::spawn("the script", command, &dir.path().join("log"))?;
    Ok((daemon, dir))
}

async fn wrote(daemon: &Daemon, text: &str) -> Result<()> {
    wait::until(&format!("the output {text}"), LONG, async || {
        Ok(daemon.output()?.contains(text).then_some(()))
    })
    .await
}

fn alive(pid: u32) -> bool {
    // The state follows the name, which is in brackets. One that nobody has reaped is a zombie.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
}

#[tokio::test]
async fn a_process_that_heeds_sigterm_ends_with_its_own_exit_code() -> Result<()> {
    let (mut daemon, _dir) = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")?;
    wrote(&daemon, "ready").await?;

    let ended = daemon.terminate(LONG)?;

    assert_eq!(ended.status.code(), Some(7));
    assert!(!ended.forced);
    assert!(ended.ensure_clean().is_err());
    Ok(())
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_after_the_grace() -> Result<()> {
    let (mut daemon, _dir) = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done")?;
    wrote(&daemon, "ready").await?;
    let grace = Duration::from_millis(200);

    let ended = daemon.terminate(grace)?;

    assert!(ended.forced && ended.took >= grace, "{ended:?}");
    assert!(!alive(daemon.id()));
    Ok(())
}

#[tokio::test]
async fn the_error_for_a_process_that_ended_early_carries_its_last_words() -> Result<()> {
    let (mut daemon, _dir) = shell("echo no such flag >&2; exit 3")?;

    let error = wait::until("the end of the script", LONG, async || {
        Ok(daemon.ensure_alive().err())
    })
    .await?
    .to_string();

    assert!(error.contains("exit status: 3"), "{error}");
    assert!(error.ends_with("no such flag"), "{error}");
    Ok(())
}

/// The parent of the daemon has to be killed, so the test runs itself again as that parent.
#[tokio::test]
async fn a_killed_test_takes_its_processes_with_it() -> Result<()> {
    const NAME: &str = "a_killed_test_takes_its_processes_with_it";
    const ROLE: &str = "MAPLATENCY_E2E_DOOMED_PARENT";
    if let Some(pid_file) = std::env::var_os(ROLE).map(PathBuf::from) {
        let (daemon, _dir) = shell("exec sleep 600")?;
        write_whole(&pid_file, &daemon.id().to_string())?;
        tokio::time::sleep(LONG * 10).await;
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let pid_file = dir.path().join("pid");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", NAME]).env(ROLE, &pid_file);
    let mut parent = Daemon::spawn("the parent", command, &dir.path().join("log"))?;
    let child: u32 = wait::until("the pid of the child", LONG, async || {
        parent.ensure_alive()?;
        Ok(Some(std::fs::read_to_string(&pid_file)?.parse()?))
    })
    .await?;
    assert!(alive(child));

    parent.kill()?;

    wait::until("the child to end", LONG, async || {
        Ok((!alive(child)).then_some(()))
    })
    .await
}

/// Readers see the whole file or none.
fn write_whole(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path).context("could not rename")
}

/// A child dies with the thread that started it, so that thread must not be the caller's.
#[tokio::test]
async fn a_process_outlives_the_thread_that_asked_for_it() -> Result<()> {
    let (mut daemon, _dir) = std::thread::spawn(|| {
        shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    })
    .join()
    .unwrap()?;
    wrote(&daemon, "ready").await?;

    daemon.terminate(LONG)?.ensure_clean()
}

#[test]
fn a_binary_that_was_not_built_is_named_with_the_command_that_builds_it() {
    let error = workspace_binary("no-such-binary").unwrap_err().to_string();

    assert!(error.contains("/no-such-binary is missing"), "{error}");
    assert!(
        error.contains("`cargo build --workspace --locked"),
        "{error}"
    );
}
