//! The CPUs that a machine may have, which size the values of per-CPU maps.

use std::io;
use std::sync::OnceLock;

use super::{Error, Result};

pub(super) const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// How many CPUs this machine may ever have, which is what sizes per-CPU values. Read once.
pub fn possible_cpus() -> Result<usize> {
    static COUNT: OnceLock<usize> = OnceLock::new();
    if let Some(&count) = COUNT.get() {
        return Ok(count);
    }
    let count = std::fs::read_to_string(POSSIBLE_CPUS)
        .and_then(|list| {
            parse_cpu_list(&list)
                .filter(|cpus| !cpus.is_empty())
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a list of CPUs"))
        })
        .map_err(|source| Error::PossibleCpus { source })?
        .len();
    Ok(*COUNT.get_or_init(|| count))
}

/// Parses the kernel's notation of a set of CPUs, `0-3,8`, into its ascending members.
///
/// The kernel writes an empty set as an empty line. Anything else but ascending, disjoint ranges
/// is `None`.
pub fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    let list = list.trim_ascii();
    let mut cpus = Vec::new();
    if list.is_empty() {
        return Some(cpus);
    }
    for range in list.split(',') {
        let (lowest, highest) = range.split_once('-').unwrap_or((range, range));
        let (lowest, highest) = (parse_cpu(lowest)?, parse_cpu(highest)?);
        if lowest > highest || cpus.last().is_some_and(|&before| before >= lowest) {
            return None;
        }
        cpus.extend(lowest..=highest);
    }
    Some(cpus)
}

fn parse_cpu(number: &str) -> Option<usize> {
    // Far above the largest NR_CPUS (8,192), so that a garbled file cannot ask for gigabytes.
    const LIMIT: usize = 1 << 20;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    number
        .parse()
        .ok()
        .filter(|&number| digits && number < LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_cpu_list("0\n"), Some(vec![0]));
        assert_eq!(parse_cpu_list("0-3\n"), Some(vec![0, 1, 2, 3]));
        assert_eq!(parse_cpu_list("0,2-3,8\n"), Some(vec![0, 2, 3, 8]));
        assert_eq!(parse_cpu_list("\n"), Some(vec![]));
    }

    #[test]
    fn a_garbled_cpu_list_is_refused_rather_than_undercounted() {
        for list in [
            "a",
            "0-",
            "-3",
            "3-0",
            "0,,1",
            "0-3-5",
            "1,0",
            "0-2,2",
            "+1",
            "0-99999999999",
        ] {
            assert_eq!(parse_cpu_list(list), None, "{list:?}");
        }
    }
}
