//! `maplatency-fault FAULT`: calls bpf(2) where measuring it may go wrong, as the tests ask for.

use anyhow::{Context as _, Result};
use maplatency_e2e::fault;

fn main() -> Result<()> {
    let argument = std::env::args().nth(1).context("no fault")?;
    fault::run(&serde_json::from_str(&argument).context("the fault")?)
}
