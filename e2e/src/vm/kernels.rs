//! Debian's kernels for virtual machines: which there are, and getting one without installing it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::output_of;

const PREFIX: &str = "linux-image-";
/// The flavours that differ in how they preempt; others have more drivers.
const FLAVOURS: [&str; 2] = ["-cloud-amd64", REALTIME];
const REALTIME: &str = "-rt-amd64";

/// One kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` says, such as `6.1.0-56-cloud-amd64`.
    pub release: String,
}

impl Kernel {
    /// Major and minor version, such as `6.1`, and whether it is built for real time, such as `6.1-rt`.
    pub fn series(&self) -> String {
        let dots = self.release.match_indices('.').map(|(at, _)| at);
        let end = dots.chain([self.release.len()]).nth(1);
        let version = &self.release[..end.unwrap_or(self.release.len())];
        let flavour = if self.is_realtime() { "-rt" } else { "" };
        format!("{version}{flavour}")
    }

    /// Whether it is built with `CONFIG_PREEMPT_RT`, which leaves no choice.
    pub fn is_realtime(&self) -> bool {
        self.release.ends_with(REALTIME)
    }

    /// Orders kernels by age.
    pub(super) fn version(&self) -> Vec<u64> {
        self.release
            .split(|it: char| !it.is_ascii_digit())
            .filter_map(|it| it.parse().ok())
            .collect()
    }
}

/// Kernels that were got before, in the user's cache: outside the sources, as for the control plane.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache of this user.
    pub fn of_user() -> Result<Self> {
        Ok(Self {
            folder: crate::cache()?.join("kernels"),
        })
    }

    fn image(&self, kernel: &Kernel) -> PathBuf {
        self.folder.join(&kernel.release).join("vmlinuz")
    }

    fn kernels(&self) -> Vec<Kernel> {
        // A folder that is not there holds none.
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .map(|it| Kernel {
                release: it.file_name().to_string_lossy().into_owned(),
            })
            .filter(|it| self.image(it).is_file())
            .collect()
    }

    /// The newest kernel of each series that Debian offers here or that is in the cache, oldest series first.
    pub fn newest(&self) -> Result<Vec<Kernel>> {
        let mut newest: BTreeMap<(bool, Vec<u64>), Kernel> = BTreeMap::new();
        for kernel in offered()?.into_iter().chain(self.kernels()) {
            let version = kernel.version();
            let series = version.iter().take(2).copied().collect();
            let best = newest
                .entry((kernel.is_realtime(), series))
                .or_insert_with(|| kernel.clone());
            if best.version() < version {
                *best = kernel;
            }
        }
        ensure!(
            !newest.is_empty(),
            "apt offers no {PREFIX}*{}; run apt-get update, or check its sources",
            FLAVOURS[0]
        );
        Ok(newest.into_values().collect())
    }

    /// The bootable image of a kernel. Downloads its package if it is not in the cache.
    pub fn get(&self, kernel: &Kernel) -> Result<PathBuf> {
        let image = self.image(kernel);
        if image.is_file() {
            return Ok(image);
        }
        let release = &kernel.release;
        println!("getting {PREFIX}{release} (once)");
        let folder = self.folder.join(release);
        fs::create_dir_all(&folder)
            .with_context(|| format!("could not make {}", folder.display()))?;
        // Beside the image, so that the renaming below stays within one file system.
        let work = tempfile::tempdir_in(&self.folder).context("could not make a folder")?;
        output_of(
            Command::new("apt-get")
                .args(["download", "-qq"])
                .arg(format!("{PREFIX}{release}"))
                .current_dir(&work),
        )?;
        let package = fs::read_dir(&work)?
            .next()
            .context("apt-get brought no package")??;
        let unpacked = work.path().join("unpacked");
        output_of(
            Command::new("dpkg-deb")
                .arg("-x")
                .args([package.path(), unpacked.clone()]),
        )?;
        // Renamed only when whole, so that an interrupted download is not taken for a kernel.
        fs::rename(unpacked.join(format!("boot/vmlinuz-{release}")), &image)
            .with_context(|| format!("the package of {release} holds no kernel"))?;
        Ok(image)
    }
}

/// What apt could get. Packages without a version that can be got are not listed by it.
fn offered() -> Result<Vec<Kernel>> {
    let listed = output_of(Command::new("apt-cache").args([
        "search",
        "--names-only",
        &format!("^{PREFIX}[0-9].*({})$", FLAVOURS.join("|")),
    ]))?;
    Ok(listed
        .lines()
        .filter_map(|it| it.split(' ').next()?.strip_prefix(PREFIX))
        // With a single dot before the flavour it is a package that only depends on the newest one.
        .filter(|it| it.matches('.').count() >= 2)
        .map(|it| Kernel {
            release: it.to_owned(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(release: &str) -> Kernel {
        Kernel {
            release: release.to_owned(),
        }
    }

    #[test]
    fn a_series_is_the_major_and_minor_version_and_tells_real_time() {
        assert_eq!(kernel("6.1.0-56-cloud-amd64").series(), "6.1");
        assert_eq!(kernel("6.12.117+deb12-cloud-amd64").series(), "6.12");
        assert_eq!(kernel("6.12.117+deb12-rt-amd64").series(), "6.12-rt");
    }

    #[test]
    fn kernels_are_ordered_by_number_and_not_by_letter() {
        let older = kernel("6.12.99+deb12-cloud-amd64").version();
        assert!(older < kernel("6.12.117+deb12-cloud-amd64").version());
        let older = kernel("6.1.0-9-cloud-amd64").version();
        assert!(older < kernel("6.1.0-56-cloud-amd64").version());
    }
}
