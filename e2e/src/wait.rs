//! Waiting for a condition, with a limit and with words for what was awaited.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// How long [`until`] rests between two checks: short beside what it waits for (seconds), long
/// beside what a check costs (a request to the API server).
const PAUSE: Duration = Duration::from_millis(50);

/// Says how many times longer than usual everything takes on this machine. Set in virtual machines without KVM.
const SLOWNESS: &str = "MAPLATENCY_TEST_SLOWNESS";

/// How long on this machine may take what is to take so long at most: times [`SLOWNESS`] if that is set.
pub fn limit(usual: Duration) -> Result<Duration> {
    let slowness = std::env::var(SLOWNESS).map_or(Ok(1), |it| it.parse());
    Ok(usual * slowness.with_context(|| format!("{SLOWNESS} is no number"))?)
}

/// Calls `check` until it returns a value, or fails after [`limit`] of `timeout`.
///
/// `what` completes the sentence "waited for …". A check answers
///
/// - `Ok(Some(value))`: the condition holds, and `until` returns the value;
/// - `Ok(None)`: not yet;
/// - `Err(state)`: not yet, and this is what it looks like now. Errors are retried, as a server
///   that restarts refuses connections for a while; the last one is part of the timeout's message.
///
/// A test that must stop early lets `T` itself be a `Result`: `Ok(Some(Err(fatal)))` ends the wait.
///
/// ```
/// # use std::time::Duration;
/// # use anyhow::bail;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> anyhow::Result<()> {
/// let mut ready = 0;
/// let ready = maplatency_e2e::wait::until("three nodes", Duration::from_secs(5), async || {
///     ready += 1;
///     if ready < 3 {
///         bail!("{ready} of 3 are ready");
///     }
///     Ok(Some(ready))
/// })
/// .await?;
/// assert_eq!(ready, 3);
/// # Ok(())
/// # }
/// ```
pub async fn until<T>(
    what: &str,
    timeout: Duration,
    check: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    until_asking_every(PAUSE, what, timeout, check).await
}

/// The same with a longer rest between two checks, where asking all the time would disturb what is measured.
pub async fn until_asking_every<T>(
    pause: Duration,
    what: &str,
    timeout: Duration,
    mut check: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let timeout = limit(timeout)?;
    let mut last = "no check has ended".to_owned();
    let poll = async {
        loop {
            match check().await {
                Ok(Some(value)) => return value,
                Ok(None) => "not yet".clone_into(&mut last),
                Err(state) => last = format!("{state:#}"),
            }
            tokio::time::sleep(pause).await;
        }
    };
    // The limit covers the checks too: one that hangs must not outlast it.
    match tokio::time::timeout(timeout, poll).await {
        Ok(value) => Ok(value),
        Err(_) => bail!("waited {timeout:?} for {what}; last seen: {last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    const SHORT: Duration = Duration::from_millis(120);
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_condition_that_comes_true_ends_the_wait_with_its_value() {
        let mut calls = 0;

        let value = until("the third call", LONG, async || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        })
        .await;

        assert_eq!(value.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_timeout_says_what_was_awaited_and_what_was_seen_last() {
        let error = until::<()>("a pod", SHORT, async || {
            Err(anyhow!("refused").context("the pod is Pending"))
        })
        .await
        .unwrap_err();

        let text = error.to_string();
        assert!(text.contains("for a pod"), "{text}");
        assert!(
            text.ends_with("last seen: the pod is Pending: refused"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_check_that_hangs_does_not_outlast_the_timeout() {
        let error = until::<()>("an answer", SHORT, std::future::pending)
            .await
            .unwrap_err();

        assert!(error.to_string().ends_with("no check has ended"), "{error}");
    }
}
