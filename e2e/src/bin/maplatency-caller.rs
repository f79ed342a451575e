//! `maplatency-caller JOB`: calls bpf(2) as the tests ask for.

use anyhow::{Context as _, Result};
use maplatency_e2e::caller;

fn main() -> Result<()> {
    let job = std::env::args().nth(1).context("no job")?;
    caller::run(&serde_json::from_str(&job).context("the job")?)
}
