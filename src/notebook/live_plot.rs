//! [`LivePlot`]: curves that grow while a cell runs, like livelossplot.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::draw::{Chart, Kind, Picture, Series, Theme};
use super::frontend::Frontend;
use super::html::{bytes, number};
use super::{Display, MimeBundle, Number, Rich, display};
use crate::Result;
use crate::device::gpu_memory_held;
use crate::sync::lock;

/// A picture takes longer to draw and to send than a bar, so it is updated only twice a second.
const UPDATE_EVERY: Duration = Duration::from_millis(500);
/// If there are more points than this, neighbours are averaged: more points could not be distinguished at this width.
const MAX_POINTS: usize = 1000;
/// Curves that are updated in place while a cell runs. The last state stays in the notebook.
///
/// ```
/// use wavemesh::notebook::LivePlot;
/// let mut plot = LivePlot::new("training").log_scale(true).smooth(0.8);
/// for step in 0..100 {
///     plot.push("loss", 1.0 / (1.0 + step as f64));
/// }
/// assert_eq!(plot.last("loss"), Some(0.01));
/// ```
#[derive(Debug)]
pub struct LivePlot(Arc<Mutex<Plot>>);

#[derive(Debug)]
struct Plot {
    chart: Chart,
    curves: Vec<Curve>,
    smooth: f64,
    /// Whether it shows a training, so that its title says how much of the GPU's memory is held.
    training: bool,
    output: Option<Display>,
    drawn: Option<Instant>,
    changed: bool,
    /// Whether the last points still have to be drawn at the next update.
    waiting: bool,
}

/// The plots with points that have to be drawn; [`flush`] draws them when a cell ends.
static WAITING: Mutex<Vec<Weak<Mutex<Plot>>>> = Mutex::new(Vec::new());

/// Draws the last points of every plot that has undrawn ones.
pub(super) fn flush() {
    for plot in std::mem::take(&mut *lock(&WAITING)) {
        // A thread that was stopped for good may hold the lock of its plot.
        if let Some(plot) = plot.upgrade()
            && let Ok(mut plot) = plot.try_lock()
            && plot.changed
        {
            plot.show(true);
        }
    }
}

#[derive(Clone, Debug)]
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

impl LivePlot {
    /// An empty plot. It appears with the first point.
    pub fn new(title: impl Into<String>) -> Self {
        Self(Arc::new(Mutex::new(Plot {
            chart: Chart { title: title.into(), ..Default::default() },
            curves: Vec::new(),
            smooth: 0.0,
            training: false,
            output: None,
            drawn: None,
            changed: false,
            waiting: false,
        })))
    }

    fn plot(&self) -> MutexGuard<'_, Plot> {
        lock(&self.0)
    }

    /// Whether values are shown on a logarithmic scale. Values that are not positive are then left out.
    pub fn log_scale(self, log: bool) -> Self {
        self.plot().chart.log_y = log;
        self
    }

    /// The label of the x axis, with its unit.
    pub fn x_label(self, label: impl Into<String>) -> Self {
        self.plot().chart.x_label = label.into();
        self
    }

    /// The label of the y axis, with its unit.
    pub fn y_label(self, label: impl Into<String>) -> Self {
        self.plot().chart.y_label = label.into();
        self
    }

    /// Shows the running mean over the raw curve: from 0 (no smoothing) to just below 1 (very smooth), like TensorBoard's slider. The
    /// number is the weight that the past keeps over one step of the densest curve, so that a curve with few points does not lag for
    /// longer.
    pub fn smooth(self, smooth: f64) -> Self {
        self.plot().smooth = if smooth.is_finite() { smooth.clamp(0.0, 0.999) } else { 0.0 };
        self
    }

    /// Width and height in pixels, 120 × 80 to 8192 × 8192.
    pub fn size(self, width: u32, height: u32) -> Self {
        self.plot().chart.size = (width.clamp(120, 8192), height.clamp(80, 8192));
        self
    }

    /// Light or dark theme.
    pub fn theme(self, theme: Theme) -> Self {
        self.plot().chart.theme = theme;
        self
    }

    /// Adds a value to a curve, one step after its last value.
    pub fn push(&mut self, curve: &str, value: impl Number) {
        let step = self.plot().curve(curve).points.last().map_or(0.0, |(step, _)| step + 1.0);
        self.push_at(curve, step, value);
    }

    /// Adds a value to a curve at a given step.
    pub fn push_at(&mut self, curve: &str, step: impl Number, value: impl Number) {
        let mut plot = self.plot();
        plot.curve(curve).points.push((step.to_f64(), value.to_f64()));
        plot.changed = true;
        if !Frontend::current().is_live() {
            return;
        }
        let left = plot.drawn.map_or(Duration::ZERO, |drawn| UPDATE_EVERY.saturating_sub(drawn.elapsed()));
        if left.is_zero() {
            plot.show(false);
        } else if !plot.waiting {
            // The plot is a variable that outlives the cell: nothing else would draw the last points.
            plot.waiting = true;
            let waiting = Arc::downgrade(&self.0);
            lock(&WAITING).push(waiting.clone());
            std::thread::spawn(move || {
                std::thread::sleep(left);
                if let Some(plot) = waiting.upgrade() {
                    let mut plot = lock(&plot);
                    plot.waiting = false;
                    if plot.changed {
                        plot.show(false);
                    }
                }
            });
        }
    }

    /// Adds a training step to the curve `loss` and, if the step has a validation, to the curve `validation`. From then on the title says
    /// how much of the GPU's memory the process holds for tensors, if they are on one.
    pub fn record(&mut self, record: &crate::train::StepRecord) {
        self.plot().training = true;
        self.push_at("loss", record.step, record.loss);
        if let Some(loss) = record.validation {
            self.push_at("validation", record.step, loss);
        }
    }

    /// The last value of a curve.
    pub fn last(&self, curve: &str) -> Option<f64> {
        self.plot().curves.iter().find(|known| known.name == curve)?.points.last().map(|(_, value)| *value)
    }
}

