//! Series of points on two axes: what [`Plot`](crate::notebook::Plot) and [`LivePlot`](crate::notebook::LivePlot) draw.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{ChartAxis, Figure, Theme, figure, register_font, write_text};
use crate::{Error, Result};

/// The colours of Okabe and Ito, which colour-blind readers can tell apart.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
];
/// A line with more points than this has no dots.
const DOTS: usize = 30;
const MARGIN: i32 = 10;
const LEGEND_ROW: i32 = 18;
const LEGEND_FONT: i32 = 13;

/// How the points of a series are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Joined by lines, in their order.
    Line,
    /// A thin, pale line behind another series with the same colour.
    Shadow,
    /// A dot for each point.
    Scatter,
    /// A bar for each point, beside the bars of other series.
    Bars,
}

/// Points with a name.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// The name in the legend; a series with an empty name is not in it.
    pub name: String,
    pub kind: Kind,
    pub points: Vec<(f64, f64)>,
    /// The number of its colour.
    pub color: usize,
}

/// All settings of a chart except its series.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub log_x: bool,
    pub log_y: bool,
    /// Names at x = 0, 1, 2, … in place of numbers.
    pub x_names: Vec<String>,
    pub size: (u32, u32),
    pub theme: Theme,
}

impl Default for Chart {
    fn default() -> Self {
        Self {
            title: String::new(),
            x_label: String::new(),
            y_label: String::new(),
            log_x: false,
            log_y: false,
            x_names: Vec::new(),
            size: (600, 320),
            theme: Theme::Light,
        }
    }
}

