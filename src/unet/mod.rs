//! The sparse U-Net and its blocks.
