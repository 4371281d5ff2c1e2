//! [`no_grad`]: forward passes that keep nothing for a backward pass; and passes that are repeated.

use std::cell::Cell;
use std::thread::LocalKey;

use candle_core::Tensor;

thread_local! {
    static OFF: Cell<bool> = const { Cell::new(false) };
    static AGAIN: Cell<bool> = const { Cell::new(false) };
}

/// Sets a flag of this thread while `body` runs.
fn within<T>(flag: &'static LocalKey<Cell<bool>>, value: bool, body: impl FnOnce() -> T) -> T {
    struct Restore(&'static LocalKey<Cell<bool>>, bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _restore = Restore(flag, flag.replace(value));
    body()
}

/// Runs `body` without a tape, as `torch.no_grad()`: sparse layers on this thread keep none of their inputs for a backward pass, so a
/// network built on a `VarMap` needs no more memory in evaluation than one of constants. Scopes nest.
///
/// Layers of candle (a `Linear`) still record their own inputs; the next sparse layer cuts the chain.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::no_grad;
/// # fn main() -> wavemesh::Result<()> {
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let conv = SubMConv3d::new(2, 4, 3, ConvConfig::default(), vb)?;
/// let x = SparseConvTensor::from_coords(Tensor::ones((1, 2), DType::F32, &Device::Cpu)?, vec![[0, 1, 1, 1]], [4, 4, 4], 1)?;
/// let y = no_grad(|| conv.forward(&x))?;
/// assert!(!y.features().track_op());
/// assert!(conv.forward(&x)?.features().track_op());
/// # Ok(()) }
/// ```
pub fn no_grad<T>(body: impl FnOnce() -> T) -> T {
    within(&OFF, true, body)
}

/// Whether this thread is inside [`no_grad`].
pub(super) fn is_off() -> bool {
    OFF.get()
}

/// Runs `body`, a forward pass that was made before, with a tape. Running statistics have followed its batch already and do not change.
pub(super) fn again<T>(body: impl FnOnce() -> T) -> T {
    within(&AGAIN, true, || within(&OFF, false, body))
}

/// Whether this thread is inside [`again`].
pub(super) fn is_again() -> bool {
    AGAIN.get()
}

/// The tensor; inside [`no_grad`] without its history.
pub(super) fn noted(tensor: Tensor) -> Tensor {
    if OFF.get() { tensor.detach() } else { tensor }
}
