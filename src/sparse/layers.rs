//! Finds the sparse layer to which a parameter belongs.
//!
//! A `VarMap` knows only names and shapes, and a weight of shape (out, 1, 1, 1, in) does not tell whether its layer has a stride. So layers
//! store a description under their weight's identity; it is removed with the last copy of the layer. The importer of checkpoints reads it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use candle_core::{Tensor, TensorId};

use super::geometry::Kind;

/// What the importer must know about a layer to read its weight.
#[derive(Debug)]
pub(crate) struct LayerNote {
    /// Type, name and arguments.
    pub description: Arc<str>,
    pub kind: Kind,
    /// Whether it runs its map backwards.
    pub inverse: bool,
    /// Sizes of the axes that the weight has: three for a 3-D layer, two for a 2-D one.
    pub kernel: Vec<usize>,
    pub channels: [usize; 2],
    /// Whether the kernel is one cell and, unless the layer is submanifold, the stride is 1: spconv computes such a layer as one matrix
    /// product.
    pub pointwise: bool,
}

static NOTES: LazyLock<Mutex<HashMap<TensorId, Weak<LayerNote>>>> = LazyLock::new(Mutex::default);

/// Stores the description of the layer with `weight` for as long as the result lives.
pub(super) fn note(weight: &Tensor, note: LayerNote) -> Arc<LayerNote> {
    let note = Arc::new(note);
    let mut notes = NOTES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if notes.len() >= notes.capacity() {
        notes.retain(|_, note| note.strong_count() > 0);
    }
    notes.insert(weight.id(), Arc::downgrade(&note));
    note
}

/// The layer that has this weight, if it still exists.
pub(crate) fn layer_of(weight: &Tensor) -> Option<Arc<LayerNote>> {
    NOTES.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&weight.id())?.upgrade()
}