impl Plot {
    fn curve(&mut self, name: &str) -> &mut Curve {
        let at = self.curves.iter().position(|curve| curve.name == name).unwrap_or_else(|| {
            self.curves.push(Curve { name: name.to_owned(), points: Vec::new() });
            self.curves.len() - 1
        });
        &mut self.curves[at]
    }

    fn show(&mut self, last: bool) {
        self.drawn = Some(Instant::now());
        self.changed = false;
        let bundle = self.bundle();
        match &self.output {
            None => self.output = Some(display(&bundle)),
            Some(output) if last => output.update(bundle),
            Some(output) => output.update_passing(bundle),
        }
    }

    fn picture(&self) -> Result<Picture> {
        let shown: Vec<Vec<(f64, f64)>> = self.curves.iter().map(|curve| self.drawable(&curve.points)).collect();
        let stride = shown.iter().filter_map(|points| mean_stride(points)).fold(f64::INFINITY, f64::min);
        let mut series = Vec::new();
        for (color, (curve, points)) in self.curves.iter().zip(shown).enumerate() {
            let last = curve.points.last().map_or(String::new(), |(_, value)| format!(": {}", number(*value)));
            let name = format!("{}{last}", curve.name);
            let smoothed = self.smoothed(&points, stride);
            if self.smooth > 0.0 {
                series.push(Series { name: String::new(), kind: Kind::Shadow, points, color });
            }
            series.push(Series { name, kind: Kind::Line, points: smoothed, color });
        }
        Chart { title: self.title(), ..self.chart.clone() }.draw_placed(&series)?.into_picture()
    }

    fn title(&self) -> String {
        let gpus = if self.training { gpu_memory_held() } else { Vec::new() };
        let memory = gpus.into_iter().map(|(gpu, held)| format!("cuda:{gpu} {}", bytes(held)));
        let parts = std::iter::once(self.chart.title.clone()).chain(memory).filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(" · ")
    }

    /// The points to draw: finite, on the chosen scale, and few enough.
    fn drawable(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let scaled: Vec<(f64, f64)> = points.iter().filter_map(|&point| self.chart.place(point)).collect();
        let group = scaled.len().div_ceil(MAX_POINTS).max(1);
        let mean = |part: &[(f64, f64)]| {
            let (x, y) = part.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
            (x / part.len() as f64, y / part.len() as f64)
        };
        scaled.chunks(group).map(mean).collect()
    }

