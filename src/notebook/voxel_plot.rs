//! [`VoxelPlot`]: a picture of occupied voxels.

use std::borrow::Cow;
use std::ops::Range;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::colormap::shown_range;
use super::draw::{
    Axis, Canvas, FigureBackend, Frame, Picture, Polygon, Projector, Scale, plot_area, register_font, svg_document,
    write_text,
};
use super::html::{count, number};
use super::view::View;
use super::voxel_faces::Cubes;
use super::voxels::{ToVoxels, Voxels};
use super::{Colormap, MimeBundle, Rich};
use crate::{Error, Result};

/// The way to select a channel: by its number or its name.
pub trait Channel: std::fmt::Display {
    /// The number of the channel among channels with these names; `None` if no channel has the name.
    fn among(&self, names: &[String]) -> Option<usize>;
}

impl Channel for usize {
    fn among(&self, _: &[String]) -> Option<usize> {
        Some(*self)
    }
}

impl Channel for &str {
    fn among(&self, names: &[String]) -> Option<usize> {
        names.iter().position(|name| name == self)
    }
}

/// What gives a voxel its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColorBy {
    /// The values of a channel.
    Channel(usize),
    /// The distance from the eye.
    Depth,
    /// The position along an axis.
    Position(Axis),
}

/// A picture of occupied voxels: cubes that hide each other correctly, axes with the data's names, and a colour bar.
///
/// The voxel at index `i` fills `i` to `i + 1`, so a tick marks the lower corner of the voxel with its number. By default the first channel
/// gives the colour (or the depth, if there is none), and values on both sides of zero get a diverging map.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::notebook::VoxelPlot;
/// # fn main() -> wavemesh::Result<()> {
/// let grid = Tensor::ones((2, 3, 4), DType::F32, &Device::Cpu)?; // (z, y, x)
/// let plot = VoxelPlot::new(&grid)?.title("a brick").colormap(Colormap::Magma).size(320, 240);
/// let picture = plot.picture()?;
/// assert_eq!((picture.width(), picture.height()), (320, 240));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct VoxelPlot {
    voxels: Voxels,
    pub(super) view: View,
    color_by: ColorBy,
    /// A channel that was selected but does not exist.
    unknown: Option<String>,
    range: Option<(f64, f64)>,
    voxel_size: f32,
    clip: [Option<Range<i32>>; 3],
    color_bar: bool,
    fit_occupied: bool,
}

view_setters!(VoxelPlot);

impl VoxelPlot {
    /// A plot of the voxels of a sparse tensor, a dense grid, or anything else that has voxels.
    ///
    /// # Errors
    /// The value's own error, if it cannot be shown as voxels.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert!(VoxelPlot::new(&x)?.rich().get("image/png").is_some());
    /// assert!(VoxelPlot::new(&Tensor::ones((2, 2), DType::F32, &Device::Cpu)?).is_err()); // a matrix has no voxels
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(value: &(impl ToVoxels + ?Sized)) -> Result<Self> {
        let voxels = value.to_voxels()?;
        let color_by = if voxels.channels().is_empty() { ColorBy::Depth } else { ColorBy::Channel(0) };
        Ok(Self {
            voxels,
            view: View::new(Axis::Y),
            color_by,
            unknown: None,
            range: None,
            voxel_size: 1.0,
            clip: [None, None, None],
            color_bar: true,
            fit_occupied: false,
        })
    }

    /// Colours the voxels by a channel, selected by its number or its name: `.channel(1)`, `.channel("level")`.
    pub fn channel(mut self, channel: impl Channel) -> Self {
        match channel.among(self.voxels.names()) {
            Some(index) => self.color_by(ColorBy::Channel(index)),
            None => {
                self.unknown = Some(channel.to_string());
                self
            }
        }
    }

    /// Chooses what the colour of a voxel shows.
    pub fn color_by(mut self, color_by: ColorBy) -> Self {
        (self.color_by, self.unknown) = (color_by, None);
        self
    }

    /// The values at the two ends of the colormap.
    pub fn range(mut self, low: f64, high: f64) -> Self {
        self.range = Some((low, high));
        self
    }

