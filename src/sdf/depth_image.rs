//! [`DepthImage`]: how near the surface of a solid is to a camera, pixel by pixel.

use candle_core::{Device, Tensor};

use super::grid::SdfGrid;
use crate::{Error, Result, memory};

/// From where a solid is looked at. The camera is far away, and z points upwards in its pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Viewpoint {
    /// Angle around the z axis, in degrees: the camera is on the side of x at 0, and of y at 90.
    pub azimuth: f32,
    /// Angle above the xy plane, in degrees, -90 to 90.
    pub elevation: f32,
}

impl Viewpoint {
    /// The directions to the right and upwards in a picture, and towards the camera.
    fn axes(self) -> [[f32; 3]; 3] {
        let (sin, cos) = self.azimuth.to_radians().sin_cos();
        let (high, flat) = self.elevation.to_radians().sin_cos();
        [[-sin, cos, 0.0], [-high * cos, -high * sin, flat], [flat * cos, flat * sin, high]]
    }
}

/// A square picture of a solid without perspective: 0 where there is nothing, otherwise up to 1, larger where the surface is nearer. A
/// silhouette is 1 wherever there is something.
///
/// The picture shows 1.25 times the grid's longest side in both directions. A [`Generator`](crate::train::Generator) that was trained with
/// such pictures draws shapes that look like one.
///
/// ```
/// use wavemesh::prelude::*;
/// let ball = shapes::sphere(0.5).to_grid(32)?;
/// let image = ball.depth_image(Viewpoint { azimuth: 30.0, elevation: 20.0 }, 32)?;
/// let covered = image.pixels().iter().filter(|&&depth| depth > 0.0).count() as f32 / (32.0 * 32.0);
/// let disc = std::f32::consts::PI * 0.5f32.powi(2) / 2.5f32.powi(2);
/// assert!((covered - disc).abs() < 0.02);
/// assert_eq!(image.silhouette().pixels().iter().sum::<f32>(), covered * 32.0 * 32.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DepthImage {
    size: usize,
    pixels: Vec<f32>,
    viewpoint: Viewpoint,
}

impl DepthImage {
    /// Half the side of a picture, in half sides of the grid.
    const HALF_WIDTH: f32 = 1.25;
    /// Numbers of a patch in addition to its pixels.
    const PLACE: usize = 12;

