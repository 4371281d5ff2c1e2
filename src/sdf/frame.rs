//! [`Frame`]: where the samples of a grid are.

use crate::{Error, Result};

/// Where the samples of a grid are, and the unit of its values: what is needed to get back to the mesh.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Frame {
    /// Number of samples along x, y, z.
    pub shape: [usize; 3],
    /// Position of sample (0, 0, 0), in mesh units.
    pub origin: [f32; 3],
    /// Distance between neighbours along x, y, z, in mesh units.
    pub spacing: [f32; 3],
    /// The grid value for a length of one mesh unit.
    pub scale: f32,
    /// The [offset](crate::mesh::Mesh::offset) of the mesh, which must be added to positions to get those of its file.
    #[serde(default)]
    pub offset: [f64; 3],
}

impl Frame {
    /// The frame of `linspace(-1, 1, n)` along each axis.
    pub(crate) fn cube(shape: [usize; 3]) -> Self {
        Self {
            shape,
            origin: [-1.0; 3],
            spacing: shape.map(|n| 2.0 / (n.max(2) - 1) as f32),
            scale: 1.0,
            offset: [0.0; 3],
        }
    }

    /// The number of samples.
    ///
    /// # Errors
    /// [`Error::Argument`] when an axis has no sample, there are more than 2^32 in all, or a number is not finite or a length not
    /// above zero.
    pub(crate) fn check(&self, op: &'static str) -> Result<usize> {
        let numbers = self.origin.iter().chain(&self.spacing).chain([&self.scale]);
        let lengths = self.spacing.iter().chain([&self.scale]);
        if !numbers.copied().all(f32::is_finite) || !lengths.copied().all(|length| length > 0.0) {
            let expected = "finite numbers, the spacing and the scale above zero";
            return Err(Error::argument(op, "the grid's frame", format!("{self:?}"), expected));
        }
        let len = self.shape.iter().try_fold(1usize, |len, &n| len.checked_mul(n));
        len.filter(|len| (1..=u32::MAX as usize).contains(len)).ok_or_else(|| {
            let expected = "at least one sample an axis and at most 2^32 in all";
            Error::argument(op, "shape", format!("{:?}", self.shape), expected)
        })
    }

    pub(crate) fn position(&self, index: [usize; 3]) -> [f32; 3] {
        std::array::from_fn(|axis| self.origin[axis] + index[axis] as f32 * self.spacing[axis])
    }
}
