//! Lists of numbers, shortened as in numpy: `[0.1, 0.2, 0.3, …, 9.8, 9.9, 10]`, with their length and range.

use super::html::{count, number};
use super::{MimeBundle, Number, Rich};

/// Lists longer than this are shortened.
const WHOLE: usize = 20;
/// How many values a shortened list shows at each end.
const ENDS: usize = 3;

/// The texts of the values; of a long list only those at its ends, so that no number in between is formatted.
fn texts<T>(values: &[T], text: impl Fn(&T) -> String) -> String {
    let shown: Vec<String> = if values.len() <= WHOLE {
        values.iter().map(text).collect()
    } else {
        let (start, end) = (&values[..ENDS], &values[values.len() - ENDS..]);
        start.iter().map(&text).chain(["…".into()]).chain(end.iter().map(&text)).collect()
    };
    format!("[{}]", shown.join(", "))
}

fn list<N: Number>(values: &[N], text: impl Fn(&N) -> String) -> MimeBundle {
    let mut text = texts(values, text);
    if values.len() > WHOLE {
        let finite = values.iter().map(|v| v.to_f64()).filter(|v| v.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let kind = std::any::type_name::<N>();
        text += &format!("  ({} × {kind}", count(values.len() as u64));
        if low <= high {
            text += &format!(", {} to {}", number(low), number(high));
        }
        text += ")";
    }
    MimeBundle::text(text)
}

fn rows<R: AsRef<[N]>, N>(values: &[R], text: impl Fn(&N) -> String) -> MimeBundle {
    let text = texts(values, |row| texts(row.as_ref(), &text));
    let text = text.replace("], [", "],\n [").replace("], …, [", "],\n …,\n [");
    let length = if values.len() > WHOLE { format!("  ({} rows)", count(values.len() as u64)) } else { String::new() };
    MimeBundle::text(text + &length)
}

macro_rules! lists {
    ($text:expr; $($number:ty)*) => {$(
        impl Rich for [$number] {
            fn rich(&self) -> MimeBundle {
                list(self, $text)
            }
        }

        impl Rich for Vec<$number> {
            fn rich(&self) -> MimeBundle {
                list(self, $text)
            }
        }

        impl Rich for Vec<Vec<$number>> {
            fn rich(&self) -> MimeBundle {
                rows(self, $text)
            }
        }

        impl<const N: usize> Rich for [$number; N] {
            fn rich(&self) -> MimeBundle {
                list(self, $text)
            }
        }

        impl<const N: usize> Rich for [[$number; N]] {
            fn rich(&self) -> MimeBundle {
                rows(self, $text)
            }
        }

        impl<const N: usize> Rich for Vec<[$number; N]> {
            fn rich(&self) -> MimeBundle {
                rows(self, $text)
            }
        }
    )*};
}
lists!(|value| number(Number::to_f64(*value)); f32 f64);
lists!(ToString::to_string; i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lists_are_whole_and_long_ones_are_shortened() {
        assert_eq!(vec![1, 2, 3].rich().plain(), "[1, 2, 3]");
        let long: Vec<f32> = (0..1000).map(|i| i as f32 / 4.0).collect();
        assert_eq!(long.rich().plain(), "[0, 0.2500, 0.5000, …, 249.2, 249.5, 249.8]  (1,000 × f32, 0 to 249.8)");
        assert_eq!(vec![123_456_789u64].rich().plain(), "[123456789]");
        assert_eq!(long[..2].rich().plain(), "[0, 0.2500]");
    }

    #[test]
    fn rows_stand_below_each_other() {
        let places: Vec<[i32; 4]> = (0..100).map(|i| [0, i, i, i]).collect();
        let text = places.rich().plain().to_owned();
        assert!(text.starts_with("[[0, 0, 0, 0],\n [0, 1, 1, 1],\n"), "{text}");
        assert!(text.contains("],\n …,\n [0, 97, 97, 97]") && text.ends_with("(100 rows)"), "{text}");
        assert_eq!(vec![vec![1.5f32], vec![]].rich().plain(), "[[1.500],\n []]");
    }
}
