//! [`Plot`]: curves, dots and bars in one line, like matplotlib's pyplot.

use super::draw::{Chart, Kind, Picture, Series, Theme};
use super::html::{count, number};
use super::{MimeBundle, Rich};
use crate::{Error, Result};

/// A number that can be plotted: any float or integer, or a reference to one.
pub trait Number: Copy {
    /// The nearest `f64`.
    fn to_f64(self) -> f64;
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Number for $number {
            fn to_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}
numbers!(f32 f64 i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

impl Number for half::f16 {
    fn to_f64(self) -> f64 {
        self.to_f64()
    }
}

impl Number for half::bf16 {
    fn to_f64(self) -> f64 {
        self.to_f64()
    }
}

impl<N: Number> Number for &N {
    fn to_f64(self) -> f64 {
        N::to_f64(*self)
    }
}

fn to_f64s<N: Number>(values: impl IntoIterator<Item = N>) -> Vec<f64> {
    values.into_iter().map(N::to_f64).collect()
}

/// A chart of one or more series, which is shown when it ends a cell. Make it with [`plot`], [`scatter`], [`bars`] or [`histogram`], or
/// start with an empty one and add series.
///
/// ```
/// use wavemesh::notebook::{Rich, plot};
/// let steps = [1, 10, 100];
/// let two = plot(steps, [0.5, 0.05, 0.004]).name("DDIM").line("DDPM", steps, [0.9, 0.2, 0.01])
///     .title("error by steps").x_label("steps").y_label("Chamfer distance").log_x(true).log_y(true);
/// assert!(two.rich().plain().starts_with("error by steps | line DDIM: 3 points, steps 1 to 100, Chamfer distance 0.004000 to 0.5000"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Plot {
    chart: Chart,
    series: Vec<Series>,
    /// The lengths of the first pair of lists that differ.
    uneven: Option<[usize; 2]>,
}

/// A line through the points (x, y). `xs` and `ys` may be anything that yields numbers: lists, slices, ranges, iterators.
///
/// ```
/// use wavemesh::notebook::plot;
/// let squares = plot(0..10, (0..10).map(|x| x * x));
/// assert!(squares.picture().is_ok());
/// ```
pub fn plot<X: Number, Y: Number>(xs: impl IntoIterator<Item = X>, ys: impl IntoIterator<Item = Y>) -> Plot {
    Plot::new().line("", xs, ys)
}

/// A dot at each point (x, y).
pub fn scatter<X: Number, Y: Number>(xs: impl IntoIterator<Item = X>, ys: impl IntoIterator<Item = Y>) -> Plot {
    Plot::new().scatter("", xs, ys)
}

/// A bar for each name.
///
/// ```
/// use wavemesh::notebook::{Rich, bars};
/// let kept = bars(["aaa2", "aad2", "ddd1"], [512, 90, 3]).y_label("coefficients");
/// assert!(kept.rich().plain().contains("coefficients 3 to 512"));
/// ```
pub fn bars<Y: Number>(names: impl IntoIterator<Item = impl Into<String>>, ys: impl IntoIterator<Item = Y>) -> Plot {
    let names: Vec<String> = names.into_iter().map(Into::into).collect();
    let mut plot = Plot::new().bars("", 0..names.len(), ys);
    plot.chart.x_names = names;
    plot
}

/// How many of the values lie in each of `bins` (at least 1) ranges of equal width. Values that are not finite are left out.
///
/// ```
/// use wavemesh::notebook::{Rich, histogram};
/// let throws = histogram([1, 2, 2, 3, 3, 3], 3).x_label("eyes");
/// assert!(throws.rich().plain().contains("count 1 to 3"));
/// ```
#[doc(alias = "hist")]
pub fn histogram<N: Number>(values: impl IntoIterator<Item = N>, bins: usize) -> Plot {
    let values: Vec<f64> = to_f64s(values).into_iter().filter(|v| v.is_finite()).collect();
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let (low, high) = if low < high { (low, high) } else { (low - 0.5, low + 0.5) };
    let bins = bins.max(1);
    let width = (high - low) / bins as f64;
    let mut counts = vec![0usize; bins];
    for value in &values {
        counts[(((value - low) / width) as usize).min(bins - 1)] += 1;
    }
    let middle = |bin: usize| low + (bin as f64 + 0.5) * width;
    let points = if values.is_empty() { 0 } else { bins };
    Plot::new().bars("", (0..points).map(middle), counts.into_iter().take(points)).y_label("count")
}

impl Plot {
    /// A chart without series.
    pub fn new() -> Self {
        Self::default()
    }

