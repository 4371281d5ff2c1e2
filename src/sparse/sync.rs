//! [`AllReduce`]: what the members of a group that trains one network together have in common.

use std::fmt;
use std::sync::Arc;

use crate::Result;

/// Sums over the members of a group: processes of several machines, GPUs, or threads that each hold a part of a batch. The library asks for
/// nothing else of them; MPI, NCCL and gloo have such a function.
///
/// ```
/// use wavemesh::Result;
/// use wavemesh::sparse::AllReduce;
///
/// /// A group of one.
/// struct Alone;
///
/// impl AllReduce for Alone {
///     fn all_reduce(&self, _values: &mut [f64]) -> Result<()> {
///         Ok(())
///     }
/// }
/// ```
pub trait AllReduce: Send + Sync {
    /// Puts in the place of each value the sum of those of all members. Every member calls it with as many values, in the same order of
    /// calls, and gets the same sums.
    ///
    /// # Errors
    /// Whatever keeps the members from each other.
    fn all_reduce(&self, values: &mut [f64]) -> Result<()>;
}

/// A group, as a layer holds it.
#[derive(Clone)]
pub(super) struct Group(pub Arc<dyn AllReduce>);

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("AllReduce")
    }
}
