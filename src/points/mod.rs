//! Points and voxels: from a LiDAR sweep or a scanned scene to a sparse tensor, and from its predictions back to the points.
//!
//! ```
//! use wavemesh::prelude::*;
//! use wavemesh::points::{Interpolation, Reduce, VoxelConfig, Voxelizer};
//! # fn main() -> wavemesh::Result<()> {
//! // Four points (x, y, z, intensity); the first two fall into one voxel, the last is out of range.
//! let points = Tensor::new(&[[0.1f32, 0.1, 0.1, 1.0], [0.2, 0.1, 0.1, 3.0], [1.6, 0.1, 0.1, 5.0], [9.0, 0.0, 0.0, 7.0]], &Device::Cpu)?;
//! let config = VoxelConfig::new().voxel_size([0.5; 3]).range([0.0, 0.0, 0.0, 2.0, 2.0, 2.0]).reduce(Reduce::Mean);
//! let voxels = Voxelizer::new(config)?.voxelize(&[&points])?;
//! assert_eq!(voxels.tensor.coords(), [[0, 0, 0, 0], [0, 0, 0, 3]]); // batch, z, y, x
//! assert_eq!(voxels.inverse, [Some(0), Some(0), Some(1), None]); // the voxel of each point
//! let back = voxels.devoxelize(&voxels.tensor, Interpolation::Nearest)?; // (points, channels)
//! assert_eq!(back.narrow(1, 3, 1)?.flatten_all()?.to_vec1::<f32>()?, [2.0, 2.0, 5.0, 0.0]);
//! # Ok(()) }
//! ```
//!
//! | spconv, torchsparse, MinkowskiEngine | here |
//! | --- | --- |
//! | `PointToVoxel(vsize_xyz, coors_range_xyz, max_num_points_per_voxel, max_num_voxels)` and a mean of the points | [`Voxelizer`] with [`Reduce::Mean`] |
//! | `sparse_quantize(coords, voxel_size, return_index, return_inverse)` | [`sparse_quantize`] |
//! | `spdevoxelize`, `voxel_to_point`, `features_at_coordinates` | [`devoxelize`] |
//! | `torch_scatter.scatter(src, index, dim=0, reduce=…)` | [`scatter`] |

mod cloud;
mod devoxelize;
mod las;
#[cfg(feature = "mesh-io")]
mod ply;
mod quantize;
mod scenes;
mod voxelize;

pub use crate::sparse::{Reduce, scatter};
pub use cloud::PointCloud;
pub use devoxelize::{Interpolation, devoxelize};
pub use quantize::{Quantized, sparse_quantize};
pub use scenes::{Scene, room, street};
pub use voxelize::{VoxelConfig, VoxelizedPoints, Voxelizer};
