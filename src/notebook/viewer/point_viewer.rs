//! [`PointViewer`]: a point cloud that can be turned, clipped and asked for its values.

use candle_core::Tensor;
use serde_json::{Value, json};

use super::payload::{Payload, finite_range};
use super::{Content, viewer_bundle};
use crate::Result;
use crate::notebook::html::{bytes, count, number};
use crate::notebook::point_plot::{CLASSES, Colors};
use crate::notebook::view::View;
use crate::notebook::{Colormap, MimeBundle, PointPlot, Rich};
use crate::points::PointCloud;
use crate::sparse::Curve;

/// An interactive view of a point cloud of up to a million points.
///
/// Drag to turn, shift and drag to move, and click before you zoom with the wheel. The controls clip on three axes, and choose size,
/// colours and the range of values. Point at a point to read its position and value. Colours are those of [`PointPlot`].
///
/// A view is a single output of at most a few megabytes, so positions are sent on a grid: 65536 cells along the longest side for up to a
/// hundred thousand points, 4096 cells for more. If several points are in one cell, the first is sent; of more than a million points, every
/// second, third and so on. The line below the view, and the text in its place, tell how many points were left out and how fine the grid
/// is.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::notebook::PointViewer;
/// # fn main() -> wavemesh::Result<()> {
/// let cloud = PointCloud::new(&Tensor::rand(0f32, 1.0, (500, 4), &Device::Cpu)?, &["intensity"])?;
/// let output = PointViewer::new(&cloud)?.title("a box of points").rich();
/// assert!(output.get("text/html").is_some() && output.get("image/png").is_some());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PointViewer {
    plot: PointPlot,
    names: Vec<String>,
}

view_setters!(PointViewer, plot.view);

/// The most points that are sent.
const MOST: usize = 1_000_000;
/// Up to this many points are sent with 16 bits per coordinate.
const FINE: usize = 100_000;

impl PointViewer {
    /// A view of a cloud.
    ///
    /// # Errors
    /// An error of candle about the cloud's tensor.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let cloud = PointCloud::new(&Tensor::new(&[[0f32, 0.0, 0.0], [1.0, 0.0, 2.0]], &Device::Cpu)?, &[])?;
    /// assert!(PointViewer::new(&cloud)?.rich().get("text/html").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(cloud: &PointCloud) -> Result<Self> {
        Ok(Self { plot: PointPlot::new(cloud)?, names: Vec::new() })
    }

    /// Colours the points by a value for each point (points,).
    ///
    /// # Errors
    /// A tensor that does not have one number for each point.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let cloud = PointCloud::new(&Tensor::new(&[[0f32, 0.0, 0.0], [1.0, 0.0, 2.0]], &Device::Cpu)?, &[])?;
    /// let errors = Tensor::new(&[0.1f32, 0.3], &Device::Cpu)?;
    /// let viewer = PointViewer::new(&cloud)?.values(&errors, "error in m")?;
    /// assert!(viewer.rich().get("text/html").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn values(self, values: &Tensor, label: impl Into<String>) -> Result<Self> {
        Ok(Self { plot: self.plot.values(values, label)?, ..self })
    }

    /// Colours the points by an integer class for each point (points,). The twenty colours repeat; `names` label the first classes.
    ///
    /// # Errors
    /// A tensor that does not have one number for each point.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let cloud = PointCloud::new(&Tensor::new(&[[0f32, 0.0, 0.0], [1.0, 0.0, 2.0]], &Device::Cpu)?, &[])?;
    /// let classes = Tensor::new(&[0i64, 1], &Device::Cpu)?;
    /// let viewer = PointViewer::new(&cloud)?.classes(&classes, &["ground", "car"])?;
    /// assert!(viewer.rich().get("text/html").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn classes(self, classes: &Tensor, names: &[&str]) -> Result<Self> {
        let names = names.iter().take(CLASSES.len()).map(|&name| name.to_string()).collect();
        Ok(Self { plot: self.plot.classes(classes)?, names })
    }

    /// The side of a point in pixels at the start, above 0 to 64. Default 2.
    #[must_use]
    pub fn point_size(self, size: f32) -> Self {
        Self { plot: self.plot.point_size(size), ..self }
    }

    fn bundle(&self) -> Result<MimeBundle> {
        let plot = &self.plot;
        let still = plot.clone().title("").picture()?;
        let total = plot.points.len();
        let mut rows: Vec<usize> = (0..total).filter(|&i| plot.points[i].iter().all(|v| v.is_finite())).collect();
        let left_out = total - rows.len();
        let every = rows.len().div_ceil(MOST).max(1);
        rows = rows.into_iter().step_by(every).collect();
        let (mut low, mut high) = ([f32::INFINITY; 3], [f32::NEG_INFINITY; 3]);
        for &row in &rows {
            for axis in 0..3 {
                low[axis] = low[axis].min(plot.points[row][axis]);
                high[axis] = high[axis].max(plot.points[row][axis]);
            }
        }
        if rows.is_empty() {
            (low, high) = ([0.0; 3], [1.0; 3]);
        }
        let extent = (0..3).map(|axis| high[axis] - low[axis]).fold(0.0, f32::max).max(1e-6);
        let cells = if rows.len() <= FINE { 65535.0 } else { 4095.0 };
        let cell = extent / cells;
        let key = |row: usize| {
            let [x, y, z] =
                std::array::from_fn(|axis| ((plot.points[row][axis] - low[axis]) / cell).round().min(cells) as i32);
            Curve::ZOrder.position([z, y, x])
        };
        let mut keyed: Vec<(u64, usize)> = rows.iter().map(|&row| (key(row), row)).collect();
        keyed.sort_unstable();
        keyed.dedup_by_key(|&mut (key, _)| key);
        let mut payload = Payload::default();
        let mut expected = 0;
        for &(key, _) in &keyed {
            payload.varint(key - expected);
            expected = key + 1;
        }
        let n = keyed.len();
        let mut palette = Value::Null;
        let (mut channels, mut planes, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
        let mut map = Colormap::Viridis;
        match &plot.colors {
            Colors::Values(values, label) => {
                let sent = keyed.iter().map(|&(_, row)| values[row]);
                let (from, to) = finite_range(sent.clone());
                planes.push(payload.channel(sent, n));
                let (from, to) = plot.range.unwrap_or((from.into(), to.into()));
                map = plot.view.colormap.unwrap_or_else(|| Colormap::for_range(from, to));
                ranges.push([from, to]);
                channels.push(label.clone());
            }
            Colors::Classes(classes) => {
                keyed.iter().for_each(|&(_, row)| payload.byte(classes[row]));
                palette = json!(CLASSES);
            }
            Colors::Given(colors) => payload.plane16(keyed.iter().map(|&(_, row)| {
                let [r, g, b] = colors[row].map(u16::from);
                (r >> 3) << 11 | (g >> 2) << 5 | b >> 3
            })),
        }
        let merged = rows.len() - n;
        let mut notes = Vec::new();
        if left_out > 0 {
            notes.push(format!("{} not finite", count(left_out as u64)));
        }
        if every > 1 {
            notes.push(format!("one of {every} of {} sent", count((total - left_out) as u64)));
        }
        if merged > 0 {
            notes.push(format!("{} in cells of others", count(merged as u64)));
        }
        notes.push(format!("positions to {}", number(f64::from(cell))));
        let thinned = format!(" ({})", notes.join(", "));
        let View { title, camera, size: (width, height), .. } = &plot.view;
        let meta = json!({
            "kind": "points", "title": title, "low": low, "high": high, "cell": cell,
            "azimuth": camera.azimuth, "elevation": camera.elevation, "perspective": camera.perspective,
            "up": camera.up as usize, "width": width, "height": height, "alpha": 1, "size": plot.point_size,
            "outline": false, "map": map.name(), "channels": channels, "ranges": ranges, "palette": palette,
            "classes": self.names, "thinned": thinned,
            "frames": [{ "label": "", "n": n, "channels": planes }], "fps": 1,
        });
        let data = payload.finish()?;
        let text = format!("PointViewer | {} points{thinned}, {}", count(n as u64), bytes(data.len() as u64));
        // The picture was made first, and reports what is wrong with the plot.
        viewer_bundle(|| Ok(still), || Ok(Content { meta, data, text }))
    }
}

