//! [`PointPlot`]: a point cloud as a picture.

use candle_core::{DType, Device, Tensor};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::colormap::shown_range;
use super::draw::{
    Axis, Canvas, FigureBackend, Frame, Picture, Polygon, Projector, Scale, plot_area, register_font, write_text,
};
use super::html::count;
use super::view::View;
use super::{Colormap, MimeBundle, Rich};
use crate::points::PointCloud;
use crate::{Error, Result};

/// A picture of points: squares that hide each other correctly, axes, and a colour for each point. z points up.
///
/// The colour shows a channel (the first or, without channels, the height), or the cloud's own red, green and blue if it has them.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::notebook::PointPlot;
/// use wavemesh::points::PointCloud;
/// # fn main() -> wavemesh::Result<()> {
/// let cloud = PointCloud::new(&Tensor::rand(0f32, 1.0, (500, 4), &Device::Cpu)?, &["intensity"])?;
/// let picture = PointPlot::new(&cloud)?.title("a box of points").size(320, 240).picture()?;
/// assert_eq!((picture.width(), picture.height()), (320, 240));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PointPlot {
    pub(super) points: Vec<[f32; 3]>,
    pub(super) colors: Colors,
    pub(super) view: View,
    pub(super) range: Option<(f64, f64)>,
    pub(super) point_size: f32,
}

view_setters!(PointPlot, view);

#[derive(Clone, Debug)]
pub(super) enum Colors {
    Given(Vec<[u8; 3]>),
    /// Indices into [`CLASSES`].
    Classes(Vec<u8>),
    Values(Vec<f32>, String),
}

/// Distinct colours for classes (Tableau's twenty).
pub(super) const CLASSES: [[u8; 3]; 20] = [
    [31, 119, 180],
    [255, 127, 14],
    [44, 160, 44],
    [214, 39, 40],
    [148, 103, 189],
    [140, 86, 75],
    [227, 119, 194],
    [127, 127, 127],
    [188, 189, 34],
    [23, 190, 207],
    [174, 199, 232],
    [255, 187, 120],
    [152, 223, 138],
    [255, 152, 150],
    [197, 176, 213],
    [196, 156, 148],
    [247, 182, 210],
    [199, 199, 199],
    [219, 219, 141],
    [158, 218, 229],
];

impl PointPlot {
    /// A plot of a cloud.
    ///
    /// # Errors
    /// An error of candle about the cloud's tensor.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let cloud = PointCloud::new(&Tensor::new(&[[0f32, 0.0, 0.0], [1.0, 0.0, 2.0]], &Device::Cpu)?, &[])?;
    /// let plot = PointPlot::new(&cloud)?; // coloured by height, because there is no other channel
    /// assert!(plot.rich().get("image/png").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(cloud: &PointCloud) -> Result<Self> {
        let points = cloud.xyz()?.flatten_all()?.to_vec1::<f32>()?.as_chunks::<3>().0.to_vec();
        let has = |name: &str| cloud.channels().iter().any(|channel| channel == name);
        let colors = if ["red", "green", "blue"].into_iter().all(has) {
            let [r, g, b] =
                ["red", "green", "blue"].map(|name| cloud.channel(name)?.to_vec1::<f32>().map_err(Error::from));
            let (r, g, b) = (r?, g?, b?);
            // Most files have 8-bit colours, LAS has 16-bit ones, and some files have fractions of one.
            let most = r.iter().chain(&g).chain(&b).copied().fold(0.0, f32::max);
            let unit = if most <= 1.0 {
                1.0
            } else if most <= 255.0 {
                255.0
            } else {
                65535.0
            };
            let shade = |v: f32| (v / unit * 255.0).clamp(0.0, 255.0) as u8;
            Colors::Given(r.iter().zip(&g).zip(&b).map(|((&r, &g), &b)| [r, g, b].map(shade)).collect())
        } else {
            match cloud.channels().first() {
                Some(name) => Colors::Values(cloud.channel(name)?.to_vec1()?, name.clone()),
                None => Colors::Values(points.iter().map(|point| point[2]).collect(), "z".into()),
            }
        };
        Ok(Self { points, colors, view: View::new(Axis::Z), range: None, point_size: 2.0 })
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
    /// let plot = PointPlot::new(&cloud)?.values(&errors, "error in m")?.range(0.0, 0.5);
    /// assert!(plot.picture().is_ok());
    /// assert!(plot.values(&Tensor::new(&[0.1f32], &Device::Cpu)?, "error in m").is_err()); // one value for two points
    /// # Ok::<(), Error>(())
    /// ```
    pub fn values(self, values: &Tensor, label: impl Into<String>) -> Result<Self> {
        let values = self.column(values)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        Ok(Self { colors: Colors::Values(values, label.into()), ..self })
    }

