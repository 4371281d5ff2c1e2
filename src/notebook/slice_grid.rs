//! [`SliceGrid`]: slices through a volume, side by side.

use candle_core::{DType, Device, Tensor};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::colormap::{NAN_COLOR, shown_range};
use super::draw::{Axis, FigureBackend, Picture, Scale, Theme, contact_sheet, register_font, write_text};
use super::html::number;
use super::{Colormap, MimeBundle, Rich};
use crate::sdf::SdfGrid;
use crate::wavelet::NdArray;
use crate::{Error, Result};

/// A dense volume with one value per cell.
#[derive(Clone, Debug)]
pub struct Volume {
    values: Vec<f32>,
    /// Number of cells along x, y, z, and the distance in `values` between neighbours along each.
    shape: [usize; 3],
    strides: [usize; 3],
    /// Whether the values are signed distances, whose colours diverge around 0, the surface.
    signed: bool,
}

impl Volume {
    fn get(&self, at: [usize; 3]) -> f32 {
        self.values[at[0] * self.strides[0] + at[1] * self.strides[1] + at[2] * self.strides[2]]
    }
}

/// A value from which slices can be taken.
pub trait ToVolume {
    /// The value as a volume.
    ///
    /// # Errors
    /// If there is no value, or one is not finite.
    ///
    /// ```
    /// use wavemesh::notebook::{SliceGrid, ToVolume, Volume};
    /// use wavemesh::prelude::*;
    /// struct Scan {
    ///     density: Tensor, // (z, y, x)
    /// }
    /// impl ToVolume for Scan {
    ///     fn to_volume(&self) -> wavemesh::Result<Volume> {
    ///         self.density.to_volume()
    ///     }
    /// }
    /// let scan = Scan { density: Tensor::ones((4, 5, 6), DType::F32, &Device::Cpu)? };
    /// assert!(SliceGrid::new(&scan).is_ok());
    /// # Ok::<(), Error>(())
    /// ```
    fn to_volume(&self) -> Result<Volume>;
}

impl ToVolume for SdfGrid {
    fn to_volume(&self) -> Result<Volume> {
        let [x, y, z] = self.shape();
        Ok(Volume { values: self.values().to_vec(), shape: [x, y, z], strides: [y * z, z, 1], signed: true })
    }
}

/// An array (x, y, z), as wavelet transforms return it.
impl ToVolume for NdArray<f32> {
    fn to_volume(&self) -> Result<Volume> {
        let &[x, y, z] = &self.shape[..] else {
            let expected = "(x, y, z)".into();
            return Err(Error::Shape { op: "SliceGrid", what: "array", got: self.shape.clone(), expected });
        };
        Ok(Volume { values: self.data.clone(), shape: [x, y, z], strides: [y * z, z, 1], signed: false })
    }
}

/// A dense grid (z, y, x).
impl ToVolume for Tensor {
    fn to_volume(&self) -> Result<Volume> {
        let &[d, h, w] = self.dims() else {
            let expected = "(z, y, x)".into();
            return Err(Error::Shape { op: "SliceGrid", what: "tensor", got: self.dims().to_vec(), expected });
        };
        let values = self.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(Volume { values, shape: [w, h, d], strides: [1, w, w * h], signed: false })
    }
}

/// Slices through a volume: evenly spaced along one axis, or one through the middle of each axis.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::notebook::{Axis, SliceGrid};
/// let ball = SdfGrid::from_fn([16; 3], |p| p.iter().map(|v| v * v).sum::<f32>().sqrt() - 0.5)?;
/// let sheet = SliceGrid::new(&ball)?.along(Axis::Z, 4).contour(0.0).picture()?;
/// assert!(sheet.width() > 4 * 16);
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SliceGrid {
    volume: Volume,
    /// The slices: the axis that is fixed, and the position on it.
    slices: Vec<(Axis, usize)>,
    columns: usize,
    colormap: Option<Colormap>,
    range: Option<(f64, f64)>,
    contour: Option<f32>,
    numbers: bool,
    panel: usize,
    theme: Theme,
}

const AXES: [Axis; 3] = [Axis::X, Axis::Y, Axis::Z];
const NAMES: [&str; 3] = ["x", "y", "z"];

