//! Gaussian diffusion: schedules, training loss, samplers.
