//! Measures how good a set of generated shapes is, compared with a set of real ones.
//!
//! Distances between shapes are Chamfer distances between points of their surfaces. 1-NNA, COV and MMD are computed from them (Yang et al.
//! 2019, "PointFlow", section 5.1; Achlioptas et al. 2018).

use rayon::prelude::*;

use crate::mesh::metrics::sample_surface;
use crate::mesh::{Bvh, Mesh, Work};
use crate::sdf::SdfGrid;
use crate::task::Task;
use crate::{Error, Result};

/// Measures of generated shapes against reference shapes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SetComparison {
    /// Leave-one-out accuracy, 0 to 1, of a nearest-neighbour classifier that tells generated shapes from reference shapes: 0.5 if the sets
    /// cannot be told apart, near 1 if they can, below 0.5 if generated shapes lie on top of reference shapes.
    pub one_nna: f64,
    /// Share of reference shapes that are the nearest reference of some generated shape, 0 to 1.
    pub coverage: f64,
    /// Mean, over reference shapes, of the distance to the nearest generated shape.
    pub mmd: f64,
}

impl SetComparison {
    /// Compares the sets by their distances, which [`chamfer_matrix`] computes: row `i` of `between` belongs to generated shape `i`, column
    /// `j` to reference shape `j`.
    ///
    /// # Errors
    /// [`Error::Shape`] for matrices that do not fit each other, [`Error::Argument`] for fewer than two shapes in a set.
    ///
    /// ```
    /// use wavemesh::train::SetComparison;
    /// // Shapes on a line: generated ones at 0 and 10, reference ones at 1 and 2.
    /// let distances = |a: [f64; 2], b: [f64; 2]| a.map(|a| b.map(|b| (a - b).abs()).to_vec());
    /// let (generated, reference) = ([0.0, 10.0], [1.0, 2.0]);
    /// let compared = SetComparison::new(
    ///     &distances(generated, generated),
    ///     &distances(generated, reference),
    ///     &distances(reference, reference),
    /// )?;
    /// assert_eq!(compared.coverage, 1.0); // each reference shape is nearest to a generated one
    /// assert_eq!(compared.mmd, (1.0 + 2.0) / 2.0);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn new(among_generated: &[Vec<f64>], between: &[Vec<f64>], among_reference: &[Vec<f64>]) -> Result<Self> {
        let (generated, reference) = (among_generated.len(), among_reference.len());
        if generated < 2 || reference < 2 {
            return Err(Error::Argument {
                op: "SetComparison",
                name: "the sets",
                got: format!("{generated} generated and {reference} reference shapes"),
                expected: "at least two of each".into(),
            });
        }
        let fits = |matrix: &[Vec<f64>], rows: usize, columns: usize| {
            matrix.len() == rows && matrix.iter().all(|row| row.len() == columns)
        };
        if !(fits(among_generated, generated, generated)
            && fits(between, generated, reference)
            && fits(among_reference, reference, reference))
        {
            return Err(Error::Shape {
                op: "SetComparison",
                what: "the distance matrices",
                got: vec![generated, between.len(), reference],
                expected: format!("{generated}×{generated}, {generated}×{reference} and {reference}×{reference}"),
            });
        }
        let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
        let others = |row: &[f64], own: usize| {
            row.iter().enumerate().filter(|(i, _)| *i != own).map(|(_, &d)| d).fold(f64::INFINITY, f64::min)
        };
        let mut right = 0usize;
        for (i, row) in between.iter().enumerate() {
            right += usize::from(others(&among_generated[i], i) < least(&mut row.iter().copied()));
        }
        for j in 0..reference {
            right += usize::from(others(&among_reference[j], j) < least(&mut between.iter().map(|row| row[j])));
        }
        let mut covered = vec![false; reference];
        for row in between {
            if let Some((nearest, _)) = row.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)) {
                covered[nearest] = true;
            }
        }
        let nearest_sum: f64 = (0..reference).map(|j| least(&mut between.iter().map(|row| row[j]))).sum();
        Ok(Self {
            one_nna: right as f64 / (generated + reference) as f64,
            coverage: covered.iter().filter(|&&c| c).count() as f64 / reference as f64,
            mmd: nearest_sum / reference as f64,
        })
    }

    /// Compares the surfaces of grids, which must have the same frame, as those of [`Generator`](super::Generator) and
    /// [`ShapeDataset`](super::ShapeDataset) do. `points` points of every surface are drawn from `seed`.
    ///
    /// # Errors
    /// The errors of [`of_meshes`](Self::of_meshes); a grid without a surface; or grids in different frames (the message names both).
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::SetComparison;
    /// let balls = |radii: [f32; 2]| radii.map(|radius| shapes::sphere(radius).to_grid(24)).into_iter().collect::<wavemesh::Result<Vec<_>>>();
    /// let compared = SetComparison::of_grids(&balls([0.4, 0.6])?, &balls([0.41, 0.61])?, 200, 0)?;
    /// assert_eq!(compared.coverage, 1.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn of_grids(generated: &[SdfGrid], reference: &[SdfGrid], points: usize, seed: u64) -> Result<Self> {
        check_frames("SetComparison", generated, reference)?;
        let meshes = |grids: &[SdfGrid]| grids.iter().map(SdfGrid::to_mesh).collect::<Result<Vec<_>>>();
        Self::of_meshes(&meshes(generated)?, &meshes(reference)?, points, seed)
    }

    /// Draws `points` points of every surface from `seed`, and compares the sets.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new) and [`chamfer_matrix`]; or sets that lie apart or differ in size by more than a factor of 8, which
    /// must be in different frames.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::train::SetComparison;
    /// let balls = |radii: [f32; 2]| radii.map(|radius| shapes::sphere(radius).to_mesh(24)).into_iter().collect::<wavemesh::Result<Vec<_>>>();
    /// let compared = SetComparison::of_meshes(&balls([0.4, 0.6])?, &balls([0.41, 0.61])?, 200, 0)?;
    /// assert_eq!(compared.coverage, 1.0);
    /// assert!(SetComparison::of_meshes(&balls([0.4, 0.6])?, &balls([0.41, 0.61])?[..1], 200, 0).is_err()); // a set of one
    /// # Ok::<(), Error>(())
    /// ```
    pub fn of_meshes(generated: &[Mesh], reference: &[Mesh], points: usize, seed: u64) -> Result<Self> {
        if let (Some(a), Some(b)) = (common_box(generated), common_box(reference)) {
            let apart = (0..3).any(|axis| a[0][axis] > b[1][axis] || b[0][axis] > a[1][axis]);
            let ratio = extent(&a) / extent(&b);
            if apart || !(0.125..=8.0).contains(&ratio) {
                return Err(different_frames("SetComparison", &a, &b));
            }
        }
        let (a, b) = (surface_points(generated, points, seed)?, surface_points(reference, points, !seed)?);
        Self::new(&chamfer_matrix(&a, &a)?, &chamfer_matrix(&a, &b)?, &chamfer_matrix(&b, &b)?)
    }
}

