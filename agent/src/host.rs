//! What this host is called and which kernel it runs.

use anyhow::Context as _;
use nix::sys::utsname::uname;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The host, as a status or an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The node's name; the host's own where no other is given.
    pub node: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Which boot of which kernel. Hosts with the same one share a kernel.
    pub boot_id: String,
}

impl Host {
    /// Asks the kernel.
    pub fn detect(node: Option<String>) -> anyhow::Result<Self> {
        let system = uname().context("could not ask for the kernel's release")?;
        let text = |it: &std::ffi::OsStr| it.to_string_lossy().into_owned();
        let boot_id = std::fs::read_to_string(BOOT_ID)
            .with_context(|| format!("could not read {BOOT_ID}"))?;
        Ok(Self {
            node: node.unwrap_or_else(|| text(system.nodename())),
            kernel: text(system.release()),
            boot_id: boot_id.trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_release_and_a_boot_id_and_keeps_the_name_it_is_given() {
        let host = Host::detect(Some("node-a".to_owned())).unwrap();
        assert_eq!(host.node, "node-a");
        assert_eq!(host.boot_id.len(), 36);
        assert!(
            host.kernel.starts_with(|it: char| it.is_ascii_digit()),
            "{}",
            host.kernel
        );
        assert!(!Host::detect(None).unwrap().node.is_empty());
    }
}
