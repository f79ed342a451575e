//! Medians, how far values spread, and a straight line through points.

/// The middle of the values, or the mean of the two in the middle. Not a number without values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.get(half) {
        None => f64::NAN,
        Some(upper) if sorted.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(sorted[half - 1], *upper),
    }
}

/// The smallest and the largest value.
pub(crate) fn range(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), it| {
            (least.min(*it), most.max(*it))
        })
}

/// A median with the smallest and the largest value behind it, to so many decimals.
pub(crate) fn spread(values: &[f64], decimals: usize) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    let (least, most) = range(values);
    let middle = median(values);
    format!("{middle:.decimals$} ({least:.decimals$} to {most:.decimals$})")
}

/// The same with signs, for differences.
pub(crate) fn signed_spread(values: &[f64], decimals: usize) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    let (least, most) = range(values);
    let middle = median(values);
    format!("{middle:+.decimals$} ({least:+.decimals$} to {most:+.decimals$})")
}

/// A straight line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) at_zero: f64,
    pub(crate) per_unit: f64,
}

impl Line {
    /// The line with the least squares of distances to the points. `None` where all have the same x.
    pub(crate) fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.iter().map(|_| 1.0).sum::<f64>();
        let mean_x = points.iter().map(|it| it.0).sum::<f64>() / count;
        let mean_y = points.iter().map(|it| it.1).sum::<f64>() / count;
        let square: f64 = points.iter().map(|it| (it.0 - mean_x).powi(2)).sum();
        let product: f64 = points
            .iter()
            .map(|it| (it.0 - mean_x) * (it.1 - mean_y))
            .sum();
        // Not a number without points, and then no greater than zero either.
        (square > 0.0).then(|| {
            let per_unit = product / square;
            Self {
                at_zero: mean_y - per_unit * mean_x,
                per_unit,
            }
        })
    }

    pub(crate) fn at(self, x: f64) -> f64 {
        self.at_zero + self.per_unit * x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_of_the_sorted_values() {
        assert!((median(&[9.0, 1.0, 5.0]) - 5.0).abs() < 1e-9);
        assert!((median(&[9.0, 1.0, 5.0, 7.0]) - 6.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_spread_tells_the_median_and_both_ends() {
        assert_eq!(spread(&[670.4, 684.2, 738.0], 0), "684 (670 to 738)");
        assert_eq!(signed_spread(&[-0.26, 0.31, 0.0], 1), "+0.0 (-0.3 to +0.3)");
        assert_eq!(spread(&[], 0), "-");
    }

    #[test]
    fn points_on_a_line_give_that_line() {
        let line = Line::through(&[(64.0, 10.64), (512.0, 15.12), (2048.0, 30.48)]).unwrap();

        assert!((line.at_zero - 10.0).abs() < 1e-9, "{line:?}");
        assert!((line.at(8192.0) - 91.92).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn points_above_each_other_give_no_line() {
        assert_eq!(Line::through(&[(3.0, 1.0), (3.0, 2.0)]), None);
        assert_eq!(Line::through(&[]), None);
    }
}
