//! Signed distance grids: a mesh as the distance to its surface, sampled on a regular grid, negative inside.
//!
//! Distances are exact to the nearest triangle (`distance.rs`); the sign comes from the generalized winding number
//! (`winding.rs`), which is right for meshes with holes and self-intersections as far as anything can be.
//! [`shapes`] makes solids without a mesh; [`marching_cubes`] goes back from a grid to a mesh; [`iou`] compares what is inside.

mod distance;
mod frame;
mod grid;
mod isosurface;
mod overlap;
pub mod shapes;
mod winding;

pub use frame::Frame;
pub use grid::{SdfConfig, SdfGrid, SignReport};
pub use isosurface::marching_cubes;
pub use overlap::{iou, iou_of_grids};
