//! The places of an axis's marks: round numbers, on linear and logarithmic scales.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::notebook::html::tick;

/// Round numbers within `low..=high`, about `wanted` of them.
pub(crate) fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let span = high - low;
    if span.is_nan() || span <= 0.0 || !span.is_finite() {
        return vec![low];
    }
    let rough = span / wanted.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = power * [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|m| m * power >= rough * 0.999).unwrap_or(10.0);
    let (first, last) = ((low / step - 1e-6).ceil() as i64, (high / step + 1e-6).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Marks for a logarithmic axis: the log10 of round numbers, within `low..=high` (also log10).
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let every = ((high - low) / 6.0).ceil().max(1.0) as i64;
    let factors: &[f64] = if high - low <= 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let decades = (low.floor() as i64..=high.ceil() as i64).filter(|decade| decade.rem_euclid(every) == 0);
    let marks: Vec<f64> = decades
        .flat_map(|decade| factors.iter().map(move |factor| decade as f64 + factor.log10()))
        .filter(|mark| (low..=high).contains(mark))
        .collect();
    // Below a factor of about two, evenly spaced numbers are better.
    if marks.len() >= 3 {
        marks
    } else {
        ticks(10f64.powf(low), 10f64.powf(high), 5).into_iter().map(f64::log10).collect()
    }
}

/// A chart's axis from one number to another, with marks at round numbers.
#[derive(Clone)]
pub(crate) struct ChartAxis {
    ends: Range<f64>,
    marks: Vec<f64>,
    log: bool,
    /// Names at 0, 1, 2, … in place of numbers.
    names: Vec<String>,
}

impl ChartAxis {
    /// A linear axis with about `wanted` marks.
    pub fn linear(ends: Range<f64>, wanted: usize) -> Self {
        Self { marks: ticks(ends.start, ends.end, wanted), ends, log: false, names: Vec::new() }
    }

    /// An axis of decimal logarithms, labelled with the numbers themselves.
    pub fn log10(ends: Range<f64>) -> Self {
        Self { marks: log_ticks(ends.start, ends.end), ends, log: true, names: Vec::new() }
    }

    /// An axis with a name at each of 0, 1, 2, …
    pub fn named(ends: Range<f64>, names: &[String]) -> Self {
        Self { marks: (0..names.len()).map(|i| i as f64).collect(), ends, log: false, names: names.to_vec() }
    }
}

impl Ranged for ChartAxis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + ((value - self.ends.start) / (self.ends.end - self.ends.start) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.ends.clone()
    }
}

impl ValueFormatter<f64> for ChartAxis {
    fn format_ext(&self, value: &f64) -> String {
        if let Some(name) = self.names.get(value.round().max(0.0) as usize) {
            return name.clone();
        }
        tick(if self.log { 10f64.powf(*value) } else { *value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 64.0, 5), [0.0, 20.0, 40.0, 60.0]);
        assert_eq!(ticks(-1.0, 1.0, 5), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert_eq!(ticks(3.0, 3.0, 5), [3.0]);
        assert!(ticks(0.0, f64::NAN, 5).len() == 1);
    }

    #[test]
    fn logarithmic_ticks_are_round_numbers_at_every_zoom() {
        let numbers = |low: f64, high: f64| -> Vec<f64> {
            log_ticks(low.log10(), high.log10()).into_iter().map(|t| 10f64.powf(t)).collect()
        };
        let same =
            |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a / b - 1.0).abs() < 1e-9);
        assert!(same(&numbers(0.015, 1.2), &[0.02, 0.05, 0.1, 0.2, 0.5, 1.0]));
        assert!(same(&numbers(0.9e-5, 1.2), &[1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]));
        assert!(same(&numbers(0.31, 0.42), &[0.325, 0.35, 0.375, 0.4]));
    }
}