    /// Colours the points by an integer class for each point (points,). The twenty colours repeat.
    ///
    /// # Errors
    /// A tensor that does not have one number for each point.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let cloud = PointCloud::new(&Tensor::new(&[[0f32, 0.0, 0.0], [1.0, 0.0, 2.0]], &Device::Cpu)?, &[])?;
    /// let plot = PointPlot::new(&cloud)?.classes(&Tensor::new(&[0i64, 7], &Device::Cpu)?)?;
    /// assert!(plot.picture().is_ok());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn classes(self, classes: &Tensor) -> Result<Self> {
        let classes = self.column(classes)?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        let colors = classes.iter().map(|class| class.rem_euclid(CLASSES.len() as i64) as u8).collect();
        Ok(Self { colors: Colors::Classes(colors), ..self })
    }

    fn column(&self, values: &Tensor) -> Result<Tensor> {
        if values.dims() != [self.points.len()] {
            return Err(Error::Shape {
                op: "PointPlot",
                what: "values",
                got: values.dims().to_vec(),
                expected: format!("({},): one for each point", self.points.len()),
            });
        }
        Ok(values.to_device(&Device::Cpu)?)
    }

    /// The values at the two ends of the colormap.
    pub fn range(mut self, low: f64, high: f64) -> Self {
        self.range = Some((low, high));
        self
    }

    /// The side of a point in pixels, above 0 to 64. Default 2.
    pub fn point_size(mut self, size: f32) -> Self {
        self.point_size = size;
        self
    }

    /// Draws the plot. Points with a coordinate that is not finite are left out.
    ///
    /// # Errors
    /// A view or point size out of range, or a range without extent.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let cloud = PointCloud::new(&Tensor::new(&[[0f32, 0.0, 0.0], [1.0, 0.0, 2.0]], &Device::Cpu)?, &[])?;
    /// let picture = PointPlot::new(&cloud)?.point_size(4.0).size(200, 150).picture()?;
    /// assert_eq!((picture.width(), picture.height()), (200, 150));
    /// assert!(PointPlot::new(&cloud)?.point_size(0.0).picture().is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn picture(&self) -> Result<Picture> {
        const OP: &str = "PointPlot";
        self.view.check(OP)?;
        if !(self.point_size > 0.0 && self.point_size <= 64.0) {
            return Err(Error::argument(OP, "point_size", self.point_size, "above 0, at most 64 pixels"));
        }
        if let Some((low, high)) = self.range.filter(|(low, high)| low.is_nan() || high.is_nan() || low >= high) {
            return Err(Error::argument(OP, "range", format!("{low} to {high}"), "low < high"));
        }
        let View { title, camera, size: (width, height), theme, axes, .. } = &self.view;
        let (width, height, theme) = (*width, *height, *theme);
        let is_finite = |point: &[f32; 3]| point.iter().all(|v| v.is_finite());
        let finite = || self.points.iter().filter(|point| is_finite(point));
        let (mut low, mut high) = ([f32::INFINITY; 3], [f32::NEG_INFINITY; 3]);
        for point in finite() {
            for a in 0..3 {
                low[a] = low[a].min(point[a]);
                high[a] = high[a].max(point[a]);
            }
        }
        if low[0] > high[0] {
            (low, high) = ([0.0; 3], [1.0; 3]);
        }
        for a in 0..3 {
            if high[a] - low[a] < 1e-6 {
                (low[a], high[a]) = (low[a] - 0.5, high[a] + 0.5);
            }
        }
        let scale = self.scale();
        let area = plot_area((width, height), camera, title, *axes, scale.is_some());
        let projector = Projector::fit(camera, low, high, area);
        let frame = axes.then(|| Frame::new(&projector, low, high, camera.up, ["x", "y", "z"], theme));
        let mut polygons = frame.as_ref().map_or_else(Vec::new, |frame| frame.lines.clone());
        let r = self.point_size / 2.0;
        let points = self.points.iter().enumerate().filter(|(_, point)| is_finite(point));
        polygons.extend(points.map(|(i, &point)| {
            let [x, y, depth] = projector.project(point);
            let color = match (&self.colors, &scale) {
                (Colors::Given(colors), _) => colors[i],
                (Colors::Classes(classes), _) => CLASSES[usize::from(classes[i])],
                (Colors::Values(values, _), Some(scale)) => scale.color(values[i]),
                (Colors::Values(..), None) => theme.ink(),
            };
            let corner = |dx: f32, dy: f32| [x + dx * r, y + dy * r, depth];
            let corners = [corner(-1.0, -1.0), corner(1.0, -1.0), corner(1.0, 1.0), corner(-1.0, 1.0)];
            Polygon::quad(corners, color, 255, false)
        }));
        let mut picture = Canvas::new(width as usize, height as usize, theme.paper()).picture(&polygons);
        register_font();
        let page = FigureBackend::new(&mut picture).into_drawing_area();
        if let Some(frame) = &frame {
            frame.write(&page, theme)?;
        }
        if !title.is_empty() {
            write_text(&page, title, (width as i32 / 2, 15), HPos::Center, 18, theme)?;
        }
        if let Some(scale) = &scale {
            let top = if title.is_empty() { 40 } else { 56 };
            scale.draw(&page, (width as i32 - 72, top), (height as i32 - top - 40).max(20), theme)?;
        }
        drop(page);
        Ok(picture)
    }

    /// The colour scale of values; `None` for given colours, and without points.
    fn scale(&self) -> Option<Scale> {
        let Colors::Values(values, label) = &self.colors else { return None };
        let finite = || values.iter().copied().filter(|v| v.is_finite()).map(f64::from);
        let (min, max) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
        if values.is_empty() {
            return None;
        }
        let (min, max) = if min <= max { (min, max) } else { (0.0, 1.0) };
        let (low, high) = self.range.unwrap_or_else(|| shown_range(min, max));
        let map = self.view.colormap.unwrap_or_else(|| Colormap::for_range(low, high));
        Some(Scale { map, low, high, label: label.clone() })
    }
}

