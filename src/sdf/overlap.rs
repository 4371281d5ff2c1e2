//! How much two solids overlap, measured on grids: intersection over union.

use super::from_mesh::SdfConfig;
use super::grid::SdfGrid;
use crate::mesh::Mesh;
use crate::{Error, Result};

/// Volume of the intersection divided by that of the union, 0 to 1, on `resolution`³ samples of the box around both meshes.
///
/// # Errors
/// If `resolution` is below two, or neither mesh encloses a sample.
///
/// ```
/// use wavemesh::sdf::iou;
/// use wavemesh::prelude::*;
/// // Two unit cubes that share a half.
/// let [a, b] = [0.0, 0.5].map(|x| shapes::cuboid([0.5; 3]).scale(0.6).translate([0.6 * x - 0.15, 0.0, 0.0]).to_mesh(48));
/// let shared = iou(&a?, &b?, 48)?;
/// assert!((shared - 1.0 / 3.0).abs() < 0.05, "{shared}");
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "volumetric_iou")]
pub fn iou(a: &Mesh, b: &Mesh, resolution: usize) -> Result<f64> {
    let b = &*b.around(a.offset());
    let ([a_lo, a_hi], [b_lo, b_hi]) = (a.bounds(), b.bounds());
    let lo: [f32; 3] = std::array::from_fn(|i| a_lo[i].min(b_lo[i]));
    let hi: [f32; 3] = std::array::from_fn(|i| a_hi[i].max(b_hi[i]));
    let config = SdfConfig { shape: [resolution; 3], bounds: Some([lo, hi]), ..Default::default() };
    iou_of_grids(&SdfGrid::from_mesh_with(a, &config)?, &SdfGrid::from_mesh_with(b, &config)?)
}

/// Number of samples inside both grids divided by the number inside either, 0 to 1.
///
/// # Errors
/// If the grids differ in shape, or neither has a sample inside.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sdf::iou_of_grids;
/// let grid = |values: [f32; 3]| SdfGrid::from_values(values.to_vec(), [3, 1, 1]);
/// assert_eq!(iou_of_grids(&grid([-1.0, -1.0, 1.0])?, &grid([-1.0, 1.0, 1.0])?)?, 0.5);
/// assert!(iou_of_grids(&grid([1.0; 3])?, &grid([1.0; 3])?).is_err()); // neither has an inside
/// # Ok::<(), Error>(())
/// ```
pub fn iou_of_grids(a: &SdfGrid, b: &SdfGrid) -> Result<f64> {
    if a.shape() != b.shape() {
        let (got, expected) = (b.shape().to_vec(), format!("{:?}, as the first", a.shape()));
        return Err(Error::Shape { op: "iou_of_grids", what: "the second grid", got, expected });
    }
    let (mut both, mut either) = (0usize, 0usize);
    for (&a, &b) in a.values().iter().zip(b.values()) {
        both += usize::from(a < 0.0 && b < 0.0);
        either += usize::from(a < 0.0 || b < 0.0);
    }
    if either == 0 {
        let (got, expected) = ("empty".into(), "at least one sample inside".into());
        return Err(Error::Argument { op: "iou", name: "the union", got, expected });
    }
    Ok(both as f64 / either as f64)
}
