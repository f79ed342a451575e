//! `maplatency-caller JOB`: calls bpf(2) as the tests ask for.
//! `maplatency-caller sleep TIMES`: makes a map of maps and updates it so often, which sleeps in the kernel.
//! `maplatency-caller lookup ID TIMES`: looks up key 0 in the map of that id so often, and ends.

use anyhow::{Context as _, Result};
use maplatency_e2e::caller;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [word, times] if word == "sleep" => caller::sleep(times.parse()?),
        [word, id, times] if word == "lookup" => caller::look_up(id.parse()?, times.parse()?),
        _ => {
            let job = arguments.first().context("no job")?;
            caller::run(&serde_json::from_str(job).context("the job")?)
        }
    }
}
