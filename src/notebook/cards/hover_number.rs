//! The numbers that a heatmap shows at the pointer. There are thousands on a card, so most are written without Rust's exact formatting,
//! which takes ten times as long.

use std::fmt::Write as _;

/// Adds a value as a short JavaScript expression: with all its digits, or in scientific notation with five if that is shorter.
pub(super) fn write_hover_number(out: &mut String, x: f64) {
    if x.is_nan() {
        out.push_str("NaN");
    } else if x.is_infinite() {
        out.push_str(if x > 0.0 { "1/0" } else { "-1/0" });
    } else if x.fract() == 0.0 && x != 0.0 && x.abs() < 1e5 {
        let _ = write!(out, "{}", x as i32); // writing to a String cannot fail
    } else if let Some((digits, exponent)) = five_digits(x.abs()) {
        write_scientific(out, x < 0.0, digits, exponent);
    } else {
        let (plain, short) = (x.to_string(), format!("{x:.4e}"));
        out.push_str(if plain.len() <= short.len() { &plain } else { &short });
    }
}

/// The powers of ten that an f64 holds exactly and that are needed here.
const POWERS: [f64; 21] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
];

/// The first five digits of a positive number, rounded, and the exponent of the first one. `None` if the rounding is too close to call, or if
/// the number may have at most nine digits, so that all of them may be shorter.
fn five_digits(x: f64) -> Option<(u32, i32)> {
    if !(1e-9..1e9).contains(&x) {
        return None;
    }
    let exponent = (0..9)
        .rev()
        .find(|&e| x >= POWERS[e])
        .map_or_else(|| -((1..=9).find(|&e| x * POWERS[e] >= 1.0).unwrap_or(9) as i32), |e| e as i32);
    // The error of this product is far below the distances that are required.
    let nine = x * POWERS[(8 - exponent) as usize];
    let five = nine / 1e4;
    let clear = (nine - nine.round()).abs() > 1e-5 && ((five - five.floor()) - 0.5).abs() > 1e-6;
    let rounded = five.round() as u32;
    (clear && (10_000..100_000).contains(&rounded)).then_some((rounded, exponent))
}

/// `-1.2346e-2` from 12346 and -2. Exponents have one digit.
fn write_scientific(out: &mut String, negative: bool, digits: u32, exponent: i32) {
    let digit = |power: u32| char::from(b'0' + (digits / power % 10) as u8);
    let sign = |negative: bool| if negative { "-" } else { "" };
    out.push_str(sign(negative));
    out.extend([digit(10_000), '.', digit(1000), digit(100), digit(10), digit(1), 'e']);
    out.push_str(sign(exponent < 0));
    out.push(char::from(b'0' + exponent.unsigned_abs() as u8));
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn written(x: f64) -> String {
        let mut out = String::new();
        write_hover_number(&mut out, x);
        out
    }

    #[test]
    fn numbers_are_those_of_rusts_formatting_whichever_is_shorter() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut numbers = vec![
            0.0, -0.0, 1.0, -7.0, 99_999.0, 1e5, 123_456.0, 0.1, 0.12345, 1.00005, 9.99995, 1e-9, 9.9e-10, 1e9, 1e300,
        ];
        numbers.extend([0.1f32, 0.3, 9.999_95, 99_999.5, 1e-9].map(f64::from));
        for _ in 0..20_000 {
            let x = rng.random_range(-1f64..1.0) * 10f64.powi(rng.random_range(-12..12));
            let digits = 10f64.powi(rng.random_range(0..10));
            numbers.extend([x, f64::from(x as f32), (x * digits).round() / digits, x.round()]);
        }
        for x in numbers {
            let (plain, short) = (format!("{x}"), format!("{x:.4e}"));
            assert_eq!(written(x), if plain.len() <= short.len() { plain } else { short });
        }
    }

    #[test]
    fn what_is_no_number_is_an_expression() {
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(written), ["NaN", "1/0", "-1/0"]);
    }
}
