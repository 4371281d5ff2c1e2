//! Signed distance grids: a mesh as the distance to its surface, sampled on a regular grid, negative inside.
//!
//! Distances are exact to the nearest triangle (`distance.rs`). The sign comes from the generalized winding number (`winding.rs`), which
//! gives the best available answer for meshes with holes and self-intersections. A surface without an inside is measured without a sign, or
//! as a shell around it ([`SdfSign`]).
//!
//! [`shapes`] makes solids without a mesh; [`marching_cubes`] and [`isosurface`] turn a grid into a mesh; [`iou`] compares what is inside;
//! [`DistanceQuery`] measures points that are not on a grid; [`DepthImage`] is a picture of a solid.

mod cells;
mod crossings;
mod depth_image;
mod distance;
mod dual_contouring;
mod frame;
mod from_mesh;
mod grid;
mod isosurface;
mod marching_cubes;
mod outer;
mod overlap;
mod query;
pub mod shapes;
mod topology;
mod walls;
mod winding;

pub use depth_image::{DepthImage, Viewpoint};
pub use frame::Frame;
pub use from_mesh::{SdfConfig, SdfSign, SdfSlabs};
pub use grid::{SdfGrid, SignReport};
pub use isosurface::{IsosurfaceConfig, IsosurfaceMethod, isosurface, marching_cubes};
pub use overlap::{iou, iou_of_grids};
pub use query::DistanceQuery;
pub use walls::ThinWalls;
