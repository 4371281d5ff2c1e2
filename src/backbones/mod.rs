//! Ready backbones: public networks for LiDAR and indoor scenes. Their parameters have the original names, so that the original checkpoints
//! can be loaded ([`Checkpoint::load_into`](crate::import::Checkpoint::load_into)).
//!
//! | network | original | here |
//! | --- | --- | --- |
//! | `VoxelResBackBone8x` | OpenPCDet, `pcdet/models/backbones_3d/spconv_backbone.py` | [`VoxelResBackBone8x`] |
//! | `SpUNet-v1m1` | Pointcept, `pointcept/models/sparse_unet/spconv_unet_v1m1_base.py` | [`SpUNet`] |
//! | `MinkUNet14` to `MinkUNet34C` | MinkowskiEngine, `examples/minkunet.py` | [`MinkUNet`] |

mod block;
mod minkunet;
mod spunet;
mod voxel_res;

pub use minkunet::{MinkUNet, MinkUNetConfig};
pub use spunet::{SpUNet, SpUNetConfig};
pub use voxel_res::{VoxelResBackBone8x, VoxelResConfig, VoxelResFeatures};