    /// A picture from pixels, rows from the top.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are `size²` pixels, [`Error::Argument`] for a pixel outside 0 to 1 or angles out of range.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let side = Viewpoint { azimuth: 90.0, elevation: 0.0 };
    /// let drawn = DepthImage::from_pixels(vec![0.0, 0.0, 1.0, 1.0], 2, side)?; // the lower half is covered
    /// assert_eq!(drawn.silhouette(), drawn);
    /// assert!(DepthImage::from_pixels(vec![2.0; 4], 2, side).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_pixels(pixels: Vec<f32>, size: usize, viewpoint: Viewpoint) -> Result<Self> {
        const OP: &str = "DepthImage";
        check(viewpoint)?;
        if size == 0 || size.checked_mul(size) != Some(pixels.len()) {
            let expected = format!("{size} × {size} pixels, at least one");
            return Err(Error::Shape { op: OP, what: "pixels", got: vec![pixels.len()], expected });
        }
        if let Some(pixel) = pixels.iter().find(|pixel| !(0.0..=1.0).contains(*pixel)) {
            return Err(Error::argument(OP, "a pixel", pixel, "0 (nothing) to 1 (nearest)"));
        }
        Ok(Self { size, pixels, viewpoint })
    }

    /// Pixels along each side.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The pixels, rows from the top.
    pub fn pixels(&self) -> &[f32] {
        &self.pixels
    }

    /// From where it was taken.
    pub fn viewpoint(&self) -> Viewpoint {
        self.viewpoint
    }

    /// The same picture without depth: 1 wherever there is something.
    #[must_use]
    pub fn silhouette(&self) -> Self {
        let pixels = self.pixels.iter().map(|&depth| if depth > 0.0 { 1.0 } else { 0.0 }).collect();
        Self { pixels, ..self.clone() }
    }

    /// The picture as a context for a network: a row for each of the `side` × `side` patches, (side², pixels of a patch + 12). The twelve tell
    /// where the patch is: its place `u` to the right and `v` upwards, in half sides of the grid; `u` times the direction to the right, `v`
    /// times the upward one, and `u² + v²`; and the direction towards the camera. With them a linear layer finds the patches that show
    /// a place `p` of the grid: `2 p·(u·right) + 2 p·(v·up) − (u² + v²)` is largest where `p` appears.
    ///
    /// # Errors
    /// [`Error::Argument`] if the picture cannot be divided into that many patches.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let image = shapes::sphere(0.5).to_grid(16)?.depth_image(Viewpoint { azimuth: 0.0, elevation: 0.0 }, 64)?;
    /// assert_eq!(image.patches(8)?.dims(), [64, 8 * 8 + 12]);
    /// assert!(image.patches(7).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn patches(&self, side: usize) -> Result<Tensor> {
        let rows = self.patch_rows(side)?;
        Ok(Tensor::from_vec(rows, (side * side, Self::patch_width(self.size, side)), &Device::Cpu)?)
    }

    /// Numbers in a row of [`patches`](Self::patches).
    pub(crate) const fn patch_width(size: usize, side: usize) -> usize {
        (size / side).pow(2) + Self::PLACE
    }

    /// The rows of [`patches`](Self::patches), one after the other.
    pub(crate) fn patch_rows(&self, side: usize) -> Result<Vec<f32>> {
        if side == 0 || !self.size.is_multiple_of(side) {
            let expected = format!("a divisor of the picture's {} pixels", self.size);
            return Err(Error::argument("DepthImage::patches", "side", side, expected));
        }
        let each = self.size / side;
        let [right, up, towards] = self.viewpoint.axes();
        let mut rows = Vec::with_capacity(side * side * Self::patch_width(self.size, side));
        for patch in 0..side * side {
            let [row, column] = [patch / side, patch % side];
            for line in 0..each {
                let start = (row * each + line) * self.size + column * each;
                rows.extend(&self.pixels[start..start + each]);
            }
            let place = |at: usize| Self::HALF_WIDTH * ((2 * at + 1) as f32 / side as f32 - 1.0);
            let [u, v] = [place(column), -place(row)];
            rows.extend([u, v]);
            rows.extend(right.map(|part| u * part));
            rows.extend(up.map(|part| v * part));
            rows.push(u * u + v * v);
            rows.extend(towards);
        }
        Ok(rows)
    }
}

impl SdfGrid {
    /// A picture of `size` × `size` pixels of the solid, by sphere tracing (Hart 1996) through the blended samples.
    ///
    /// # Errors
    /// [`Error::Argument`] for angles that are not finite or an elevation beyond ±90 degrees, or without a pixel.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let block = shapes::cuboid([0.4, 0.2, 0.6]).to_grid(32)?;
    /// let from_above = block.depth_image(Viewpoint { azimuth: 0.0, elevation: 90.0 }, 5)?;
    /// let middle = from_above.pixels()[12]; // the top is 0.6 above the centre
    /// assert!((middle - 0.5 * (1.0 + 0.6 / 3f32.sqrt())).abs() < 0.01);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn depth_image(&self, viewpoint: Viewpoint, size: usize) -> Result<DepthImage> {
        const OP: &str = "SdfGrid::depth_image";
        check(viewpoint)?;
        if size == 0 {
            return Err(Error::argument(OP, "size", size, "at least one pixel"));
        }
        let len = memory::elements::<f32>(OP, "a picture", &[size, size], 0)?;
        let (field, [right, up, towards]) = (Field::new(self), viewpoint.axes());
        let far = 3f32.sqrt();
        let pixel = |at: usize| {
            let offset = |i: usize| DepthImage::HALF_WIDTH * ((2 * i + 1) as f32 / size as f32 - 1.0);
            let [x, y] = [offset(at % size), -offset(at / size)];
            let from = std::array::from_fn(|i| right[i] * x + up[i] * y);
            field.first_inside(from, towards, far).map_or(0.0, |height| (0.5 * (1.0 + height / far)).clamp(1e-3, 1.0))
        };
        Ok(DepthImage { size, pixels: (0..len).map(pixel).collect(), viewpoint })
    }
}

