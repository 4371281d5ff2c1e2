//! [`SdfGrid`]: the values, their places, and how they were made.

use candle_core::{Device, Tensor};

use super::frame::Frame;
use super::walls::ThinWalls;
use crate::{Error, Result, memory, parallel};

/// How far the signs of a grid can be trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignReport {
    /// Whether the mesh bounds a volume, so that inside and outside are certain.
    pub closed: bool,
    /// Number of samples whose winding number is within 0.25 of the limit of one half. Their sign is a guess. Only meshes that are not
    /// closed have such samples.
    pub guessed: usize,
    /// Walls thinner than a cell, parts of which the grid may miss. Only closed meshes are searched for them.
    pub thin: Option<ThinWalls>,
}

/// A signed distance function sampled on a regular grid, negative inside.
///
/// The sample (i, j, k) is at `origin + (i, j, k) · spacing` in the mesh's own coordinates. Values are lengths in mesh units times
/// [`scale`](SdfGrid::scale). By default the grid is the cube [-1, 1]³ of a mesh that was centred and scaled so that its largest extent is
/// 2 / 1.1, and values are distances in that cube.
#[derive(Clone, Debug, PartialEq)]
pub struct SdfGrid {
    pub(super) values: Vec<f32>,
    pub(super) frame: Frame,
    pub(super) sign: Option<SignReport>,
    pub(super) notes: Vec<String>,
}

impl SdfGrid {
    /// Samples a function on `linspace(-1, 1, n)` along each axis; `f` takes (x, y, z).
    ///
    /// # Errors
    /// If an axis has no sample, or `f` returns a value that is not finite; [`Error::Memory`] if the grid does not fit in memory.
    ///
    /// ```
    /// use wavemesh::sdf::SdfGrid;
    /// let ball = SdfGrid::from_fn([32, 32, 32], |[x, y, z]| (x * x + y * y + z * z).sqrt() - 0.5)?;
    /// assert!(ball.to_mesh()?.is_watertight());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn from_fn(shape: [usize; 3], f: impl Fn([f32; 3]) -> f32 + Sync) -> Result<Self> {
        const OP: &str = "SdfGrid::from_fn";
        let frame = Frame::cube(shape);
        frame.check(OP)?;
        let [_, ny, nz] = shape;
        let mut values = vec![0.0; memory::elements::<f32>(OP, "a grid", &shape, 0)?];
        parallel::chunks_mut(&mut values, nz, &|row, line| {
            for (k, value) in line.iter_mut().enumerate() {
                *value = f(frame.position([row / ny, row % ny, k]));
            }
        });
        Self::with_frame(values, frame)
    }

    /// A grid from values in C order (x slowest, z fastest) over the cube [-1, 1]³.
    ///
    /// # Errors
    /// If the number of values is not the product of `shape`, or a value is not finite.
    ///
    /// ```
    /// use wavemesh::sdf::SdfGrid;
    /// let wall = SdfGrid::from_values(vec![-1.0, 0.0, 1.0], [3, 1, 1])?; // along x, inside where x is below 0
    /// assert_eq!(wall.position([2, 0, 0]), [1.0, -1.0, -1.0]);
    /// assert!(SdfGrid::from_values(vec![-1.0, 0.0], [3, 1, 1]).is_err());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn from_values(values: Vec<f32>, shape: [usize; 3]) -> Result<Self> {
        Self::with_frame(values, Frame::cube(shape))
    }

    /// A grid from values in C order and their frame.
    ///
    /// # Errors
    /// The errors of [`SdfGrid::from_values`].
    ///
    /// ```
    /// use wavemesh::sdf::{Frame, SdfGrid};
    /// let frame = Frame { shape: [3, 1, 1], origin: [10.0, 0.0, 0.0], spacing: [0.5; 3], scale: 1.0, offset: [0.0; 3] };
    /// let wall = SdfGrid::with_frame(vec![-0.5, 0.0, 0.5], frame)?;
    /// assert_eq!(wall.position([2, 0, 0]), [11.0, 0.0, 0.0]);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn with_frame(values: Vec<f32>, frame: Frame) -> Result<Self> {
        const OP: &str = "SdfGrid";
        let len = frame.check(OP)?;
        if values.len() != len {
            let expected = format!("{len} values for the grid {:?}", frame.shape);
            return Err(Error::Shape { op: OP, what: "values", got: vec![values.len()], expected });
        }
        // All values are checked without a branch; only an error is worth a search.
        let finite = values.iter().fold(true, |finite, v| finite & v.is_finite());
        if let Some(i) = values.iter().position(|v| !finite && !v.is_finite()) {
            let got = format!("{} at index {i}", values[i]);
            return Err(Error::Argument { op: OP, name: "a value", got, expected: "a finite number".into() });
        }
        Ok(Self { values, frame, sign: None, notes: Vec::new() })
    }

    /// The distances in C order: index `(i·ny + j)·nz + k` for the sample (x, y, z) = (i, j, k).
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of samples along x, y, z.
    pub fn shape(&self) -> [usize; 3] {
        self.frame.shape
    }

    /// Position of sample (0, 0, 0), in mesh units.
    pub fn origin(&self) -> [f32; 3] {
        self.frame.origin
    }

    /// Distance between neighbouring samples along x, y, z, in mesh units.
    pub fn spacing(&self) -> [f32; 3] {
        self.frame.spacing
    }

    /// The grid value for a length of one mesh unit.
    pub fn scale(&self) -> f32 {
        self.frame.scale
    }

    /// Origin, spacing, shape and scale together.
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// What the grid cannot show of its mesh, and what would help, one line each; usually empty.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How far the signs can be trusted; `None` for a grid without signs, or with signs that are not from a mesh.
    pub fn sign_report(&self) -> Option<SignReport> {
        self.sign
    }

    /// Position of sample (i, j, k), in mesh units.
    pub fn position(&self, index: [usize; 3]) -> [f32; 3] {
        self.frame.position(index)
    }

    /// The positions of the first and the last sample, in mesh units.
    pub fn corners(&self) -> [[f32; 3]; 2] {
        [self.position([0; 3]), self.position(self.frame.shape.map(|n| n - 1))]
    }

    /// The values as an f32 tensor of shape (nx, ny, nz).
    ///
    /// # Errors
    /// If the device cannot hold it.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let grid = SdfGrid::from_values(vec![-1.0, 0.0, 1.0], [3, 1, 1])?;
    /// assert_eq!(grid.to_tensor(&Device::Cpu)?.to_vec3::<f32>()?, [[[-1.0]], [[0.0]], [[1.0]]]); // x, y, z
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        let [nx, ny, nz] = self.frame.shape;
        Ok(Tensor::from_slice(&self.values, (nx, ny, nz), device)?)
    }

    /// A grid from a floating-point tensor of shape (nx, ny, nz), over the cube [-1, 1]³.
    ///
    /// # Errors
    /// If the tensor does not have three axes, or a value is not finite.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let sphere = shapes::sphere(0.5).to_grid(16)?;
    /// let halved = (sphere.to_tensor(&Device::Cpu)? * 0.5)?;
    /// assert_eq!(SdfGrid::from_tensor(&halved)?.shape(), [16; 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let Ok((nx, ny, nz)) = tensor.dims3() else {
            let got = tensor.dims().to_vec();
            return Err(Error::Shape {
                op: "SdfGrid::from_tensor",
                what: "tensor",
                got,
                expected: "(nx, ny, nz)".into(),
            });
        };
        let values = tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
        Self::from_values(values, [nx, ny, nz])
    }
}
