//! [`AllReduce`]: sums values over the members of a group that trains one network together.

use std::fmt;
use std::sync::Arc;

use crate::Result;

/// Sums over the members of a group: processes on several machines, GPUs, or threads that each hold a part of a batch. The library needs
/// nothing else from a group; MPI, NCCL and gloo have such a function.
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
    /// Replaces each value by the sum of the members' values. Every member makes the same calls in the same order, with the same number of
    /// values, and gets the same sums.
    ///
    /// # Errors
    /// Anything that prevents the members from reaching each other.
    ///
    /// ```
    /// use std::sync::{Barrier, Mutex};
    /// use wavemesh::sparse::AllReduce;
    /// /// Two threads, for one call.
    /// struct Pair(Mutex<Vec<f64>>, Barrier);
    /// impl AllReduce for Pair {
    ///     fn all_reduce(&self, values: &mut [f64]) -> wavemesh::Result<()> {
    ///         self.0.lock().unwrap().extend_from_slice(values);
    ///         self.1.wait();
    ///         let all = self.0.lock().unwrap();
    ///         for (at, value) in values.iter_mut().enumerate() {
    ///             *value = all[at] + all[all.len() / 2 + at];
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// let pair = Pair(Mutex::default(), Barrier::new(2));
    /// let reduced = |values: [f64; 2]| {
    ///     let mut values = values;
    ///     pair.all_reduce(&mut values).map(|()| values)
    /// };
    /// let (a, b) = std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| reduced([1.0, 2.0]));
    ///     (reduced([10.0, 20.0]), other.join().unwrap())
    /// });
    /// assert_eq!((a?, b?), ([11.0, 22.0], [11.0, 22.0]));
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
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
