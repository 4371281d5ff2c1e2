//! The common part of the text formats: encodings, words with line numbers, and numbers as C reads them.

use std::borrow::Cow;

/// The file as ASCII-compatible bytes with line feeds: a byte order mark is removed, UTF-16 becomes UTF-8, and single carriage returns
/// become line ends.
pub(super) fn normalized(bytes: &[u8]) -> Cow<'_, [u8]> {
    let text = match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => Cow::Borrowed(rest),
        [0xff, 0xfe, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_be_bytes)),
        // UTF-16 without a mark: every other byte of ASCII is zero.
        [a, 0, b, 0, ..] if *a > 0 && *b > 0 => Cow::Owned(from_utf16(bytes, u16::from_le_bytes)),
        [0, a, 0, b, ..] if *a > 0 && *b > 0 => Cow::Owned(from_utf16(bytes, u16::from_be_bytes)),
        _ => Cow::Borrowed(bytes),
    };
    if text.contains(&b'\r') && !text.contains(&b'\n') {
        return Cow::Owned(text.iter().map(|&b| if b == b'\r' { b'\n' } else { b }).collect());
    }
    text
}

fn from_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Vec<u8> {
    let units = bytes.as_chunks::<2>().0.iter().map(|&pair| unit(pair));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>().into_bytes()
}

/// The words of a line.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// All words of a text, each with the number of its line, from 1.
pub(super) fn words_by_line(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    text.split(|&b| b == b'\n').enumerate().flat_map(|(number, line)| words(line).map(move |word| (number + 1, word)))
}

/// A word as messages show it.
pub(super) fn shown(word: &[u8]) -> String {
    let text = String::from_utf8_lossy(word);
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{short}`")
}

/// A number as C's `strtod` reads it and its `printf` writes it: `.5`, `1.`, `+2`, `1e5`, `nan`, `inf`, Microsoft's `1.#QNAN` and
/// `-1.#IND`, and hexadecimal; also `1d5`, as Fortran writes it.
///
/// # Errors
/// A phrase that names the word.
pub(super) fn number(word: &[u8]) -> Result<f64, String> {
    std::str::from_utf8(word).ok().and_then(|text| text.parse().ok().or_else(|| odd_number(text))).ok_or_else(|| {
        let hint = if word.contains(&b',') { "; write decimals with a point" } else { "" };
        format!("{} is not a number{hint}", shown(word))
    })
}

fn odd_number(text: &str) -> Option<f64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.to_ascii_lowercase();
    let size = if let Some((_, name)) = digits.split_once(".#") {
        if name.starts_with("inf") { f64::INFINITY } else { f64::NAN }
    } else if digits.starts_with("nan(") {
        f64::NAN
    } else if let Some(digits) = digits.strip_prefix("0x") {
        hexadecimal(digits)?
    } else if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        digits.replacen('d', "e", 1).parse().ok()?
    } else {
        return None;
    };
    Some(if negative { -size } else { size })
}

/// `1.8p3` is 12: digits of base 16 and an exponent of 2.
fn hexadecimal(text: &str) -> Option<f64> {
    let (digits, exponent) = text.split_once('p').unwrap_or((text, "0"));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let mut size = 0.0;
    for digit in whole.chars().chain(part.chars()) {
        size = size * 16.0 + f64::from(digit.to_digit(16)?);
    }
    Some(size * 2f64.powi(exponent.parse::<i32>().ok()?.checked_sub(4 * i32::try_from(part.len()).ok()?)?))
}

/// The three coordinates of a vertex.
///
/// # Errors
/// A phrase that says what is missing or is not a number.
pub(super) fn vertex<'a>(words: &mut impl Iterator<Item = &'a [u8]>) -> Result<[f64; 3], String> {
    let mut vertex = [0.0; 3];
    for coordinate in &mut vertex {
        *coordinate = number(words.next().ok_or("a vertex needs three coordinates")?)?;
    }
    Ok(vertex)
}

/// `count` things of a kind, in words: "1 face", "2 faces".
pub(super) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_and_writes_them() {
        let cases: [(&str, f64); 14] = [
            ("1", 1.0),
            (".5", 0.5),
            ("-.5", -0.5),
            ("1.", 1.0),
            ("+2.5E-1", 0.25),
            ("1e400", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("Infinity", f64::INFINITY),
            ("1.#INF", f64::INFINITY),
            ("-1.#INF00", f64::NEG_INFINITY),
            ("1.5d2", 150.0),
            ("0x1.8p3", 12.0),
            ("-0xA", -10.0),
            ("2487002.881739", 2487002.881739),
        ];
        for (text, value) in cases {
            assert_eq!(number(text.as_bytes()), Ok(value), "{text}");
        }
        for text in ["nan", "-NaN", "nan(0x1)", "1.#QNAN", "-1.#IND"] {
            assert!(number(text.as_bytes()).unwrap().is_nan(), "{text}");
        }
        for text in ["", "x", "1..2", "--1", "0x", "0xg", "1e", "e5", "1,5", "ü"] {
            assert!(number(text.as_bytes()).is_err(), "{text}");
        }
        assert!(number(b"1,5").unwrap_err().contains("point"));
    }

    #[test]
    fn every_encoding_becomes_the_same_bytes() {
        let text = "v 1 2 3\nf 1 1 1\n";
        let units = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> { text.encode_utf16().flat_map(unit).collect() };
        let (little, big) = (units(u16::to_le_bytes), units(u16::to_be_bytes));
        let files: [Vec<u8>; 7] = [
            text.into(),
            [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat(),
            [&[0xff, 0xfe][..], &little].concat(),
            [&[0xfe, 0xff][..], &big].concat(),
            little,
            big,
            text.replace('\n', "\r").into_bytes(),
        ];
        for file in files {
            assert_eq!(normalized(&file).as_ref(), text.as_bytes(), "{file:?}");
        }
    }
}
