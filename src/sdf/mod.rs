//! Signed distance grids.
