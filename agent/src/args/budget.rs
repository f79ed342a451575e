//! Budgets on the command line.

use std::str::FromStr;

/// Says that there is no limit.
const NONE: &str = "none";

/// A share of one core in parts per million. `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuBudget(pub Option<u64>);

/// A number of bytes. `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget(pub Option<u64>);

impl FromStr for CpuBudget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == NONE {
            return Ok(Self(None));
        }
        let parts = text.strip_suffix('%').and_then(parts_per_million);
        match parts.ok_or("write a share of one core such as 1% or 0.5%, or none")? {
            parts @ 100..=1_000_000_000 => Ok(Self(Some(parts))),
            _ => Err("is out of range; write a share of one core from 0.01% to 100000%, or none"),
        }
    }
}

/// Of a percentage with up to four decimals.
fn parts_per_million(percent: &str) -> Option<u64> {
    let (whole, decimals) = percent.split_once('.').unwrap_or((percent, "0"));
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || decimals.len() > 4 {
        return None;
    }
    let decimals: u64 = format!("{decimals:0<4}").parse().ok()?;
    // What does not fit is out of any range.
    let whole: u64 = whole.parse().unwrap_or(u64::MAX);
    Some(whole.saturating_mul(10_000).saturating_add(decimals))
}

impl FromStr for MemoryBudget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        if text == NONE {
            return Ok(Self(None));
        }
        let size = UNITS.into_iter().find_map(|(name, unit)| {
            let number = text.strip_suffix(name)?;
            let digits = number.bytes().all(|it| it.is_ascii_digit());
            // What does not fit is out of any range.
            let number: u64 = number.parse().unwrap_or(u64::MAX);
            (digits && !text.starts_with(name)).then(|| number.saturating_mul(unit))
        });
        match size.ok_or("write a size such as 32MiB or 1GiB, or none")? {
            bytes @ 0x10_0000..=0x100_0000_0000 => Ok(Self(Some(bytes))),
            _ => Err("is out of range; write a size from 1MiB to 1024GiB, or none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_core_is_read_exactly() {
        let read = |text: &str| text.parse::<CpuBudget>().map(|it| it.0);
        assert_eq!(read("1%"), Ok(Some(10_000)));
        assert_eq!(read("0.5%"), Ok(Some(5_000)));
        assert_eq!(read("0.0125%"), Ok(Some(125)));
        assert_eq!(read("250%"), Ok(Some(2_500_000)));
        assert_eq!(read("none"), Ok(None));
        for wrong in [
            "", "%", "1", "-1%", "+1%", "1.%", ".5%", "1e2%", "0.00001%", "1 %", "None",
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.starts_with("write a share"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_size_has_a_binary_unit() {
        let read = |text: &str| text.parse::<MemoryBudget>().map(|it| it.0);
        assert_eq!(read("32MiB"), Ok(Some(32 << 20)));
        assert_eq!(read("2048KiB"), Ok(Some(2 << 20)));
        assert_eq!(read("1024GiB"), Ok(Some(1 << 40)));
        assert_eq!(read("none"), Ok(None));
        for wrong in [
            "", "MiB", "32", "32MB", "-1GiB", "+1GiB", "1.5GiB", "32 MiB",
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.starts_with("write a size"), "{wrong}: {error}");
        }
    }
}
