//! [`nearest_shapes`]: tells whether a generator invents shapes or repeats those of its training.

use rayon::prelude::*;

use super::set_metrics::{chamfer_matrix, check_frames, surface_points};
use crate::sdf::SdfGrid;
use crate::{Error, Result};

/// For each shape, the index of its nearest shape in `among`, and the distance: the Chamfer distance between `points` points of each
/// surface (mean squared distance to the nearest point, there plus back).
///
/// Use it to detect memorising: compare generated shapes with the training shapes. If they are much nearer to these than held-out shapes
/// are, they are remembered, not invented.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::train::nearest_shapes;
/// let ball = |radius| shapes::sphere(radius).to_grid(24);
/// let trained = [ball(0.3)?, ball(0.6)?];
/// let nearest = nearest_shapes(&[ball(0.58)?, ball(0.3)?], &trained, 400, 0)?;
/// assert_eq!([nearest[0].0, nearest[1].0], [1, 0]);
/// assert!(nearest[1].1 < nearest[0].1 + 1e-3); // the second is one of them; two samples of one surface differ a little
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// No shapes in `among`; a grid without a surface; or grids in different frames (the message names both).
pub fn nearest_shapes(shapes: &[SdfGrid], among: &[SdfGrid], points: usize, seed: u64) -> Result<Vec<(usize, f64)>> {
    if among.is_empty() {
        return Err(Error::argument("nearest_shapes", "among", "no shapes", "at least one"));
    }
    check_frames("nearest_shapes", shapes, among)?;
    let clouds = |grids: &[SdfGrid], seed| {
        let meshes = grids.par_iter().map(SdfGrid::to_mesh).collect::<Result<Vec<_>>>()?;
        surface_points(&meshes, points, seed)
    };
    let distances = chamfer_matrix(&clouds(shapes, seed)?, &clouds(among, !seed)?)?;
    let least = |row: &Vec<f64>| row.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default();
    Ok(distances.iter().map(least).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdf::shapes;

    #[test]
    fn the_nearest_is_found_whatever_the_order() {
        let grids: Vec<SdfGrid> = [0.3, 0.45, 0.6].iter().map(|&r| shapes::sphere(r).to_grid(24).unwrap()).collect();
        let mut turned = grids.clone();
        turned.reverse();
        let places: Vec<usize> = nearest_shapes(&grids, &turned, 300, 1).unwrap().iter().map(|found| found.0).collect();
        assert_eq!(places, [2, 1, 0]);
        // Balls of radii 0.3 and 0.45: each point is 0.15 from the other surface, except for the spacing of the points.
        let apart = nearest_shapes(&grids[..1], &grids[1..2], 2000, 1).unwrap()[0].1;
        assert!((0.045..0.055).contains(&apart), "{apart}");
    }

    #[test]
    fn shapes_in_different_frames_and_an_empty_set_are_refused() {
        let ball = shapes::sphere(0.5).to_grid(16).unwrap();
        let large =
            SdfGrid::from_mesh(&ball.to_mesh().unwrap().map_vertices(|p| p.map(|v| 40.0 * v)).unwrap(), 16).unwrap();
        let error = nearest_shapes(std::slice::from_ref(&ball), &[large], 100, 0).unwrap_err().to_string();
        assert!(error.starts_with("nearest_shapes: the frames"), "{error}");
        assert!(nearest_shapes(&[ball], &[], 100, 0).unwrap_err().to_string().contains("at least one"));
    }
}
