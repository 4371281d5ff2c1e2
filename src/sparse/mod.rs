//! spconv's sparse tensors and layers, with automatic backends.