/// Two opposite corners of a box.
type Corners = [[f32; 3]; 2];

/// The box around all meshes.
fn common_box(meshes: &[Mesh]) -> Option<Corners> {
    let boxes = meshes.iter().filter(|mesh| !mesh.faces().is_empty()).map(Mesh::bounds);
    boxes.reduce(|a, b| [std::array::from_fn(|i| a[0][i].min(b[0][i])), std::array::from_fn(|i| a[1][i].max(b[1][i]))])
}

fn extent([low, high]: &Corners) -> f32 {
    (0..3).map(|axis| high[axis] - low[axis]).fold(0.0, f32::max)
}

/// Whether two boxes are the same except for rounding.
fn alike(a: &Corners, b: &Corners) -> bool {
    let slack = 1e-4 * extent(a).max(extent(b));
    a.as_flattened().iter().zip(b.as_flattened()).all(|(a, b)| (a - b).abs() <= slack)
}

/// Checks that all grids have the same frame.
///
/// # Errors
/// Grids in different frames; the message names both.
pub(super) fn check_frames(op: &'static str, ours: &[SdfGrid], theirs: &[SdfGrid]) -> Result<()> {
    let frames: Vec<Corners> = ours.iter().chain(theirs).map(SdfGrid::corners).collect();
    match frames.iter().find(|other| !alike(&frames[0], other)) {
        Some(other) => Err(different_frames(op, &frames[0], other)),
        None => Ok(()),
    }
}

