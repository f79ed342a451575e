//! A child process with many maps, on which it does a few operations on every CPU whenever it is told to.
//!
//! A process of its own, since the hooks never count the calls of the process that loaded them.

use std::io::{BufRead as _, BufReader, Write as _, stdin, stdout};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use maplatency_bpf::sys::{Map, UpdateFlags};

use crate::reader;

/// What its maps are called.
pub(crate) const NAME: &str = "bench_drain";
/// The operations that it does, as a spec names them.
pub(crate) const OPERATIONS: &str = "operations: [Lookup, Update, GetNextKey]";
/// On which CPUs.
pub(crate) const CPUS: u32 = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    maps: u32,
}

/// The child: tells the ids of its maps, then does a pass for each line that it reads.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let maps = (0..args.maps)
        .map(|_| reader::hash(NAME, 8))
        .collect::<anyhow::Result<Vec<Map>>>()?;
    let ids: Vec<String> = maps
        .iter()
        .map(|it| Ok(it.id()?.to_string()))
        .collect::<anyhow::Result<_>>()?;
    tell(&ids.join(" "))?;
    for line in stdin().lines() {
        line?;
        for cpu in 0..CPUS {
            reader::pin_to(cpu)?;
            maps.iter().try_for_each(pass)?;
        }
        tell("done")?;
    }
    Ok(())
}

fn tell(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Four kinds of operations: lookups that hit and that miss, an update, a step to the next key.
fn pass(map: &Map) -> anyhow::Result<()> {
    let mut value = vec![0; map.value_size()];
    let mut next = [0; 8];
    let (here, missing) = (1_u64.to_ne_bytes(), u64::MAX.to_ne_bytes());
    for _ in 0..4 {
        map.lookup(&here, &mut value)?;
        map.lookup(&missing, &mut value)?;
        map.update(&here, &value, UpdateFlags::Any)?;
        map.next_key(Some(&here), &mut next)?;
    }
    Ok(())
}

/// The child as its parent sees it. It ends with this value.
#[derive(Debug)]
pub(crate) struct Series {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Ids of its maps.
    pub(crate) ids: Vec<u32>,
}

impl Series {
    pub(crate) fn start(maps: u32) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("this program cannot find itself")?;
        let mut child = Command::new(own)
            .args(["series", "--maps", &maps.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start the child")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.context("a pipe is missing")?;
        let mut series = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            ids: vec![],
        };
        let ids = series.hear()?;
        let ids = ids.split_whitespace().map(str::parse);
        series.ids = ids
            .collect::<Result<_, _>>()
            .context("the ids of the maps")?;
        Ok(series)
    }

    /// Lets it do its operations once, and waits until it has.
    pub(crate) fn pass(&mut self) -> anyhow::Result<()> {
        writeln!(self.stdin).context("the child has ended")?;
        let said = self.hear()?;
        ensure!(said.trim() == "done", "the child said {said:?}");
        Ok(())
    }

    fn hear(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(
            !line.is_empty(),
            "the child ended early; its message is above"
        );
        Ok(line)
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
