//! [`Topology`]: how many shapes of a training set have hollows or several parts.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::sdf::SdfGrid;

/// What the shapes of a training set are like as solids.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// Share of the shapes with a hollow inside that nothing reaches from outside, 0 to 1.
    pub with_hollows: f64,
    /// Share of the shapes that are not in one part, 0 to 1.
    pub in_parts: f64,
}

impl Topology {
    pub(super) fn of(shapes: &[&SdfGrid]) -> Self {
        let share = |has: &(dyn Fn(&SdfGrid) -> bool + Sync)| {
            shapes.par_iter().filter(|shape| has(shape)).count() as f64 / shapes.len().max(1) as f64
        };
        Self {
            with_hollows: share(&|shape| shape.count_hollows() > 0),
            in_parts: share(&|shape| shape.count_parts() > 1),
        }
    }
}