fn different_frames(op: &'static str, generated: &Corners, reference: &Corners) -> Error {
    Error::Argument {
        op,
        name: "the frames",
        got: format!("{:?} to {:?} and {:?} to {:?}", generated[0], generated[1], reference[0], reference[1]),
        expected: "one frame for all shapes; `SdfGrid::from_values(grid.values().to_vec(), grid.shape())` puts a grid into the \
                   cube of generated ones"
            .into(),
    }
}

/// `count` points of each surface.
///
/// # Errors
/// A mesh without area.
pub(crate) fn surface_points(meshes: &[Mesh], count: usize, seed: u64) -> Result<Vec<Vec<[f32; 3]>>> {
    let draw = |(i, mesh): (usize, &Mesh)| Ok(sample_surface(mesh, count, seed.wrapping_add(i as u64))?.points);
    meshes.iter().enumerate().map(draw).collect()
}

/// Chamfer distances between every cloud of `a` (rows) and of `b` (columns): mean squared distance to the nearest point,
/// there plus back.
///
/// # Errors
/// [`Error::Argument`] for a cloud without points, a point that is not finite, or large clouds that no tree can divide (a ball's centre and
/// its surface); [`Error::Interrupted`] after a stop.
///
/// ```
/// use wavemesh::train::chamfer_matrix;
/// let (square, point) = (vec![[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]], vec![[0.0, 0.0, 1.0]]);
/// // There the squares are 1 and 5, back it is 1.
/// assert_eq!(chamfer_matrix(&[square], &[point])?, [[4.0]]);
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn chamfer_matrix(a: &[Vec<[f32; 3]>], b: &[Vec<[f32; 3]>]) -> Result<Vec<Vec<f64>>> {
    if a.iter().chain(b).any(Vec::is_empty) {
        return Err(Error::Argument {
            op: "chamfer_matrix",
            name: "a cloud",
            got: "no points".into(),
            expected: "at least one".into(),
        });
    }
    if let Some(point) = a.iter().chain(b).flatten().find(|point| !point.iter().all(|v| v.is_finite())) {
        return Err(Error::argument("chamfer_matrix", "a point", format!("{point:?}"), "finite coordinates"));
    }
    let task = Task::new("comparing shapes", a.len());
    // Within one set, each pair is compared once.
    let same = std::ptr::eq(a, b);
    let rows = a.par_iter().enumerate().map(|(i, cloud)| {
        let first = if same { i } else { 0 };
        let row = b[first..].iter().map(|other| {
            task.check()?;
            let pairs = cloud.len().saturating_mul(other.len());
            if pairs <= MOST_PAIRS { Ok(chamfer(cloud, other)) } else { chamfer_by_trees(cloud, other, &task) }
        });
        let row = row.collect::<Result<Vec<f64>>>()?;
        task.advance(1)?;
        Ok(row)
    });
    let rows = rows.collect::<Result<Vec<Vec<f64>>>>()?;
    if same {
        let at = |i: usize, j: usize| if i <= j { rows[i][j - i] } else { rows[j][i - j] };
        return Ok((0..rows.len()).map(|i| (0..rows.len()).map(|j| at(i, j)).collect()).collect());
    }
    Ok(rows)
}

/// The most pairs of points for which comparing all of them is as fast as building trees.
const MOST_PAIRS: usize = 1 << 24;