impl Rich for PointViewer {
    fn rich(&self) -> MimeBundle {
        self.bundle().unwrap_or_else(|error| Err::<MimeBundle, _>(error).rich())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Hilly ground of n × n points with a value.
    fn ground(n: usize) -> PointCloud {
        let rows = (0..n * n).flat_map(|i| {
            let (x, y) = ((i % n) as f32 / n as f32 * 80.0, (i / n) as f32 / n as f32 * 80.0);
            let z = (x * 0.3).sin() * (y * 0.2).cos() * 2.0 + ((i * 7919) % 101) as f32 * 4e-4;
            [x, y, z, z.abs()]
        });
        PointCloud::new(&Tensor::from_iter(rows, &Device::Cpu).unwrap().reshape((n * n, 4)).unwrap(), &["value"])
            .unwrap()
    }

    #[test]
    fn a_million_points_are_few_megabytes_and_what_is_left_out_is_said() {
        let million = PointViewer::new(&ground(1000)).unwrap().rich();
        assert!(
            million.plain().starts_with("PointViewer | ") && million.plain().contains("positions to 0.0195"),
            "{}",
            million.plain()
        );
        let html = million.to_html();
        assert!(html.len() < 4_000_000, "{} bytes", html.len());
        let more = PointViewer::new(&ground(1100)).unwrap().rich();
        assert!(more.plain().contains("one of 2 of 1,210,000 sent"), "{}", more.plain());
    }

    #[test]
    fn no_points_and_points_that_are_not_finite_have_a_view() {
        let rows = Tensor::new(&[[f32::NAN, 0.0, 0.0], [1.0, 2.0, 3.0]], &Device::Cpu).unwrap();
        let text = PointViewer::new(&PointCloud::new(&rows, &[]).unwrap()).unwrap().rich().plain().to_owned();
        assert!(text.starts_with("PointViewer | 1 points (1 not finite"), "{text}");
        let none = Tensor::zeros((0, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(PointViewer::new(&PointCloud::new(&none, &[]).unwrap()).unwrap().rich().get("text/html").is_some());
    }
}