fn check(Viewpoint { azimuth, elevation }: Viewpoint) -> Result<()> {
    if azimuth.is_finite() && (-90.0..=90.0).contains(&elevation) {
        return Ok(());
    }
    let got = format!("azimuth {azimuth}, elevation {elevation}");
    Err(Error::argument("Viewpoint", "its angles", got, "a finite azimuth and an elevation of -90 to 90, in degrees"))
}

/// The samples as a function of places in the cube [-1, 1]³, which the grid's longest side fills.
struct Field<'a> {
    values: &'a [f32],
    shape: [usize; 3],
    /// Samples per unit along each axis, and half the number of steps between samples.
    steps: [f32; 3],
    middle: [f32; 3],
    /// Units per value.
    unit: f32,
    /// The shortest distance between samples.
    cell: f32,
}

impl<'a> Field<'a> {
    fn new(grid: &'a SdfGrid) -> Self {
        let shape = grid.shape();
        let spacing = grid.spacing().map(|length| length * grid.scale());
        let half = (0..3).map(|i| 0.5 * (shape[i] - 1) as f32 * spacing[i]).fold(f32::MIN_POSITIVE, f32::max);
        let steps = spacing.map(|length| half / length);
        let cell = steps.iter().map(|steps| 1.0 / steps).fold(f32::INFINITY, f32::min);
        let middle = shape.map(|n| 0.5 * (n - 1) as f32);
        Self { values: grid.values(), shape, steps, middle, unit: 1.0 / half, cell }
    }

    /// The distance at a place of the grid, blended from the eight samples around it.
    fn at(&self, p: [f32; 3]) -> f32 {
        let mut low = [0usize; 3];
        let mut share = [0f32; 3];
        for i in 0..3 {
            let place = (p[i] * self.steps[i] + self.middle[i]).clamp(0.0, (self.shape[i] - 1) as f32);
            low[i] = (place as usize).min(self.shape[i].saturating_sub(2));
            share[i] = place - low[i] as f32;
        }
        let [_, ny, nz] = self.shape;
        let sample = |corner: [usize; 3]| {
            let [x, y, z]: [usize; 3] = std::array::from_fn(|i| (low[i] + corner[i]).min(self.shape[i] - 1));
            self.values[(x * ny + y) * nz + z]
        };
        let blend = |a: f32, b: f32, share: f32| a + (b - a) * share;
        let along_z = |x, y| blend(sample([x, y, 0]), sample([x, y, 1]), share[2]);
        let along_y = |x| blend(along_z(x, 0), along_z(x, 1), share[1]);
        self.unit * blend(along_y(0), along_y(1), share[0])
    }

    /// The part of a ray that is in the grid, as its highest and lowest height; `None` if it misses the grid.
    fn within(&self, from: [f32; 3], towards: [f32; 3], far: f32) -> Option<[f32; 2]> {
        let [mut high, mut low] = [far, -far];
        for i in 0..3 {
            let most = self.middle[i] / self.steps[i];
            if towards[i].abs() < 1e-6 {
                if from[i].abs() > most {
                    return None;
                }
                continue;
            }
            let [a, b] = [-most, most].map(|side| (side - from[i]) / towards[i]);
            (high, low) = (high.min(a.max(b)), low.max(a.min(b)));
        }
        (high > low).then_some([high, low])
    }

    /// The largest height at which the ray that passes `from` at height 0 is inside the solid.
    fn first_inside(&self, from: [f32; 3], towards: [f32; 3], far: f32) -> Option<f32> {
        let [mut height, low] = self.within(from, towards, far)?;
        let mut last: Option<(f32, f32)> = None;
        while height >= low {
            let distance = self.at(std::array::from_fn(|i| from[i] + towards[i] * height));
            if distance < 0.0 {
                // The surface is where the line between the last two distances crosses zero.
                return Some(
                    last.map_or(height, |(above, outside)| above + (height - above) * outside / (outside - distance)),
                );
            }
            last = Some((height, distance));
            // Distances between samples may be a little too large.
            height -= (0.9 * distance).max(0.25 * self.cell);
        }
        None
    }
}
