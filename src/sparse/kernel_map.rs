//! Kernel maps: which input rows each output row reads, offset by offset, and the dictionary that shares them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::backend::native::tiles::{TILE, Tiles};
use super::backend::{Backend, Flow, native};
use super::geometry::{Geometry, Kind};
use super::grid::Grid;
use super::sites::Sites;

/// The part of a kernel map that its source sites keep.
#[derive(Debug)]
pub(crate) struct MapBody {
    /// Output sites; `None` for a submanifold map, whose output sites are its input sites.
    pub target: Option<Arc<Sites>>,
    /// The native backend's pairs, output by output; built at the first use.
    pub forward: OnceLock<Arc<Tiles>>,
    /// The same, input by input; a submanifold map needs none.
    pub backward: OnceLock<Arc<Tiles>>,
}

/// The pairs of rows that a convolution joins. Cheap to clone.
///
/// A map belongs to its input sites and its geometry (kernel, stride, padding, dilation, output rule).
#[derive(Clone, Debug)]
pub struct KernelMap {
    pub(super) geometry: Geometry,
    pub(super) source: Arc<Sites>,
    pub(super) target: Arc<Sites>,
    pub(super) body: Arc<MapBody>,
}

/// What an `indice_key` stands for: the map, and the layer that made it.
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

/// Kernel maps by `indice_key`, as in spconv: a layer's output knows the keys of all layers before it.
pub type IndiceDict = BTreeMap<String, IndiceData>;

impl KernelMap {
    /// The map of these sites and this geometry, built by the backend's rule unless the sites remember it.
    pub(super) fn of(
        op: &'static str,
        source: &Arc<Sites>,
        geometry: Geometry,
        backend: Backend,
    ) -> crate::Result<Self> {
        let remembered = source.maps().get(&geometry).cloned();
        let body = match remembered {
            Some(body) => body,
            None => {
                let target = match geometry.kind {
                    Kind::Submanifold => None,
                    Kind::Regular | Kind::Transposed => {
                        let shape = geometry.output_shape(op, source.grid().shape)?;
                        let grid = Grid::new(op, source.grid().batch, shape)?;
                        Some(Arc::new(backend.engine()?.output_sites(source, &geometry, grid)?))
                    }
                };
                let body = Arc::new(MapBody { target, forward: OnceLock::new(), backward: OnceLock::new() });
                source.maps().entry(geometry).or_insert(body).clone()
            }
        };
        let target = body.target.as_ref().unwrap_or(source).clone();
        Ok(Self { geometry, source: source.clone(), target, body })
    }

    fn tiles(&self) -> Arc<Tiles> {
        native::forward_tiles(&Flow::forward(self))
    }

    /// The rows (input, output) that kernel offset `offset` joins, by ascending output; offsets are numbered as the weights
    /// are, (z·ky + y)·kx + x. Empty for an offset that the kernel does not have.
    pub fn pairs(&self, offset: usize) -> Vec<(usize, usize)> {
        if offset >= self.geometry.volume() {
            return Vec::new();
        }
        let tiles = self.tiles();
        let [source, target] = [&self.source, &self.target].map(|sites| sites.order().rows());
        let row = |rows: Option<&[u32]>, number| rows.map_or(number, |rows| rows[number] as usize);
        let pairs = tiles.tiles.iter().enumerate().flat_map(|(number, tile)| {
            let (targets, sources) = tile.pairs(offset);
            let pairs = targets.iter().zip(sources);
            pairs.map(move |(&t, &s)| (row(source, s as usize), row(target, number * TILE + t as usize)))
        });
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable_by_key(|&(_, output)| output);
        pairs
    }

    /// Number of pairs of all offsets: multiply-adds of a convolution are this times its channels in and out.
    pub fn num_pairs(&self) -> usize {
        self.tiles().len()
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
