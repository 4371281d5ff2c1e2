//! [`isosurface`]: the surface on which a grid has a given value, as a mesh.

use super::cells::Bits;
use super::crossings::Crossings;
use super::dual_contouring::{Field, dual_contouring};
use super::grid::SdfGrid;
use super::marching_cubes::{faces, vertex};
use crate::mesh::Mesh;
use crate::{Error, Result};

/// Which surface is drawn, and how.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct IsosurfaceConfig {
    /// The value on the surface.
    pub level: f32,
    /// How it is drawn.
    pub method: IsosurfaceMethod,
    /// Whether to keep vertices a thousandth of a cell away from the samples, so that no triangle of marching cubes lacks an area: for
    /// solvers and for texturing. Where samples lie on the surface, this moves it by that much.
    pub no_zero_area: bool,
    /// One entry for each sample, in the order of the values: only cells whose eight samples are all `true` are drawn.
    pub mask: Option<Vec<bool>>,
}

setters! {
    IsosurfaceConfig {
        level(level: f32) => level = level;
        method(method: IsosurfaceMethod) => method = method;
        no_zero_area(no_zero_area: bool) => no_zero_area = no_zero_area;
        mask(mask: Vec<bool>) => mask = Some(mask);
    }
}

/// How a surface is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsosurfaceMethod {
    /// Marching cubes: watertight unless the surface leaves the grid. Edges are cut off by up to a cell.
    #[default]
    MarchingCubes,
    /// Dual contouring: edges and corners of solids are sharp if the grid holds distances and the faces beside an edge are two or three
    /// cells wide. The surface is closed, and each sheet in a cell has its own vertex. Where two sheets touch in the face between two
    /// cells, two of their edges can join the same vertices, so the mesh need not be a manifold there.
    DualContouring,
}

/// The surface of a grid according to `config`, in mesh units, facing larger values.
///
/// # Errors
/// The errors of [`marching_cubes`]; and if the mask does not have one entry per sample, or leaves no surface.
///
/// ```
/// use wavemesh::sdf::{IsosurfaceConfig, IsosurfaceMethod, isosurface, shapes::cuboid};
/// let grid = cuboid([0.51, 0.52, 0.53]).to_grid(24)?;
/// let sharp = IsosurfaceConfig::new().method(IsosurfaceMethod::DualContouring);
/// assert!(isosurface(&grid, &sharp)?.is_closed());
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn isosurface(grid: &SdfGrid, config: &IsosurfaceConfig) -> Result<Mesh> {
    let (shape, level) = (grid.shape(), config.level);
    if shape.iter().any(|&n| n < 2) {
        let expected = "at least two samples an axis".into();
        return Err(Error::Argument { op: OP, name: "the grid's shape", got: format!("{shape:?}"), expected });
    }
    if let Some(mask) = config.mask.as_ref().filter(|mask| mask.len() != grid.values().len()) {
        let (got, expected) =
            (format!("{} entries", mask.len()), format!("one for each of {} samples", grid.values().len()));
        return Err(Error::Argument { op: OP, name: "mask", got, expected });
    }
    let shown = config.mask.as_ref().map(|mask| Bits::new(shape, mask));
    let (vertices, faces) = match config.method {
        IsosurfaceMethod::MarchingCubes => {
            let least = if config.no_zero_area { LEAST_PART } else { 0.0 };
            let (crossings, vertices) = crossed(grid, level, |start, axis| vertex(grid, level, least, start, axis))?;
            (vertices, faces(&crossings, shown.as_ref()))
        }
        IsosurfaceMethod::DualContouring => {
            let field = Field::new(grid, level);
            let (crossings, planes) = crossed(grid, level, |start, axis| field.crossing(start, axis))?;
            dual_contouring(&field, &crossings, &planes, shown.as_ref())
        }
    };
    if faces.is_empty() {
        let (got, expected) = ("one that hides the surface".into(), "one that leaves a cell of it".into());
        return Err(Error::Argument { op: OP, name: "mask", got, expected });
    }
    let mesh = Mesh::new(vertices, faces)?.with_offset(grid.frame().offset)?;
    // If all cells are drawn, all vertices of marching cubes are used.
    let all = shown.is_none() && config.method == IsosurfaceMethod::MarchingCubes;
    Ok(if all { mesh } else { mesh.drop_unused() })
}

const OP: &str = "isosurface";

/// The edges between samples that the surface crosses, and what `of_edge(first sample, axis)` makes of each.
///
/// # Errors
/// If there is no such edge, or more than vertices can be numbered.
fn crossed<V: Send>(
    grid: &SdfGrid,
    level: f32,
    of_edge: impl Fn([usize; 3], usize) -> V + Sync,
) -> Result<(Crossings, Vec<V>)> {
    let most = u32::MAX as usize;
    let (crossings, edges) = Crossings::find(grid.shape(), grid.values(), level, most, of_edge).map_err(|count| {
        let (got, expected) = (format!("at least {count} vertices"), "at most 2^32; a coarser grid has fewer".into());
        Error::Argument { op: OP, name: "the surface", got, expected }
    })?;
    if edges.is_empty() {
        let (lo, hi) = grid.values().iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        let expected = format!("one that the grid crosses; its values lie in {lo}..={hi}");
        return Err(Error::Argument { op: OP, name: "level", got: level.to_string(), expected });
    }
    Ok((crossings, edges))
}

/// The surface on which a grid has the value `level`, in mesh units, facing larger values. It is watertight unless it leaves the grid.
///
/// # Errors
/// If the grid has fewer than two samples along an axis, or the surface is empty.
///
/// ```
/// use wavemesh::sdf::{marching_cubes, shapes::sphere};
/// let grid = sphere(0.5).to_grid(32)?;
/// let [_, highest] = marching_cubes(&grid, 0.2)?.bounds(); // where the distance to the ball is 0.2
/// assert!((highest[0] - 0.7).abs() < 0.01);
/// assert!(marching_cubes(&grid, 5.0).is_err()); // nothing on the grid is as far away
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn marching_cubes(grid: &SdfGrid, level: f32) -> Result<Mesh> {
    isosurface(grid, &IsosurfaceConfig { level, ..Default::default() })
}

impl SdfGrid {
    /// The surface where the distance is zero, by marching cubes, in the mesh's own coordinates.
    ///
    /// # Errors
    /// If the grid has fewer than two samples along an axis, or all samples have the same sign.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let mesh = shapes::sphere(0.5).to_grid(32)?.to_mesh()?;
    /// assert!(mesh.vertices().iter().all(|v| (v.iter().map(|c| c * c).sum::<f32>().sqrt() - 0.5).abs() < 0.01));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_mesh(&self) -> Result<Mesh> {
        marching_cubes(self, 0.0)
    }
}

/// How near a vertex may come to a sample, in cells, if triangles must have an area. Points inside three edges of a cell are never in a
/// line, so three such vertices always span a triangle.
const LEAST_PART: f32 = 1e-3;
