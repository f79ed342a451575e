//! A cluster of three nodes on this machine: `make cluster` and `make cluster-down`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use maplatency_e2e::kind::KindCluster;
use maplatency_e2e::kind::rig::{self, Choice, Options};

/// Makes a cluster of Kubernetes on this machine: kind, with one control plane and two workers.
///
/// Uses the machine's Docker daemon, or starts one. `down` puts everything back that `up` changed on the machine, also after a
/// crash.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    /// Brings the cluster up, and prints the command that lets kubectl use it
    Up {
        /// The nodes' image, or `own` for one that is made here of packages. Absent: the official one of kind, or, where
        /// that cannot be pulled, the own one
        #[arg(long, env = "MAPLATENCY_NODE_IMAGE", value_name = "IMAGE")]
        image: Option<String>,

        /// Leaves a cluster that did not come up as it is, for a look at it; `down` removes it
        #[arg(long)]
        retain: bool,
    },
    /// Takes the cluster down, and puts the machine back as it was
    Down,
    /// Loads image archives into every node
    Load {
        /// Files as `docker save` writes them, or OCI archives
        #[arg(required = true, value_name = "ARCHIVE")]
        archives: Vec<PathBuf>,
    },
    /// Says how the cluster is; fails if it is not up
    Status,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Args { job }: Args) -> Result<bool> {
    match job {
        Job::Up { image, retain } => {
            let image = image.filter(|it| !it.is_empty());
            let image = image.as_deref().map(Choice::from).unwrap_or_default();
            let cluster = rig::up(&Options { image, retain })?;
            println!("export KUBECONFIG={}", cluster.kubeconfig.display());
        }
        Job::Down => {
            // Not while another process tests in it.
            let _alone = KindCluster::alone()?;
            rig::down()?;
        }
        Job::Load { archives } => rig::load(&archives)?,
        Job::Status => return rig::status(),
    }
    Ok(true)
}