    /// The exponential mean, corrected for its start. The past keeps the weight `smooth` over each `stride` steps.
    fn smoothed(&self, points: &[(f64, f64)], stride: f64) -> Vec<(f64, f64)> {
        if self.smooth == 0.0 {
            return points.to_vec();
        }
        let (mut sum, mut weight, mut before) = (0.0, 0.0, None);
        let step = |&(x, y): &(f64, f64)| {
            let kept = self.smooth.powf(before.map_or(1.0, |before: f64| (x - before).abs() / stride));
            sum = kept * sum + (1.0 - kept) * y;
            weight = kept * weight + (1.0 - kept);
            before = Some(x);
            (x, sum / weight)
        };
        points.iter().map(step).collect()
    }
}

/// The mean number of steps between points; `None` if there are fewer than two points.
fn mean_stride(points: &[(f64, f64)]) -> Option<f64> {
    let steps = points.last()?.0 - points.first()?.0;
    (steps > 0.0).then(|| steps / (points.len() - 1) as f64)
}

impl Rich for LivePlot {
    fn rich(&self) -> MimeBundle {
        self.plot().bundle()
    }

    fn shown_in(&self) -> Option<Display> {
        let mut plot = self.plot();
        // The caller updates the output.
        plot.changed = false;
        plot.output.clone()
    }
}

impl Plot {
    fn bundle(&self) -> MimeBundle {
        let curve = |curve: &Curve| {
            let last = curve
                .points
                .last()
                .map_or("no points".into(), |(step, value)| format!("{} at step {}", number(*value), number(*step)));
            format!("{} {last}", curve.name)
        };
        let text = format!("{} | {}", self.title(), self.curves.iter().map(curve).collect::<Vec<_>>().join(" · "));
        match self.picture() {
            Ok(picture) => picture.bundle(text),
            Err(error) => MimeBundle::text(format!("{text}\n{error}")),
        }
    }
}

/// Shows the last state.
impl Drop for LivePlot {
    fn drop(&mut self) {
        let mut plot = self.plot();
        if plot.changed {
            plot.show(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_training_are_drawn_at_their_numbers() {
        let step = |step: usize, validation| crate::train::StepRecord {
            step,
            loss: 1.0 / step as f64,
            grad_norm: 0.0,
            learning_rate: 0.0,
            validation,
            seconds: 0.0,
            processor_seconds: None,
        };
        let mut curves = LivePlot::new("training");
        [step(1, None), step(2, Some(0.7)), step(4, None)].iter().for_each(|record| curves.record(record));
        let points = |name: &str| curves.plot().curve(name).points.clone();
        assert_eq!(points("loss"), [(1.0, 1.0), (2.0, 0.5), (4.0, 0.25)]);
        assert_eq!(points("validation"), [(2.0, 0.7)]);
    }

    #[test]
    fn smoothing_starts_at_the_first_value_and_follows() {
        let plot = LivePlot::new("").smooth(0.9);
        let constant: Vec<_> = (0..5).map(|i| (f64::from(i), 2.0)).collect();
        assert!(plot.plot().smoothed(&constant, 1.0).iter().all(|(_, y)| (y - 2.0).abs() < 1e-12));
        let step = plot.plot().smoothed(&[(0.0, 0.0), (1.0, 1.0)], 1.0);
        assert!((step[1].1 - 1.0 / 1.9).abs() < 1e-12);
        // A curve with one point for every twenty of the other lags by the weight of twenty steps.
        let sparse = plot.plot().smoothed(&[(0.0, 0.0), (20.0, 1.0)], 1.0);
        let kept = 0.9f64.powi(20);
        assert!((sparse[1].1 - (1.0 - kept) / (1.0 - kept + 0.1 * kept)).abs() < 1e-12);
    }

    #[test]
    fn a_log_scale_leaves_out_what_has_no_logarithm_and_long_curves_are_thinned() {
        let plot = LivePlot::new("").log_scale(true);
        assert_eq!(plot.plot().drawable(&[(0.0, 0.0), (1.0, 100.0), (2.0, f64::NAN)]), [(1.0, 2.0)]);
        let long: Vec<_> = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
        assert_eq!(plot.plot().drawable(&long).len(), MAX_POINTS);
    }

    #[test]
    fn the_text_tells_the_last_values_and_nan_does_not_stop_the_picture() {
        let mut plot = LivePlot::new("fit");
        plot.push("loss", f64::NAN);
        plot.push("loss", 0.5);
        plot.push_at("lr", 10.0, 1e-4);
        let bundle = plot.rich();
        assert_eq!(bundle.plain(), "fit | loss 0.5000 at step 1 · lr 1.000e-4 at step 10");
        assert!(bundle.get("image/png").is_some());
    }
}