impl SliceGrid {
    /// The three slices through the middle of a volume.
    ///
    /// # Errors
    /// If the value is not a volume, or the volume is empty.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let volume = Tensor::rand(0f32, 1.0, (4, 5, 6), &Device::Cpu)?; // (z, y, x)
    /// assert!(SliceGrid::new(&volume)?.rich().get("image/png").is_some());
    /// assert!(SliceGrid::new(&volume.get(0)?).is_err()); // a plane is no volume
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(value: &(impl ToVolume + ?Sized)) -> Result<Self> {
        let volume = value.to_volume()?;
        if volume.shape.contains(&0) {
            let got = volume.shape.to_vec();
            return Err(Error::Shape {
                op: "SliceGrid",
                what: "volume",
                got,
                expected: "at least one cell along each axis".into(),
            });
        }
        let slices = AXES.map(|axis| (axis, volume.shape[axis as usize] / 2)).to_vec();
        Ok(Self {
            volume,
            slices,
            columns: 4,
            colormap: None,
            range: None,
            contour: None,
            numbers: false,
            panel: 200,
            theme: Theme::Light,
        })
    }

    /// Shows `count` evenly spaced slices along an axis instead.
    pub fn along(mut self, axis: Axis, count: usize) -> Self {
        let n = self.volume.shape[axis as usize];
        let count = count.clamp(1, n);
        self.slices = (0..count).map(|i| (axis, (2 * i + 1) * n / (2 * count))).collect();
        self
    }

    /// How many slices are in a row.
    pub fn columns(mut self, columns: usize) -> Self {
        self.columns = columns.max(1);
        self
    }

    /// The colormap.
    pub fn colormap(mut self, colormap: Colormap) -> Self {
        self.colormap = Some(colormap);
        self
    }

    /// The values at the two ends of the colormap.
    pub fn range(mut self, low: f64, high: f64) -> Self {
        self.range = Some((low, high));
        self
    }

    /// Draws the line on which the value is `level` (0 for a signed distance), and blends between cells.
    pub fn contour(mut self, level: f32) -> Self {
        self.contour = Some(level);
        self
    }

    /// Writes each value except zeros into its cell, and draws no colour bar; for slices with few, large cells.
    pub fn numbers(mut self, show: bool) -> Self {
        self.numbers = show;
        self
    }

    /// The width of a slice in pixels.
    pub fn panel(mut self, pixels: usize) -> Self {
        self.panel = pixels.clamp(32, 2048);
        self
    }

    /// Light or dark theme.
    pub fn theme(mut self, theme: Theme) -> Self {
        self.theme = theme;
        self
    }

