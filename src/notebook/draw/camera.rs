//! The camera: the direction from which a 3D plot is seen, and the place of a data point on the picture.

use crate::mesh::Axis;

/// The direction from which a 3D plot is seen. Angles are as in matplotlib, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Camera {
    /// Angle around the upright axis.
    pub azimuth: f32,
    /// Angle above the horizon, −90 to 90.
    pub elevation: f32,
    /// Whether near things are larger; otherwise parallel lines stay parallel.
    pub perspective: bool,
    /// Magnification: a larger zoom shows a smaller part; 1 fits everything.
    pub zoom: f32,
    /// The axis that points up. Meshes have y up, so this is the default everywhere.
    pub up: Axis,
}

impl Default for Camera {
    fn default() -> Self {
        Self { azimuth: -60.0, elevation: 25.0, perspective: true, zoom: 1.0, up: Axis::Y }
    }
}

/// Distance of the eye from the centre, in radii of the scene.
const EYE_DISTANCE: f32 = 4.0;

/// Projects points of the data onto the picture.
pub(crate) struct Projector {
    /// Rows: right, up, towards the eye, in the data's axes.
    rotation: [[f32; 3]; 3],
    center: [f32; 3],
    /// Distance of the eye, `None` for a parallel projection.
    eye: Option<f32>,
    /// Pixels per unit of the data, and the pixel of the centre.
    scale: f32,
    middle: [f32; 2],
}

impl Projector {
    /// Fits the box `low..high` of the data into the rectangle `x, y, width, height` of the picture.
    pub fn fit(camera: &Camera, low: [f32; 3], high: [f32; 3], viewport: [f32; 4]) -> Self {
        let center: [f32; 3] = std::array::from_fn(|i| (low[i] + high[i]) / 2.0);
        let half: [f32; 3] = std::array::from_fn(|i| ((high[i] - low[i]) / 2.0).max(1e-6));
        let radius = half.iter().map(|h| h * h).sum::<f32>().sqrt();
        let [x, y, width, height] = viewport;
        let mut projector = Self {
            rotation: rotation(camera),
            center,
            eye: camera.perspective.then_some(radius * EYE_DISTANCE),
            scale: 1.0,
            middle: [0.0, 0.0],
        };
        let corners = corners(low, high).map(|corner| projector.project(corner));
        let range = |axis: usize| {
            let values = corners.map(|c| c[axis]);
            (
                values.iter().copied().fold(f32::INFINITY, f32::min),
                values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            )
        };
        let ((left, right), (top, bottom)) = (range(0), range(1));
        let scale = (width / (right - left)).min(height / (bottom - top));
        let offset = [(left + right) / 2.0, (top + bottom) / 2.0];
        projector.scale = scale * camera.zoom;
        projector.middle =
            [x + width / 2.0 - offset[0] * projector.scale, y + height / 2.0 - offset[1] * projector.scale];
        projector
    }

    /// The x and y on the picture, and a depth that is larger for nearer points and linear over a flat face.
    pub fn project(&self, p: [f32; 3]) -> [f32; 3] {
        self.place([0, 1, 2].map(|axis| self.share(axis, p[axis])))
    }

    /// What the coordinate along one axis contributes to the place of a point.
    #[inline(always)]
    pub fn share(&self, axis: usize, coordinate: f32) -> [f32; 3] {
        let [right, up, near] = &self.rotation;
        let from_center = coordinate - self.center[axis];
        [right[axis] * from_center, up[axis] * from_center, near[axis] * from_center]
    }

    /// [`project`](Self::project) for the shares of a point's three coordinates.
    #[inline(always)]
    pub fn place(&self, [x, y, z]: [[f32; 3]; 3]) -> [f32; 3] {
        let [right, up, near] = [x[0] + y[0] + z[0], x[1] + y[1] + z[1], x[2] + y[2] + z[2]];
        let (magnify, depth) = match self.eye {
            Some(eye) => {
                let distance = (eye - near).max(eye * 1e-3);
                (eye / distance, eye / distance)
            }
            None => (1.0, near),
        };
        let scale = self.scale * magnify;
        [self.middle[0] + right * scale, self.middle[1] - up * scale, depth]
    }

    /// The direction from a point of the data to the eye, not normalised, in the data's axes.
    pub fn towards_eye(&self, p: [f32; 3]) -> [f32; 3] {
        [0, 1, 2].map(|axis| self.towards_eye_along(axis, p[axis]))
    }