impl Chart {
    /// A point in the coordinates of the drawing, with decimal logarithms on logarithmic axes; `None` if it has no place there.
    pub fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let scaled = |value: f64, log: bool| if log { value.log10() } else { value };
        let (x, y) = (scaled(x, self.log_x), scaled(y, self.log_y));
        (x.is_finite() && y.is_finite()).then_some((x, y))
    }

    /// Draws series whose points are in data coordinates.
    ///
    /// # Errors
    /// A size out of range.
    pub fn draw(&self, series: &[Series]) -> Result<Figure> {
        let placed: Vec<Series> = series
            .iter()
            .map(|one| Series { points: one.points.iter().filter_map(|&p| self.place(p)).collect(), ..one.clone() })
            .collect();
        self.draw_placed(&placed)
    }

    /// Draws series whose points were converted by [`place`](Self::place).
    pub fn draw_placed(&self, series: &[Series]) -> Result<Figure> {
        let bars = Bars::of(series);
        let (x_ends, y_ends) = self.ends(series, &bars);
        let upright = if self.log_y { ChartAxis::log10(y_ends.clone()) } else { ChartAxis::linear(y_ends.clone(), 5) };
        let level = match (self.x_names.is_empty(), self.log_x) {
            (false, _) => ChartAxis::named(x_ends, &self.x_names),
            (true, true) => ChartAxis::log10(x_ends),
            (true, false) => ChartAxis::linear(x_ends, 7),
        };
        let rgb = |[r, g, b]: [u8; 3]| RGBColor(r, g, b);
        let (paper, ink, line) = (rgb(self.theme.paper()), rgb(self.theme.ink()), rgb(self.theme.line()));
        let floor = if self.log_y { y_ends.start } else { 0.0 };
        figure(self.size, |root| {
            root.fill(&paper)?;
            let top = self.write_above(root, series)?;
            let (_, below) = root.split_vertically(top);
            let text = |size: i32| ("sans-serif", size).into_font().color(&ink);
            let room = |label: &str| if label.is_empty() { 0 } else { 18 };
            let mut chart = ChartBuilder::on(&below)
                .margin_left(MARGIN)
                .margin_right(MARGIN + 6)
                .margin_bottom(MARGIN)
                .x_label_area_size(26 + room(&self.x_label))
                .y_label_area_size(54 + room(&self.y_label))
                .build_cartesian_2d(level, upright)?;
            chart
                .configure_mesh()
                .light_line_style(TRANSPARENT)
                .bold_line_style(line.stroke_width(1))
                .axis_style(ink)
                .label_style(text(12))
                .axis_desc_style(text(13))
                .x_desc(self.x_label.as_str())
                .y_desc(self.y_label.as_str())
                .draw()?;
            for one in series {
                let color = COLORS[one.color % COLORS.len()];
                let points = one.points.iter().copied();
                match one.kind {
                    Kind::Shadow => {
                        chart.draw_series(LineSeries::new(points, color.mix(0.3).stroke_width(1)))?;
                    }
                    Kind::Line => {
                        chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?;
                        let skipped = if one.points.len() <= DOTS { 0 } else { one.points.len() - 1 };
                        chart.draw_series(points.skip(skipped).map(|point| Circle::new(point, 3, color.filled())))?;
                    }
                    Kind::Scatter => {
                        chart.draw_series(points.map(|point| Circle::new(point, 3, color.mix(0.7).filled())))?;
                    }
                    Kind::Bars => {
                        let (left, right) = bars.sides(one.color);
                        let bar = |(x, y)| Rectangle::new([(x + left, floor), (x + right, y)], color.filled());
                        chart.draw_series(points.map(bar))?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Writes title and legend above the plot, where they hide nothing. Returns their height.
    fn write_above<DB: DrawingBackend>(&self, root: &DrawingArea<DB, Shift>, series: &[Series]) -> Result<i32> {
        register_font();
        let width = self.size.0 as i32;
        let mut top = MARGIN;
        if !self.title.is_empty() {
            write_text(root, &self.title, (width / 2, top + 8), HPos::Center, 17, self.theme)?;
            top += 26;
        }
        let named: Vec<&Series> = series.iter().filter(|one| !one.name.is_empty()).collect();
        let (first, mut x) = (MARGIN + 54, MARGIN + 54);
        let failed = |problem: String| Error::Argument {
            op: "plot",
            name: "the legend",
            got: problem,
            expected: "text that the bundled font can measure".into(),
        };
        for one in &named {
            let font = ("sans-serif", LEGEND_FONT).into_font();
            let (words, _) = font.box_size(&one.name).map_err(|error| failed(error.to_string()))?;
            let taken = 20 + words as i32 + 18;
            if x + taken > width && x > first {
                (x, top) = (first, top + LEGEND_ROW);
            }
            let color = COLORS[one.color % COLORS.len()];
            let middle = top + LEGEND_ROW / 2;
            let drawn = match one.kind {
                Kind::Scatter => root.draw(&Circle::new((x + 7, middle), 3, color.filled())),
                Kind::Bars => root.draw(&Rectangle::new([(x + 2, middle - 5), (x + 12, middle + 5)], color.filled())),
                Kind::Line | Kind::Shadow => {
                    root.draw(&PathElement::new([(x, middle), (x + 14, middle)], color.stroke_width(2)))
                }
            };
            drawn.map_err(|error| failed(error.to_string()))?;
            write_text(root, &one.name, (x + 20, middle), HPos::Left, LEGEND_FONT, self.theme)?;
            x += taken;
        }
        Ok(if named.is_empty() { top } else { top + LEGEND_ROW + 4 })
    }

    /// The ends of the axes: all points with some room around them.
    fn ends(&self, series: &[Series], bars: &Bars) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
        let points = || series.iter().flat_map(|one| one.points.iter().copied());
        let (mut x0, mut x1) = least_and_most(points().map(|p| p.0));
        let (mut y0, mut y1) = least_and_most(points().map(|p| p.1));
        if !self.x_names.is_empty() {
            (x0, x1) = (-0.5, self.x_names.len() as f64 - 0.5);
        } else if bars.count > 0 {
            (x0, x1) = (x0 - 0.5 * bars.spacing, x1 + 0.5 * bars.spacing);
        } else if series.iter().any(|one| one.kind == Kind::Scatter) {
            let room = (x1 - x0) * 0.02;
            (x0, x1) = (x0 - room, x1 + room);
        }
        let room = (y1 - y0) * 0.06;
        (y0, y1) = (y0 - room, y1 + room);
        if bars.count > 0 && !self.log_y {
            // Bars start at zero.
            (y0, y1) = (if y0 + room >= 0.0 { 0.0 } else { y0 }, if y1 - room <= 0.0 { 0.0 } else { y1 });
        }
        (x0..x1, y0..y1)
    }
}

/// The places of the bars at one x.
struct Bars {
    count: usize,
    /// The smallest distance between the x of two bars of a series.
    spacing: f64,
    colors: Vec<usize>,
}

impl Bars {
    fn of(series: &[Series]) -> Self {
        let of_bars = || series.iter().filter(|one| one.kind == Kind::Bars);
        let mut places: Vec<f64> = of_bars().flat_map(|one| one.points.iter().map(|p| p.0)).collect();
        places.sort_unstable_by(f64::total_cmp);
        let gaps = places.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 0.0);
        let spacing = gaps.fold(f64::INFINITY, f64::min);
        let colors: Vec<usize> = of_bars().map(|one| one.color).collect();
        Self { count: colors.len(), spacing: if spacing.is_finite() { spacing } else { 1.0 }, colors }
    }

    /// How far to the left and right of its x the bar of a series with this colour reaches.
    fn sides(&self, color: usize) -> (f64, f64) {
        let at = self.colors.iter().position(|own| *own == color).unwrap_or(0) as f64;
        let width = 0.84 * self.spacing / self.count.max(1) as f64;
        let left = at * width - 0.42 * self.spacing;
        (left, left + width)
    }
}

/// The ends of some numbers, which differ even if there is only one number, or none.
fn least_and_most(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low < high {
        (low, high)
    } else if low == high {
        (low - 0.5, high + 0.5)
    } else {
        (0.0, 1.0)
    }
}