    fn scale(&self) -> Scale {
        let finite = self.volume.values.iter().filter(|v| v.is_finite());
        let (min, max) =
            finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v.into()), h.max(v.into())));
        let (low, high) = self.range.unwrap_or(if min <= max { shown_range(min, max) } else { (0.0, 1.0) });
        let most = low.abs().max(high.abs());
        let (low, high, usual) = match self.volume.signed {
            true if most > 0.0 => (-most, most, Colormap::Coolwarm),
            _ => (low, high, Colormap::for_range(low, high)),
        };
        Scale { map: self.colormap.unwrap_or(usual), low, high, label: String::new() }
    }

    /// Draws the slices.
    ///
    /// # Errors
    /// An empty range.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let ball = shapes::sphere(0.5).to_grid(16)?;
    /// assert!(SliceGrid::new(&ball)?.range(-0.5, 0.5).picture().is_ok());
    /// assert!(SliceGrid::new(&ball)?.range(0.5, 0.5).picture().is_err()); // no value has a colour
    /// # Ok::<(), Error>(())
    /// ```
    pub fn picture(&self) -> Result<Picture> {
        if let Some((low, high)) = self.range.filter(|(low, high)| low.is_nan() || high.is_nan() || low >= high) {
            return Err(Error::argument("SliceGrid", "range", format!("{low} to {high}"), "low < high"));
        }
        let scale = self.scale();
        let mut panels =
            self.slices.iter().map(|&(axis, at)| self.slice(axis, at, &scale)).collect::<Result<Vec<_>>>()?;
        let columns = self.columns.min(panels.len());
        if self.numbers {
            return contact_sheet(&panels, columns);
        }
        let first_row = panels.iter().take(columns).map(|p| p.height()).max().unwrap_or(64);
        // The colour bar is at the end of the first row.
        let mut with_bar = panels.drain(..columns).collect::<Vec<_>>();
        with_bar.push(self.bar(&scale, first_row)?);
        let blank = Picture::from_rgb(1, 1, self.theme.paper().to_vec())?;
        for row in panels.chunks(columns) {
            with_bar.extend_from_slice(row);
            with_bar.extend(std::iter::repeat_n(blank.clone(), columns + 1 - row.len()));
        }
        contact_sheet(&with_bar, columns + 1)
    }

    fn blank(&self, width: u32, height: u32) -> Result<Picture> {
        let mut rgb = vec![0; 3 * width as usize * height as usize];
        rgb.as_chunks_mut().0.fill(self.theme.paper());
        Picture::from_rgb(width, height, rgb)
    }

    fn bar(&self, scale: &Scale, height: u32) -> Result<Picture> {
        register_font();
        let mut picture = self.blank(70, height)?;
        let area = FigureBackend::new(&mut picture).into_drawing_area();
        scale.draw(&area, (6, 22), (height as i32 - 46).max(16), self.theme)?;
        drop(area);
        Ok(picture)
    }

    /// One slice, with its title and the names of its axes.
    fn slice(&self, axis: Axis, at: usize, scale: &Scale) -> Result<Picture> {
        // The fixed axis, the axis to the right, the axis upwards.
        let (held, right, up) = match axis {
            Axis::X => (0, 2, 1),
            Axis::Y => (1, 0, 2),
            Axis::Z => (2, 0, 1),
        };
        let (columns, rows) = (self.volume.shape[right], self.volume.shape[up]);
        let pixels = (self.panel as f32 / columns.max(rows) as f32).max(0.25);
        let (width, height) =
            ((columns as f32 * pixels).ceil().max(8.0) as usize, (rows as f32 * pixels).ceil().max(8.0) as usize);
        const MARGIN: [usize; 4] = [8, 20, 8, 22]; // left, top, right, bottom
        let mut picture =
            self.blank((width + MARGIN[0] + MARGIN[2]) as u32, (height + MARGIN[1] + MARGIN[3]) as u32)?;
        let value = |u: f32, v: f32| -> f32 {
            let cell = |c: f32, r: f32| {
                let mut index = [0; 3];
                (index[held], index[right], index[up]) =
                    (at, (c.max(0.0) as usize).min(columns - 1), (r.max(0.0) as usize).min(rows - 1));
                self.volume.get(index)
            };
            if self.contour.is_none() {
                return cell(u, v);
            }
            let (u, v) = (u - 0.5, v - 0.5);
            let (c, r) = (u.floor(), v.floor());
            let (fu, fv) = (u - c, v - r);
            let low = cell(c, r) * (1.0 - fu) + cell(c + 1.0, r) * fu;
            let high = cell(c, r + 1.0) * (1.0 - fu) + cell(c + 1.0, r + 1.0) * fu;
            low * (1.0 - fv) + high * fv
        };
        let at_pixel = |x: usize, y: usize| value((x as f32 + 0.5) / pixels, (height as f32 - y as f32 - 0.5) / pixels);
        let row_bytes = picture.width() as usize * 3;
        let ink = self.theme.ink();
        for y in 0..height {
            for x in 0..width {
                let here = at_pixel(x, y);
                let crosses = self.contour.is_some_and(|level| {
                    let side = here > level;
                    (x + 1 < width && (at_pixel(x + 1, y) > level) != side)
                        || (y + 1 < height && (at_pixel(x, y + 1) > level) != side)
                });
                let color = if crosses {
                    if self.theme == Theme::Dark { [255; 3] } else { ink }
                } else if here.is_nan() {
                    NAN_COLOR
                } else {
                    scale.color(here)
                };
                let i = (MARGIN[1] + y) * row_bytes + (MARGIN[0] + x) * 3;
                picture.rgb_mut()[i..i + 3].copy_from_slice(&color);
            }
        }
        register_font();
        let size = (picture.width(), picture.height());
        let area = FigureBackend::new(&mut picture).into_drawing_area();
        if self.numbers {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let here = value(column as f32 + 0.5, row as f32 + 0.5);
                if here != 0.0 {
                    let place = [(column as f32 + 0.5) * pixels, height as f32 - (row as f32 + 0.5) * pixels];
                    let place = (MARGIN[0] as i32 + place[0] as i32, MARGIN[1] as i32 + place[1] as i32);
                    let ink = Theme::readable_on(scale.color(here));
                    write_text(&area, &number(here.into()), place, HPos::Center, 12, ink)?;
                }
            }
        }
        let middle = (MARGIN[0] + width / 2) as i32;
        write_text(&area, &format!("{} = {at}", NAMES[held]), (middle, 10), HPos::Center, 13, self.theme)?;
        let axes = format!("{} to the right, {} up", NAMES[right], NAMES[up]);
        write_text(&area, &axes, (middle, size.1 as i32 - 11), HPos::Center, 13, self.theme)?;
        drop(area);
        Ok(picture)
    }
}