    /// The side of a cube, above 0 to 1 (touching).
    pub fn voxel_size(mut self, size: f32) -> Self {
        self.voxel_size = size;
        self
    }

    /// Shows only voxels with an index in `range` along an axis. Faces that become visible are drawn.
    pub fn clip(mut self, axis: Axis, range: Range<i32>) -> Self {
        self.clip[axis as usize] = Some(range);
        self
    }

    /// Whether the colour bar is drawn.
    pub fn color_bar(mut self, show: bool) -> Self {
        self.color_bar = show;
        self
    }

    /// Frames the occupied part of the grid instead of the whole grid.
    pub fn fit_occupied(mut self) -> Self {
        self.fit_occupied = true;
        self
    }

    /// Draws the plot.
    ///
    /// # Errors
    /// A channel that does not exist, or an option out of range.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let picture = VoxelPlot::new(&x)?.size(200, 150).picture()?;
    /// assert_eq!((picture.width(), picture.height()), (200, 150));
    /// assert!(VoxelPlot::new(&x)?.channel(3).picture().is_err()); // there is one channel, 0
    /// # Ok::<(), Error>(())
    /// ```
    pub fn picture(&self) -> Result<Picture> {
        let drawing = self.draw()?;
        let (width, height) = self.view.size;
        let mut picture =
            Canvas::new(width as usize, height as usize, self.view.theme.paper()).picture(&drawing.polygons);
        register_font();
        let area = FigureBackend::new(&mut picture).into_drawing_area();
        self.write(&area, &drawing)?;
        drop(area);
        Ok(picture)
    }

