//! Which kernels run how.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};

use super::kernels::Kernel;

/// How a kernel preempts: with `CONFIG_PREEMPT_DYNAMIC` as its command line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preempt {
    /// Only where a task leaves the kernel or waits.
    None,
    /// Where the kernel offers it as well.
    Voluntary,
    /// Nearly everywhere.
    Full,
    /// Everywhere, as `CONFIG_PREEMPT_RT` has it; no command line changes it.
    Realtime,
}

impl Preempt {
    /// Every model.
    const ALL: [Self; 4] = [Self::None, Self::Voluntary, Self::Full, Self::Realtime];

    /// Those that a kernel can be told.
    fn of(kernel: &Kernel) -> &'static [Self] {
        let (chosen, built) = Self::ALL.split_at(3);
        if kernel.is_realtime() { built } else { chosen }
    }
}

impl fmt::Display for Preempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Voluntary => "voluntary",
            Self::Full => "full",
            Self::Realtime => "realtime",
        })
    }
}

impl FromStr for Preempt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|it| it.to_string() == text);
        found.with_context(|| {
            format!("{text:?} is no preemption model: none, voluntary, full or realtime")
        })
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every kernel in every way.
    All,
    /// Some: a series, and one way or all.
    Some(Vec<(String, Option<Preempt>)>),
}

impl FromStr for Selection {
    type Err = Error;

    /// Reads `6.12:full,6.1:none` or `6.1`; nothing means all.
    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<_> = text.split([',', ' ']).filter(|it| !it.is_empty()).collect();
        if words.is_empty() {
            return Ok(Self::All);
        }
        let one = |word: &str| match word.split_once(':') {
            Some((series, preempt)) => Ok((series.to_owned(), Some(preempt.parse()?))),
            None => Ok((word.to_owned(), None)),
        };
        words
            .into_iter()
            .map(one)
            .collect::<Result<_>>()
            .map(Self::Some)
    }
}

impl Selection {
    /// The runs that this means, in the order of the kernels.
    pub fn runs(&self, kernels: &[Kernel]) -> Result<Vec<(Kernel, Preempt)>> {
        if let Self::Some(wanted) = self {
            for (series, _) in wanted {
                if !kernels.iter().any(|it| it.series() == *series) {
                    let offered: Vec<String> = kernels.iter().map(Kernel::series).collect();
                    bail!(
                        "there is no kernel {series} here, only {}",
                        offered.join(", ")
                    );
                }
            }
        }
        let all = kernels
            .iter()
            .flat_map(|kernel| Preempt::of(kernel).iter().map(|it| (kernel.clone(), *it)));
        Ok(all
            .filter(|(kernel, preempt)| self.wants(kernel, *preempt))
            .collect())
    }

    fn wants(&self, kernel: &Kernel, preempt: Preempt) -> bool {
        match self {
            Self::All => true,
            Self::Some(wanted) => wanted.iter().any(|(series, way)| {
                *series == kernel.series() && way.is_none_or(|it| it == preempt)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels() -> Vec<Kernel> {
        [
            "6.1.0-56-cloud-amd64",
            "6.12.117+deb12-cloud-amd64",
            "6.12.117+deb12-rt-amd64",
        ]
        .map(|it| Kernel {
            release: it.to_owned(),
        })
        .to_vec()
    }

    fn runs(text: &str) -> Vec<String> {
        let runs = text.parse::<Selection>().unwrap().runs(&kernels()).unwrap();
        runs.iter()
            .map(|(kernel, preempt)| format!("{}:{preempt}", kernel.series()))
            .collect()
    }

    #[test]
    fn nothing_selects_every_kernel_in_every_way() {
        assert_eq!(runs("").len(), 7);
        assert_eq!(runs("6.12-rt"), ["6.12-rt:realtime"]);
    }

    #[test]
    fn a_selection_names_a_series_and_a_way_or_all_ways() {
        assert_eq!(runs("6.12:full,6.1:none"), ["6.1:none", "6.12:full"]);
        assert_eq!(runs("6.1"), ["6.1:none", "6.1:voluntary", "6.1:full"]);
    }

    #[test]
    fn what_does_not_exist_is_refused_with_what_does() {
        let error = "5.10"
            .parse::<Selection>()
            .unwrap()
            .runs(&kernels())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no kernel 5.10 here, only 6.1, 6.12, 6.12-rt"
        );
        assert!("6.1:often".parse::<Selection>().is_err());
    }
}
