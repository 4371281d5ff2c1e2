//! [`Slider`]: a number within a range.

use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::{Value, json};

use super::control::control;
use super::core::Core;

/// A number type for sliders: any of Rust's number types of at most 64 bits.
pub trait SliderNumber: Copy + Send + Sync + 'static {
    /// Whether the type has only whole numbers.
    #[doc(hidden)]
    const WHOLE: bool;
    #[doc(hidden)]
    fn to_f64(self) -> f64;
    #[doc(hidden)]
    fn from_f64(value: f64) -> Self;
}

macro_rules! numbers {
    ($whole:literal, $widened:expr; $($type:ty)*) => {
        $(impl SliderNumber for $type {
            const WHOLE: bool = $whole;

            fn to_f64(self) -> f64 {
                $widened(self)
            }

            fn from_f64(value: f64) -> Self {
                value as $type
            }
        })*
    };
}
numbers!(true, |value| value as f64; u8 u16 u32 u64 usize i8 i16 i32 i64 isize);
numbers!(false, |value| value; f64);
// 0.1 as it is written, not as the nearest 32-bit number: steps from there end at 0.02, not at 0.019999996.
numbers!(false, |value: f32| value.to_string().parse().unwrap_or(f64::from(value)); f32);

/// A number within a range, which a reader sets by moving a slider (ipywidgets' `IntSlider` and `FloatSlider`). Clones are the same slider.
#[derive(Clone, Debug)]
pub struct Slider<T: SliderNumber> {
    pub(super) core: Arc<Core>,
    number: PhantomData<T>,
}

/// A slider over `range`, set to its start. It moves in steps of 1 or, if the numbers have fractions, of a hundredth of the range.
///
/// ```
/// use wavemesh::notebook::slider;
/// let steps = slider("steps", 1..=50).value(20);
/// assert_eq!(steps.get(), 20);
/// let threshold = slider("threshold", 0.0..=0.1).step(0.001);
/// threshold.set(0.25); // beyond its end
/// assert_eq!(threshold.get(), 0.1);
/// ```
///
/// A reversed range is turned around; an end that is not finite counts as 0.
#[doc(alias = "IntSlider")]
#[doc(alias = "FloatSlider")]
pub fn slider<T: SliderNumber>(description: &str, range: RangeInclusive<T>) -> Slider<T> {
    let finite = |value: f64| if value.is_finite() { value } else { 0.0 };
    let (start, end) = (finite(range.start().to_f64()), finite(range.end().to_f64()));
    let (min, max) = (start.min(end), start.max(end));
    let step = if T::WHOLE { 1.0 } else { (max - min) / 100.0 };
    let fields = json!({
        "description": description, "min": number::<T>(min), "max": number::<T>(max), "step": number::<T>(step),
        "value": number::<T>(min), "orientation": "horizontal", "readout": true, "continuous_update": true, "behavior": "drag-tap",
        "readout_format": if T::WHOLE { "d".to_owned() } else { format(step) },
    });
    let admit = move |_: &Value, asked: &Value| {
        let value = asked.as_f64().filter(|value| !value.is_nan())?;
        Some(number::<T>(value.clamp(min, max)))
    };
    let class = if T::WHOLE { "IntSlider" } else { "FloatSlider" };
    Slider { core: Core::new(class, Some("SliderStyle"), "value", fields, admit), number: PhantomData }
}

/// A number in the form for the page, where whole numbers have no fraction.
fn number<T: SliderNumber>(value: f64) -> Value {
    if T::WHOLE { json!(value.round() as i64) } else { json!(value) }
}

/// The number format with as many digits as a step can change.
fn format(step: f64) -> String {
    let digits = if step > 0.0 { (-step.log10()).ceil().clamp(0.0, 10.0) } else { 2.0 };
    format!(".{digits}f")
}

impl<T: SliderNumber> Slider<T> {
    /// Sets the value before the slider is shown; a value beyond an end is set to that end.
    pub fn value(self, value: T) -> Self {
        self.core.choose(&number::<T>(value.to_f64()));
        self
    }

    /// The distance between two positions of the slider. A step that is not above zero changes nothing.
    pub fn step(self, step: T) -> Self {
        let step = step.to_f64();
        if step > 0.0 && step.is_finite() {
            self.core.set("step", number::<T>(step));
            if !T::WHOLE {
                self.core.set("readout_format", format(step).into());
            }
        }
        self
    }

    /// Sets the value as a reader would; a value beyond an end is set to that end.
    pub fn set(&self, value: T) {
        self.core.choose(&number::<T>(value.to_f64()));
    }

    fn value_of(&self) -> T {
        T::from_f64(self.core.get("value").as_f64().unwrap_or_default())
    }

    fn told(&self) -> String {
        self.core.get("value").to_string()
    }
}

control!([T: SliderNumber] Slider<T>, T);