impl Rich for SliceGrid {
    fn rich(&self) -> MimeBundle {
        let [x, y, z] = self.volume.shape;
        let scale = self.scale();
        let text = format!(
            "SliceGrid | {} slices of {x}×{y}×{z} (x, y, z) · colours from {} to {}",
            self.slices.len(),
            number(scale.low),
            number(scale.high)
        );
        match self.picture() {
            Ok(picture) => picture.bundle(text),
            Err(error) => Err::<MimeBundle, _>(error).rich(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_of_axes_give_the_same_picture() {
        let value = |x: usize, y: usize, z: usize| (x * 100 + y * 10 + z) as f32;
        let (nx, ny, nz) = (4, 3, 2);
        let zyx: Vec<f32> =
            (0..nz).flat_map(|z| (0..ny).flat_map(move |y| (0..nx).map(move |x| value(x, y, z)))).collect();
        let xyz: Vec<f32> =
            (0..nx).flat_map(|x| (0..ny).flat_map(move |y| (0..nz).map(move |z| value(x, y, z)))).collect();
        let tensor = Tensor::from_vec(zyx, (nz, ny, nx), &Device::Cpu).unwrap();
        let array = NdArray { shape: vec![nx, ny, nz], data: xyz };
        let (a, b) =
            (SliceGrid::new(&tensor).unwrap().picture().unwrap(), SliceGrid::new(&array).unwrap().picture().unwrap());
        assert_eq!(a, b);
    }

    #[test]
    fn signed_distances_diverge_around_zero_whatever_their_range() {
        for offset in [0.0, 3.0, -3.0] {
            let plane = SdfGrid::from_fn([8; 3], |p| p[0] + offset).unwrap();
            let scale = SliceGrid::new(&plane).unwrap().scale();
            assert!(scale.map == Colormap::Coolwarm && scale.low == -scale.high, "{offset}: {scale:?}");
        }
        let plane = SdfGrid::from_fn([8; 3], |p| p[0]).unwrap();
        let asked = SliceGrid::new(&plane).unwrap().range(-0.2, 1.0).scale();
        assert_eq!((asked.low, asked.high), (-1.0, 1.0));
    }

    #[test]
    fn the_contour_is_where_the_sign_changes() {
        let plane = SdfGrid::from_fn([8; 3], |p| p[0]).unwrap();
        let picture = SliceGrid::new(&plane).unwrap().along(Axis::Z, 1).contour(0.0).panel(80).picture().unwrap();
        let ink = Theme::Light.ink();
        let row = 60 * picture.width() as usize;
        let columns: Vec<usize> = (8..88).filter(|x| picture.rgb()[(row + x) * 3..][..3] == ink).collect();
        assert_eq!(columns.len(), 1, "{columns:?}");
        assert!((46..=49).contains(&columns[0]), "{columns:?}");
    }

    #[test]
    fn numbers_are_written_into_cells_that_are_not_zero() {
        let mut values = [0f32; 4];
        values[3] = 7.0; // at x = 1, y = 1: above, to the right
        let plane = Tensor::from_slice(&values, (1, 2, 2), &Device::Cpu).unwrap();
        let slice = SliceGrid::new(&plane).unwrap().along(Axis::Z, 1).range(-10.0, 10.0).panel(80);
        let (plain, written) = (slice.picture().unwrap(), slice.clone().numbers(true).picture().unwrap());
        assert!(written.width() < plain.width(), "the numbers replace the colour bar");
        let pixel = |of: &Picture, x: u32, y: u32| of.rgb()[3 * (y * of.width() + x) as usize..][..3].to_vec();
        let changed: Vec<[u32; 2]> = (0..written.height())
            .flat_map(|y| (0..written.width()).map(move |x| [x, y]))
            .filter(|&[x, y]| pixel(&plain, x, y) != pixel(&written, x, y))
            .collect();
        assert!(!changed.is_empty());
        assert!(changed.iter().all(|&[x, y]| (48..88).contains(&x) && (20..60).contains(&y)), "{changed:?}");
    }

    #[test]
    fn numbers_are_bright_on_dark_cells_and_dark_on_bright_ones() {
        for (map, low, high) in
            [(Colormap::Viridis, Theme::Dark, Theme::Light), (Colormap::Coolwarm, Theme::Dark, Theme::Dark)]
        {
            assert_eq!([0.0, 1.0].map(|at| Theme::readable_on(map.color(at))), [low, high], "{map:?}");
        }
        assert_eq!(Theme::readable_on(NAN_COLOR), Theme::Light);
    }

    #[test]
    fn other_ranks_and_empty_volumes_are_refused() {
        let flat = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(SliceGrid::new(&flat).unwrap_err().to_string().contains("[2, 2]"));
        let empty = Tensor::zeros((0, 2, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(SliceGrid::new(&empty).is_err());
    }
}