    fn add<X: Number, Y: Number>(
        mut self,
        kind: Kind,
        name: impl Into<String>,
        xs: impl IntoIterator<Item = X>,
        ys: impl IntoIterator<Item = Y>,
    ) -> Self {
        let (xs, ys) = (to_f64s(xs), to_f64s(ys));
        if xs.len() != ys.len() {
            self.uneven.get_or_insert([xs.len(), ys.len()]);
        }
        let points = xs.into_iter().zip(ys).collect();
        self.series.push(Series { name: name.into(), kind, points, color: self.series.len() });
        self
    }

    /// Adds a line with a name for the legend.
    pub fn line<X: Number, Y: Number>(
        self,
        name: impl Into<String>,
        xs: impl IntoIterator<Item = X>,
        ys: impl IntoIterator<Item = Y>,
    ) -> Self {
        self.add(Kind::Line, name, xs, ys)
    }

    /// Adds dots with a name for the legend.
    pub fn scatter<X: Number, Y: Number>(
        self,
        name: impl Into<String>,
        xs: impl IntoIterator<Item = X>,
        ys: impl IntoIterator<Item = Y>,
    ) -> Self {
        self.add(Kind::Scatter, name, xs, ys)
    }

    /// Adds bars with a name for the legend. Bars at the same x are drawn side by side.
    pub fn bars<X: Number, Y: Number>(
        self,
        name: impl Into<String>,
        xs: impl IntoIterator<Item = X>,
        ys: impl IntoIterator<Item = Y>,
    ) -> Self {
        self.add(Kind::Bars, name, xs, ys)
    }

    /// Names the series that was added last.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        if let Some(last) = self.series.last_mut() {
            last.name = name.into();
        }
        self
    }

    /// Sets the title above the plot.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.chart.title = title.into();
        self
    }

    /// The label of the x axis, with its unit.
    pub fn x_label(mut self, label: impl Into<String>) -> Self {
        self.chart.x_label = label.into();
        self
    }

    /// The label of the y axis, with its unit.
    pub fn y_label(mut self, label: impl Into<String>) -> Self {
        self.chart.y_label = label.into();
        self
    }

    /// Whether x is on a logarithmic scale; points without a logarithm are left out.
    pub fn log_x(mut self, log: bool) -> Self {
        self.chart.log_x = log;
        self
    }

    /// Whether y is on a logarithmic scale; points without a logarithm are left out.
    pub fn log_y(mut self, log: bool) -> Self {
        self.chart.log_y = log;
        self
    }

    /// Width and height in pixels, 120 × 80 to 8192 × 8192.
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.chart.size = (width.clamp(120, 8192), height.clamp(80, 8192));
        self
    }

    /// Light or dark theme.
    pub fn theme(mut self, theme: Theme) -> Self {
        self.chart.theme = theme;
        self
    }

    /// Draws the plot.
    ///
    /// # Errors
    /// [`Error::Shape`] if `xs` and `ys` have different lengths.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let picture = plot([0, 1, 2], [0.0, 1.0, 4.0]).title("squares").size(320, 240).picture()?;
    /// assert_eq!((picture.width(), picture.height()), (320, 240));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn picture(&self) -> Result<Picture> {
        if let Some([xs, ys]) = self.uneven {
            let expected = format!("{xs} values, one for each x");
            return Err(Error::Shape { op: "plot", what: "ys", got: vec![ys], expected });
        }
        self.chart.draw(&self.series)?.into_picture()
    }

    fn text(&self) -> String {
        let named = |label: &str, default: &str| if label.is_empty() { default.to_owned() } else { label.to_owned() };
        let ends = |name: String, values: &mut dyn Iterator<Item = f64>| {
            let finite = values.filter(|v| v.is_finite());
            let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
            if low <= high { format!(", {name} {} to {}", number(low), number(high)) } else { String::new() }
        };
        let told = |one: &Series| {
            let kind = match one.kind {
                Kind::Line | Kind::Shadow => "line",
                Kind::Scatter => "dots",
                Kind::Bars => "bars",
            };
            let kind = if one.name.is_empty() { kind.to_owned() } else { format!("{kind} {}", one.name) };
            let x = if self.chart.x_names.is_empty() {
                ends(named(&self.chart.x_label, "x"), &mut one.points.iter().map(|p| p.0))
            } else {
                String::new()
            };
            let y = ends(named(&self.chart.y_label, "y"), &mut one.points.iter().map(|p| p.1));
            format!("{kind}: {} points{x}{y}", count(one.points.len() as u64))
        };
        let title = named(&self.chart.title, "Plot");
        format!("{title} | {}", self.series.iter().map(told).collect::<Vec<_>>().join(" · "))
    }
}

