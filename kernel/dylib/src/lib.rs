//! WaveMesh as one dynamic library.
#[allow(unused_imports, clippy::single_component_path_imports)]
use wavemesh;
