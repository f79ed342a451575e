//! Numbers as people read them: `212µs`, `4.2ms`, `1.3M`, `6.10MiB`.

/// A duration in nanoseconds with three significant digits and its unit: `850ns`, `1.25µs`, `4.13ms`, `2.00s`.
pub fn duration(nanoseconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")];
    // 999.5 µs reads 1.00ms and not 1000µs, so a unit begins half a digit early.
    UNITS
        .into_iter()
        .find(|(unit, _)| nanoseconds >= unit - unit / 2000)
        .map_or_else(
            || format!("{nanoseconds}ns"),
            |(unit, name)| format!("{}{name}", three_digits(nanoseconds, unit)),
        )
}

/// A count with three significant digits: `999`, `12.3k`, `1.25M`.
pub fn count(value: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    if value < 1_000 {
        return value.to_string();
    }
    UNITS
        .into_iter()
        .find(|(unit, _)| value >= unit - unit / 2000)
        .map_or_else(
            || value.to_string(),
            |(unit, name)| format!("{}{name}", three_digits(value, unit)),
        )
}

/// Parts per million as a percentage: `1.2%`, `0.01%`, `<0.01%`.
pub fn share(parts_per_million: u64) -> String {
    match parts_per_million {
        0 => "0%".to_owned(),
        1..100 => "<0.01%".to_owned(),
        100..10_000 => format!(
            "{}.{:02}%",
            parts_per_million / 10_000,
            parts_per_million % 10_000 / 100
        ),
        _ => {
            let tenths = (parts_per_million + 500) / 1000;
            format!("{}.{}%", tenths / 10, tenths % 10)
        }
    }
}

/// Memory with three significant digits and a binary unit: `512B`, `14.1MiB`, `6.10MiB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    UNITS
        .into_iter()
        .find(|(unit, _)| value >= *unit)
        .map_or_else(
            || format!("{value}B"),
            |(unit, name)| format!("{}{name}", three_digits(value, unit)),
        )
}

/// `value / unit` with three significant digits.
fn three_digits(value: u64, unit: u64) -> String {
    let hundredths = (u128::from(value) * 100 + u128::from(unit) / 2) / u128::from(unit);
    let tenths = (u128::from(value) * 10 + u128::from(unit) / 2) / u128::from(unit);
    if hundredths < 1_000 {
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    } else if tenths < 1_000 {
        format!("{}.{}", tenths / 10, tenths % 10)
    } else {
        ((u128::from(value) + u128::from(unit) / 2) / u128::from(unit)).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_three_digits_and_a_unit() {
        let cases = [
            (0, "0ns"),
            (512, "512ns"),
            (999, "999ns"),
            (1_000, "1.00µs"),
            (1_249, "1.25µs"),
            (9_996, "10.0µs"),
            (212_000, "212µs"),
            (999_400, "999µs"),
            (999_500, "1.00ms"),
            (4_127_311, "4.13ms"),
            (57_000_000, "57.0ms"),
            (2_000_000_000, "2.00s"),
            (17_179_869_184, "17.2s"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(duration(nanoseconds), text, "{nanoseconds}");
        }
    }

    #[test]
    fn counts_carry_three_digits() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1_000, "1.00k"),
            (60_000, "60.0k"),
            (999_600, "1.00M"),
            (1_534_000, "1.53M"),
            (2_500_000_000, "2.50G"),
            (12_345_000_000_000, "12345G"),
        ];
        for (value, text) in cases {
            assert_eq!(count(value), text, "{value}");
        }
    }

    #[test]
    fn memory_is_told_in_binary_units() {
        let cases = [
            (0, "0B"),
            (1_023, "1023B"),
            (1_024, "1.00KiB"),
            (6_393_856, "6.10MiB"),
            (14_784_922, "14.1MiB"),
            (1_073_741_823, "1024MiB"),
            (1_073_741_824, "1.00GiB"),
        ];
        for (value, text) in cases {
            assert_eq!(bytes(value), text, "{value}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        let cases = [
            (0, "0%"),
            (99, "<0.01%"),
            (100, "0.01%"),
            (1_250, "0.12%"),
            (12_000, "1.2%"),
            (41_000, "4.1%"),
            (1_000_000, "100.0%"),
        ];
        for (parts, text) in cases {
            assert_eq!(share(parts), text, "{parts}");
        }
    }
}
