//! Kernel maps, which tell for each offset which input rows each output row reads, and the dictionary that shares them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::geometry::Geometry;
use super::sites::{MapBody, Sites};

/// The pairs of rows that a convolution joins. Cheap to clone.
///
/// A map belongs to its input sites and its geometry (kernel, stride, padding, dilation, output rule).
#[derive(Clone)]
pub struct KernelMap {
    pub(super) geometry: Geometry,
    pub(super) source: Arc<Sites>,
    pub(super) target: Arc<Sites>,
    pub(super) body: Arc<MapBody>,
}

/// The entry of an `indice_key`: the map, and the layer that made it.
#[derive(Clone, Debug)]
pub struct IndiceData {
    pub(super) map: KernelMap,
    pub(super) made_by: Arc<str>,
}

impl IndiceData {
    /// The kernel map.
    pub fn map(&self) -> &KernelMap {
        &self.map
    }

    /// The layer that made the map, with its arguments.
    pub fn made_by(&self) -> &str {
        &self.made_by
    }
}

/// Kernel maps by `indice_key`, as in spconv: a layer's output knows the keys of all earlier layers.
pub type IndiceDict = BTreeMap<String, IndiceData>;

impl KernelMap {
    /// Number of kernel offsets, the product of the kernel's sizes.
    pub fn kernel_volume(&self) -> usize {
        self.geometry.volume()
    }

    /// Whether the map starts or ends at exactly these sites.
    pub(super) fn touches(&self, sites: &Arc<Sites>) -> bool {
        Arc::ptr_eq(&self.source, sites) || Arc::ptr_eq(&self.target, sites)
    }

    /// Kernel size (z, y, x).
    pub fn kernel_size(&self) -> [usize; 3] {
        self.geometry.kernel
    }

    /// Input sites (batch, z, y, x).
    pub fn input_coords(&self) -> &[[i32; 4]] {
        self.source.coords()
    }

    /// Output sites (batch, z, y, x).
    pub fn output_coords(&self) -> &[[i32; 4]] {
        self.target.coords()
    }
}
