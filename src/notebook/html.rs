//! Small helpers for the HTML and the text of displays: escaping and readable numbers.

/// Escapes text for HTML, as content or inside a quoted attribute.
///
/// ```
/// assert_eq!(wavemesh::notebook::escape("<a & 'b'>"), "&lt;a &amp; &#39;b&#39;&gt;");
/// ```
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A number with four significant digits: `0.1235`, `12.35`, `1.235e9`, `NaN`.
pub(crate) fn number(x: f64) -> String {
    let magnitude = x.abs();
    if x == 0.0 {
        "0".into()
    } else if !x.is_finite() {
        format!("{x}")
    } else if !(1e-3..1e6).contains(&magnitude) {
        format!("{x:.3e}")
    } else if x.fract() == 0.0 {
        format!("{x}")
    } else {
        let decimals = (3 - magnitude.log10().floor() as i32).max(0) as usize;
        format!("{x:.decimals$}")
    }
}

/// The label of a tick: the number without trailing zeros.
pub(crate) fn tick(x: f64) -> String {
    let shown = number(x);
    let (mantissa, exponent) = shown.find('e').map_or((&shown[..], ""), |e| shown.split_at(e));
    if !mantissa.contains('.') {
        return shown;
    }
    mantissa.trim_end_matches('0').trim_end_matches('.').to_owned() + exponent
}

/// A count with separators between groups of three: `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bytes in the largest unit that fits: `512 B`, `1.5 KB`, `400 MB` (powers of 1000).
pub(crate) fn bytes(n: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// Seconds as `0.52 s`, `12.1 s`, `03:25`, `1:02:03`.
pub(crate) fn seconds(s: f64) -> String {
    let whole = s.max(0.0) as u64;
    match whole {
        0..10 => format!("{s:.2} s"),
        10..60 => format!("{s:.1} s"),
        60..3600 => format!("{:02}:{:02}", whole / 60, whole % 60),
        _ => format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_sign() {
        let shown: Vec<_> =
            [0.0, -1.0, 0.123456, -12.3456, 1234.5678, 1.0e9, 2.5e-7, f64::NAN, f64::NEG_INFINITY].map(number).into();
        assert_eq!(shown, ["0", "-1", "0.1235", "-12.35", "1235", "1.000e9", "2.500e-7", "NaN", "-inf"]);
    }

    #[test]
    fn ticks_are_as_short_as_they_can_be() {
        assert_eq!([0.5, 2.5, -40.0, 1e-7, 2.5e9].map(tick), ["0.5", "2.5", "-40", "1e-7", "2.5e9"]);
    }

    #[test]
    fn counts_bytes_and_seconds_read_well() {
        assert_eq!(
            (count(0), count(999), count(1000), count(1234567)),
            ("0".into(), "999".into(), "1,000".into(), "1,234,567".into())
        );
        assert_eq!((bytes(512), bytes(1500), bytes(400_000_000)), ("512 B".into(), "1.5 KB".into(), "400 MB".into()));
        assert_eq!(
            (seconds(0.521), seconds(12.34), seconds(205.0), seconds(3723.0)),
            ("0.52 s".into(), "12.3 s".into(), "03:25".into(), "1:02:03".into())
        );
    }
}
