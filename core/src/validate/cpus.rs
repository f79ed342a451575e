//! Lists of CPUs, as the kernel writes them: `0-3,7`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Linux supports no more (`NR_CPUS` of the largest configurations).
const HIGHEST: u32 = 8191;

/// CPUs to read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuChoice {
    /// Every CPU that the agent may run on.
    All,
    /// These, in order.
    These(BTreeSet<u32>),
}

/// Why a text is not a choice of CPUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCpus {
    /// Not a list at all.
    #[error("is no list of CPUs; write All, or numbers and ranges such as 0-3,7")]
    Syntax,
    /// A range whose end comes first.
    #[error("counts down; write {1}-{0} instead of {0}-{1}")]
    Descending(u32, u32),
    /// More than any machine has.
    #[error("names CPU {0}; the highest number is {HIGHEST}")]
    TooHigh(u32),
}

impl FromStr for CpuChoice {
    type Err = InvalidCpus;

    fn from_str(text: &str) -> Result<Self, InvalidCpus> {
        if text == "All" {
            return Ok(Self::All);
        }
        let mut cpus = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(InvalidCpus::Descending(first, last));
            }
            if last > HIGHEST {
                return Err(InvalidCpus::TooHigh(last));
            }
            cpus.extend(first..=last);
        }
        Ok(Self::These(cpus))
    }
}

fn number(text: &str) -> Result<u32, InvalidCpus> {
    // `parse` alone would take "+3".
    if !text.bytes().all(|it| it.is_ascii_digit()) {
        return Err(InvalidCpus::Syntax);
    }
    text.parse().map_err(|_| InvalidCpus::Syntax)
}

impl fmt::Display for CpuChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("All"),
            Self::These(cpus) => {
                let numbers: Vec<String> = cpus.iter().map(ToString::to_string).collect();
                f.write_str(&numbers.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        let these = |cpus: &[u32]| Ok(CpuChoice::These(cpus.iter().copied().collect()));
        let cases = [
            ("All", Ok(CpuChoice::All)),
            ("0", these(&[0])),
            ("0-3,7", these(&[0, 1, 2, 3, 7])),
            ("7,0-1,1", these(&[0, 1, 7])),
            ("3-1", Err(InvalidCpus::Descending(3, 1))),
            ("9000", Err(InvalidCpus::TooHigh(9000))),
            ("", Err(InvalidCpus::Syntax)),
            ("all", Err(InvalidCpus::Syntax)),
            ("1,", Err(InvalidCpus::Syntax)),
            ("-1", Err(InvalidCpus::Syntax)),
            ("+1", Err(InvalidCpus::Syntax)),
            ("99999999999", Err(InvalidCpus::Syntax)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), expected, "{text:?}");
        }
    }
}
