//! Ready backbones: public networks for LiDAR and indoor scenes, and one for pictures. Their parameters have the original names, so that
//! the original checkpoints can be loaded ([`Checkpoint::load_into`](crate::import::Checkpoint::load_into), [`DinoV2::load`]).
//!
//! | network | original | here |
//! | --- | --- | --- |
//! | `VoxelResBackBone8x` | OpenPCDet, `pcdet/models/backbones_3d/spconv_backbone.py` | [`VoxelResBackBone8x`] |
//! | `SpUNet-v1m1` | Pointcept, `pointcept/models/sparse_unet/spconv_unet_v1m1_base.py` | [`SpUNet`] |
//! | `MinkUNet14` to `MinkUNet34C` | MinkowskiEngine, `examples/minkunet.py` | [`MinkUNet`] |
//! | DINOv2, with registers or without | Meta, `dinov2/models/vision_transformer.py` | [`DinoV2`] |

mod block;
mod dinov2;
mod minkunet;
mod spunet;
mod voxel_res;

pub use dinov2::{DinoV2, DinoV2Config, FeedForward, resize_picture};
pub use minkunet::{MinkUNet, MinkUNetConfig};
pub use spunet::{SpUNet, SpUNetConfig};
pub use voxel_res::{VoxelResBackBone8x, VoxelResConfig, VoxelResFeatures};
