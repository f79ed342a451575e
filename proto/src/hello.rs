//! Who the agent is.

use crate::invalid::{Checked, dns_subdomain, form, text};
use crate::{InvalidMessage, wire};

/// The first message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Name of the Kubernetes node: a DNS-1123 subdomain of at most 253 characters.
    pub node: String,
    /// 32 hexadecimal digits, drawn at random when the agent starts.
    pub epoch: String,
    /// Version of the agent.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Which boot of which kernel. Nodes with the same one share a kernel.
    pub boot_id: String,
    /// How the agent measures on this kernel.
    pub tier: String,
    /// Why it cannot measure at all, as a sentence for users. It sends no reports then.
    pub problem: Option<String>,
}

impl TryFrom<wire::Hello> for Hello {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Hello) -> Checked<Self> {
        let wire::Hello {
            node,
            epoch,
            version,
            kernel,
            boot_id,
            tier,
            problem,
        } = wire;
        let hexadecimal = |it: &str| it.len() == 32 && it.bytes().all(|b| b.is_ascii_hexdigit());
        let boot = |it: &str| {
            (1..=64).contains(&it.len()) && it.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        };
        let fields = || {
            Ok(Self {
                node: dns_subdomain("node", node)?,
                epoch: form("epoch", epoch, "32 hexadecimal digits", hexadecimal)?,
                version: text("version", version, 64, "1 to 64 printable characters")?,
                kernel: text("kernel", kernel, 128, "1 to 128 printable characters")?,
                boot_id: form(
                    "boot_id",
                    boot_id,
                    "1 to 64 hexadecimal digits and '-'",
                    boot,
                )?,
                tier: text("tier", tier, 512, "1 to 512 printable characters")?,
                problem: problem
                    .map(|it| text("problem", it, 512, "1 to 512 printable characters"))
                    .transpose()?,
            })
        };
        fields().map_err(|e: InvalidMessage| e.within("hello"))
    }
}

impl From<Hello> for wire::Hello {
    fn from(hello: Hello) -> Self {
        let Hello {
            node,
            epoch,
            version,
            kernel,
            boot_id,
            tier,
            problem,
        } = hello;
        Self {
            node,
            epoch,
            version,
            kernel,
            boot_id,
            tier,
            problem,
        }
    }
}