impl Rich for Plot {
    fn rich(&self) -> MimeBundle {
        match self.picture() {
            Ok(picture) => picture.bundle(self.text()),
            Err(error) => Err::<MimeBundle, _>(error).rich(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_different_lengths_are_an_error_that_names_both() {
        let error = plot([1, 2, 3], [1.0f32, 2.0]).picture().unwrap_err().to_string();
        assert!(error.contains("[2]") && error.contains("3 values"), "{error}");
        assert!(plot([1, 2, 3], [1.0f32]).rich().plain().starts_with("Error"));
    }

    #[test]
    fn a_histogram_counts_every_finite_value_once() {
        let values = [0.0, 0.1, 0.9, 1.0, f64::NAN, f64::INFINITY];
        let plot = histogram(values, 2);
        assert_eq!(plot.series[0].points, [(0.25, 2.0), (0.75, 2.0)]);
        assert!(histogram([0f32; 0], 4).picture().is_ok());
        assert_eq!(histogram([3, 3], 4).series[0].points.iter().map(|p| p.1).sum::<f64>(), 2.0);
    }

    #[test]
    fn bars_reach_from_zero_to_their_value_beside_each_other() {
        // Two bars with the same height at each name: the left is blue, the right vermilion.
        let plot = bars(["a", "b"], [1.0, 1.0]).bars("", 0..2, [1.0, 1.0]).size(200, 120);
        let picture = plot.picture().unwrap();
        let pixels = |wanted: [u8; 3]| -> Vec<usize> {
            (0..picture.rgb().len() / 3).filter(|&i| picture.rgb()[3 * i..][..3] == wanted).collect()
        };
        let (blue, red) = (pixels([0, 114, 178]), pixels([213, 94, 0]));
        assert!(blue.len() > 200 && blue.len().abs_diff(red.len()) * 10 < blue.len(), "{} {}", blue.len(), red.len());
        let leftmost = |of: &[usize]| of.iter().map(|i| i % 200).min().unwrap();
        assert!(leftmost(&blue) < leftmost(&red));
    }

    #[test]
    fn every_kind_of_number_is_plotted_and_odd_ones_do_not_stop_the_picture() {
        let odd = plot(vec![1u8, 2, 3], [f32::NAN, -1.0, f32::INFINITY].iter()).log_y(true);
        assert!(odd.picture().is_ok());
        let half = [half::f16::from_f32(0.5)];
        assert!(scatter(half, [half::bf16::from_f32(2.0)]).rich().plain().contains("x 0.5000 to 0.5000, y 2 to 2"));
    }
}
