//! Any bytes, read as 3MF: an error or a mesh, never a panic.
#![no_main]

use wavemesh::mesh::{Mesh, MeshFormat};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Mesh::from_bytes(bytes, MeshFormat::ThreeMf);
});