    /// Draws the plot as SVG, which is sharp at any size. Only the visible faces are drawn; best below some ten thousand voxels.
    ///
    /// # Errors
    /// The errors of [`picture`](Self::picture).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert!(VoxelPlot::new(&x)?.svg()?.starts_with("<svg"));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn svg(&self) -> Result<String> {
        let drawing = self.draw()?;
        svg_document(self.view.size, self.view.theme.paper(), &drawing.polygons, |area| self.write(area, &drawing))
    }

    fn write<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, plotters::coord::Shift>,
        drawing: &Drawing,
    ) -> Result<()> {
        if let Some(frame) = &drawing.frame {
            frame.write(area, self.view.theme)?;
        }
        if !self.view.title.is_empty() {
            write_text(area, &self.view.title, (self.view.size.0 as i32 / 2, 15), HPos::Center, 18, self.view.theme)?;
        }
        if let Some(scale) = drawing.scale.as_ref().filter(|_| self.color_bar) {
            let top = if self.view.title.is_empty() { 40 } else { 56 };
            scale.draw(
                area,
                (self.view.size.0 as i32 - 72, top),
                (self.view.size.1 as i32 - top - 40).max(20),
                self.view.theme,
            )?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        const OP: &str = "VoxelPlot";
        self.view.check(OP)?;
        if !(self.voxel_size > 0.0 && self.voxel_size <= 1.0) {
            return Err(Error::argument(OP, "voxel_size", self.voxel_size, "above 0, at most 1"));
        }
        if let Some(name) = &self.unknown {
            let known = self.voxels.names().join(", ");
            return Err(Error::Unknown { kind: "channel", name: name.clone(), known });
        }
        if let (ColorBy::Channel(channel), n) = (self.color_by, self.voxels.channels().len())
            && channel >= n
        {
            let expected =
                if n == 0 { "ColorBy::Depth (there are no channels)".into() } else { format!("0 to {}", n - 1) };
            return Err(Error::Argument { op: OP, name: "channel", got: channel.to_string(), expected });
        }
        if let Some((low, high)) = self.range.filter(|(low, high)| low.is_nan() || high.is_nan() || low >= high) {
            return Err(Error::Argument {
                op: OP,
                name: "range",
                got: format!("{low} to {high}"),
                expected: "low < high".into(),
            });
        }
        Ok(())
    }

    /// The voxels that remain after clipping.
    fn shown(&self) -> Cow<'_, Voxels> {
        if self.clip.iter().all(Option::is_none) {
            return Cow::Borrowed(&self.voxels);
        }
        Cow::Owned(self.voxels.filter(|i| {
            let site = self.voxels.sites()[i];
            self.clip.iter().zip(site).all(|(range, at)| range.as_ref().is_none_or(|range| range.contains(&at)))
        }))
    }

    fn draw(&self) -> Result<Drawing> {
        self.check()?;
        let voxels = self.shown();
        let (low, high) = self.bounds();
        let projector = Projector::fit(
            &self.view.camera,
            low,
            high,
            plot_area(self.view.size, &self.view.camera, &self.view.title, self.view.axes, self.color_bar),
        );
        let scale = self.scale(&voxels, &projector);
        let names = ["x", "y", "z"];
        let frame =
            self.view.axes.then(|| Frame::new(&projector, low, high, self.view.camera.up, names, self.view.theme));
        let mut polygons = frame.as_ref().map_or_else(Vec::new, |frame| frame.lines.clone());
        if let Some((scale, values)) = &scale {
            let cubes = Cubes { voxels: &voxels, values, side: self.voxel_size, alpha: self.view.alpha };
            cubes.add_faces(&projector, scale, &mut polygons);
        }
        Ok(Drawing { polygons, frame, scale: scale.map(|(scale, _)| scale) })
    }

    /// The part of the grid that is framed.
    fn bounds(&self) -> ([f32; 3], [f32; 3]) {
        match self.voxels.occupied_box().filter(|_| self.fit_occupied) {
            Some([low, high]) => (low.map(|v| v as f32), high.map(|v| v as f32 + 1.0)),
            None => ([0.0; 3], self.voxels.shape().map(|n| n as f32)),
        }
    }

    /// The colour scale and each voxel's value; `None` without voxels.
    fn scale<'a>(&self, voxels: &'a Voxels, projector: &Projector) -> Option<(Scale, Cow<'a, [f32]>)> {
        let centers = || voxels.sites().iter().map(|site| site.map(|v| v as f32 + 0.5));
        let (values, label): (Cow<[f32]>, String) = match self.color_by {
            ColorBy::Channel(channel) => (Cow::Borrowed(&voxels.channels()[channel]), voxels.names()[channel].clone()),
            ColorBy::Depth => {
                let distance = |p| {
                    let towards = projector.towards_eye(p);
                    if self.view.camera.perspective {
                        towards.iter().map(|v| v * v).sum::<f32>().sqrt()
                    } else {
                        -projector.project(p)[2]
                    }
                };
                (centers().map(distance).collect(), "distance".into())
            }
            ColorBy::Position(axis) => {
                (centers().map(|p| p[axis as usize]).collect(), ["x", "y", "z"][axis as usize].into())
            }
        };
        let finite = || values.iter().copied().filter(|v| v.is_finite()).map(f64::from);
        let (min, max) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
        if values.is_empty() {
            return None;
        }
        let (min, max) = if min <= max { (min, max) } else { (0.0, 1.0) };
        let (low, high) = self.range.unwrap_or_else(|| shown_range(min, max));
        let map = self.view.colormap.unwrap_or_else(|| Colormap::for_range(low, high));
        Some((Scale { map, low, high, label }, values))
    }
}

struct Drawing {
    polygons: Vec<Polygon>,
    frame: Option<Frame>,
    scale: Option<Scale>,
}