/// Like [`chamfer`], for clouds so large that comparing all pairs would take hours: the same distances, found with trees.
fn chamfer_by_trees(a: &[[f32; 3]], b: &[[f32; 3]], task: &Task) -> Result<f64> {
    /// Points between two checks for a stop.
    const AT_A_TIME: usize = 4096;
    // The points, their boxes and their places in the tree.
    crate::memory::check(
        "chamfer_matrix",
        || format!("a tree of {} points", b.len().max(a.len())),
        224 * b.len().max(a.len()),
    )?;
    let one_way = |from: &[[f32; 3]], to: &[[f32; 3]]| {
        let tree = Bvh::of(to.iter().map(|&point| [point; 3]));
        let work = Work::new(from.len(), tree.nodes.len());
        let sums = from.par_chunks(AT_A_TIME).map(|points| {
            let share = &mut work.share();
            let sum: f64 = points.iter().map(|&point| f64::from(tree.nearest(point, share).distance2)).sum();
            task.check()?;
            work.check("chamfer_matrix", "a cloud")?;
            Ok(sum)
        });
        let sums: Vec<f64> = sums.collect::<Result<_>>()?;
        Ok::<_, Error>(sums.into_iter().sum::<f64>() / from.len() as f64)
    };
    Ok(one_way(a, b)? + one_way(b, a)?)
}

fn chamfer(a: &[[f32; 3]], b: &[[f32; 3]]) -> f64 {
    /// Points that are compared at once. Coordinates are stored apart, and each place keeps its smallest value, so that loops become SIMD.
    const LANES: usize = 16;
    // Points at infinity fill the last block; they are never the nearest.
    let blocks: Vec<[[f32; LANES]; 3]> = b
        .chunks(LANES)
        .map(|points| {
            std::array::from_fn(|axis| {
                std::array::from_fn(|lane| points.get(lane).map_or(f32::INFINITY, |point| point[axis]))
            })
        })
        .collect();
    let mut to_a = vec![[f32::INFINITY; LANES]; blocks.len()];
    let least = |x: f32, y: f32| if x < y { x } else { y };
    let mut sum_a = 0f64;
    for p in a {
        let mut nearest = [f32::INFINITY; LANES];
        for ([x, y, z], to_a) in blocks.iter().zip(&mut to_a) {
            for lane in 0..LANES {
                let [dx, dy, dz] = [x[lane] - p[0], y[lane] - p[1], z[lane] - p[2]];
                let square = dx * dx + dy * dy + dz * dz;
                nearest[lane] = least(square, nearest[lane]);
                to_a[lane] = least(square, to_a[lane]);
            }
        }
        sum_a += f64::from(nearest.into_iter().fold(f32::INFINITY, least));
    }
    let sum_b: f64 = to_a.iter().flatten().take(b.len()).map(|&square| f64::from(square)).sum();
    sum_a / a.len() as f64 + sum_b / b.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn trees_find_the_distances_of_all_pairs() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(3);
        let mut cloud = |n: usize| -> Vec<[f32; 3]> { (0..n).map(|_| std::array::from_fn(|_| rng.random())).collect() };
        let (a, b) = (cloud(3000), cloud(2000));
        let doubled = [a.clone(), a.clone()].concat();
        for (a, b) in [(&a, &b), (&b, &a), (&a, &a), (&doubled, &b)] {
            let (trees, pairs) = (chamfer_by_trees(a, b, &Task::new("test", 1)).unwrap(), chamfer(a, b));
            assert!((trees - pairs).abs() <= 1e-12 * pairs, "{trees} {pairs}");
        }
    }

    #[test]
    fn a_set_beside_itself_has_the_matrix_of_two_equal_sets() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(4);
        let clouds: Vec<Vec<[f32; 3]>> =
            (0..5).map(|n| (0..100 + n).map(|_| std::array::from_fn(|_| rng.random())).collect()).collect();
        assert_eq!(chamfer_matrix(&clouds, &clouds).unwrap(), chamfer_matrix(&clouds, &clouds.clone()).unwrap());
    }

    #[test]
    fn clouds_of_one_place_are_compared_at_once() {
        let (here, there) = (vec![[0.5; 3]; 1 << 17], vec![[0.5, 0.5, 2.5]; 1 << 17]);
        assert_eq!(chamfer_matrix(&[here], &[there]).unwrap(), [[8.0]]);
    }
}
