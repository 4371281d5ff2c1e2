//! [`Frame`]: where the samples of a grid lie.

/// Where the samples of a grid lie, and the unit of its values: what must be kept to find back to the mesh.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Frame {
    /// Number of samples along x, y, z.
    pub shape: [usize; 3],
    /// Position of sample (0, 0, 0), in mesh units.
    pub origin: [f32; 3],
    /// Distance between neighbours along x, y, z, in mesh units.
    pub spacing: [f32; 3],
    /// What a length of one mesh unit is as a value of the grid.
    pub scale: f32,
}

impl Frame {
    /// The frame of `linspace(-1, 1, n)` along each axis.
    pub(crate) fn cube(shape: [usize; 3]) -> Self {
        Self { shape, origin: [-1.0; 3], spacing: shape.map(|n| 2.0 / (n.max(2) - 1) as f32), scale: 1.0 }
    }

    pub(crate) fn position(&self, index: [usize; 3]) -> [f32; 3] {
        std::array::from_fn(|axis| self.origin[axis] + index[axis] as f32 * self.spacing[axis])
    }
}