impl Rich for VoxelPlot {
    fn rich(&self) -> MimeBundle {
        let [x, y, z] = self.voxels.shape();
        let mut text = format!("VoxelPlot | {} voxels of {x}×{y}×{z} (x, y, z)", count(self.voxels.len() as u64));
        if !self.view.title.is_empty() {
            text = format!("{} | {text}", self.view.title);
        }
        match self.picture() {
            Ok(picture) => {
                if let ColorBy::Channel(channel) = self.color_by {
                    let values = self.voxels.channels()[channel].iter().filter(|v| v.is_finite());
                    let (low, high) =
                        values.fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
                    if low <= high {
                        let name = &self.voxels.names()[channel];
                        text += &format!(" · {name} from {} to {}", number(low.into()), number(high.into()));
                    }
                }
                picture.bundle(text)
            }
            Err(error) => Err::<MimeBundle, _>(error).rich(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notebook::Camera;

    fn plot(sites: &[[i32; 3]], shape: [usize; 3], values: &[f32]) -> VoxelPlot {
        VoxelPlot::new(&Voxels::new(sites.to_vec(), shape, vec![values.to_vec()]).unwrap()).unwrap()
    }

    fn faces(plot: &VoxelPlot) -> usize {
        plot.clone().axes(false).draw().unwrap().polygons.len()
    }

    #[test]
    fn only_faces_that_can_be_seen_are_drawn() {
        let all: Vec<[i32; 3]> = (0..1000).map(|i| [i % 10, i / 10 % 10, i / 100]).collect();
        let cube = plot(&all, [10; 3], &vec![1.0; 1000]);
        assert_eq!(faces(&cube), 300);
        assert_eq!(faces(&plot(&[[0, 0, 0]], [1; 3], &[1.0])), 3);
        assert_eq!(faces(&cube.clone().clip(Axis::X, 2..4)), 100 + 20 + 20);
    }

    #[test]
    fn the_near_voxel_hides_the_far_one_whatever_the_order_and_the_transparency() {
        for (perspective, alpha) in [(false, 1.0), (true, 1.0), (false, 0.999), (true, 0.999)] {
            let camera = Camera { azimuth: 0.0, elevation: 0.0, perspective, up: Axis::Z, ..Default::default() };
            for sites in [[[0, 0, 0], [4, 0, 0]], [[4, 0, 0], [0, 0, 0]]] {
                // Seen along −x, the voxel at x = 4 is nearer.
                let values = sites.map(|site| site[0] as f32);
                let p = plot(&sites, [5, 1, 1], &values)
                    .camera(camera)
                    .axes(false)
                    .color_bar(false)
                    .colormap(Colormap::Grey)
                    .alpha(alpha)
                    .range(0.0, 4.0)
                    .size(64, 64);
                let picture = p.picture().unwrap();
                let middle = picture.rgb()[(32 * 64 + 32) * 3];
                assert!(middle > 200, "{perspective} {alpha} {sites:?}: {middle}");
            }
        }
    }

    #[test]
    fn bad_options_are_errors_that_name_the_option() {
        let p = plot(&[[0, 0, 0]], [1; 3], &[1.0]);
        for (bad, name) in [
            (p.clone().channel("heat"), "heat"),
            (p.clone().alpha(0.0), "alpha"),
            (p.clone().voxel_size(2.0), "voxel_size"),
            (p.clone().channel(3), "channel"),
            (p.clone().size(10, 10), "size"),
            (p.clone().range(1.0, 1.0), "range"),
        ] {
            let error = bad.picture().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(bad.rich().plain().contains(name));
        }
    }

    #[test]
    fn a_channel_is_asked_for_by_number_or_name() {
        let voxels = Voxels::new(vec![[0, 0, 0]], [1; 3], vec![vec![1.0], vec![2.0]]).unwrap();
        let plot = VoxelPlot::new(&voxels.named(["a", "b"]).unwrap()).unwrap();
        assert_eq!(plot.clone().channel("b").color_by, ColorBy::Channel(1));
        let error = plot.channel("c").picture().unwrap_err().to_string();
        assert!(error.contains("`c`") && error.contains("a, b"), "{error}");
    }

    #[test]
    fn no_voxels_and_values_that_are_not_numbers_draw_too() {
        assert!(plot(&[], [4; 3], &[]).picture().is_ok());
        assert!(plot(&[[0, 0, 0]], [4; 3], &[f32::NAN]).picture().is_ok());
        assert!(VoxelPlot::new(&Voxels::new(vec![[0, 0, 0]], [1; 3], vec![]).unwrap()).unwrap().picture().is_ok());
    }

    #[test]
    fn svg_holds_the_visible_faces_and_the_title_as_text() {
        let svg = plot(&[[0, 0, 0]], [2; 3], &[1.0]).title("a <voxel>").svg().unwrap();
        assert!(svg.contains("a &lt;voxel&gt;") && svg.matches("stroke-width=\"0.5\"").count() >= 3);
    }
}
