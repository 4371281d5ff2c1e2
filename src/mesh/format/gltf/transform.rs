//! Transforms in double precision.

use super::document::Node;

/// A column-major matrix, as in glTF: `m[column][row]`, without the last row.
pub(super) type Matrix = [[f64; 3]; 4];

pub(super) const IDENTITY: Matrix = [[1., 0., 0.], [0., 1., 0.], [0., 0., 1.], [0., 0., 0.]];

pub(super) fn product(a: &Matrix, b: &Matrix) -> Matrix {
    std::array::from_fn(|c| {
        std::array::from_fn(|r| {
            let own = if c == 3 { a[3][r] } else { 0.0 };
            (0..3).map(|k| a[k][r] * b[c][k]).sum::<f64>() + own
        })
    })
}

pub(super) fn transform(translation: [f64; 3], [x, y, z, w]: [f64; 4], scale: [f64; 3]) -> Matrix {
    let rotation = [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + z * w), 2.0 * (x * z - y * w)],
        [2.0 * (x * y - z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + x * w)],
        [2.0 * (x * z + y * w), 2.0 * (y * z - x * w), 1.0 - 2.0 * (x * x + y * y)],
    ];
    std::array::from_fn(|c| if c < 3 { rotation[c].map(|r| r * scale[c]) } else { translation })
}

pub(super) fn determinant([a, b, c, _]: &Matrix) -> f64 {
    a[0] * (b[1] * c[2] - b[2] * c[1]) - b[0] * (a[1] * c[2] - a[2] * c[1]) + c[0] * (a[1] * b[2] - a[2] * b[1])
}

pub(super) const NO_ROTATION: [f64; 4] = [0.0, 0.0, 0.0, 1.0];

impl Node {
    /// The transform of the node within its parent.
    pub(super) fn matrix(&self) -> Matrix {
        match &self.matrix {
            Some(m) => std::array::from_fn(|c| std::array::from_fn(|r| m[4 * c + r])),
            None => transform(
                self.translation.unwrap_or_default(),
                self.rotation.unwrap_or(NO_ROTATION),
                self.scale.unwrap_or([1.0; 3]),
            ),
        }
    }
}