    /// The same along one axis, from that coordinate of a point.
    #[inline(always)]
    pub fn towards_eye_along(&self, axis: usize, coordinate: f32) -> f32 {
        let towards = self.rotation[2][axis];
        self.eye.map_or(towards, |eye| self.center[axis] + towards * eye - coordinate)
    }

    /// Brightness of a face with this unit normal, 0.55 to 1. The light comes from the upper left of the eye.
    pub fn brightness(&self, normal: [f32; 3]) -> f32 {
        let [right, up, near] = self.rotation.map(|row| dot(row, normal));
        let lit = (-0.30 * right + 0.62 * up + 0.72 * near).max(0.0);
        0.55 + 0.45 * lit.min(1.0)
    }

    pub fn is_perspective(&self) -> bool {
        self.eye.is_some()
    }

    /// Pixels per unit of the data at the centre.
    pub fn pixels_per_unit(&self) -> f32 {
        self.scale
    }
}

/// The directions of the data axes on the picture: rows right, up and towards the eye.
fn rotation(camera: &Camera) -> [[f32; 3]; 3] {
    let (sin_a, cos_a) = camera.azimuth.to_radians().sin_cos();
    let (sin_e, cos_e) = camera.elevation.to_radians().sin_cos();
    let rows = [[-sin_a, cos_a, 0.0], [-sin_e * cos_a, -sin_e * sin_a, cos_e], [cos_e * cos_a, cos_e * sin_a, sin_e]];
    // From the frame whose third axis is up to that of the data. Each is a rotation, so nothing is mirrored.
    rows.map(|[x, y, z]| match camera.up {
        Axis::Z => [x, y, z],
        Axis::Y => [x, z, -y],
        Axis::X => [z, x, y],
    })
}

pub(crate) fn corners(low: [f32; 3], high: [f32; 3]) -> [[f32; 3]; 8] {
    std::array::from_fn(|corner| {
        std::array::from_fn(|axis| if corner >> axis & 1 == 1 { high[axis] } else { low[axis] })
    })
}

pub(crate) fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: ([f32; 3], [f32; 3], [f32; 4]) = ([0.0; 3], [1.0; 3], [0.0, 0.0, 100.0, 100.0]);

    #[test]
    fn the_box_fits_the_viewport_and_touches_it() {
        for perspective in [false, true] {
            let camera = Camera { perspective, ..Default::default() };
            let projector = Projector::fit(&camera, UNIT.0, UNIT.1, UNIT.2);
            let points = corners(UNIT.0, UNIT.1).map(|c| projector.project(c));
            let extent = |axis: usize| {
                let values = points.map(|p| p[axis]);
                (values.iter().copied().fold(f32::MAX, f32::min), values.iter().copied().fold(f32::MIN, f32::max))
            };
            let ((x0, x1), (y0, y1)) = (extent(0), extent(1));
            assert!(x0 > -0.01 && x1 < 100.01 && y0 > -0.01 && y1 < 100.01);
            assert!(x1 - x0 > 99.9 || y1 - y0 > 99.9);
        }
    }

    #[test]
    fn the_upright_axis_points_up_and_the_picture_is_not_mirrored() {
        for up in [Axis::X, Axis::Y, Axis::Z] {
            let camera = Camera { up, perspective: false, ..Default::default() };
            let projector = Projector::fit(&camera, UNIT.0, UNIT.1, UNIT.2);
            let origin = projector.project([0.0; 3]);
            let mut end = [0.0; 3];
            end[up as usize] = 1.0;
            let tip = projector.project(end);
            assert!((tip[0] - origin[0]).abs() < 1e-3 && tip[1] < origin[1] - 10.0, "{up:?}");
            let [r, u, n] = projector.rotation;
            let cross = [r[1] * u[2] - r[2] * u[1], r[2] * u[0] - r[0] * u[2], r[0] * u[1] - r[1] * u[0]];
            assert!((dot(cross, n) - 1.0).abs() < 1e-5, "{up:?} is mirrored");
        }
    }

    #[test]
    fn nearer_points_have_larger_depth() {
        for perspective in [false, true] {
            let projector = Projector::fit(&Camera { perspective, ..Default::default() }, UNIT.0, UNIT.1, UNIT.2);
            let eye = projector.towards_eye([0.5; 3]);
            let near = std::array::from_fn(|i| 0.5 + 0.01 * eye[i]);
            assert!(projector.project(near)[2] > projector.project([0.5; 3])[2]);
        }
    }
}
