//! Compiles the protocol without protoc.

use anyhow::Context as _;

const FILE: &str = "maplatency/v1/maplatency.proto";

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed={FILE}");
    let descriptors =
        protox::compile([FILE], ["."]).with_context(|| format!("could not parse {FILE}"))?;
    tonic_prost_build::configure()
        // Its `connect` constructor would collide with the call of that name.
        .build_transport(false)
        .compile_fds(descriptors)
        .with_context(|| format!("could not generate code for {FILE}"))
}
