//! Signed distance grids: a mesh as the distance to its surface, sampled on a regular grid, negative inside.
//!
//! Distances are exact to the nearest triangle (`distance.rs`); the sign comes from the generalized winding number
//! (`winding.rs`), which is right for meshes with holes and self-intersections as far as anything can be.

mod distance;
mod grid;
mod winding;

pub use grid::{Frame, SdfConfig, SdfGrid, SignReport};
