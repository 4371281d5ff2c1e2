//! [`no_grad`]: forward passes that keep nothing for a backward pass.

use std::cell::Cell;

use candle_core::Tensor;

thread_local! {
    static OFF: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` without a tape, as `torch.no_grad()`: sparse layers on this thread keep none of their inputs for a backward pass, so
/// a network that is built on a `VarMap` needs no more memory in evaluation than one of constants. Scopes nest.
///
/// Layers of candle (a `Linear`) still note their own inputs; the next sparse layer cuts the chain.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::no_grad;
/// # fn main() -> Result<()> {
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
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            OFF.set(self.0);
        }
    }
    let _restore = Restore(OFF.replace(true));
    body()
}

/// The tensor, cut off from what it was computed from inside [`no_grad`].
pub(super) fn noted(tensor: Tensor) -> Tensor {
    if OFF.get() { tensor.detach() } else { tensor }
}