impl Rich for PointPlot {
    fn rich(&self) -> MimeBundle {
        let mut text = format!("PointPlot | {} points", count(self.points.len() as u64));
        if !self.view.title.is_empty() {
            text = format!("{} | {text}", self.view.title);
        }
        match self.picture() {
            Ok(picture) => picture.bundle(text),
            Err(error) => Err::<MimeBundle, _>(error).rich(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(rows: &[[f32; 4]]) -> PointPlot {
        let points = Tensor::from_vec(rows.concat(), (rows.len(), 4), &Device::Cpu).unwrap();
        PointPlot::new(&PointCloud::new(&points, &["intensity"]).unwrap()).unwrap()
    }

    #[test]
    fn every_finite_point_is_drawn_in_its_colour_and_the_near_one_hides_the_far() {
        let rows = [[0.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 1.0], [f32::NAN, 0.0, 0.0, 9.0]];
        let camera = crate::notebook::Camera {
            azimuth: 0.0,
            elevation: 0.0,
            perspective: false,
            up: Axis::Z,
            ..Default::default()
        };
        // Seen along −x, the point at x = 4 is nearer.
        for order in [[0, 1, 2], [1, 0, 2]] {
            let rows = order.map(|i| rows[i]);
            let p = plot(&rows).camera(camera).point_size(20.0).size(120, 120);
            let p = p.classes(&Tensor::from_vec(order.map(|i| i as i64).to_vec(), 3, &Device::Cpu).unwrap()).unwrap();
            let rgb = p.picture().unwrap().rgb().to_vec();
            let count = |class: usize| rgb.as_chunks::<3>().0.iter().filter(|&&pixel| pixel == CLASSES[class]).count();
            assert_eq!((count(0), count(2)), (0, 0), "hidden, and not finite");
            assert!(count(1) > 300, "{}", count(1));
        }
    }

    #[test]
    fn bad_options_are_named_and_no_points_draw_too() {
        let p = plot(&[[0.0, 1.0, 2.0, 3.0]]);
        assert!(p.picture().is_ok() && plot(&[]).picture().is_ok());
        for (bad, name) in [
            (p.clone().point_size(0.0), "point_size"),
            (p.clone().size(1, 1), "size"),
            (p.clone().range(1.0, 1.0), "range"),
            (p.clone().view(0.0, 91.0), "elevation"),
        ] {
            assert!(bad.picture().unwrap_err().to_string().contains(name));
        }
        let short = Tensor::zeros(3, DType::I64, &Device::Cpu).unwrap();
        assert!(p.classes(&short).unwrap_err().to_string().contains("(1,)"));
    }
}
