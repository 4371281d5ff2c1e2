//! Training: data, loop, moving average, checkpoints.
